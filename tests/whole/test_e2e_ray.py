"""Runs whose stages a real Ray cluster computes: the rows of one process, nothing lost or computed twice whatever is killed."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
from support import clusters, e2e

from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.run import computing, ray_task

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None or sys.platform == "win32",
        reason="ray is not installed: pip install 'collapse-cli[ray]'",
    ),
]
SMALL = ("--seeds", "0,1", "--policy", "keep-10")
LONG = (*SMALL, "--set", "train.epochs=40")
SAID = "collapse: interrupted; the same command goes on where it stopped"


@pytest.fixture(scope="module")
def nodes() -> Iterator[clusters.Nodes]:
    with clusters.Nodes() as started:
        yield started


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return e2e.write_experiment(tmp_path_factory.mktemp("ray"))


@pytest.fixture
def here(nodes: clusters.Nodes, monkeypatch: pytest.MonkeyPatch) -> clusters.Nodes:
    """The cluster, for commands in this process: what talks to Ray is a process of its own."""
    for name, value in nodes.environment.items():
        monkeypatch.setenv(name, value)
    return nodes


class Begin(Protocol):
    """Begins a run, which ends with the test."""

    def __call__(
        self, runs: Path, environment: Mapping[str, str], *more: str, executor: str = "ray"
    ) -> subprocess.Popen[str]: ...


@pytest.fixture
def begin(config: Path) -> Iterator[Begin]:
    with ExitStack() as stack:

        def started(
            runs: Path, environment: Mapping[str, str], *more: str, executor: str = "ray"
        ) -> subprocess.Popen[str]:
            arguments = ["run", str(config), "--runs-dir", str(runs), "--executor", executor, *more]
            process = subprocess.Popen(
                [sys.executable, "-c", clusters.COLLAPSE, *arguments],
                env={**os.environ, **environment, "COLLAPSE_CHECKPOINT_SECONDS": "0"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield started


def until_at(
    nodes: clusters.Nodes, work: str, runs: Path, process: subprocess.Popen[str], before: int = 0
) -> clusters.Node:
    """The node that computes a stage of that name, when the run has heard of more than `before` such beginnings."""
    end = time.monotonic() + 300
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        if beginnings(runs, work) > before and (node := nodes.at(work)) is not None:
            return node
        time.sleep(0.02)


def beginnings(runs: Path, work: str) -> int:
    path = runs / "tiny" / "events.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return sum('"started"' in line and f'"work": "{work}"' in line for line in lines)


def test_shards_are_tasks_and_the_rows_are_those_of_one_process(
    nodes: clusters.Nodes, begin: Begin, tmp_path: Path
) -> None:
    one, parts = tmp_path / "one", tmp_path / "parts"
    runs = [
        begin(one, nodes.environment, "--policy", "keep-10", executor="local"),
        begin(parts, nodes.environment, "--policy", "keep-10", "--shards", "3"),
    ]
    for run in runs:
        out, err = run.communicate(timeout=200)
        assert run.returncode == 0, out + err
    assert e2e.results(parts) == e2e.results(one)
    planned = e2e.plan(parts)
    assert sum("shard_of" in stage for stage in planned) == 18, (
        "three each of scoring, sampling and examining, at both generations"
    )
    assert e2e.finished_events(parts, "tiny") == dict.fromkeys([stage["key"] for stage in planned], 1)


@pytest.mark.timeout(900)  # a minute on a machine that does nothing else
def test_nodes_and_the_head_are_killed_and_the_rows_are_those_of_one_process(
    config: Path, nodes: clusters.Nodes, begin: Begin, tmp_path: Path
) -> None:
    alone = begin(tmp_path / "alone", nodes.environment, *LONG, executor="local")
    runs = tmp_path / "struck"
    process = begin(runs, nodes.environment, *LONG)
    struck = until_at(nodes, "train", runs, process)
    nodes.kill(struck)
    until_at(nodes, "train", runs, process, beginnings(runs, "train"))
    nodes.kill(nodes.head)
    for one in (alone, process):
        out, err = one.communicate(timeout=300)
        assert one.returncode == 0, out + err
    assert "the connection to Ray was lost" in out
    assert e2e.results(runs) == e2e.results(tmp_path / "alone")
    events = e2e.read_lines(runs / "tiny" / "events.jsonl")
    ended = [event["key"] for event in events if event["event"] in ("finished", "cached")]
    assert sorted(ended) == sorted(stage["key"] for stage in e2e.plan(runs)), "each stage once"
    assert sum(event["event"] == "started" for event in events) > len(ended), "none was at work when it was struck"
    assert FolderStore(runs / "store").unfinished() == []
    again = e2e.collapse("run", config, "--runs-dir", runs, "--jobs", "1", *LONG)
    assert "nothing to compute" in again.out


@pytest.mark.timeout(600)
def test_an_interrupted_run_ends_in_one_line_and_nothing_of_it_stays_at_work(
    nodes: clusters.Nodes, begin: Begin, tmp_path: Path
) -> None:
    process = begin(tmp_path, nodes.environment, *SMALL, "--set", "train.epochs=2000")
    until_at(nodes, "train", tmp_path, process)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.splitlines() == [SAID]
    assert psutil.wait_procs(family, timeout=20)[1] == []
    end = time.monotonic() + 30
    while nodes.at("train") is not None:
        assert time.monotonic() < end, "a stage outlives its run"
        time.sleep(0.1)
    assert json.loads((tmp_path / "tiny" / "run.json").read_text())["status"] == "interrupted"


def test_where_no_address_is_given_ray_is_started_here_and_ended(begin: Begin, tmp_path: Path) -> None:
    """And a user's mistake in a stage is one line, as without Ray."""
    place = tempfile.mkdtemp(prefix="t-")  # a short one
    own = {"RAY_ADDRESS": "", "TMPDIR": place, "OMP_NUM_THREADS": "1"}
    process = begin(tmp_path / "runs", own, "--policy", "keep-10", "--set", "train.lr=1e30")
    listening: list[Any] = []
    family: list[psutil.Process] = []
    while process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True) or family
        for one in family:
            try:
                listening += [held for held in one.net_connections("inet") if held.status == psutil.CONN_LISTEN]
            except psutil.Error:
                continue
        time.sleep(1)
    out, err = process.communicate()
    assert process.returncode == 2, out + err
    (line,) = err.splitlines()
    assert "lower train.lr" in line
    assert listening
    assert {held.laddr.ip.removeprefix("::ffff:") for held in listening} == {"127.0.0.1"}
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert not list(Path(place).glob("collapse-ray-*"))
    shutil.rmtree(place)
    assert not list((tmp_path / "runs" / "store").glob(e2e.HEX64 + "/model.safetensors"))


