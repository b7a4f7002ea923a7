"""Runs whose long stages are computed in shards: the same rows to the last byte, however many, by however many processes, killed or not."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import e2e

from collapse_cli.config import load
from collapse_cli.config.reading import read_toml
from collapse_cli.experiment.costs import RECORD_BYTES
from collapse_cli.experiment.stages.shards import FOUND
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import store_of
from collapse_cli.run.execution import Execution
from collapse_cli.run.preparation import prepare


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return e2e.write_experiment(tmp_path_factory.mktemp("shards"))


def job(config: Path, runs: Path, shards: int, *more: str, jobs: int = 1, **how: Any) -> dict[str, Any]:
    argv = ["run", str(config), "--runs-dir", str(runs), "--jobs", str(jobs), "--shards", str(shards), *more]
    return {"argv": argv, "err": f"{runs}.err", "forks": True, **how}


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder made without shards."""
    runs = tmp_path_factory.mktemp("whole") / "runs"
    assert e2e.drive(job(config, runs, 1)) == [[0]]
    return runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def made(runs: Path) -> dict[str, dict[str, bytes]]:
    """By key, the rows that each stage left, but for shards: they are files of arrays."""
    return {
        key: {path.name: path.read_bytes() for path in sorted(e2e.folder_of(runs, key).glob("*.safetensors"))}
        for key, stage in e2e.stages(runs).items()
        if "shard" not in stage["params"]
    }


def shards_in(runs: Path) -> set[str]:
    """The keys of the shards in the store."""
    return {key for key, stage in e2e.stages(runs).items() if "shard" in stage["params"]}


@pytest.mark.parametrize(("number", "jobs"), [(2, 1), (3, 2), (7, 1)])
def test_rows_are_the_same_in_any_number_of_shards(
    config: Path, whole: Path, runs: Path, number: int, jobs: int
) -> None:
    """7 are more than there are batches to score: some shards have nothing to do."""
    assert e2e.drive(job(config, runs, number, jobs=jobs)) == [[0]], Path(f"{runs}.err").read_text()
    assert e2e.results(runs) == e2e.results(whole)
    assert made(runs) == made(whole), "the same stages, and the same bytes"
    planned = e2e.plan(runs)
    parts = [stage for stage in planned if "shard_of" in stage]
    assert len(parts) == number * len({stage["shard_of"] for stage in parts}) > 0
    assert e2e.finished_events(runs, "tiny") == dict.fromkeys([stage["key"] for stage in planned], 1)
    assert shards_in(runs) == set(), "what was put together is not kept in parts"


def test_a_run_killed_within_a_shard_goes_on_in_as_many_and_computes_nothing_twice(
    config: Path, whole: Path, runs: Path
) -> None:
    killed = job(config, runs, 4, strike=e2e.strike("sample", 2, when="tell", tell=18), most_rows=4)
    assert e2e.drive(killed) == [[-9]]
    (first,) = (key for key in shards_in(runs) if e2e.stages(runs)[key]["kind"] == "sample")
    status = e2e.collapse("status", "tiny", "--runs-dir", runs, "--json").json
    assert status["stages"]["sample, shards"] == {"done": 1, "planned": 16}
    assert status["stages"]["eval, shards"] == {"done": 0, "planned": 24}, "without those of what is there"
    assert e2e.collapse("gc", "--runs-dir", runs).code == 0
    assert shards_in(runs) == {first}, "what a run still needs is no garbage"
    again = job(config, runs, 3, log=f"{runs}.log", most_rows=4)
    assert e2e.drive(again) == [[0]], Path(f"{runs}.err").read_text()
    assert e2e.results(runs) == e2e.results(whole)
    assert made(runs) == made(whole)
    assert set(e2e.finished_events(runs, "tiny").values()) == {1}
    parts = {stage["key"]: stage["shard_of"] for stage in e2e.plan(runs) if "shard_of" in stage}
    number = Counter(parts.values())
    assert sorted(number.values()) == [3] * 9 + [4]
    assert number[parts[first]] == 4, "what was begun in four went on in four, the others are in three"
    second = next(key for key in parts if key != first)
    begun = [done / total for _, key, done, total in e2e.read_lines(Path(f"{runs}.log")) if key == second]
    assert begun[0] > 0.4, "the shard went on where it was killed"


