"""A run that is killed, anywhere, goes on when the same command is given again, and ends with the same numbers."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import e2e
from support.small import write
from support.waiting import PATIENCE, until

KILLED = -signal.SIGKILL
POLITE = {  # where Ctrl-C and SIGTERM strike
    "SIGINT": e2e.strike("train", 2, when="tell", tell=2, name="SIGINT"),
    "SIGTERM": e2e.strike("sample", 1, when="tell", name="SIGTERM"),
}
NUMBERS = """
learner = "gaussian"
loop = { generations = 60000, policies = ["keep-0"], block = 200 }
data = { source = "blobs", rows = 50, blobs = { dimensions = 1 } }
"""
ONE = ["--policy", "keep-10"]  # of the policies, where each stage is killed in turn
VARIED = [  # what a checkpoint must carry besides weights
    "--set=train.epochs=2",
    "--set=train.select=valid",
    "--set=train.loss=truncated",
    "--set=train.truncate=0.005",
    "--set=train.replay=0.25",
    "--set=train.adversarial=0.05",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    e2e.write_experiment(folder)
    return folder


def command(home: Path, runs: str, *more: str) -> list[str]:
    return ["run", str(home / "tiny.toml"), "--runs-dir", str(home / runs), *more]


@pytest.fixture(scope="module")
def codes(home: Path) -> dict[str, list[list[int]]]:
    """All jobs of this file, in one driver process: exit codes by story."""

    def job(story: str, *more: str, **how: Any) -> dict[str, Any]:
        return {"argv": command(home, story, *more), "err": str(home / f"{story}.err"), **how}

    inside = {"train": 3, "sample": 2 * (16 + 1) + 5, "eval": 1}  # in the third batch of samples, 16 tokens each
    log = str(home / "progress.jsonl")
    stories: dict[str, list[dict[str, Any]]] = {
        "whole": [job("whole", here=True)],
        "whole-varied": [job("whole-varied", *VARIED)],
        "half": [
            job("half", *ONE, strike=e2e.strike("any", 1, when="half")),
            job("half", *ONE, strike=e2e.strike("any", 2, when="half"), until_done=True),
        ],
        "published": [
            job("published", *ONE, strike=e2e.strike("any", 1, when="published")),
            job("published", *ONE, strike=e2e.strike("any", 1, when="published"), until_done=True),
        ],
        "inside": [
            job("inside", *VARIED, strike=e2e.strike("data", when="tell")),
            *(
                job("inside", *VARIED, strike=e2e.strike(kind, when="tell", tell=tell), most_rows=8, log=log)
                for kind, tell in inside.items()
            ),
            job("inside", *VARIED, log=log, most_rows=8),
        ],
        **{name: [job(name, strike=where)] for name, where in POLITE.items()},
        **{
            f"{name}-resumed": [job(f"{name}-resumed", copy=[str(home / name), str(home / f"{name}-resumed")])]
            for name in POLITE
        },
    }
    before = os.environ.get("COLLAPSE_CHECKPOINT_SECONDS")
    os.environ["COLLAPSE_CHECKPOINT_SECONDS"] = "0"
    try:
        ends = iter(e2e.drive(*(job for jobs in stories.values() for job in jobs)))
    finally:
        os.environ.pop("COLLAPSE_CHECKPOINT_SECONDS")
        if before is not None:
            os.environ["COLLAPSE_CHECKPOINT_SECONDS"] = before
    return {story: [next(ends) for _ in jobs] for story, jobs in stories.items()}


def undisturbed(home: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    """The rows of `ONE` policy in the run that nobody killed."""
    rows = e2e.results(home / "whole")
    return {where: row for where, row in rows.items() if where[0] in ONE}


def assert_whole(runs: Path) -> None:
    """Every visible stage holds exactly the files that its record names, with the contents that it names."""
    for key, record in e2e.stages(runs).items():
        folder = e2e.folder_of(runs, key)
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        del files["stage.json"]
        assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == record["files"]


def test_killed_with_half_a_file_written_in_every_stage_in_turn(home: Path, codes: dict[str, list[list[int]]]) -> None:
    """Each attempt finishes one stage and is killed in the next: every kind is hit, nothing is computed twice."""
    stages = len(e2e.plan(home / "half"))
    assert codes["half"] == [[KILLED], [KILLED] * (stages - 1) + [0]]
    assert e2e.results(home / "half") == undisturbed(home)
    finished = e2e.finished_events(home / "half", "tiny")
    assert set(finished.values()) == {1}
    assert len(finished) >= stages - 1
    assert_whole(home / "half")


def test_killed_after_every_publish_before_its_row_is_written(home: Path, codes: dict[str, list[list[int]]]) -> None:
    """Between two stages nothing is lost: the rows of `metrics.jsonl` are written from the store."""
    stages = len(e2e.plan(home / "published"))
    assert codes["published"] == [[KILLED], [KILLED] * (stages - 1) + [0]]
    assert e2e.results(home / "published") == undisturbed(home)
    assert_whole(home / "published")


def test_the_kills_hit_every_kind_of_stage(home: Path, codes: dict[str, list[list[int]]]) -> None:
    """Data, train, sample, mix and eval all come in the plan that is killed stage by stage."""
    assert {stage["kind"] for stage in e2e.plan(home / "half")} == {"data", "train", "sample", "mix", "eval"}


def test_killed_in_the_middle_of_training_and_sampling(home: Path, codes: dict[str, list[list[int]]]) -> None:
    """With checkpoints, dropout and weights chosen on validation text, the numbers are those of an unbroken run."""
    assert codes["inside"] == [[KILLED]] * 4 + [[0]]
    assert e2e.results(home / "inside") == e2e.results(home / "whole-varied")
    assert e2e.results(home / "inside") != e2e.results(home / "whole"), "the varied settings change nothing"


def test_training_goes_on_from_its_checkpoint(home: Path, codes: dict[str, list[list[int]]]) -> None:
    """Killed after step 3 of 10, the training that follows begins with step 4; so do batches of samples."""
    progress = e2e.read_lines(home / "progress.jsonl")
    first = next(key for kind, key, *_ in progress if kind == "train")
    step = 8 * e2e.BLOCK
    assert [done // step for _, key, done, _ in progress if key == first] == [1, 2, 3, *range(4, 11)]
    sampled = next(key for kind, key, *_ in progress if kind == "sample")
    batch = 8 * 16  # tokens
    seen = [done for _, key, done, _ in progress if key == sampled]
    again = next(number for number in range(1, len(seen)) if seen[number] < seen[number - 1])
    assert 2 * batch < seen[again - 1] < 3 * batch
    assert seen[again] == 2 * batch + 8
    assert seen[-1] == 5 * batch


def test_no_scratch_is_left_when_all_is_done(home: Path, codes: dict[str, list[list[int]]]) -> None:
    """Checkpoints go when their stage is published."""
    for runs in ("half", "inside"):
        for hidden in (".scratch", ".attempts"):
            assert list((home / runs / "store" / hidden).glob("*")) == []


@pytest.mark.parametrize("name", POLITE)
def test_a_polite_end(home: Path, codes: dict[str, list[list[int]]], name: str) -> None:
    """Ctrl-C and SIGTERM end with 130 and one line, and the run says that it was interrupted."""
    assert codes[name] == [[130]]
    assert json.loads((home / name / "tiny" / "run.json").read_text())["status"] == "interrupted"
    lines = (home / f"{name}.err").read_text().splitlines()
    assert len(lines) == 1
    assert "same command" in lines[0]


@pytest.mark.parametrize("name", POLITE)
def test_after_a_polite_end(home: Path, codes: dict[str, list[list[int]]], name: str) -> None:
    """The same command finishes it, to the numbers of an unbroken run."""
    runs = home / f"{name}-resumed"
    assert codes[f"{name}-resumed"] == [[0]]
    assert json.loads((runs / "tiny" / "run.json").read_text())["status"] == "success"
    assert e2e.results(runs) == e2e.results(home / "whole")


@pytest.fixture
def long_run(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A real process at a run that takes minutes, with its first generation measured."""
    config = write(home, "numbers", NUMBERS)
    process = subprocess.Popen(
        [sys.executable, "-m", "collapse_cli", "run", str(config), "--runs-dir", str(home / "long"), "--jobs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:

        def measured() -> bool:
            assert process.poll() is None, process.communicate()
            return (home / "long" / "numbers" / "metrics.jsonl").exists()

        until(measured)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_real_process_is_terminated(home: Path, long_run: subprocess.Popen[str]) -> None:
    """SIGTERM from outside, as from a cluster's scheduler: exit code 130 and no traceback."""
    long_run.send_signal(signal.SIGTERM)
    _, err = long_run.communicate(timeout=PATIENCE)
    assert long_run.returncode == 130
    assert err.count("\n") == 1
    assert json.loads((home / "long" / "numbers" / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize("torn", ['{"policy": "keep-0", "se', "", "\n"])
def test_a_torn_last_line(home: Path, codes: dict[str, list[list[int]]], torn: str) -> None:
    """A kill in the middle of a row leaves a line that is no JSON: it is dropped and its row is written again."""
    file = home / "whole" / "tiny" / "metrics.jsonl"
    before = e2e.results(home / "whole")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]) + torn)
    made = e2e.collapse(*command(home, "whole", "--json"))
    assert (made.code, made.json["computed"]) == (0, 0)
    assert e2e.results(home / "whole") == before


def test_a_torn_last_event(home: Path, codes: dict[str, list[list[int]]]) -> None:
    """The event after a torn line begins on a line of its own."""
    file = home / "whole" / "tiny" / "events.jsonl"
    whole = file.read_text()
    file.write_text(whole[:-20])
    assert e2e.collapse(*command(home, "whole")).code == 0
    torn = 0
    for line in file.read_text().splitlines():
        try:
            json.loads(line)
        except ValueError:
            torn += 1
    assert torn == 1
