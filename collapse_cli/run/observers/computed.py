"""Which stages were computed, rather than found in the store."""

from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Stage


class Computed(Observer):
    """Shows and writes nothing; remembers the keys of what was computed."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        if not cached:
            self.keys.append(stage.key)
