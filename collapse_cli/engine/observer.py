"""Who hears what happens to stages while they are computed."""

from typing import Protocol

from collapse_cli.engine.stage import Finished, Stage


class Observer(Protocol):
    """Hears of each stage. One that inherits from this does nothing with what it does not take up."""

    def started(self, stage: Stage) -> None:
        """It begins to be computed, here or in another process of ours."""
        return

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        """It has done so much of its work, counted in `unit`."""
        return

    def waiting(self, stage: Stage) -> None:
        """A process that is not ours is computing it; said once a stage."""
        return

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        """It is in the store.

        Args:
            cached: it was there; nothing was computed.
            memory_mb: the most that the process which computed it ever held.
        """
        return
