"""Computes stages in worker processes: small models keep one core busy, not many, so each worker has a stage of its own.

Messages are lines of JSON; what a stage makes goes through the store. What a worker does is not known here: whoever
makes this executor says by which command it starts (`run/worker.py`).
"""

import json
import logging
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from typing import Any

from collapse_cli.engine.executors.base import Ended
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.scheduler import width
from collapse_cli.engine.stage import Plan, Stage
from collapse_cli.engine.store import Store
from collapse_cli.errors import UserError

log = logging.getLogger(__name__)


class WorkerError(UserError):
    """A stage failed in another process in a way that the user can mend."""


def workers_for(plan: Plan, cores: int, asked: int, *, pays: bool) -> int:
    """How many stages to compute at a time.

    Args:
        asked: by the user; 0: one a core if that `pays`.
    """
    if sys.platform == "win32":  # whose pipes cannot be waited for together
        return 1
    return max(1, min(asked or (cores if pays else 1), max(width(plan).values())))


class ProcessExecutor:
    """An executor of one slot a worker process. The processes start at once, and end with the `with` block."""

    def __init__(self, store: Store, command: Sequence[str], order: Mapping[str, Any], workers: int) -> None:
        """Start the workers.

        Args:
            command: starts one.
            order: the first line that each is sent.
        """
        self.store, self.slots = store, workers
        self._workers: list[Worker] = []
        with ExitStack() as stack:
            for _ in range(workers):
                self._workers.append(stack.enter_context(Worker(command, order)))
            self._stack = stack.pop_all()

    def __enter__(self) -> "ProcessExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def submit(self, stage: Stage, threads: int) -> None:
        next(worker for worker in self._workers if worker.stage is None).begin(stage, threads)

    def poll(self, observer: Observer, wait: float | None) -> Iterator[Ended]:
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:  # the idle ones too: they may end
                selector.register(worker, selectors.EVENT_READ, worker)
            for chosen, _ in selector.select(wait):
                for message in chosen.data.messages():
                    if (outcome := self._take(chosen.data, message, observer)) is not None:
                        yield outcome

    def _take(self, worker: "Worker", message: Mapping[str, Any], observer: Observer) -> Ended | None:
        """One message of a worker."""
        stage = worker.stage
        assert stage is not None
        match message["event"]:
            case "started":
                observer.started(_among(stage, message["key"]))
            case "progress":
                at_work = _among(stage, message["key"])
                observer.progress(at_work, message["done"], message["total"], message["unit"])
            case "note":
                _note(message["text"])
            case "remade":
                made = _among(stage, message["key"])
                observer.finished(made, self.store.get(made.key), cached=False, memory_mb=message["memory_mb"])
            case "held":
                worker.stage = None
                return Ended(stage, None)
            case "finished":
                worker.stage = None
                return Ended(stage, self.store.get(stage.key), message["cached"], message["memory_mb"])
            case "mistake":
                raise WorkerError(message["text"])
            case "system":
                raise OSError(message["errno"], message["text"], message["file"])
            case "failure":
                raise RuntimeError(f"a worker failed at {stage.kind} {stage.key[:12]}:\n{message['text']}")
        return None


def _among(stage: Stage, key: str) -> Stage:
    """The stage of a key: this one, or one that it is made from, however far."""
    among, seen = [stage], {stage.key}
    for behind in among:
        if behind.key == key:
            return behind
        among += [made for made in behind.inputs.values() if made.key not in seen]
        seen.update(made.key for made in behind.inputs.values())
    raise KeyError(key)


@lru_cache(maxsize=256)
def _note(text: str) -> None:
    """What the engine says in a worker it says here, once, not once a worker."""
    log.warning(text)


class Worker:
    """A process that computes one stage after another. It ends when its input does, so it cannot outlive this one.

    Attributes:
        stage: what it is at work on; None when idle.
    """

    def __init__(self, command: Sequence[str], order: Mapping[str, Any]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        self.stage: Stage | None = None
        self._half = b""  # of a line
        self._send(order)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()  # as harmless as at any other time: a stage is in the store whole, or not at all
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()

    def begin(self, stage: Stage, threads: int) -> None:
        """Have a stage computed, whose inputs are in the store."""
        self.stage = stage
        self._send({"key": stage.key, "threads": threads})

    def fileno(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def messages(self) -> list[dict[str, Any]]:
        """What it said since the last time; at least one thing when its output is ready to be read."""
        more = os.read(self.fileno(), 1 << 16)
        if not more:
            raise WorkerError(self._last_words())
        *lines, self._half = (self._half + more).split(b"\n")
        return [json.loads(line) for line in lines]

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None

    def _last_words(self) -> str:
        code, at = self.process.wait(), "" if self.stage is None else f" at a {self.stage.kind} stage"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return (
            f"a worker process {how}{at}, perhaps because memory ran out; what is finished is kept: run the same command "
            "again with --jobs 1"
        )
