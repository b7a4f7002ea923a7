"""Runs whose stages a real Ray cluster computes: the rows of one process, nothing lost or computed twice whatever is killed."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
from support import clusters, e2e, objects, small
from support.waiting import PATIENCE, until

from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.remote_addresses import copy_of
from collapse_cli.run import computing, ray_task

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),  # less than a minute each on a machine that does nothing else
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None or sys.platform == "win32",
        reason="ray is not installed: pip install 'collapse-cli[ray]'",
    ),
]
RunProcess = subprocess.Popen[str]
LEASE = "2"  # seconds
SAID = "collapse: interrupted; the same command goes on where it stopped"
# Workers that need no torch, which takes seconds to load: for what does not depend on the model. The rows of each generation are chosen
# by a function of the user's, which waits until the test has done what it does meanwhile, however long that takes.
NUMBERS = """
learner = "gaussian"
loop = { generations = 4, policies = ["keep-0"], seeds = [0, 1], block = 2 }
data = { source = "blobs", rows = 50, blobs = { dimensions = 1 } }
"""
CHOSEN = """
[select]
by = "%s"
keep = "highest"
oversample = 2
"""
WAITING = """
import os, time
from pathlib import Path

HERE = Path(%r)

def first(rows):
    (HERE / f"{os.getpid()}.waits").touch()
    while not (HERE / "go").exists():
        time.sleep(0.02)
    return rows.reshape(len(rows), -1)[:, 0]

