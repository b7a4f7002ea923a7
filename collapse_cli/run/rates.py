"""How long stages will take, from what stages of their kind have taken: finished ones, or those of short versions."""

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from collapse_cli.engine.stage import Cost, Stage, digest
from collapse_cli.experiment.costs import Sizes
from collapse_cli.experiment.short import group_of

RECENT = 24  # of a group, the finished stages that count: the newest
TELLING = 2.0  # seconds of its work that a stage tells of, from which on it is known how long it will take


class TimeTaken(NamedTuple):
    """What a stage has taken: how much it did (`Cost.work`), in how many parts, and in how many seconds."""

    work: float
    parts: int
    seconds: float


@dataclass(frozen=True)
class Rate:
    """Seconds for each unit of work, for each part of a stage (it has one, where it is no block of them), and for each stage besides."""

    unit: float
    part: float
    stage: float

    def of(self, work: float, parts: int, stages: int = 1) -> float:
        """Seconds of so much."""
        return self.unit * work + self.part * parts + self.stage * stages


def rate_of(taken: Sequence[TimeTaken]) -> Rate:
    """The rate that comes nearest to what stages took, by least squares without anything negative.

    What stages of one size have taken is all put down to their work: where that is little, it is more than they will take.
    """
    from scipy.optimize import nnls

    columns = np.array([[one.work, one.parts, 1.0] for one in taken])
    columns[:, 0] = np.maximum(columns[:, 0], 1e-9)
    scale = columns.max(axis=0)
    shapes = columns / scale
    if not np.ptp(shapes, axis=0).any():
        return Rate(float(np.mean([one.seconds for one in taken])) / float(scale[0]), 0.0, 0.0)
    shapes[:, 1] *= np.ptp(columns[:, 1]) > 0  # parts that are the same in all are told from nothing
    found, _ = nnls(shapes, np.array([one.seconds for one in taken]))
    unit, part, stage = found / scale
    return Rate(float(unit), float(part), float(stage))


@dataclass
class Timings:
    """What stages have taken, by groups that do the same work with the same model.

    Attributes:
        finished: of each group, of stages of the plan or of runs that shared them.
        tried: of each group, of short versions.
        same: by what a stage does and how much (`Estimates.alike`), the seconds that such a one took.
        disk: of each group, of short versions: bytes that were counted and bytes that they left.
    """

    finished: dict[str, list[TimeTaken]] = field(default_factory=dict)
    tried: dict[str, list[TimeTaken]] = field(default_factory=dict)
    same: dict[str, list[float]] = field(default_factory=dict)
    disk: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    works: dict[str, set[str]] = field(default_factory=dict)
    _rates: dict[str, Rate] = field(default_factory=dict)
    _disk_rates: dict[str, Rate] = field(default_factory=dict)

    def add(self, where: dict[str, list[TimeTaken]], work: str, group: str, cost: Cost, seconds: float) -> None:
        """A stage of a group has taken so long; `where` is `finished` or `tried`."""
        where.setdefault(group, []).append(TimeTaken(cost.work, cost.parts, seconds))
        self.works.setdefault(work, set()).add(group)
        self._rates.pop(group, None)

    def rate(self, work: str, group: str) -> Rate | None:
        """That of a group; of one that has none, that of all stages called so; None where there are none."""
        if group not in self.finished and group not in self.tried:
            others = sorted(self.works.get(work, ()))
            taken = [one for other in others for one in self._taken(other)]
            return rate_of(taken) if taken else None
        if group not in self._rates:
            self._rates[group] = rate_of(self._taken(group))
        return self._rates[group]

    def add_disk(self, group: str, cost: Cost, found: int) -> None:
        """A stage of a group has left so many bytes."""
        self.disk.setdefault(group, []).append((cost.disk, found))
        self._disk_rates.pop(group, None)

    def disk_rate(self, group: str) -> Rate | None:
        """Bytes that stages of a group leave for each that is counted, and besides; None where none was made for a short version."""
        if group not in self.disk:
            return None
        if group not in self._disk_rates:
            found = [TimeTaken(float(counted), 1, float(left)) for counted, left in self.disk[group]]
            self._disk_rates[group] = rate_of(found)
        return self._disk_rates[group]

    def _taken(self, group: str) -> list[TimeTaken]:
        return self.finished.get(group, [])[-RECENT:] or self.tried[group]


