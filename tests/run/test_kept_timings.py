"""What a dry run timed is there when the run begins: and only of the same stages, computed in the same way by the same code."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support import e2e, small

from collapse_cli.config import load
from collapse_cli.config.reading import read_toml
from collapse_cli.engine.stage import Cost
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import store_of
from collapse_cli.run import kept_timings
from collapse_cli.run.execution import Execution
from collapse_cli.run.observers.progress import Progress
from collapse_cli.run.preparation import prepare
from collapse_cli.run.rates import TimeTaken, Timings
from collapse_cli.terminal.progress import ProgressBars

ONE = Execution(jobs=1)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they are kept."""
    monkeypatch.setenv("COLLAPSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / kept_timings.FOLDER


def taken(execution: Execution, *groups: str) -> dict[str, list[TimeTaken]]:
    timings = Timings()
    kept_timings.take(timings, execution, groups)
    return timings.tried


def timed(**seconds: float) -> Timings:
    timings = Timings()
    for group, each in seconds.items():
        timings.add(timings.tried, "train", group, Cost(tokens=100), each)
    return timings


def test_what_is_kept_is_found_again(folder: Path) -> None:
    kept_timings.keep(timed(a=1.0, b=2.0), ONE)
    kept_timings.keep(timed(b=3.0), ONE)
    assert taken(ONE, "a", "b", "c") == {"a": [TimeTaken(100, 1, 1.0)], "b": [TimeTaken(100, 1, 3.0)]}
    assert taken(ONE, "b") == {"b": [TimeTaken(100, 1, 3.0)]}, "of the groups of the plan alone"
    assert taken(Execution(jobs=2), "a") == taken(Execution(jobs=1, devices=2), "a") == {}
    kept_timings.keep(Timings(), Execution(jobs=2))
    assert len([*folder.iterdir()]) == 1, "where nothing was timed nothing is written"


def test_what_is_damaged_or_of_other_code_counts_as_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_timings.keep(timed(a=1.0), ONE)
    (file,) = folder.iterdir()
    whole = file.read_text()
    file.write_text(whole.replace("1.0", "9.0"))
    assert taken(ONE, "a") == {}
    file.write_text(whole)
    assert taken(ONE, "a")
    monkeypatch.setattr(kept_timings, "code", lambda: "another")
    assert taken(ONE, "a") == {}
    kept_timings.keep(timed(b=1.0), ONE)
    assert taken(ONE, "a", "b") == {"b": [TimeTaken(100, 1, 1.0)]}


def test_where_nothing_can_be_kept_nothing_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.write_text("a file")
    kept_timings.keep(timed(a=1.0), ONE)
    assert taken(ONE, "a") == {}


def bar_of(tmp_path: Path, file: Path) -> str:
    """What is said of the time that is left when a run begins."""
    runs = tmp_path / "runs"
    prepared = prepare(
        load(read_toml(file), "a test"), RunFolder(runs, "x"), store_of(runs), tmp_path / "real", Execution()
    )
    shown: Any = ProgressBars(Console(quiet=True), len(prepared.plan.stages))
    needed = [stage for key, stage in prepared.plan.stages.items() if key not in prepared.computed]
    Progress(shown, prepared, needed)
    return str(shown.left)


def test_the_bar_of_a_run_begins_with_what_its_dry_run_timed(tmp_path: Path) -> None:
    file = small.write(tmp_path, "numbers", small.NUMBERS)
    assert bar_of(tmp_path, file).startswith(("more than", "time left unknown"))
    assert e2e.collapse("run", file, "--runs-dir", tmp_path / "other", "--dry-run").code == 0
    said = bar_of(tmp_path, file)
    assert said.endswith(" left")
    assert not said.startswith("more than")