# --- what a cluster lacks ---------------------------------------------------------------------------------------------


def one_line(config: Path, runs: Path, *more: str) -> str:
    """What a command says that ends with 2: one line."""
    made = e2e.collapse("run", config, "--runs-dir", runs, "--executor", "ray", "--policy", "keep-10", *more)
    assert made.code == 2, made.err
    (line,) = made.err.splitlines()
    return line.removeprefix("collapse: ")


def test_more_than_any_node_has(config: Path, here: clusters.Nodes, tmp_path: Path) -> None:
    assert one_line(config, tmp_path, "--set", "ray.threads=7") == (
        "a stage asks for 7 CPUs (ray.threads), and no node of the cluster has more than 1: --set ray.threads=1, or add a node"
    )
    said = one_line(config, tmp_path, "--set", "ray.gpus=1", "--set", "ray.threads=1")
    assert said.startswith("a stage asks for 1 GPUs (ray.gpus), and no node of the cluster has more than 0: ")


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        ({"store": "/no/such/folder/store"}, "has no folder /no/such/folder/store; choose a --runs-dir that all nodes"),
        ({"paths": ["/no/such/model"]}, "lacks /no/such/model, which the run reads; put it on all nodes"),
        ({"version": "0.0.0"}, "and the run was started with 0.0.0; install one version on all nodes"),
        ({"keys": "0"}, "plans other stages than the run's own machine; install one version"),
    ],
)
def test_a_node_without_what_the_run_needs(
    config: Path,
    here: clusters.Nodes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lacking: dict[str, Any],
    words: str,
) -> None:
    """The order says what there is on the run's own machine; here it says more than the nodes have."""
    monkeypatch.setattr(computing, "order_of", lambda *asked: ray_task.order_of(*asked) | lacking)
    said = one_line(config, tmp_path, "--set", "ray.threads=1")
    assert said.startswith("the node ")
    assert words in said
    kinds = [stage["kind"] for stage in e2e.stages(tmp_path).values()]
    assert kinds == ["data"], "what the run's own process made before"
    assert FolderStore(tmp_path / "store").unfinished() == []


PRETEND = """
import json, os, ray, sys
ray.init(os.environ["RAY_ADDRESS"], logging_level="CRITICAL")
from ray._common import usage
from ray._private.worker import global_worker
client = global_worker.gcs_client
key, space = b"CLUSTER_METADATA", b"cluster"
now = json.loads(client.internal_kv_get(key, namespace=space))
print(json.dumps(now))
client.internal_kv_put(key, json.dumps(now | json.loads(sys.argv[1])).encode(), True, namespace=space)
"""


def test_a_cluster_of_another_version_of_ray(config: Path, here: clusters.Nodes, tmp_path: Path) -> None:
    """Ray compares what the head wrote down of itself when it began with what is here."""

    def pretend(change: Mapping[str, str]) -> dict[str, str]:
        told = subprocess.run(
            [sys.executable, "-c", PRETEND, json.dumps(change)], capture_output=True, text=True, timeout=120
        )
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout.splitlines()[-1])

    before = pretend({"ray_version": "2.1.0"})
    try:
        said = one_line(config, tmp_path, "--set", "ray.threads=1")
    finally:
        # a client of this version is refused by then; the head is begun anew
        here.kill(here.head)
        here.wait()
    assert before["ray_version"] != "2.1.0"
    assert "has another version of Ray or Python than this machine" in said
    assert "2.1.0" in said


def test_something_else_that_answers_at_the_address(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{other.getsockname()[1]}")
        said = one_line(config, tmp_path, "--set", "ray.threads=1")
    assert "cannot be used" in said
