"""A worker process: computes the stages it is told to, and says what happens to them. `ProcessExecutor` starts it.

Read from standard input: the order (`config`, `hints`, `store`, `shards`: by key, how many a stage has), then a line per stage (`key`, `threads`), or an
order of another run. It ends with
that input, also in the middle of a stage: whoever started it is gone then.
"""

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from collapse_cli.engine.stage import Finished, Stage
from collapse_cli.errors import UserError
from collapse_cli.process import answers_alone, lines_of_input

if TYPE_CHECKING:
    from collapse_cli.config import Experiment
    from collapse_cli.engine.executors.local import LocalExecutor
    from collapse_cli.engine.store import Store
    from collapse_cli.learners import Hints

START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from collapse_cli.run.worker import main; sys.exit(main())"
TELL_SECONDS = 0.1  # at least, between two messages about progress
LAST = frozenset(
    {"held", "finished", "mistake", "system", "memory", "failure"}
)  # messages after which a stage has ended


class TakingLines(Protocol):
    """Where lines are written to."""

    def write(self, line: str, /) -> object:
        """Write one, its end included."""


def command() -> list[str]:
    """What starts a worker: this Python, with this process's own paths to import from."""
    return [sys.executable, "-P", "-c", START, json.dumps(sys.path)]


def order(
    config: "Experiment", hints: "Hints", store: "Store", shards: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """What a worker is told first: of which run stages are, and where they are kept.

    Args:
        shards: by key, in how many a stage is computed.
    """
    return {
        "config": config.model_dump(mode="json"),
        "hints": hints.record(),
        "store": store.address,
        "shards": dict(shards or {}),
    }


def main() -> int:
    """Work until the input ends."""
    answers = answers_alone()
    orders = lines_of_input()
    order = next(orders)

    from collapse_cli.engine.executors.local import LocalExecutor
    from collapse_cli.engine.store import store_at
    from collapse_cli.learners.device_processes import devices_stay

    telling = Telling(answers)
    with telling.heard(), devices_stay():
        stages, set_threads = plan_of(order)
        executor = LocalExecutor(store_at(order["store"]))
        for order in orders:
            if "config" in order:  # of another run
                stages, set_threads = plan_of(order)
                executor = LocalExecutor(store_at(order["store"]))
                continue
            set_threads(order["threads"])
            compute(executor, stages[order["key"]], telling)
    return 0


def compute(executor: "LocalExecutor", stage: Stage, telling: "Telling") -> None:
    """Compute a stage, and tell how it ended."""
    try:
        done = executor.compute(stage, telling)
    except Exception as error:
        telling.failed(error)
    else:
        if done.made is None:
            telling.say("held")
        else:
            telling.say("finished", cached=done.cached, memory_mb=done.memory_mb)


def plan_of(order: Mapping[str, Any]) -> tuple[Mapping[str, Stage], Callable[[int], object]]:
    """The stages of an order by key, and what sets how many threads this process uses."""
    from collapse_cli import families
    from collapse_cli.config import load
    from collapse_cli.experiment.kinds import plan
    from collapse_cli.learners import Hints
    from collapse_cli.process import quiet_libraries

    config = load(order["config"], "the run's configuration")
    stages = plan(config, Hints.from_record(order["hints"])).in_shards(order["shards"]).stages
    if families.of(config.learner).light:
        return stages, lambda threads: None  # they have one each
    import torch

    quiet_libraries()
    if families.of(config.learner).begins_with_a_model:
        # what its first stage would load: workers start while the run's own process makes what all others wait for
        import_module("transformers.modeling_utils")
    every = torch.get_num_threads()
    return stages, lambda threads: torch.set_num_threads(threads or every)


class Telling(logging.Handler):
    """Passes on what happens: as an observer what an executor tells of a stage, as a log handler the engine's notes."""

    def __init__(self, answers: TakingLines, every: float = TELL_SECONDS, node: str = "") -> None:
        """Tell of progress once in `every` seconds, and of errors of the system, on which node they were."""
        super().__init__(logging.WARNING)
        self.answers, self._every, self._told, self._node = answers, every, 0.0, node

    @contextmanager
    def heard(self) -> Iterator[None]:
        """While it hears what the engine logs."""
        engine = logging.getLogger("collapse_cli")
        engine.addHandler(self)
        try:
            yield
        finally:
            engine.removeHandler(self)

    def say(self, event: str, **what: Any) -> None:
        self.answers.write(json.dumps({"event": event, **what}) + "\n")

    def started(self, stage: Stage) -> None:
        self.say("started", key=stage.key)

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if now - self._told > self._every:
            self._told = now
            self.say("progress", key=stage.key, done=done, total=total, unit=unit)

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        """An input that was damaged is there again; of the stage itself `main` says so."""
        self.say("remade", key=stage.key, memory_mb=memory_mb)

    def waiting(self, stage: Stage) -> None: ...

    def emit(self, record: logging.LogRecord) -> None:
        self.say("note", text=record.getMessage())

    def failed(self, error: Exception) -> None:
        """As in `__main__`: our own errors are sentences for the user, some of the system's too, others are our faults."""
        if isinstance(error, OSError) and error.errno is not None:
            file = f"{error.filename or 'a file'} on {self._node}" if self._node else error.filename
            self.say("system", errno=error.errno, text=error.strerror, file=file)
        elif isinstance(error, MemoryError):
            self.say("memory", text=" on ".join(filter(None, (str(error), self._node))))
        elif isinstance(error, UserError):
            self.say("mistake", text=str(error))
        else:
            self.say("failure", text="".join(traceback.format_exception(error)))
