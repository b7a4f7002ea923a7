"""Folders of thousands of runs: what has not changed is not read again, and a list that leaves runs out says so."""

import os
import shutil
from pathlib import Path

import pytest
from support import e2e
from support.instrumented import write_run
from support.many_runs import copies
from support.viewed import ask, serving

from collapse_cli.config.experiment import Experiment
from collapse_cli.engine import sealed
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.stage import Plan
from collapse_cli.records import listing, remembered
from collapse_cli.records.remembered import FOLDER, Remembered
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.garbage import collect_garbage
from collapse_cli.run.observers.pruning import Pruning
from collapse_cli.view import runs as view_runs

MANY = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run and so many copies of it, each with a plan of one stage of its own; and one whose record is torn."""
    runs = tmp_path_factory.mktemp("many") / "runs"
    write_run(runs, "one", policies=("keep-0",), generations=1)
    for number, name in enumerate(["one", *copies(runs / "one", MANY)]):
        stage = {"kind": "train", "key": f"{number:064x}", "inputs": {}, "for": []}
        (runs / name / "plan.json").write_text(sealed.sealed({"stages": [stage]}))
    (runs / "torn").mkdir()
    (runs / "torn" / "run.json").write_text("{")
    return runs


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "runs"))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Of which runs each file was read."""
    names: dict[str, list[str]] = {}
    for method in ("record", "plan", "lines"):
        own = getattr(RunFolder, method)

        def counted(folder: RunFolder, own: object = own, method: str = method) -> object:
            names.setdefault(method, []).append(folder.name)
            return own(folder)  # type: ignore[operator]

        monkeypatch.setattr(RunFolder, method, counted)
    return names


def age(run: Path) -> None:
    """Change a run: it ended a year later."""
    record = sealed.read(run / "run.json")
    (run / "run.json").write_text(sealed.sealed(record | {"updated": "2027-01-01T00:00:00+00:00"}))


def test_the_facts_of_runs_that_have_not_changed_are_not_read_again(runs: Path, read: dict[str, list[str]]) -> None:
    first, there = listing.runs_in(runs)
    assert there == len(first) == MANY + 2
    assert first == sorted((listing.facts_of(runs, run.name) for run in first), key=lambda run: (run.updated, run.name))
    read.clear()
    assert listing.runs_in(runs) == (first, there)
    assert set(read["record"]) == {"torn"}, "what may be the disk's fault is looked at again"
    age(runs / "one-007")
    with (runs / "one-008" / "metrics.jsonl").open("a") as rows:
        rows.write("torn\n")
    shutil.rmtree(runs / "one-009")
    read.clear()
    second, there = listing.runs_in(runs)
    assert set(read["record"]) == {"torn", "one-007", "one-008"}
    assert (second[-1].name, there) == ("one-007", MANY + 1)
    assert {run.name for run in first} - {run.name for run in second} == {"one-009"}


def test_of_many_runs_the_last_are_listed_and_the_damaged_and_the_others_are_counted(
    runs: Path, read: dict[str, list[str]]
) -> None:
    shown, there = listing.runs_in(runs, 5)
    whole = [run for run in listing.runs_in(runs)[0] if run.status != "damaged"]
    assert [run.name for run in shown] == ["torn", *(run.name for run in whole[-5:])]
    assert there == MANY + 2
    read.clear()
    assert listing.runs_in(runs, 5) == (shown, there)
    assert set(read["record"]) == {run.name for run in shown}
    assert set(read["lines"]) == {run.name for run in shown[1:]}, "rows of those that are shown alone"
    out = e2e.collapse("list", "--runs-dir", runs, "--limit", 5).out
    assert "one-059" in out
    assert "one-000" not in out
    advice = f"{MANY + 2 - 6} more runs: `collapse list --limit 0 --runs-dir {runs}` shows all"
    assert "".join(advice.split()) in "".join(out.split())  # a long path is folded
    assert "more runs" not in e2e.collapse("list", "--runs-dir", runs, "--limit", 0).out
    assert len(e2e.collapse("list", "--runs-dir", runs, "--limit", 5, "--json").json) == MANY + 2


