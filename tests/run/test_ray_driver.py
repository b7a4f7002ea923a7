"""What Ray's driver does about what nodes tell it; the nodes are made up."""

import asyncio
import importlib.util
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from collapse_cli.engine.executors import ray
from collapse_cli.engine.executors.ray import RayExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.run import ray_driver

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'collapse-cli[ray]'"
    ),
]
STAGE = {"key": "k" * 64, "work": "train", "threads": 1, "gpus": 0}


class Node:
    """A task: tells what it is given to tell, then ends."""

    def __init__(self, *events: str) -> None:
        self.events = events

    def options(self, **_: Any) -> "Node":
        return self

    async def remote(self, *_: Any) -> AsyncIterator[Awaitable[str]]:
        for event in self.events:
            line: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            line.set_result(json.dumps({"event": event, "key": STAGE["key"]}))
            yield line


@pytest.fixture
def told() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def driver(told: list[dict[str, Any]]) -> ray_driver.Driver:
    def say(event: str, at: str = "", **what: Any) -> None:
        told.append({"event": event, "at": at, **what})

    return ray_driver.Driver({"plan": {}}, say, lambda line: told.append(json.loads(line)))


def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that are slept, which take none."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


def test_what_another_run_computes_is_asked_for_less_and_less_often(
    driver: ray_driver.Driver, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand stages that are waited for would be thousands of tasks a second."""
    slept = pauses(monkeypatch)
    monkeypatch.setattr(driver, "_task", Node("held"))
    for _ in range(20):
        asyncio.run(driver.follow(STAGE))
    assert [one["event"] for one in told] == ["held"] * 20
    assert slept[0] == 0, "the first time it is said at once"
    assert slept == sorted(slept)
    assert slept[-1] == ray_driver.MOST_HELD


def test_a_stage_that_always_ends_its_worker_ends_the_run_in_a_line(
    driver: ray_driver.Driver, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = pauses(monkeypatch)
    monkeypatch.setattr(driver, "_task", Node("started"))  # and then nothing
    asyncio.run(driver.follow(STAGE))
    assert [one["event"] for one in told].count("started") == ray_driver.MOST_DEATHS
    assert told[-1]["event"] == "mistake"
    assert told[-1]["text"].startswith(
        f"at a train stage the worker died {ray_driver.MOST_DEATHS} times: perhaps memory"
    )
    assert len(slept) == ray_driver.MOST_DEATHS - 1


STARTS_ANOTHER = """
import json, subprocess, sys
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
sys.stdout.write(json.dumps({"other": other.pid}) + "\\n")
sys.stdout.flush()
sys.stdin.read()
"""


def test_a_worker_that_is_just_beginning_ends_with_the_run(tmp_path: Path) -> None:
    """Ray gives each a group of its own; one that went on made the folder of its logs anew, which was removed by then."""
    command = [sys.executable, "-c", STARTS_ANOTHER]
    with RayExecutor(FolderStore(tmp_path), command, {"address": "127.0.0.1:1"}, 1) as cluster:
        other = psutil.Process(cluster._driver.messages()[0]["other"])
        assert other.is_running()
    assert not other.is_running() or other.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("after", ["the processes are stopped", "they are listed"])
def test_a_second_ctrl_c_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """Least of all processes that are stopped, which would not even notice that the run is gone."""
    family = ray._family

    def struck(group: int) -> set[psutil.Process]:
        if after == "the processes are stopped":
            signal.raise_signal(signal.SIGINT)
        found = family(group)
        if after == "they are listed":
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(ray, "_family", struck)
    command = [sys.executable, "-c", STARTS_ANOTHER]
    cluster = RayExecutor(FolderStore(tmp_path), command, {"address": "127.0.0.1:1"}, 1)
    both = [psutil.Process(cluster._driver.process.pid), psutil.Process(cluster._driver.messages()[0]["other"])]
    with pytest.raises(KeyboardInterrupt):
        cluster.__exit__()
    assert not [one for one in both if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert not Path(cluster._home).exists()


KILLED = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: 9982957ab) was 3.42GB used / 23.54GB limit (0.145454)
OOM kill reason: Memory usage 3854102528B exceeded threshold of 505530272B (2.0% of 25276514304B limit)
Object store memory usage: [- objects spillable: 0"""


def test_of_memory_that_ran_out_it_is_said_where_and_how_much_there_was() -> None:
    assert ray_driver._of_memory(KILLED) == (
        "memory ran out (3.42GB of 23.54GB in use on the node 10.0.0.7; Ray ends a worker above 2.0%: RAY_memory_usage_threshold)"
    )
    assert ray_driver._of_memory("in other words, as of another version") == "memory ran out"


def test_what_no_node_that_is_left_has() -> None:
    large = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}
    small = {"Alive": True, "Resources": {"CPU": 2.0}}
    order = {"threads": 4, "gpus": 1.0}
    assert ray_driver._lacking([large, small], order) is None
    assert ray_driver._lacking([large | {"Alive": False}, small], order) == ("CPU", "ray.threads", 4, 2.0)
    assert ray_driver._lacking([small], order | {"threads": 1}) == ("GPU", "ray.gpus", 1.0, 0.0)


TRACEBACK = """Failed to connect to GCS. Last connection error: Traceback (most recent call last):
  File "somewhere", line 996, in _init_gcs_client
    client = GcsClient(
             ^^^^^^^^^^
{last}
"""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: missing or incorrect.", "wants a token"),
        (
            "ray.exceptions.RpcError: Timed out while waiting for GCS",
            "cannot be used (ray.exceptions.RpcError: Timed out",
        ),
    ],
)
def test_what_ray_raises_is_a_line_without_the_traceback_in_it(error: str, words: str) -> None:
    raised = ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:6379")
    raised.__cause__ = RuntimeError(TRACEBACK.format(last=error))
    said = ray_driver._why("127.0.0.1:6379", raised)
    assert words in said
    assert "File" not in said
    assert len(said.splitlines()) == 1


def test_a_version_that_differs_is_said_with_both() -> None:
    text = "Version mismatch: The cluster was started with:\n    Ray: 2.1.0\n    Python: 3.11.2\nThis process on node 127.0.0.1 was started with:\n    Ray: 2.60.0"
    said = ray_driver._why("127.0.0.1:6379", RuntimeError(text))
    assert "has another version of Ray or Python than this machine (Version mismatch" in said
    assert "Ray: 2.1.0 Python: 3.11.2 This process" in said


@pytest.mark.parametrize(
    ("free", "words"), [(20 << 10, "has 20 kB free; free some space there"), (1 << 30, "(no luck);")]
)
def test_why_ray_could_not_be_started_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, words: str
) -> None:
    """Of a full disk it says after half a minute that it took too long."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    said = ray_driver._why_not_here(str(tmp_path), RuntimeError("no luck"))
    assert words in said
    assert ("TMPDIR=FOLDER" in said) == (str(tmp_path) in said) == (free < 1 << 20)