def fails(rows):
    first(rows)
    raise RuntimeError("no luck")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose modules can be imported by commands and on the nodes."""
    folder = tmp_path_factory.mktemp("installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield folder


@pytest.fixture(scope="module")
def nodes(installed: Path, s3: objects.S3) -> Iterator[clusters.Nodes]:
    """They know of the server of S3; where a node is killed, its leases end after seconds."""
    known = {**objects.KEYS, "AWS_ENDPOINT_URL": s3.endpoint, "COLLAPSE_LEASE_SECONDS": LEASE}
    with clusters.Nodes(count=2, environment=known) as started:
        yield started


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model's."""
    return e2e.write_experiment(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write(tmp_path_factory.mktemp("numbers"), "numbers", NUMBERS)


@pytest.fixture
def here(nodes: clusters.Nodes, monkeypatch: pytest.MonkeyPatch) -> clusters.Nodes:
    """The cluster, for commands in this process: what talks to Ray is a process of its own."""
    for name, value in nodes.environment.items():
        monkeypatch.setenv(name, value)
    return nodes


class Waiting:
    """An experiment whose blocks wait, wherever they are computed."""

    def __init__(self, installed: Path, folder: Path, function: str = "first") -> None:
        """Its module goes into a folder of those that can be imported; `folder` says where it waits, and what for."""
        folder.mkdir()
        self.folder, self.module = folder, f"waiting_{uuid.uuid4().hex}"
        (installed / f"{self.module}.py").write_text(WAITING % str(folder))
        self.config = small.write(folder, "numbers", NUMBERS + CHOSEN % f"{self.module}:{function}")

    def at(self, process: psutil.Process) -> bool:
        """Whether one waits in a process."""
        return (self.folder / f"{process.pid}.waits").exists()

    def go(self) -> None:
        (self.folder / "go").touch()


def until_at(node: Callable[[], clusters.Node], nodes: clusters.Nodes, waiting: Waiting, run: RunProcess) -> None:
    """Until a block waits at a node."""

    def waits() -> bool:
        assert run.poll() is None, run.communicate()
        nodes.mend()
        return any(map(waiting.at, node().processes()))

    until(waits)


def started(
    config: Path, runs: Path | str, environment: Mapping[str, str], *more: str, executor: str = "ray"
) -> RunProcess:
    """A run, in a process of its own."""
    arguments = ["run", str(config), "--runs-dir", str(runs), "--executor", executor, *more]
    return subprocess.Popen(
        [sys.executable, "-c", clusters.COLLAPSE, *arguments],
        env={**os.environ, **environment, "COLLAPSE_CHECKPOINT_SECONDS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Begin(Protocol):
    """Begins a run, which ends with the test."""

    def __call__(
        self, config: Path, runs: Path | str, environment: Mapping[str, str], *more: str, executor: str = "ray"
    ) -> RunProcess: ...


@pytest.fixture
def begin() -> Iterator[Begin]:
    with ExitStack() as stack:

        def begun(
            config: Path, runs: Path | str, environment: Mapping[str, str], *more: str, executor: str = "ray"
        ) -> RunProcess:
            process = started(config, runs, environment, *more, executor=executor)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield begun


@pytest.fixture(scope="module", autouse=True)
def asks_something_else(numbers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, RunProcess]]:
    """A run whose cluster is something that takes connections and says nothing. Ray waits half a minute for it: the other tests do not."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        runs = tmp_path_factory.mktemp("else")
        with started(numbers, runs, {"RAY_ADDRESS": address}, "--set", "ray.threads=1") as process:
            yield address, process
            process.kill()


def test_shards_are_tasks_and_the_rows_are_those_of_one_process(
    config: Path, nodes: clusters.Nodes, tmp_path: Path
) -> None:
    one, parts = tmp_path / "one", tmp_path / "parts"

    def job(runs: Path, *more: str) -> dict[str, Any]:
        argv = ["run", str(config), "--runs-dir", str(runs), "--policy", "keep-10", *more]
        return {"argv": argv, "env": dict(nodes.environment), "err": f"{runs}.err"}

    codes = e2e.drive([job(one), job(parts, "--executor", "ray", "--shards", "3")])
    assert codes == [[0, 0]], [Path(f"{runs}.err").read_text() for runs in (one, parts)]
    assert e2e.results(parts) == e2e.results(one)
    planned = e2e.plan(parts)
    assert sum("shard_of" in stage for stage in planned) == 18, (
        "three each of scoring, sampling and examining, at both generations"
    )
    assert e2e.finished_events(parts, "tiny") == dict.fromkeys([stage["key"] for stage in planned], 1)


def test_nodes_and_the_head_are_killed_and_the_rows_are_those_of_one_process(
    nodes: clusters.Nodes, installed: Path, begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, runs = Waiting(installed, tmp_path / "waiting"), tmp_path / "struck"
    process = begin(waiting.config, runs, nodes.environment)
    both: list[Callable[[], clusters.Node]] = [lambda: nodes.others[0], lambda: nodes.head]
    for struck in both:
        for node in both:
            until_at(node, nodes, waiting, process)
        nodes.kill(struck())
    waiting.go()
    alone = begin(waiting.config, tmp_path / "alone", nodes.environment, executor="local")
    for one in (alone, process):
        out, err = one.communicate(timeout=PATIENCE)
        assert one.returncode == 0, out + err
    assert "the connection to Ray was lost" in out
    assert small.rows_of(runs, "numbers") == small.rows_of(tmp_path / "alone", "numbers")
    assert len(small.rows_of(runs, "numbers")) == 10
    events = e2e.read_lines(runs / "numbers" / "events.jsonl")
    ended = [event["key"] for event in events if event["event"] in ("finished", "cached")]
    assert sorted(ended) == sorted(stage["key"] for stage in e2e.plan(runs, "numbers")), "each stage once"
    assert sum(event["event"] == "started" for event in events) > len(ended), "none was at work when it was struck"
    assert FolderStore(runs / "store").unfinished() == []
    monkeypatch.syspath_prepend(installed)
    again = e2e.collapse("run", waiting.config, "--runs-dir", runs, "--jobs", "1")
    assert "nothing to compute" in again.out


def test_with_runs_in_s3_a_node_is_killed_and_the_rows_are_those_of_one_process(
    nodes: clusters.Nodes,
    installed: Path,
    begin: Begin,
    s3: objects.S3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each node, and the run's own process, has copies of its own, as machines that share nothing have."""
    waiting, prefix = Waiting(installed, tmp_path / "waiting"), tmp_path.name
    address = f"s3://{objects.BUCKET}/{prefix}"
    monkeypatch.setenv("COLLAPSE_CACHE", str(tmp_path / "copies"))
    copy = copy_of(address)
    process = begin(waiting.config, address, nodes.environment)
    both: list[Callable[[], clusters.Node]] = [lambda: nodes.others[0], lambda: nodes.head]
    for node in both:
        until_at(node, nodes, waiting, process)

    def published() -> dict[str, bytes]:
        names = [name for name in s3.names(prefix) if name.startswith("store/records/")]
        return {name: s3.read(f"{prefix}/{name}") for name in names}

    before = published()
    assert len(before) == 2 + 2, "the data and generation 0 of both seeds"
    nodes.kill(nodes.others[0])
    waiting.go()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    monkeypatch.syspath_prepend(installed)
    e2e.run(waiting.config, tmp_path / "alone", "--jobs", "1")
    assert small.rows_of(copy, "numbers") == small.rows_of(tmp_path / "alone", "numbers")
    assert s3.read(f"{prefix}/runs/numbers/metrics.jsonl") == (copy / "numbers" / "metrics.jsonl").read_bytes()
    after, planned = published(), [stage["key"] for stage in e2e.plan(copy, "numbers")]
    assert sorted(after) == sorted(f"store/records/{key}.json" for key in planned)
    assert before == {name: after[name] for name in before}, "what was published is not computed again"
    assert e2e.finished_events(copy, "numbers") == dict.fromkeys(planned, 1)
    assert [name for name in s3.names(prefix) if "leases/" in name] == []


def test_an_interrupted_run_ends_in_one_line_and_nothing_of_it_stays_at_work(
    nodes: clusters.Nodes, installed: Path, begin: Begin, tmp_path: Path
) -> None:
    waiting, runs = Waiting(installed, tmp_path / "waiting"), tmp_path / "runs"
    process = begin(waiting.config, runs, nodes.environment)
    until_at(lambda: nodes.others[0], nodes, waiting, process)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert err.splitlines() == [SAID]
    assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
    until(lambda: nodes.at("block") is None)  # no stage outlives its run
    assert json.loads((runs / "numbers" / "run.json").read_text())["status"] == "interrupted"


def test_where_no_address_is_given_ray_is_started_here_and_ended(installed: Path, begin: Begin, tmp_path: Path) -> None:
    """And a user's mistake in a stage is one line, as without Ray."""
    waiting, runs = Waiting(installed, tmp_path / "waiting", "fails"), tmp_path / "runs"
    place = tempfile.mkdtemp(prefix="t-")  # a short one
    process = begin(waiting.config, runs, {"RAY_ADDRESS": "", "TMPDIR": place, "OMP_NUM_THREADS": "1"})

    def family() -> list[psutil.Process]:
        """With the worker that is at work."""
        assert process.poll() is None, process.communicate()
        found = psutil.Process(process.pid).children(recursive=True)
        return found if any(map(waiting.at, found)) else []

    whole = until(family, pause=0.2)
    listening: list[Any] = []
    for one in whole:
        with contextlib.suppress(psutil.Error):
            listening += [held for held in one.net_connections("inet") if held.status == psutil.CONN_LISTEN]
    waiting.go()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, out + err
    (line,) = err.splitlines()
    assert f"{waiting.module}:fails failed on 100 rows (RuntimeError: no luck" in line
    assert listening
    assert {held.laddr.ip.removeprefix("::ffff:") for held in listening} == {"127.0.0.1"}
    assert psutil.wait_procs(whole, timeout=PATIENCE)[1] == []
    assert not list(Path(place).glob("collapse-ray-*"))
    shutil.rmtree(place)
    finished = [stage["facts"]["generations"] for stage in e2e.stages(runs).values() if stage["kind"] == "block"]
    assert all(len(generations) == 1 for generations in finished), "of generation 0 alone"


# --- what a cluster lacks ---------------------------------------------------------------------------------------------


def one_line(config: Path, runs: Path, *more: str) -> str:
    """What a command says that ends with 2: one line."""
    made = e2e.collapse("run", config, "--runs-dir", runs, "--executor", "ray", *more)
    assert made.code == 2, made.err
    (line,) = made.err.splitlines()
    return line.removeprefix("collapse: ")


def test_more_than_any_node_has(config: Path, here: clusters.Nodes, tmp_path: Path) -> None:
    assert one_line(config, tmp_path, "--set", "ray.threads=7") == (
        "a stage asks for 7 CPUs (ray.threads), and no node of the cluster has more than 1: --set ray.threads=1, or add a node"
    )
    said = one_line(config, tmp_path, "--set", "ray.gpus=1", "--set", "ray.threads=1")
    assert said.startswith("a stage asks for 1 GPUs (ray.gpus), and no node of the cluster has more than 0: ")


def test_a_node_without_what_the_run_needs(
    numbers: Path, here: clusters.Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else a node may lack is in `tests/run/test_ray_task.py`: all that is told in the same way."""
    monkeypatch.setattr(computing, "order_of", lambda *asked: ray_task.order_of(*asked) | {"keys": "0"})
    said = one_line(numbers, tmp_path, "--set", "ray.threads=1")
    assert said.startswith("the node ")
    assert "plans other stages than the run's own machine; install one version" in said
    kinds = [stage["kind"] for stage in e2e.stages(tmp_path).values()]
    assert kinds == ["data"], "what the run's own process made before"
    assert FolderStore(tmp_path / "store").unfinished() == []


PRETEND = """
import json, os, sys
from ray._raylet import GcsClient
client = GcsClient(address=os.environ["RAY_ADDRESS"])
key, space = b"CLUSTER_METADATA", b"cluster"
before = client.internal_kv_get(key, namespace=space)
client.internal_kv_put(key, json.dumps(json.loads(before) | json.loads(sys.argv[1])).encode(), True, namespace=space)
print(before.decode(), flush=True)
sys.stdin.read()
client.internal_kv_put(key, before, True, namespace=space)
"""


def test_a_cluster_of_another_version_of_ray(numbers: Path, here: clusters.Nodes, tmp_path: Path) -> None:
    """Ray compares what the head wrote down of itself when it began with what is here."""
    command = [sys.executable, "-c", PRETEND, json.dumps({"ray_version": "2.1.0"})]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as pretending:
        assert pretending.stdout is not None
        before = json.loads(pretending.stdout.readline())
        said = one_line(numbers, tmp_path, "--set", "ray.threads=1")
        pretending.communicate()  # and all is as it was
    assert pretending.returncode == 0
    assert before["ray_version"] != "2.1.0"
    assert "has another version of Ray or Python than this machine" in said
    assert "2.1.0" in said


def test_something_else_that_answers_at_the_address(asks_something_else: tuple[str, RunProcess]) -> None:
    address, process = asks_something_else
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, out + err
    (line,) = err.splitlines()
    assert f"at {address} cannot be used" in line  # Ray raises an error, or ends its driver, whichever comes first
