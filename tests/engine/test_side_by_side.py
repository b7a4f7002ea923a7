"""Stages side by side in worker processes: the same numbers, and nothing lost whoever is killed, asked or held up."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import e2e
from support.kinds import kind
from support.meeting import who_came
from support.small import write
from support.waiting import PATIENCE, until

from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.executors.processes import ProcessExecutor, WorkerError, workers_for
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.scheduler import most_at_once, width
from collapse_cli.engine.stage import Finished, Plan, Stage
from collapse_cli.where import Where

SEEDS = ("--seeds", "0,1")  # so that generation 0 is side by side, too
LONG = ("--generations", "0", "--set", "train.epochs=120")
# Workers that need no torch, which takes seconds to load: for what does not depend on the model.
NUMBERS = """
learner = "gaussian"
loop = { generations = 4, policies = ["keep-0"], block = 2 }
data = { source = "blobs", rows = 50, blobs = { dimensions = 1 } }
select = { by = "meeting:met", keep = "highest", oversample = 2 }
"""
NONE_LEFT = """
learner = "ngram"
loop = { generations = 1, policies = ["keep-0"], block = 1 }
data = { source = "zipf", block_size = 12, rows = 60, zipf = { vocabulary = 16, rank = 2, train_tokens = 1200, test_tokens = 240 } }
sample = { prompts = "none", new_tokens = 12, decode = { beams = 1, temperature = 1.0 } }
select = { by = "perplexity", keep = "threshold", oversample = 1.0, threshold = -1.0, side = "below" }
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return e2e.write_experiment(tmp_path_factory.mktemp("side"))


def job(config: Path, runs: Path, *more: str, jobs: int = 2, forks: bool = True) -> dict[str, Any]:
    """A run in a process of its own; what it says goes into files beside `runs`.

    Args:
        forks: whether its workers are forks of it; else they are processes as a user's are, which load all libraries.
    """
    argv = ["run", str(config), "--runs-dir", str(runs), *SEEDS, "--jobs", str(jobs), *more]
    return {"argv": argv, "forks": forks, **{stream: f"{runs}.{stream}" for stream in ("out", "err", "pid")}}


def run(config: Path, runs: Path, *more: str, jobs: int = 2, forks: bool = True) -> e2e.Result:
    ((code,),) = e2e.drive(job(config, runs, *more, jobs=jobs, forks=forks))
    return e2e.Result(code, *(Path(f"{runs}.{stream}").read_text() for stream in ("out", "err")))