def sameness(stage: Stage) -> str:
    """Equal for stages that differ in their seed alone, and in what they are made from."""
    return digest([stage.work, stage.params])


@dataclass
class Estimates:
    """Seconds of stages of a plan.

    Attributes:
        guess: a first guess of a stage's time, where nothing of its kind has been timed.
    """

    sizes: Sizes
    timings: Timings
    guess: Callable[[Stage], float] = lambda stage: 0.0

    def finished(self, stage: Stage, seconds: float) -> None:
        """A stage has taken so long: it counts for all of its group."""
        group, cost = self.group(stage), self.sizes.cost_of(stage)
        self.timings.add(self.timings.finished, stage.work, group, cost, seconds)

    def tried(self, stage: Stage, group: str, cost: Cost, seconds: float) -> None:
        """A stage of a short version has."""
        self.timings.add(self.timings.tried, stage.work, group, cost, seconds)

    def left(self, group: str, cost: Cost, found: int) -> None:
        """A stage of a short version has left so many bytes."""
        self.timings.add_disk(group, cost, found)

    def disk(self, stage: Stage) -> int:
        """Bytes that a stage will leave: those that are counted, as many times as what short versions left was of what is counted of them."""
        counted, rate = self.sizes.cost_of(stage).disk, self.timings.disk_rate(self.group(stage))
        return counted if rate is None else round(rate.of(counted, 1))

    def group(self, stage: Stage) -> str:
        return group_of(stage, self.sizes.of(stage))

    def alike(self, stage: Stage) -> str:
        """Equal for stages of plans that differ in their seed alone: they do as much of the same, whatever rows they are given."""
        cost = self.sizes.cost_of(stage)
        return f"{sameness(stage)} {cost.work} {cost.parts}"

    def timed(self, stage: Stage) -> bool:
        """Whether anything of its kind has been timed, or its shards do the work."""
        return (
            bool(stage.shards)
            or self.alike(stage) in self.timings.same
            or self.timings.rate(stage.work, self.group(stage)) is not None
        )

    def seconds(self, stage: Stage) -> float:
        """How long a stage will take; of one that is put together from shards, when these are there."""
        if stage.shards:
            return self.sizes.cost_of(stage).fixed_seconds
        if same := self.timings.same.get(self.alike(stage)):
            return sum(same) / len(same)
        rate = self.timings.rate(stage.work, self.group(stage))
        return self.guess(stage) if rate is None else self._by(rate, stage)

    def _by(self, rate: Rate, stage: Stage) -> float:
        cost = self.sizes.cost_of(stage)
        return rate.of(cost.work, cost.parts)


def makespan(stages: Sequence[Stage], seconds: Mapping[str, float], slots: int) -> float:
    """Seconds until all stages are done, so many at a time, in the order of the plan as their inputs are there.

    Args:
        seconds: of each, by key.
    """
    keys = {stage.key for stage in stages}
    order = {stage.key: place for place, stage in enumerate(stages)}
    waits = {stage.key: {made.key for made in stage.needs.values()} & keys for stage in stages}
    users: dict[str, list[str]] = {}
    for key, needed in waits.items():
        for made in needed:
            users.setdefault(made, []).append(key)
    ready = [(place, key) for key, place in order.items() if not waits[key]]
    heapq.heapify(ready)
    at_work: list[tuple[float, str]] = []
    now = 0.0
    while ready or at_work:
        while ready and len(at_work) < slots:
            _, key = heapq.heappop(ready)
            heapq.heappush(at_work, (now + seconds[key], key))
        now, key = heapq.heappop(at_work)
        for user in users.get(key, ()):
            waits[user].discard(key)
            if not waits[user]:
                heapq.heappush(ready, (order[user], user))
    return now


