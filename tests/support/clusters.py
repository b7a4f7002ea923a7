"""A real Ray cluster: nodes that are processes of this machine, bound to 127.0.0.1, which can be killed and come back.

Each is begun as `ray.cluster_utils.Cluster` does, but in a process of its own: whoever holds a client of a head that dies is
ended by Ray, and `ray start` starts no second node on 127.0.0.1.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # bound to 127.0.0.1 alone
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}
MEMORY = 80 << 20  # bytes of a node's object store
SECONDS = 120.0  # for a node to begin


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# As `ray.cluster_utils.Cluster` begins a node, in a process that ends when one of the node's own does, or whoever began it; then
# all that it started ends with it, for Ray's own processes outlive the one that began them.
NODE = """
import contextlib, json, os, sys, time
import psutil
from ray._private.node import Node
from ray._private.parameter import RayParams

more = json.loads(sys.argv[1])
try:
    node = Node(RayParams(**more["params"]), head=more["head"], shutdown_at_exit=False, spawn_reaper=False)
    own = [info.process for kind in ("raylet", "gcs_server") for info in node.all_processes.get(kind, [])]
    while os.getppid() == more["parent"] and all(process.poll() is None for process in own):
        time.sleep(0.1)
finally:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
"""
# The command line in a process that ends with the one that began it.
COLLAPSE = """
import os, threading, time
def watch(parent=os.getppid()):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()

import signal, sys
from collapse_cli.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


class Node:
    """A node: one process that has started the others."""

    def __init__(self, home: str, *, head: bool, environment: Mapping[str, str], **more: Any) -> None:
        params = {
            "node_ip_address": "127.0.0.1",
            "num_cpus": 1,
            "num_gpus": 0,
            "object_store_memory": MEMORY,
            "include_dashboard": False,
            "include_log_monitor": False,
            "min_worker_port": 0,
            "max_worker_port": 0,
            **more,
        }
        command = [sys.executable, "-c", NODE, json.dumps({"params": params, "head": head, "parent": os.getpid()})]
        with Path(home, "said").open("ab") as said:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **ENVIRONMENT, **environment, "RAY_TMPDIR": home},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """Those that were started last first; none of a node that is gone."""
        try:
            process = psutil.Process(self.process.pid)
            return [*reversed(process.children(recursive=True)), process]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """SIGKILL to all that it is."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def has_begun(self) -> bool:
        """Whether it has a raylet, which takes stages."""
        return any(name_of(process) == "raylet" for process in self.processes())

    def works_at(self, work: str) -> bool:
        """Whether a stage of that name is computed here now."""
        return any(title.startswith(f"ray::{work} ") for title in map(title_of, self.processes()))


def title_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def name_of(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


class Nodes:
    """A head and others.

    Attributes:
        address: of the head; the same after it was killed and began again.
    """

    def __init__(self, count: int = 3, cpus: int = 1, environment: Mapping[str, str] | None = None) -> None:
        """Begin `count` nodes of `cpus` CPUs each.

        Args:
            environment: of all nodes and commands. Each node has besides a folder of its own for copies of what is elsewhere.
        """
        self._cpus, self._more = cpus, dict(environment or {})
        self._home = tempfile.mkdtemp(prefix="nodes-")
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        self.head = self._begin_head()
        self.others = [self._begin_other() for _ in range(count - 1)]
        self.wait()

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.all:
            node.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """Of a command that is to use the cluster."""
        return os.environ | ENVIRONMENT | self._more | {"RAY_ADDRESS": self.address, "RAY_TMPDIR": self._home}

    @property
    def all(self) -> list[Node]:
        return [self.head, *self.others]

    def _begin_head(self) -> Node:
        head, end = (
            self._begin(head=True, gcs_server_port=self._port),
            time.monotonic() + SECONDS,
        )
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return head
            assert head.process.poll() is None, Path(self._home, "said").read_text()
            time.sleep(0.1)
        raise TimeoutError(Path(self._home, "said").read_text())

    def _begin_other(self) -> Node:
        return self._begin(head=False, gcs_address=self.address)

    def _begin(self, **how: Any) -> Node:
        copies = tempfile.mkdtemp(prefix="copies-", dir=self._home)
        own = self._more | {"COLLAPSE_CACHE": copies}
        return Node(self._home, num_cpus=self._cpus, environment=own, **how)

    def wait(self) -> None:
        """Until each node has a raylet, which is when it takes stages."""
        end = time.monotonic() + SECONDS
        while not all(node.has_begun() for node in self.all):
            assert time.monotonic() < end, Path(self._home, "said").read_text()
            self.mend()
            time.sleep(0.1)

    def kill(self, node: Node, down: float = 0.0) -> None:
        """Kill a node; it begins again after `down` seconds, as whoever looks after a cluster sees to: all do, where it was the head."""
        node.kill()
        time.sleep(down)
        if node is not self.head:
            self.others[self.others.index(node)] = self._begin_other()
            return
        self.head = self._begin_head()
        for other in self.others:  # which Ray ends, or which know of no new head
            other.kill()
        self.others = [self._begin_other() for _ in self.others]

    def mend(self) -> None:
        """Begin again the nodes that ended, as those do that took too long to begin."""
        self.others = [node if node.process.poll() is None else self._begin_other() for node in self.others]

    def at(self, work: str) -> Node | None:
        """The node that computes a stage of that name now; None where none does."""
        return next((node for node in self.all if node.works_at(work)), None)
