"""Computes stages in worker processes: small models keep one core busy, not many, so each worker has a stage of its own.

Messages are lines of JSON; what a stage makes goes through the store. What a worker does is not known here: whoever
makes this executor says by which command it starts (`run/worker.py`).
"""

import selectors
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from collapse_cli.engine.child import Child, ChildEndedError
from collapse_cli.engine.executors.base import Ended
from collapse_cli.engine.executors.messages import WorkerError, hear
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.scheduler import most_at_once, width
from collapse_cli.engine.stage import Plan, Stage
from collapse_cli.engine.store import Store


def workers_for(plan: Plan, cores: int, asked: int, *, pays: bool) -> int:
    """How many stages to compute at a time.

    Args:
        asked: by the user, who gets as many as can be at work; 0: one a core if that `pays`, of those that are of one work and
            generation, for these share the cores.
    """
    if sys.platform == "win32":  # whose pipes cannot be waited for together
        return 1
    if asked:
        return min(asked, most_at_once(plan))
    return max(1, min(cores, max(width(plan).values()))) if pays else 1


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

    def anew(self, store: Store, order: Mapping[str, Any]) -> None:
        """Go on with the stages of another plan, in another store. None is at work."""
        self.store = store
        for worker in self._workers:
            worker.send(order)

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
        assert worker.stage is not None
        ended = hear(message, worker.stage, self.store, observer)
        if ended is not None:
            worker.stage = None
        return ended


class Worker:
    """A process that computes one stage after another.

    Attributes:
        stage: what it is at work on; None when idle.
    """

    def __init__(self, command: Sequence[str], order: Mapping[str, Any]) -> None:
        self.stage: Stage | None = None
        with self._last_words():
            self._child = Child(command, order)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.__exit__()

    def begin(self, stage: Stage, threads: int) -> None:
        """Have a stage computed, whose inputs are in the store."""
        self.stage = stage
        self.send({"key": stage.key, "threads": threads})

    def send(self, message: Mapping[str, Any]) -> None:
        """Tell it something."""
        with self._last_words():
            self._child.send(message)

    def fileno(self) -> int:
        return self._child.fileno()

    def messages(self) -> list[dict[str, Any]]:
        """What it said since the last time."""
        with self._last_words():
            return self._child.messages()

    @contextmanager
    def _last_words(self) -> Iterator[None]:
        try:
            yield
        except ChildEndedError as ended:
            at = "" if self.stage is None else f" at a {self.stage.kind} stage"
            raise WorkerError(
                f"a worker process {ended.how}{at}, perhaps because memory ran out; what is finished is kept: run the same "
                "command again with --jobs 1"
            ) from None
