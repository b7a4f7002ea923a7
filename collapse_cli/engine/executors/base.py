"""What the scheduler asks of an executor."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Stage
from collapse_cli.engine.store import Store


@dataclass(frozen=True)
class Ended:
    """How a submitted stage ended, other than by an error.

    Attributes:
        made: as it is in the store; None where a process that is not ours holds its lock.
        cached: it was there after all: such a process published it before its lock was ours.
        memory_mb: the most that the process which computed it ever held.
    """

    stage: Stage
    made: Finished | None
    cached: bool = False
    memory_mb: int = 0


class Executor(Protocol):
    """Computes stages whose inputs are in the store, and puts them there."""

    @property
    def store(self) -> Store:
        """Where the inputs are, and where what is made goes."""

    @property
    def slots(self) -> int:
        """How many stages it takes at a time."""

    def submit(self, stage: Stage, threads: int) -> None:
        """Take a stage. Called when fewer than `slots` are at work.

        Args:
            threads: how many it may use; 0: all that there are.
        """

    def poll(self, observer: Observer, wait: float | None) -> Iterable[Ended]:
        """The stages that have ended since the last time. Called when at least one is at work.

        The observer hears at once when a stage begins, how far it is, and when an input of it was damaged and is made
        again.

        Args:
            wait: seconds after which to return without any; None: as long as it takes.

        Raises:
            UserError, OSError: for what the user can mend.
            RuntimeError: for anything else that went wrong elsewhere; it holds the traceback.
        """
