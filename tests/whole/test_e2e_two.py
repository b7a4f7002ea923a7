"""Several processes at one run, or at one store, divide the work: nothing is computed twice, nothing is lost."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import e2e

from collapse_cli.engine.folder_store import FolderStore


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three processes started at once on one run, then two on runs of different names that share a store."""
    home = tmp_path_factory.mktemp("two")
    config = e2e.write_experiment(home)

    def job(runs: str, name: str, number: int) -> dict[str, object]:
        argv = ["run", str(config), "--runs-dir", str(home / runs), "--name", name, "--generations", "2", "--json"]
        return {"argv": argv, "out": str(home / f"{runs}-{number}.json"), "err": str(home / f"{runs}-{number}.err")}

    same = [job("same", "tiny", number) for number in range(3)]
    names = [job("names", name, number) for number, name in enumerate(("one", "two"))]
    codes = e2e.drive(same, names)
    errors = {path.name: path.read_text()[-2000:] for path in home.glob("*.err")}
    assert codes == [[0, 0, 0], [0, 0]], errors
    return home


def test_a_run_folder_that_is_being_written_is_not_a_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a second process looks while the first one sets its run folder up, it finds nothing wrong with it."""
    from collapse_cli.config import load, read_toml
    from collapse_cli.records import rundir

    config = load(read_toml(e2e.write_experiment(tmp_path)), "tiny")
    replace, looks = Path.replace, 0

    def look_before_and_after(self: Path, target: Path) -> Path:
        nonlocal looks
        for step in (lambda: self, lambda: replace(self, target)):
            path = step()
            rundir.RunFolder(tmp_path / "runs", "tiny").joined_with(config)
            looks += 1
        return path

    monkeypatch.setattr(Path, "replace", look_before_and_after)
    rundir.RunFolder(tmp_path / "runs", "tiny").start(config, [], {})
    assert looks >= 4


def test_a_stage_finished_by_another_before_its_lock_is_free_is_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look into the store and the lock another run does all the work; this one then finds it done."""
    config, runs, locked, waited = e2e.write_experiment(tmp_path), tmp_path / "runs", FolderStore.locked, []

    def locked_late(self: FolderStore, key: str) -> Any:
        if not waited:
            waited.append(key)
            e2e.run(config, runs, "--name", "other")
        return locked(self, key)

    monkeypatch.setattr(FolderStore, "locked", locked_late)
    assert e2e.run(config, runs)["computed"] == 0
    assert waited
    assert set(e2e.finished_events(runs, "tiny", "other").values()) == {1}


@pytest.mark.parametrize(("runs", "names"), [("same", ["tiny"]), ("names", ["one", "two"])])
def test_each_stage_is_computed_once(home: Path, runs: str, names: list[str]) -> None:
    """By the events of all processes together, for every stage of the plan."""
    planned = {stage["key"] for stage in e2e.plan(home / runs, names[0])}
    finished = e2e.finished_events(home / runs, *names)
    assert set(finished.values()) == {1}
    assert set(finished) == planned == set(e2e.stages(home / runs))


def test_metrics_have_one_row_a_generation(home: Path) -> None:
    """Whoever finished a generation, its row is written once; all runs hold the same numbers."""
    rows = e2e.read_lines(home / "same" / "tiny" / "metrics.jsonl")
    where = Counter((row["policy"], row["seed"], row["generation"]) for row in rows)
    assert where == {(policy, 0, generation): 1 for policy in ("keep-0", "keep-10") for generation in range(3)}
    assert e2e.results(home / "same") == e2e.results(home / "names", "one") == e2e.results(home / "names", "two")


def test_each_model_has_one_line_of_texts(home: Path) -> None:
    """Whoever of the three made them first; nobody takes out what another wrote."""
    lines = e2e.read_lines(home / "same" / "tiny" / "samples.jsonl")
    where = Counter((line["policy"], line["seed"], line["generation"]) for line in lines)
    assert where == {(policy, 0, generation): 1 for policy in ("keep-0", "keep-10") for generation in range(3)}


@pytest.mark.parametrize(("runs", "count"), [("same", 3), ("names", 2)])
def test_the_work_is_divided(home: Path, runs: str, count: int) -> None:
    """What the processes say they computed adds up to the plan; each shows all rows."""
    results = [e2e.Result(0, (home / f"{runs}-{number}.json").read_text(), "").json for number in range(count)]
    name = results[0]["run"]
    assert sum(result["computed"] for result in results) == len(e2e.plan(home / runs, name))
    assert all(len(result["rows"]) == 6 for result in results)


def test_nothing_is_left_over(home: Path) -> None:
    """No attempts and no checkpoints stay behind, and the status is that of a finished run."""
    for runs, names in {"same": ["tiny"], "names": ["one", "two"]}.items():
        for hidden in (".attempts", ".scratch"):
            assert list((home / runs / "store" / hidden).glob("*")) == []
        for name in names:
            assert e2e.collapse("status", name, "--runs-dir", home / runs, "--json").json["status"] == "success"