def _at_once(estimates: Estimates, stages: Sequence[Stage], slots: int) -> float:
    """How many stages are at work on average, by first guesses of their times: those of one policy wait for each other most of the time."""
    seconds = {stage.key: estimates.guess(stage) for stage in stages}
    span = makespan(stages, seconds, slots) if slots > 1 else 0.0
    return sum(seconds.values()) / span if span else float(slots)


class TimeLeft(NamedTuple):
    """Seconds that are left, and the kinds of stages, of those that are to do, of which nobody knows yet: they come on top."""

    seconds: float
    unknown: tuple[str, ...] = ()


class Left:
    """Seconds that are left of a running plan; it corrects itself as stages go on and finish.

    Remaining work is summed by group, so that asking takes as long whatever the number of stages.
    """

    def __init__(self, estimates: Estimates, stages: Collection[Stage], slots: int) -> None:
        self.estimates = estimates
        self._at_once = _at_once(estimates, list(stages), slots)
        self._todo: dict[str, tuple[str, float, int, int]] = {}  # by group: what it is called, work, parts, stages
        self._of: dict[str, tuple[str, Cost]] = {}
        # by key: when, and which part was done: the first time (not of all that is done the work was done now) and the last
        self._at_work: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {}
        for stage in stages:
            if stage.shards:  # which do its work
                continue
            group, cost = estimates.group(stage), estimates.sizes.cost_of(stage)
            self._of[stage.key] = (group, cost)
            _, work, parts, count = self._todo.get(group, (stage.work, 0.0, 0, 0))
            self._todo[group] = (stage.work, work + cost.work, parts + cost.parts, count + 1)

    @property
    def groups(self) -> Collection[str]:
        """Of the stages that are to do."""
        return self._todo.keys()

    def at_work(self, stage: Stage, part: float, now: float) -> None:
        """A stage has done so much of its work, at a moment in seconds."""
        if stage.key in self._of:
            before, *_ = self._at_work.get(stage.key, ((now, part),))
            # computed again, where the one that was at work was lost
            self._at_work[stage.key] = before if before[1] <= part else (now, part), (now, part)

    def finished(self, stage: Stage, seconds: float | None) -> None:
        """A stage is done; in so many seconds, where it was computed now."""
        self._at_work.pop(stage.key, None)
        if stage.key not in self._of:
            return
        group, cost = self._of.pop(stage.key)
        name, work, parts, count = self._todo[group]
        if count == 1:
            del self._todo[group]
        else:
            self._todo[group] = (name, work - cost.work, parts - cost.parts, count - 1)
        if seconds is not None:
            self.estimates.timings.add(self.estimates.timings.finished, name, group, cost, seconds)

    def seconds(self) -> TimeLeft:
        """By what stages of each kind have taken; of a kind of which none is done, by how far one at work has come."""
        total, unknown, reached = 0.0, dict[str, None](), self._reached()
        for group, (name, work, parts, stages) in self._todo.items():
            rate = self.estimates.timings.rate(name, group) or reached.get(group)
            if rate is None:
                unknown[name] = None
                continue
            total += rate.of(work, parts, stages)
            for key, (_, (_, part)) in self._at_work.items():
                if self._of[key][0] == group:
                    cost = self._of[key][1]
                    total -= part * rate.of(cost.work, cost.parts)
        return TimeLeft(max(0.0, total) / self._at_once, tuple(unknown))

    def _reached(self) -> dict[str, Rate]:
        """By group, the rate at which stages at work will have done theirs, if they go on as until now."""
        taken: dict[str, list[TimeTaken]] = {}
        for key, ((began, before), (now, part)) in self._at_work.items():
            group, cost = self._of[key]
            if now - began >= TELLING and part > before:
                seconds = (now - began) / (part - before)
                taken.setdefault(group, []).append(TimeTaken(cost.work, cost.parts, seconds))
        return {group: rate_of(stages) for group, stages in taken.items()}