@pytest.fixture(scope="module")
def alone(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder made in one process."""
    runs = tmp_path_factory.mktemp("alone") / "runs"
    made = run(config, runs, jobs=1)
    assert made.code == 0, made.err
    return runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_two_at_once_give_the_numbers_of_one(config: Path, alone: Path, runs: Path) -> None:
    made = run(config, runs, forks=False)
    assert made.code == 0, made.err
    assert e2e.results(runs) == e2e.results(alone)
    assert set(e2e.finished_events(runs, "tiny").values()) == {1}
    events = e2e.read_lines(runs / "tiny" / "events.jsonl")
    finished = [event for event in events if event["event"] == "finished"]
    assert all(event["peak_memory_mb"] > 100 for event in finished)
    at_work: set[str] = set()
    most = 0
    for event in events:
        at_work = at_work | {event["key"]} if event["event"] == "started" else at_work - {event["key"]}
        most = max(most, len(at_work))
    assert most == 2
    again = e2e.collapse("run", config, "--runs-dir", runs, *SEEDS, "--jobs", "2")
    assert "nothing to compute" in again.out, "no worker is started for what is there"


# --- how many, and with how many threads ------------------------------------------------------------------------------


def plan_of(policies: int, seeds: int) -> Plan:
    """Generation 0 once a seed, generation 1 once a policy and seed."""
    plan, data = Plan(), Stage(kind("data"), {})
    for seed in range(seeds):
        for policy in range(policies):
            plan.add(data, Where(f"p{policy}", seed, 0))
            first = plan.add(Stage(kind("train"), {}, {"data": data}, seed), Where(f"p{policy}", seed, 0))
            plan.add(Stage(kind("train"), {"policy": policy}, {"init": first}, seed), Where(f"p{policy}", seed, 1))
    return plan


def test_the_width_of_a_stage_is_how_many_of_its_kind_and_generation_there_are() -> None:
    plan = plan_of(policies=3, seeds=2)
    widths = width(plan)
    assert sorted(widths.values()) == [1, 2, 2, 6, 6, 6, 6, 6, 6]
    assert {widths[key] for key, stage in plan.stages.items() if stage.kind == "data"} == {1}
    assert {widths[key] for key, stage in plan.stages.items() if "policy" in stage.params} == {6}


@pytest.mark.parametrize(
    ("policies", "cores", "asked", "pays", "wanted"),
    [
        (3, 2, 0, True, 2),
        (3, 8, 0, True, 3),
        (1, 8, 0, True, 1),
        (3, 8, 0, False, 1),
        (3, 1, 2, False, 2),
        (3, 2, 9, True, 3),
    ],
)
def test_workers_are_as_many_as_cores_or_as_were_asked_for_but_no_more_than_can_work(
    policies: int, cores: int, asked: int, pays: bool, wanted: int
) -> None:
    assert workers_for(plan_of(policies, seeds=1), cores, asked, pays=pays) == wanted


def test_stages_of_one_policy_may_be_at_work_at_the_same_time_when_that_is_asked_for() -> None:
    """A model is scored and sampled from while nothing waits for the other; in whatever order they stand in the plan."""
    data = Stage(kind("data"), {})
    trained = Stage(kind("train"), {}, {"data": data})
    stages = [data, trained, Stage(kind("eval"), {}, {"of": trained}), Stage(kind("sample"), {}, {"of": trained})]
    for order in (stages, stages[::-1]):
        plan = Plan()
        for stage in order:
            plan.add(stage, Where("p", 0, 0))
        assert most_at_once(plan) == 2
    assert [workers_for(plan, 8, asked, pays=True) for asked in (0, 1, 2, 9)] == [1, 1, 2, 2]


# --- when things go wrong ---------------------------------------------------------------------------------------------


@dataclass
class Started:
    """A run at work, in a process that the test may end.

    Attributes:
        name: of the run.
        process: the run; its children are its workers.
        ended: has its exit code, once it has one.
        err: the file of what it says on stderr.
    """

    name: str
    process: psutil.Process
    ended: Future[list[list[int]]]
    err: Path

    def end(self) -> tuple[int, str]:
        """Wait for its end: the exit code, and what it has said on stderr."""
        return self.ended.result(timeout=PATIENCE)[0][0], self.err.read_text()


@pytest.fixture(params=["tiny"])
def started(request: pytest.FixtureRequest, config: Path, runs: Path) -> Iterator[Started]:
    """A run, its two workers in the middle of a stage that takes seconds, each of a seed: a training, or a block of generations.

    The blocks wait for a third process, which does not come.
    """
    name, scratch = request.param, runs / "store" / ".scratch"
    place = runs.parent / "meeting"
    place.mkdir()
    own = {"COLLAPSE_CHECKPOINT_SECONDS": "0", "MEETING": str(place), "MEETING_OF": "3"}
    asked = job(config, runs, *LONG) if name == "tiny" else job(write(runs.parent, name, NUMBERS), runs, forks=False)
    number = Path(asked["pid"])
    with ThreadPoolExecutor(1) as beside:
        ended = beside.submit(e2e.drive, asked | {"env": own})
        try:

            def both_at_work() -> bool:
                assert not ended.done(), ended.result()
                made = {file.parent for file in scratch.glob("*/*.safetensors")}
                return len(made if name == "tiny" else who_came(place)) == 2

            until(both_at_work)
            yield Started(name, psutil.Process(int(number.read_text())), ended, Path(asked["err"]))
        finally:
            if not ended.done() and number.exists():
                os.kill(int(number.read_text()), signal.SIGKILL)


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    return process.children()


@pytest.mark.parametrize("started", ["numbers"], indirect=True)
def test_a_killed_run_takes_its_workers_along_and_goes_on(runs: Path, started: Started) -> None:
    workers = workers_of(started.process)
    assert len(workers) == 2
    started.process.kill()
    assert psutil.wait_procs(workers, timeout=PATIENCE)[1] == [], "a worker outlived its run"
    assert started.end()[0] == -signal.SIGKILL
    done = run(runs.parent / "numbers.toml", runs)
    assert done.code == 0, done.err
    assert len(e2e.metrics(runs, "numbers")) == 2 * 5


@pytest.mark.parametrize(("started", "name"), [("tiny", "SIGINT"), ("numbers", "SIGTERM")], indirect=["started"])
def test_an_interrupted_run_ends_in_one_line_and_its_workers_with_it(runs: Path, started: Started, name: str) -> None:
    workers = workers_of(started.process)
    for process in (started.process, *workers):  # as a terminal or a scheduler does
        process.send_signal(getattr(signal, name))
    code, err = started.end()
    assert code == 130
    assert err.splitlines() == ["collapse: interrupted; the same command goes on where it stopped"]
    assert psutil.wait_procs(workers, timeout=PATIENCE)[1] == []
    assert json.loads((runs / started.name / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize("started", ["numbers"], indirect=True)
def test_a_killed_worker_ends_the_run_with_advice(started: Started) -> None:
    first, second = workers_of(started.process)
    first.kill()
    code, err = started.end()
    assert code == 2
    (line,) = err.splitlines()
    assert "a worker process was killed by signal 9 at a block stage" in line
    assert line.endswith("run the same command again with --jobs 1")
    assert psutil.wait_procs([second], timeout=PATIENCE)[1] == []


def test_a_mistake_of_the_users_is_one_line_in_a_worker_too(runs: Path) -> None:
    made = run(write(runs.parent, "none-left", NONE_LEFT), runs)
    assert made.code == 2
    assert len(made.err.splitlines()) == 1
    assert "0 of 60 candidates stay" in made.err
    works = {
        stage["work"] for stage in e2e.read_lines(runs / "none-left" / "events.jsonl") if stage["event"] == "finished"
    }
    assert works == {"data", "train", "sample", "eval"}, "nothing half-written is published"


# --- the executor itself ----------------------------------------------------------------------------------------------


class Heard:
    """A listener that writes down what it hears, and does something when it is told to wait."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.on_waiting: Any = lambda: None

    def started(self, stage: Stage) -> None:
        self.events.append(("started", stage.key))

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None: ...

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        self.events.append(("cached" if cached else "finished", stage.key))

    def waiting(self, stage: Stage) -> None:
        self.events.append(("waiting", stage.key))
        self.on_waiting()


def worker(store: FolderStore, code: str) -> ProcessExecutor:
    """An executor of one worker, whose process is a few lines of Python."""
    return ProcessExecutor(store, [sys.executable, "-c", code], {}, 1)


TALK = "import json, sys\ndef say(event, **more): print(json.dumps({'event': event, **more}), flush=True)\nnext(sys.stdin)\n"


def lone_stage(store: FolderStore) -> Stage:
    stage = Stage(kind("train"), {"number": 1})
    store.root.mkdir(parents=True, exist_ok=True)
    return stage


def publish(store: FolderStore, stage: Stage) -> None:
    scheduler.run([stage], LocalExecutor(store), Heard())


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_a_stage_that_another_process_holds_is_asked_for_again(store: FolderStore) -> None:
    stage, heard = lone_stage(store), Heard()
    heard.on_waiting = lambda: threading.Timer(0.3, publish, (store, stage)).start()
    with worker(store, TALK + "for line in sys.stdin: say('held')") as executor:
        scheduler.run([stage], executor, heard, {stage.key: 1})
    assert heard.events == [("waiting", stage.key), ("cached", stage.key)]


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ("'mistake', text='lower it'", WorkerError, "^lower it$"),
        ("'system', errno=28, text='No space left', file='/x'", OSError, "No space left"),
        ("'failure', text='Traceback: boom'", RuntimeError, "boom"),
    ],
)
def test_what_fails_in_a_worker_fails_here(store: FolderStore, said: str, error: type[Exception], words: str) -> None:
    stage = lone_stage(store)
    with (
        worker(store, TALK + f"next(sys.stdin)\nsay({said})\nsys.stdin.read()") as executor,
        pytest.raises(error, match=words),
    ):
        scheduler.run([stage], executor, Heard(), {stage.key: 1})
    assert not store.has(stage.key)


def test_a_worker_that_ends_is_noticed_before_and_after_it_has_a_stage(store: FolderStore) -> None:
    stage = lone_stage(store)
    for code in ("raise SystemExit(3)", TALK + "next(sys.stdin)\nraise SystemExit(3)"):
        with worker(store, code) as executor, pytest.raises(WorkerError, match="ended with code 3"):
            scheduler.run([stage], executor, Heard(), {stage.key: 1})


def test_notes_of_workers_are_said_once(store: FolderStore, caplog: pytest.LogCaptureFixture) -> None:
    stage, heard = lone_stage(store), Heard()
    publish(store, stage)
    other = Stage(kind("train"), {"number": 2})
    publish_other = f"""
next(sys.stdin)
for _ in range(3): say('note', text='memory ran out in {store.root.name}-test')
say('mistake', text='enough')
sys.stdin.read()
"""
    with worker(store, TALK + publish_other) as executor, pytest.raises(WorkerError, match="enough"):
        scheduler.run([stage, other], executor, heard, {other.key: 1})
    assert heard.events == [("cached", stage.key)]
    assert [record.getMessage() for record in caplog.records] == ["memory ran out in store-test"]
