"""What a person sees of a run at work."""

import math
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial

from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Stage
from collapse_cli.run import kept_timings
from collapse_cli.run.preparation import NOMINAL_SPEED, Prepared
from collapse_cli.run.rates import Estimates, Left, Timings
from collapse_cli.terminal.progress import ProgressBars

BETWEEN = 0.5  # seconds, at least, after which what is left is reckoned anew while stages go on


class Progress(Observer):
    """Moves the bars, and says how long the rest will take: by stages that are done, here or before, by those at work, and by what a dry run
    timed. Where nothing is known of a kind that is left, the rest takes longer than is said, and that is said.
    """

    def __init__(
        self,
        shown: ProgressBars,
        prepared: Prepared,
        needed: Collection[Stage],
        there: Iterable[tuple[Stage, float]] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """The run begins.

        Args:
            needed: stages that are to be computed.
            there: stages of the plan that were computed before, and in how many seconds.
        """
        self.shown, self.plan, self.now = shown, prepared.plan, now
        estimates = Estimates(prepared.size, Timings(), partial(prepared.size.seconds, speed=NOMINAL_SPEED))
        for stage, seconds in there:
            estimates.finished(stage, seconds)
        for key, made in prepared.real.items():  # of the first seed; others take as long
            if (data := self.plan.stages.get(key)) is not None:
                estimates.tried(data, estimates.group(data), prepared.size.cost_of(data), made.seconds)
        self._left = Left(estimates, needed, prepared.workers)
        kept_timings.take(estimates.timings, prepared.execution, self._left.groups)
        self._asked = -math.inf
        self.shown.time_left(*self._left.seconds())

    def started(self, stage: Stage) -> None:
        self.shown.started(stage.work, self._label(stage))

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        now = self.now()
        self._left.at_work(stage, done / max(1, total), now)
        if now - self._asked > BETWEEN:
            self._asked = now
            self.shown.time_left(*self._left.seconds())
        self.shown.progress(stage.work, self._label(stage), done, total, unit)

    def waiting(self, stage: Stage) -> None:
        self.shown.waiting(f"{stage.work} {self._label(stage)}")

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        self._left.finished(stage, None if cached else made.seconds)
        self.shown.time_left(*self._left.seconds())
        note = "" if cached else stage.of.note(stage, made)
        self.shown.finished(
            stage.work, self._label(stage), seconds=made.seconds, cached=cached, note=note, listed=stage.of.listed
        )

    def _label(self, stage: Stage) -> str:
        return stage.of.label(stage, self.plan.place(stage.key))
