"""Stages side by side: small models keep one core busy, not many, so each worker process takes a stage of its own.

The worker's end of the pipe is `worker.py`. Messages are lines of JSON; what a stage makes goes through the store.
"""

import json
import logging
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from collapse_cli.engine.executors import WAIT_SECONDS, ready
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Plan, Stage
from collapse_cli.engine.store import Store
from collapse_cli.errors import UserError

log = logging.getLogger(__name__)
START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from collapse_cli.run.worker import main; sys.exit(main())"


class WorkerError(UserError):
    """A stage failed in another process in a way that the user can mend."""


def width(plan: Plan) -> dict[str, int]:
    """By key: how many stages of a plan could be computed at the same time as this one, itself included.

    Those are the stages of its work and generation. It depends on nothing but the plan: how many cores a stage is
    given decides how its sums are rounded, and the same command is to give the same numbers, resumed or not.
    """
    groups: dict[tuple[str, int], list[str]] = {}
    for key, stage in plan.stages.items():
        groups.setdefault((stage.work, plan.serves[key][0][2]), []).append(key)
    return {key: len(keys) for keys in groups.values() for key in keys}


def workers_for(plan: Plan, cores: int, asked: int, *, pays: bool) -> int:
    """How many stages to compute side by side.

    Args:
        asked: by the user; 0: one a core if that `pays`.
    """
    if sys.platform == "win32":  # whose pipes cannot be waited for together
        return 1
    return max(1, min(asked or (cores if pays else 1), max(width(plan).values())))


@dataclass(frozen=True)
class SideBySide:
    """Runs the missing stages of a plan in worker processes.

    Attributes:
        threads: by key, how many a stage may use.
    """

    store: Store
    crew: "Sequence[Worker]"
    threads: Mapping[str, int]

    def run(self, plan: Sequence[Stage], observer: Observer) -> None:
        """As `LocalExecutor.run`.

        Raises:
            WorkerError, OSError: as the stage would in this process.
            RuntimeError: for what is no mistake of the user's; it holds the traceback.
        """
        todo = {stage.key: stage for stage in plan}
        held: dict[str, float] = {}  # keys that another process has: when to ask for them again
        announced: set[str] = set()
        while todo:
            self._hand_out(todo, held, observer)
            for worker, said in _messages(self.crew, WAIT_SECONDS if held else None):
                stage = worker.stage
                assert stage is not None
                match said["event"]:
                    case "started":
                        observer.started(_among(stage, said["key"]))
                    case "progress":
                        observer.progress(_among(stage, said["key"]), said["done"], said["total"], said["unit"])
                    case "note":
                        _note(said["text"])
                    case "held":
                        worker.stage = None
                        held[stage.key] = time.monotonic() + WAIT_SECONDS
                        if stage.key not in announced:
                            announced.add(stage.key)
                            observer.waiting(stage)
                    case "finished":
                        worker.stage = None
                        held.pop(stage.key, None)
                        made = self.store.get(stage.key)
                        observer.finished(stage, made, cached=said["cached"], memory_mb=said["memory_mb"])
                        del todo[stage.key]
                    case "remade":
                        one = _among(stage, said["key"])
                        observer.finished(one, self.store.get(one.key), cached=False, memory_mb=said["memory_mb"])
                    case "mistake":
                        raise WorkerError(said["text"])
                    case "system":
                        raise OSError(said["errno"], said["text"], said["file"])
                    case "failure":
                        raise RuntimeError(f"a worker failed at {stage.kind} {stage.key[:12]}:\n{said['text']}")

    def _hand_out(self, todo: dict[str, Stage], held: dict[str, float], observer: Observer) -> None:
        """Give every idle worker a stage that is ready; take out of `todo` what the store has."""
        at_work = {worker.stage.key for worker in self.crew if worker.stage is not None}
        idle = [worker for worker in self.crew if worker.stage is None]
        for stage in ready(todo):
            if stage.key in at_work or held.get(stage.key, 0.0) > time.monotonic():
                continue
            if self.store.has(stage.key):
                held.pop(stage.key, None)
                observer.finished(stage, self.store.get(stage.key), cached=True)
                del todo[stage.key]
            elif idle:
                idle.pop(0).begin(stage, self.threads[stage.key])


def _among(stage: Stage, key: str) -> Stage:
    """The stage of a key: this one, or one that it is made from, however far."""
    look, seen = [stage], {stage.key}
    for one in look:
        if one.key == key:
            return one
        look += [made for made in one.inputs.values() if made.key not in seen]
        seen.update(made.key for made in one.inputs.values())
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

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.process = subprocess.Popen(self.start(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        self.stage: Stage | None = None
        self._half = b""  # of a line
        self._send(order)

    def start(self) -> list[str]:
        """The command that starts it: this Python, with this process's own paths to import from."""
        return [sys.executable, "-P", "-c", START, json.dumps(sys.path)]

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


def _messages(crew: Sequence[Worker], wait: float | None) -> Iterator[tuple[Worker, dict[str, Any]]]:
    """What the workers say next; nothing when all are idle, or `wait` seconds pass in silence."""
    if all(worker.stage is None for worker in crew):
        time.sleep(wait or 0)
        return
    with selectors.DefaultSelector() as selector:
        for worker in crew:
            selector.register(worker, selectors.EVENT_READ, worker)
        for chosen, _ in selector.select(wait):
            for said in chosen.data.messages():
                yield chosen.data, said
