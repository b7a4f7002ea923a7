"""Several processes keep texts of one run at the same time: a line a model, of the run's models alone, within the bound."""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest
from support.kinds import kind
from support.rows import row_of

from collapse_cli.config import load
from collapse_cli.engine.stage import Generation, Plan, Stage
from collapse_cli.engine.store import Store
from collapse_cli.records import kept_texts
from collapse_cli.records.kept_texts import FILE, KeptText
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.observers.kept_texts import KeepingTexts
from collapse_cli.where import Where

BOUND = 60_000  # bytes, in these tests


def measured(where: Where) -> Stage:
    return Stage(kind("eval"), {"of": where.record()})


class Keeping(KeepingTexts):
    """Texts that are made up: more than there is room for, and making them takes a moment."""

    def _texts(self, generation: Generation) -> Iterator[KeptText]:
        time.sleep(0.005)
        for at in range(32):
            yield KeptText(str(at), "The", f" text {at} of {generation.where} " * 20)


@pytest.fixture(autouse=True)
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_texts, "MOST_BYTES", BOUND)


def models(policies: Sequence[str], generations: int = 4) -> list[Where]:
    return [Where(policy, 0, generation) for policy in policies for generation in range(generations)]


def process(runs: Path, planned: Sequence[Where]) -> Keeping:
    """What one process that works on the run has."""
    stages = [measured(where) for where in planned]
    plan = Plan(
        generations=[Generation(where, stage, stage, stage) for where, stage in zip(planned, stages, strict=True)]
    )
    config = load({"loop": {"policies": ["keep-0"]}}, "a test")
    return Keeping(RunFolder(runs, "run"), cast(Store, None), config, plan)


def rows_of(places: Sequence[Where]) -> list[Row]:
    """As the run's folder has them before texts are kept."""
    return [
        row_of(
            where.policy,
            where.seed,
            where.generation,
            model_key="ab" * 32,
            warnings=[],
            perplexity=2.0,
            predicted_tokens=10,
            protocol={},
            nll=0.7,
            eval_keys=[measured(where).key],
        )
        for where in places
    ]


def lines(runs: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (runs / "run" / FILE).read_text(encoding="utf-8").splitlines()]


def measured_by(keeping: Keeping, places: Sequence[Where]) -> None:
    """Model after model is measured, and heard of."""
    for row in rows_of(places):
        keeping.folder.add_rows([row])
        keeping.written([row], new=True)


def test_processes_at_work_at_once_leave_one_line_a_model(tmp_path: Path) -> None:
    """Three hear of every model; the second and the third planned more policies, as when a run is extended while it works."""
    plans = [models(["keep-0"]), models(["keep-0", "keep-10"]), models(["keep-0", "keep-10", "keep-20"])]
    threads = [threading.Thread(target=measured_by, args=(process(tmp_path, plan), plan)) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there = Counter((line["policy"], line["generation"]) for line in lines(tmp_path))
    assert there == {(where.policy, where.generation): 1 for where in plans[-1]}
    assert (tmp_path / "run" / FILE).stat().st_size <= BOUND


def test_a_model_is_not_made_twice_where_another_process_has_kept_it(tmp_path: Path) -> None:
    """The other one adds it between the look at the file and the end of making texts, too."""
    (where,) = planned = models(["keep-0"], 1)
    first, second = process(tmp_path, planned), process(tmp_path, planned)
    made = list(second._texts(Generation(where, measured(where), measured(where), measured(where))))

    class Late(Keeping):
        def _texts(self, generation: Generation) -> Iterator[KeptText]:
            measured_by(second, planned)
            yield from made

    late = Late(first.folder, first.store, first.config, Plan(generations=list(first._wanted.values())))
    measured_by(late, planned)
    assert len(lines(tmp_path)) == 1
    before = (tmp_path / "run" / FILE).read_bytes()
    measured_by(first, planned)
    assert (tmp_path / "run" / FILE).read_bytes() == before


def test_the_bound_holds_whenever_anybody_looks(tmp_path: Path) -> None:
    """Processes that plan more and more hear of each model one after another; those that plan few write long lines."""
    plans = [models([f"keep-{policy}" for policy in range(more)]) for more in (1, 3, 6)]
    planned, processes = plans[-1], [(process(tmp_path, plan), plan) for plan in plans]
    for where in planned:
        for keeping, plan in processes:
            if where in plan:
                measured_by(keeping, [where])
                assert (tmp_path / "run" / FILE).stat().st_size <= BOUND
    found = kept_texts.read(tmp_path / "run")
    assert set(found.texts) == set(planned)
    assert all(found.texts.values()), "each has some"
    assert {len(found.texts[where]) + found.left_out[where] for where in planned} == {32}


def test_a_process_that_plans_less_leaves_lines_of_the_run_and_no_others(tmp_path: Path) -> None:
    few, many = models(["keep-0"]), models(["keep-0", "keep-10"])
    measured_by(process(tmp_path, many), many)
    other = kept_texts.line_of(Where("keep-50", 0, 1), "0" * 64, [KeptText("0", "", "of no model of the run")], 999)
    stale = kept_texts.line_of(few[0], "0" * 64, [KeptText("0", "", "of a model that was here before")], 999)
    double = (tmp_path / "run" / FILE).read_text(encoding="utf-8").splitlines(keepends=True)[-1]
    for line in (other, stale, double, double[:50]):
        kept_texts.add(tmp_path / "run", line)
    measured_by(process(tmp_path, few), few)
    there = Counter((line["policy"], line["generation"]) for line in lines(tmp_path))
    assert there == {(where.policy, where.generation): 1 for where in many}
    assert "was here before" not in (tmp_path / "run" / FILE).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_said_once_and_stays(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / FILE
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    planned = models(["keep-0"])
    measured_by(process(tmp_path, planned), planned)
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"{FILE} is a {'folder' if kind == 'folder' else 'named pipe'}, not a file" in said
    assert not path.is_file()
    assert len(RunFolder(tmp_path, "run").rows()) == len(planned)


def test_a_file_beyond_all_bounds_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / FILE).open("wb") as file:
        file.truncate(10**12)  # of NUL bytes, which take no room on the disk and must not be read
    planned = models(["keep-0"])
    measured_by(process(tmp_path, planned), planned)
    assert {(line["policy"], line["generation"]) for line in lines(tmp_path)} == {("keep-0", g) for g in range(4)}