def test_shards_of_a_run_that_was_killed_are_no_use_to_a_run_that_has_all(
    config: Path, whole: Path, runs: Path
) -> None:
    """Without `--shards` what was begun goes on; once the stages are there, nothing is planned in shards."""
    assert e2e.drive(job(config, runs, 2, strike=e2e.strike("sample", 2, when="published"))) == [[-9]]
    assert e2e.kinds(shards_in(runs), runs) == {"eval": 2, "sample": 2}
    assert e2e.drive(job(config, runs, 1)) == [[0]]
    assert e2e.results(runs) == e2e.results(whole)
    assert set(e2e.finished_events(runs, "tiny").values()) == {1}
    assert e2e.drive(job(config, runs, 5)) == [[0]]
    assert set(e2e.finished_events(runs, "tiny").values()) == {1}
    assert e2e.kinds(shards_in(runs), runs) == {"eval": 2}, "which the killed run had put together already, and left"
    assert e2e.collapse("gc", "--runs-dir", runs).code == 0
    assert shards_in(runs) == set()
    assert e2e.collapse("run", config, "--runs-dir", runs, "--shards", "5").out.count("nothing to compute") == 1


def test_shards_that_a_killed_run_left_behind_are_garbage_once_the_whole_is_there(
    config: Path, whole: Path, runs: Path
) -> None:
    assert e2e.drive(job(config, runs, 2, strike=e2e.strike("mix", 1, when="published"))) == [[-9]]
    assert e2e.kinds(shards_in(runs), runs) == {"eval": 6, "sample": 4}
    status = e2e.collapse("status", "tiny", "--runs-dir", runs, "--json").json
    assert status["stages"]["sample, shards"] == {"done": 0, "planned": 4}, "those that are still needed"
    assert e2e.collapse("gc", "--runs-dir", runs, "--json").json["stages"] == 10
    assert shards_in(runs) == set()
    assert e2e.drive(job(config, runs, 2)) == [[0]]
    assert e2e.results(runs) == e2e.results(whole)


def test_shards_take_about_the_disk_that_they_are_said_to(config: Path, runs: Path) -> None:
    """What is scored leaves numbers of each token, and the model's state of each sample."""
    assert e2e.drive(job(config, runs, 2, strike=e2e.strike("mix", 1, when="published"))) == [[-9]]
    none = runs / "none"  # where no whole stage is, so that all are planned in shards
    how = Execution(jobs=1, shards=2)
    one = prepare(load(read_toml(config), "a test"), RunFolder(none, "x"), store_of(none), none / "real", how)
    said, took = Counter[str](), Counter[str]()
    for key in shards_in(runs):
        stage = one.plan.stages[key]
        said[stage.work] += one.size.cost_of(stage).disk - RECORD_BYTES
        took[stage.work] += (e2e.folder_of(runs, key) / FOUND).stat().st_size
    assert said.keys() == {"eval", "sample", "examine"}
    for work in said:
        assert 1 / 2 < said[work] / took[work] < 2, work


def test_a_dry_run_shows_the_shards_and_reckons_no_more_work_than_without(
    config: Path, whole: Path, runs: Path
) -> None:
    plain, parts = (
        e2e.collapse(
            "run", config, "--runs-dir", runs, "--dry-run", "--json", "--jobs", "1", "--shards", str(number)
        ).json
        for number in (1, 4)
    )
    assert parts["kinds"]["sample, shards"]["stages"] == 4 * plain["kinds"]["sample"]["stages"]
    assert parts["kinds"]["sample"]["stages"] == plain["kinds"]["sample"]["stages"]
    assert parts["kinds"]["sample, shards"]["tokens"] == plain["kinds"]["sample"]["tokens"]
    assert parts["kinds"]["sample"]["tokens"] == 0
    assert parts["measured"]
    assert parts["kinds"]["sample, shards"]["seconds"] < 8 * plain["kinds"]["sample"]["seconds"] + 8
    assert not (runs / "store").exists()


def test_a_stage_has_no_more_shards_than_rows(config: Path, runs: Path) -> None:
    said = e2e.collapse("run", config, "--runs-dir", runs, "--dry-run", "--shards", "1000")
    assert said.code == 0, said.err
    assert "--shards 1000: no stage has more than 40 rows, so none has more shards" in " ".join(said.out.split())
    planned = int(next(line for line in said.out.splitlines() if "sample, shards" in line).split("│")[2])
    assert planned == 2 * 40 + 2 * 36, "of keep-0 and of keep-10"


def test_where_no_stage_splits_that_is_said(tmp_path: Path, runs: Path) -> None:
    config = tmp_path / "numbers.toml"
    config.write_text(
        'learner = "gaussian"\n[loop]\ngenerations = 2\npolicies = ["keep-0"]\n[data]\nsource = "blobs"\nrows = 20\n'
    )
    said = e2e.collapse("run", config, "--runs-dir", runs, "--shards", "4")
    assert said.code == 0, said.err
    assert "--shards 4: no stage of this experiment is computed in parts" in " ".join(said.out.split())
    assert "--shards" not in e2e.collapse("run", config, "--runs-dir", runs).out, "of a command that asked for none"