@pytest.mark.parametrize("what", ["gone", "damaged", "another's", "code"])
def test_what_was_remembered_can_be_thrown_away(runs: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    first, files = listing.runs_in(runs), list((runs / FOLDER).iterdir())
    assert files
    for file in files:
        if what == "gone":
            file.unlink()
        elif what == "damaged":
            file.write_bytes(file.read_bytes().replace(b'"success"', b'"failure"', 1))
        elif what == "another's":
            file.write_text(sealed.sealed({"code": remembered.code(), "runs": {"one": 3}}))
    if what == "code":
        monkeypatch.setattr(remembered, "code", lambda: "another")
        monkeypatch.setattr(listing, "facts_of", lambda runs, name: listing.RunFacts(name, status="read anew"))
        assert {run.status for run in listing.runs_in(runs)[0]} == {"read anew"}
    else:
        assert listing.runs_in(runs) == first


def test_a_few_runs_leave_no_file_and_a_folder_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "one", policies=("keep-0",), generations=1)
    assert len(listing.runs_in(tmp_path / "runs")[0]) == 1
    assert not (tmp_path / "runs" / FOLDER).exists()
    (tmp_path / FOLDER).write_text("a file, where the folder would be")
    values = Remembered(tmp_path, ("run.json",), str.upper, name="x").values(f"n{number}" for number in range(MANY))
    assert values["n3"] == "N3"


def test_garbage_is_collected_without_reading_plans_that_have_not_changed(
    runs: Path, read: dict[str, list[str]]
) -> None:
    shutil.rmtree(runs / "torn")
    store = FolderStore(runs / "store")
    for number in range(MANY + 5):
        (store.folder(f"{number:064x}")).mkdir(parents=True)
    wanted = {"stages": 4, "leftovers": 0, "bytes": 0, "kept": MANY + 1}
    assert collect_garbage(runs, dry_run=True) == wanted
    assert len(read["plan"]) == MANY + 1
    shutil.copytree(runs / "one", runs / "came", copy_function=shutil.copy2)
    read.clear()
    assert collect_garbage(runs) == wanted
    assert read["plan"] == ["came"]
    shutil.rmtree(runs / "one-003")
    age(runs / "one-004")
    read.clear()
    assert collect_garbage(runs) == {"stages": 1, "leftovers": 0, "bytes": 0, "kept": MANY}
    assert set(read["plan"]) == {"came", "one-004"}, "a few that are new are not written down"
    (runs / "one-005" / "plan.json").write_text("{")
    assert e2e.collapse("gc", "--runs-dir", runs).code == 2, "an index hides no damage"


def test_pruning_reads_each_plan_once_and_settings_of_runs_that_share_models(
    runs: Path, read: dict[str, list[str]]
) -> None:
    config = Experiment.model_validate({"store": {"keep_models": "none"}})
    pruning = Pruning(RunFolder(runs, "mine"), FolderStore(runs / "store"), config, Plan())
    mine = {f"{3:064x}"}
    wanted = pruning._wanted_elsewhere(mine)
    assert wanted == mine, "the one run that has it keeps all"
    assert len(read["plan"]) == MANY + 2
    assert read["record"] == ["one-002"]
    assert pruning._wanted_elsewhere(mine) == wanted
    assert len(read["plan"]) == MANY + 2


def test_the_page_lists_the_runs_that_changed_last(
    runs: Path, read: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_runs, "MOST_LISTED", 3)
    for number, name in enumerate(("one-010", "one-020", "one-030")):
        for path in (runs / name).iterdir():
            os.utime(path, (2e9 + number, 2e9 + number))
    with serving(runs) as server:
        text = ask(server, "/lines").text
        assert [name for name in ("one-030", "one-020", "one-010", "one-000") if f"/run/{name}" in text] == [
            "one-030",
            "one-020",
            "one-010",
        ]
        assert text.index("one-030") < text.index("one-010")
        assert f"{MANY + 2 - 3} more runs changed before these" in text
        assert set(read["record"]) == {"one-010", "one-020", "one-030"}
        assert ask(server, "/run/one-000").code == 200
