"""The scheduler with an executor of a third kind: what the protocol says is all that it asks for."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as first_of
from pathlib import Path
from typing import Any

import pytest
from support.kinds import kind

from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.base import Ended, Executor
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Stage, Workplace


class InThreads:
    """Computes a stage in each of several threads: all that a new executor needs."""

    def __init__(self, store: FolderStore, slots: int) -> None:
        self.store, self.slots = store, slots
        self.threads: list[int] = []
        self._pool, self._at_work = ThreadPoolExecutor(slots), dict[Future[Ended], Stage]()

    def submit(self, stage: Stage, threads: int) -> None:
        self.threads.append(threads)
        executor = LocalExecutor(self.store)
        self._at_work[self._pool.submit(executor.compute, stage, Nobody())] = stage
        assert len(self._at_work) <= self.slots

    def poll(self, observer: Observer, wait: float | None) -> Iterator[Ended]:
        for ended in first_of(self._at_work, wait, FIRST_COMPLETED).done:
            del self._at_work[ended]
            yield ended.result()


class Nobody(Observer):
    """Hears nothing."""


class Heard(Observer):
    """In what order stages were finished."""

    def __init__(self) -> None:
        self.finishes: list[tuple[str, bool]] = []
        self.waits: list[str] = []

    def waiting(self, stage: Stage) -> None:
        self.waits.append(stage.key)

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        self.finishes.append((stage.key, cached))


def add(stage: Stage, inputs: Any, place: Workplace) -> dict[str, Any]:
    return {"sum": stage.params["number"] + sum(made.facts["sum"] for made in inputs.values())}


ADD = kind("add", body=add)


def lattice(width: int, depth: int) -> list[Stage]:
    """`depth` rows of `width` stages; each is made from two of the row above."""
    rows = [[Stage(ADD, {"number": i}) for i in range(width)]]
    for level in range(1, depth):
        above = rows[-1]
        rows.append(
            [
                Stage(ADD, {"number": 100 * level + i}, {"left": above[i], "right": above[(i + 1) % width]})
                for i in range(width)
            ]
        )
    return [stage for row in rows for stage in row]


def store_in(folder: Path) -> FolderStore:
    store = FolderStore(folder)
    store.begin()
    return store


@pytest.mark.parametrize("slots", [1, 3])
def test_any_executor_gives_the_facts_of_the_local_one(tmp_path: Path, slots: int) -> None:
    stages = lattice(width=4, depth=4)
    alone, beside = store_in(tmp_path / "alone"), store_in(tmp_path / "beside")
    local: Executor = LocalExecutor(alone)
    scheduler.run(stages, local, Heard())
    executor, heard = InThreads(beside, slots), Heard()
    as_executor: Executor = executor
    scheduler.run(stages, as_executor, heard, {stage.key: 1 + number for number, stage in enumerate(stages)})
    assert [beside.get(stage.key).facts for stage in stages] == [alone.get(stage.key).facts for stage in stages]
    order = [key for key, _ in heard.finishes]
    assert sorted(order) == sorted(stage.key for stage in stages), "each once"
    for stage in stages:
        assert all(order.index(made.key) < order.index(stage.key) for made in stage.inputs.values())
    assert sorted(executor.threads) == list(range(1, len(stages) + 1))


def test_as_many_stages_are_at_work_as_there_are_slots_and_inputs_allow(tmp_path: Path) -> None:
    meeting = threading.Barrier(3, timeout=20)

    def met(*_: Any) -> dict[str, Any]:
        meeting.wait()
        return {"sum": 0}

    store = store_in(tmp_path)
    scheduler.run([Stage(kind("add", body=met), {"number": i}) for i in range(6)], InThreads(store, 3), Heard())
    assert meeting.broken is False
    assert len(store.keys()) == 6


def test_what_is_there_is_heard_of_and_not_submitted(tmp_path: Path) -> None:
    stages, store = lattice(width=3, depth=2), store_in(tmp_path)
    scheduler.run(stages[:4], LocalExecutor(store), Heard())
    executor, heard = InThreads(store, 2), Heard()
    scheduler.run(stages, executor, heard)
    assert dict(heard.finishes) == {stage.key: number < 4 for number, stage in enumerate(stages)}
    assert executor.threads == [0, 0], "as many as there are"


def test_a_stage_that_is_held_is_asked_for_again_and_the_others_go_on(tmp_path: Path) -> None:
    stages, store, heard = [Stage(ADD, {"number": i}) for i in range(3)], store_in(tmp_path), Heard()
    held = threading.Event()

    def hold() -> None:
        with FolderStore(tmp_path).locked(stages[0].key) as ours:
            assert ours
            held.set()
            time.sleep(0.5)

    threading.Thread(target=hold).start()
    assert held.wait(20)
    began = time.monotonic()
    scheduler.run(stages, LocalExecutor(store), heard)
    assert time.monotonic() - began > 0.3
    assert heard.waits == [stages[0].key], "said once, however often it is asked for"
    assert [key for key, _ in heard.finishes] == [stages[1].key, stages[2].key, stages[0].key]


def test_an_error_of_a_stage_ends_the_run_and_what_is_finished_stays(tmp_path: Path) -> None:
    store = store_in(tmp_path)

    def fails(stage: Stage, inputs: Any, place: Workplace) -> dict[str, Any]:
        if stage.params["number"] == 1:
            raise RuntimeError("boom")
        return add(stage, inputs, place)

    stages = [Stage(kind("add", body=fails), {"number": i}) for i in range(3)]
    with pytest.raises(RuntimeError, match="boom"):
        scheduler.run(stages, InThreads(store, 1), Heard())
    assert [store.has(stage.key) for stage in stages] == [True, False, False]
