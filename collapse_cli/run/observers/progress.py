"""What a person sees of a run at work."""

from collections.abc import Iterable

from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Stage
from collapse_cli.run.preparation import Prepared
from collapse_cli.run.rates import Estimates, Left, Timings
from collapse_cli.terminal.progress import ProgressBars


class Progress(Observer):
    """Moves the bars, and says how long the rest will take: as soon as a stage of each kind that is left has been computed, here or
    before. Until then nobody knows.
    """

    def __init__(self, shown: ProgressBars, prepared: Prepared, there: Iterable[tuple[Stage, float]]) -> None:
        """`there`: stages of the plan that were computed before, and in how many seconds."""
        self.shown, self.plan = shown, prepared.plan
        estimates = Estimates(prepared.size, Timings())
        for stage, seconds in there:
            estimates.finished(stage, seconds)
        self._left = Left(estimates, self.plan.stages.values(), prepared.workers)

    def started(self, stage: Stage) -> None:
        self.shown.started(stage.work, self._label(stage))

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        self.shown.progress(stage.work, self._label(stage), done, total, unit)

    def waiting(self, stage: Stage) -> None:
        self.shown.waiting(f"{stage.work} {self._label(stage)}")

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        self._left.finished(stage, None if cached else made.seconds)
        self.shown.left = self._left.seconds()
        note = "" if cached else stage.of.note(stage, made)
        self.shown.finished(
            stage.work, self._label(stage), seconds=made.seconds, cached=cached, note=note, listed=stage.of.listed
        )

    def _label(self, stage: Stage) -> str:
        return stage.of.label(stage, self.plan.place(stage.key))
