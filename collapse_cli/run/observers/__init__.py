"""What hears of a run's stages: each observer does one thing with what it hears, and knows no other.

`Events`, `Progress`, `Rows` and `Pruning` hear of stages; `Mirroring` and `Reporting` hear of the rows that `Rows` wrote.
"""

from collections.abc import Collection, Sequence

from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Stage
from collapse_cli.process import peak_memory_mb


class Observers(Observer):
    """Passes on what happens to each of several observers, in their order.

    Args:
        new: keys of stages that this process computed for the run before it began; they are there, and count as computed.
    """

    def __init__(self, observers: Sequence[Observer], new: Collection[str] = ()) -> None:
        self.observers, self.new = observers, new

    def started(self, stage: Stage) -> None:
        for observer in self.observers:
            observer.started(stage)

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        for observer in self.observers:
            observer.progress(stage, done, total, unit)

    def waiting(self, stage: Stage) -> None:
        for observer in self.observers:
            observer.waiting(stage)

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        if cached and stage.key in self.new:
            cached, memory_mb = False, peak_memory_mb()
        for observer in self.observers:
            observer.finished(stage, made, cached=cached, memory_mb=memory_mb)
