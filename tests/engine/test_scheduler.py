"""The scheduler with an executor of a third kind: what the protocol says is all that it asks for."""

import random
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as first_of
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.kinds import kind
from support.waiting import PATIENCE, until

from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.base import Ended, Executor
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Stage, Workplace
from collapse_cli.engine.store import Store


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
    meeting = threading.Barrier(3, timeout=PATIENCE)

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
            until(lambda: heard.waits and len(heard.finishes) == 2)

    threading.Thread(target=hold).start()
    assert held.wait(PATIENCE)
    scheduler.run(stages, LocalExecutor(store), heard)
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


class Written:
    """An executor, its store, its observer and the clock, which compute nothing: all that is asked of them is written down.

    By chance, but always the same one for a seed: how many stages end at a time and in which order, how long that takes, which stages
    are there before, which another process holds when it is asked, and which it has published meanwhile.
    """

    def __init__(self, stages: list[Stage], slots: int, seed: int) -> None:
        self.slots, self.now, self.said = slots, 0.0, list[tuple[Any, ...]]()
        self._chance = random.Random(seed)
        self.there = {stage.key for stage in stages if self._chance.random() < 0.2}
        self._at_work: list[Stage] = []
        self.store = cast(Store, self)
        self.finishes = 0

    def has(self, key: str) -> bool:
        self.said.append(("has", key))
        return key in self.there

    def get(self, key: str) -> Finished:
        return Finished("add", key, Path(), {}, 0.0)

    def submit(self, stage: Stage, threads: int) -> None:
        self.said.append(("submit", stage.key, threads, self.now))
        assert {made.key for made in stage.inputs.values()} <= self.there
        self._at_work.append(stage)
        assert len(self._at_work) <= self.slots

    def poll(self, observer: Observer, wait: float | None) -> Iterator[Ended]:
        self.said.append(("poll", wait))
        self.now += self._chance.choice([0.0, 0.05, 0.3])
        for _ in range(self._chance.randint(0, len(self._at_work))):
            stage = self._at_work.pop(self._chance.randrange(len(self._at_work)))
            if self._chance.random() < 0.2:  # another process has it
                if self._chance.random() < 0.5:  # and will have published it
                    self.there.add(stage.key)
                yield Ended(stage, None)
            else:
                self.there.add(stage.key)
                yield Ended(stage, self.get(stage.key), cached=self._chance.random() < 0.2)

    def waiting(self, stage: Stage) -> None:
        self.said.append(("waiting", stage.key))

    def started(self, stage: Stage) -> None: ...

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None: ...

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        self.said.append(("finished", stage.key, cached))
        self.finishes += 1

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.said.append(("sleep", seconds))


def looks_at_all(
    stages: list[Stage], executor: Written, observer: Observer, threads: Mapping[str, int], clock: Written
) -> None:
    """What `scheduler.run` is to do, plainly: all stages are looked through after each message."""
    todo = {stage.key: stage for stage in stages}
    at_work, held, announced = set[str](), dict[str, float](), set[str]()
    while todo:
        for stage in list(todo.values()):
            if any(made.key in todo for made in stage.needs.values()):
                continue
            if stage.key in at_work or held.get(stage.key, 0.0) > clock.now:
                continue
            if executor.store.has(stage.key):
                held.pop(stage.key, None)
                del todo[stage.key]
                observer.finished(stage, executor.store.get(stage.key), cached=True)
            elif len(at_work) < executor.slots:
                at_work.add(stage.key)
                executor.submit(stage, threads.get(stage.key, 0))
            else:
                break
        if not at_work:
            clock.sleep(scheduler.WAIT_SECONDS if todo else 0)
            continue
        for ended in executor.poll(observer, scheduler.WAIT_SECONDS if held else None):
            at_work.remove(ended.stage.key)
            if ended.made is None:
                held[ended.stage.key] = clock.now + scheduler.WAIT_SECONDS
                if ended.stage.key not in announced:
                    announced.add(ended.stage.key)
                    observer.waiting(ended.stage)
            else:
                held.pop(ended.stage.key, None)
                del todo[ended.stage.key]
                observer.finished(ended.stage, ended.made, cached=ended.cached)


def tangle(number: int, seed: int) -> list[Stage]:
    """Stages in a plan's order, each made from up to three that stand before it; some twice, under two names, or from one of another plan."""
    chance, outside = random.Random(seed), Stage(ADD, {"number": -1})
    stages: list[Stage] = []
    for i in range(number):
        inputs = {f"from {k}": chance.choice(stages) for k in range(min(chance.randint(0, 3), len(stages)))}
        if inputs and chance.random() < 0.2:
            inputs["again"] = inputs["from 0"]
        if chance.random() < 0.1:
            inputs["outside"] = outside
        stages.append(Stage(ADD, {"number": i}, inputs))
    return [*stages, *chance.sample(stages, 3)]


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_all_that_is_asked_of_others_is_what_looking_through_all_stages_each_time_asks(
    slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages_held = 0
    for seed in range(20):
        stages = tangle(60, seed)
        threads = {stage.key: place for place, stage in enumerate(stages) if place % 2}
        plain, fast = Written(stages, slots, seed), Written(stages, slots, seed)
        outside = {made.key for stage in stages for name, made in stage.inputs.items() if name == "outside"}
        plain.there |= outside
        fast.there |= outside
        looks_at_all(stages, plain, plain, threads, plain)
        monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda now=fast: now.now, sleep=fast.sleep))
        scheduler.run(stages, fast, fast, threads)
        assert fast.said == plain.said
        assert fast.finishes == 60
        stages_held += sum(said[0] == "waiting" for said in fast.said)
    assert stages_held > 50, "others hold some"


class Counted(dict[str, Stage]):
    """Inputs of a stage that count how often they are looked at."""

    looks = 0

    def values(self) -> Any:
        Counted.looks += 1
        return super().values()


@pytest.mark.parametrize("shape", ["beside each other", "one after another"])
def test_of_a_stage_nothing_is_looked_at_for_each_other_stage_that_ends(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [Stage(ADD, {"number": 0})]
    for i in range(1, 3000):
        made = stages[0] if shape == "beside each other" else stages[-1]
        stages.append(Stage(ADD, {"number": i}, Counted(made=made)))
    executor = Written(stages, slots=4, seed=0)
    monkeypatch.setattr(
        scheduler,
        "time",
        SimpleNamespace(monotonic=lambda: executor.now, sleep=executor.sleep),
    )
    Counted.looks = 0
    scheduler.run(stages, executor, executor)
    assert executor.finishes == len(stages)
    assert Counted.looks <= 2 * len(stages)  # the executor looks, too, when it is given one
    asked = sum(said[0] == "has" for said in executor.said)
    polls = sum(said[0] == "poll" for said in executor.said)
    assert asked <= 2 * len(stages) + polls


def test_what_is_missing_is_found_however_far_back_it_is_needed(tmp_path: Path) -> None:
    stages = [Stage(ADD, {"number": 0})]
    for i in range(1, 3000):  # each made from the one before it, and none of them there, as when weights were pruned
        stages.append(Stage(ADD, {"number": i}, {"made": stages[-1]}))
        assert stages[-1].key, "known as soon as a stage is planned"
    assert scheduler.missing(stages, store_in(tmp_path), lambda stage: stage is stages[-1]) == stages
