"""Computes stages as tasks of a Ray cluster. What they are made from and what they make goes through the store.

Ray's own process here (its driver) is a child of this one, which talks to it in lines of JSON: Ray ends a driver whose head
or node is gone, and a run outlives that. The child is begun anew then, and what was at work is submitted again.
"""

import contextlib
import logging
import os
import secrets
import selectors
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from collapse_cli.engine.child import Child, ChildEndedError
from collapse_cli.engine.executors.base import Ended
from collapse_cli.engine.executors.messages import WorkerError, hear, note
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Stage
from collapse_cli.engine.store import Store
from collapse_cli.process import not_interrupted

log = logging.getLogger(__name__)

PATIENCE = 600.0  # seconds that a cluster may be gone for
MOST_BEGINNINGS = 20  # of Ray's process, without a stage that ended in between
SOON = 1.0  # seconds from one beginning to the next
# Ray listens on 127.0.0.1 alone where it takes this machine for one that can be no part of a cluster.
HERE_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
LONGEST_PLACE = 20  # characters: the system's limit for a socket is 107, and Ray's own names take 62
WAITS = {"RAY_gcs_rpc_server_reconnect_timeout_s": "20"}  # for a head that is gone, before Ray ends its driver; 60 else


def _place() -> str | None:
    """Where Ray's sockets and logs may be, in a folder of their own: the names of sockets may not be long."""
    short = Path("/tmp")  # noqa: S108
    return str(short) if len(tempfile.gettempdir()) > LONGEST_PLACE and os.access(short, os.W_OK) else None


def _family(group: int) -> set[psutil.Process]:
    """The processes of a group, and all that they started."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            members += [process] if os.getpgid(process.pid) == group else []
    family = set(members)
    for process in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            family.update(process.children(recursive=True))
    return family


class RayExecutor:
    """As many stages at a time as the cluster has room for; Ray queues the others. Ends with the `with` block."""

    def __init__(
        self,
        store: Store,
        command: Sequence[str],
        order: Mapping[str, Any],
        slots: int,
        gpus: Callable[[Stage], float] = lambda stage: 0.0,
    ) -> None:
        """Start Ray's process here, and where the order names no `address`, Ray.

        Args:
            command: starts that process (`run/ray_driver.py`).
            order: the first line that it is sent.
            gpus: how many a stage asks for.
        """
        self.store, self.slots = store, slots
        self._command, self._order, self._gpus = command, dict(order), gpus
        self._at_work: dict[str, tuple[Stage, dict[str, Any]]] = {}
        self._beginnings = 0  # since a stage ended
        self._lost = 0.0  # since when; 0: it is not
        self._known = False  # that the cluster was there
        self._home = tempfile.mkdtemp(prefix="collapse-ray-", dir=_place())
        try:
            self._driver = self._begin()
        except BaseException:  # Ctrl-C
            shutil.rmtree(self._home, ignore_errors=True)
            raise

    def __enter__(self) -> "RayExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        with not_interrupted():
            self._end()
            for _attempt in range(20):  # what Ray started ends with its process, but not in the same moment
                shutil.rmtree(self._home, ignore_errors=True)
                if not Path(self._home).exists():
                    break
                time.sleep(0.1)

    def submit(self, stage: Stage, threads: int) -> None:
        order = {"key": stage.key, "work": stage.work, "threads": threads, "gpus": self._gpus(stage)}
        self._at_work[stage.key] = stage, order
        with contextlib.suppress(ChildEndedError):  # which `poll` sees, and mends
            self._driver.send(order)

    def poll(self, observer: Observer, wait: float | None) -> Iterator[Ended]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._driver, selectors.EVENT_READ)
            if not selector.select(wait):
                return
        try:
            messages = self._driver.messages()
        except ChildEndedError as ended:
            self._begin_again(ended.how)
            return
        for message in messages:
            if (ended_stage := self._take(message, observer)) is not None:
                yield ended_stage

    def _take(self, message: Mapping[str, Any], observer: Observer) -> Ended | None:
        """One message of Ray's process: of a stage, or of the connection."""
        if message["event"] == "connected":
            if self._lost:
                log.warning("Ray is back; what was at work is computed again, or found in the store")
            self._lost, self._known = 0.0, True
        elif message["at"] in self._at_work:
            stage, _ = self._at_work[message["at"]]
            try:
                ended = hear(message, stage, self.store, observer)
            except FileNotFoundError:
                raise WorkerError(
                    f"a node of the cluster has computed a {stage.kind} stage, and it is not in {self.store.address} here; "
                    "choose a --runs-dir that all nodes share"
                ) from None
            if ended is not None:
                del self._at_work[stage.key]
                self._beginnings = 0
            return ended
        elif message["event"] == "mistake":
            raise WorkerError(message["text"])
        elif message["event"] == "failure":
            raise RuntimeError(f"Ray's process failed:\n{message['text']}")
        elif message["event"] == "note":
            note(message["text"])
        return None

    # --- Ray's process

    def _begin(self) -> Child:
        own = {} if self._order["address"] else HERE_ALONE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        with Path(self._home, "said").open("wb") as said:
            return Child(
                self._command,
                self._order | {"home": self._home, "again": self._known},
                stderr=said,
                env=WAITS | dict(os.environ) | own,
                start_new_session=True,  # a terminal's Ctrl-C is for this process, and not for all that Ray started
            )

    def _begin_again(self, how: str) -> None:
        """Ray's process is gone: begin another, and submit what was at work."""
        now = time.monotonic()
        if not self._lost:
            self._lost = now
            if self._known:
                log.warning("the connection to Ray was lost (its process here %s); it is made anew", how)
        self._beginnings += 1
        gone = now - self._lost > PATIENCE
        if not self._known or gone or self._beginnings > MOST_BEGINNINGS:
            where = f"at {self._order['address']} " if self._order["address"] else ""
            why = f": {said}" if (said := self._last_words()) else ""
            raise WorkerError(
                f"Ray {where}cannot be used: its process here {how}{why}; what is finished is kept: give the same command again "
                "when Ray runs, or without --executor ray"
            )
        with not_interrupted():
            self._end()
        time.sleep(SOON)
        self._driver = self._begin()
        with contextlib.suppress(ChildEndedError):
            for _, order in self._at_work.values():
                self._driver.send(order)

    def _end(self) -> None:
        """End Ray's process, and all that it started: also a worker that is just beginning, in a group of its own."""
        group = self._driver.process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGSTOP)  # what is listed begins nothing more
        family = _family(group)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._driver.__exit__()
        psutil.wait_procs(family, timeout=SOON)

    def _last_words(self) -> str:
        lines = Path(self._home, "said").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip()[-300:] for line in reversed(lines) if line.strip()), "")
