"""Times the stages of short versions of an experiment, in a folder of their own, for a few seconds.

Nothing of it enters the store or the runs folder, nothing is downloaded, and no server is asked.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Cost, Finished, Stage
from collapse_cli.engine.store import Store, store_at
from collapse_cli.errors import UserError
from collapse_cli.experiment import short
from collapse_cli.experiment.short import Extent, Short
from collapse_cli.process import peak_memory_mb
from collapse_cli.run.preparation import Prepared, threads_of_a_stage
from collapse_cli.run.rates import Estimates, Timings, sameness

SECONDS = 6.0  # of this process's own computing, for the short versions of a plan
MOST = 60.0  # seconds until a stage is stopped at its next step: on a machine that has much else to do that computing takes longer
MORE_OF = 6.0  # times `SECONDS`, for a second size: of one alone nothing can be said of others
FIRST = 2.0  # nominal seconds that the first may take; of a larger model it has fewer rows

# what a model may say of a corpus that is too short for it; anything else ends a trial too, but never a command
ANY = (UserError, ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError)
Now = Callable[[], float]


class EnoughError(Exception):
    """The time is up, in the middle of a stage."""


class Timekeeper(Observer):
    """Stops a stage at its next step when the time is up, and says how far it came."""

    def __init__(self, now: Now, until: float) -> None:
        self.now, self.until = now, until
        self.done, self.stopped = 0.0, False

    def started(self, stage: Stage) -> None:
        self.done = 0.0

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        self.done = done / max(1, total)
        if done and done < total and self.now() > self.until:
            self.stopped = True
            raise EnoughError


@dataclass
class Timed:
    """What was timed.

    Attributes:
        seconds: how long that took.
        warming: seconds that the first version took longer than the same once more: libraries are loaded when they are first needed.
        fault: why nothing more was timed, where that was not for the time.
        memory: of each version by its share of the rows, the most bytes that this process had held when it was done.
    """

    seconds: float = 0.0
    warming: float = 0.0
    fault: str = ""
    memory: dict[float, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stopwatched:
    """A stage of a short version: how long it took, or would have taken where it was stopped (not `whole`)."""

    stage: Stage
    group: str
    cost: Cost
    seconds: float
    whole: bool = True


def time_stages(
    prepared: Prepared,
    estimates: Estimates,
    wanted: Collection[str],
    folder: Path,
    speed: float,
    now: Now = time.perf_counter,
    computed: Now = time.process_time,
    seconds: float = SECONDS,
    turn: int = 0,
) -> Timed:
    """Time short versions of an experiment, each longer than the one before it, as long as there is time.

    Args:
        wanted: the groups of stages that are to be timed.
        folder: where their stores are made.
        speed: FLOP/s, by which the first version is made small enough.
        now, computed: clocks: that on the wall, which stages are timed by, and that of this process's own computing.
        seconds: of computing, for all of it.
        turn: how many experiments were timed in this process before.
    """
    timed, began = Timed(), now()
    keeper, own = Timekeeper(now, began + MOST), computed()
    rows = max(prepared.size.rows, 1)
    found, took = list[tuple[Extent, list[Stopwatched]]](), list[float]()
    with _quietly(), threads_of_a_stage(prepared):
        ladder = short.extents(prepared.config, prepared.size.rows, _least(prepared, rows, speed))
        ladder = [*ladder[:1], *ladder] if len(ladder) > 1 else ladder  # libraries are loaded in the first of all
        for number, extent in enumerate(ladder):
            before = now()
            try:
                version = short.shortened(prepared.config, prepared.hints, prepared.size, extent, turn)
                if number == 1 and found and computed() - own > seconds:
                    continue  # a large model, beside which libraries are little
                if found:
                    busy = (computed() - own) / max(1e-9, before - began)  # how much of the time we were let compute
                    most = seconds * (1 if len({extent for extent, _ in found}) > 1 else MORE_OF)
                    if computed() - own + busy * _expected(version, found) > most:
                        break
                taken = _time_version(version, prepared, wanted, store_at(folder / f"{number}"), keeper)
            except ANY as error:  # so few rows may be too few for a model; more may do
                timed.fault = " ".join(str(error).split()) or type(error).__name__
                continue
            found.append((extent, taken))
            took.append(now() - before)
            timed.fault, timed.memory[extent.share] = "", peak_memory_mb() << 20
            if keeper.stopped:
                break
    if (
        len(found) > 1
        and found[0][0] == found[1][0]
        and {one.group for one in found[0][1]} <= {one.group for one in found[1][1]}
    ):
        timed.warming = max(0.0, took[0] - took[1])
        del found[0]
    for extent, taken in found:
        for one in taken:
            estimates.tried(one.stage, one.group, one.cost, one.seconds)
            if one.whole and extent.share == 1 and one.stage.key in prepared.plan.stages:  # keys know of no cut
                estimates.timings.same[sameness(one.stage)] = [one.seconds]
    timed.seconds = now() - began
    return timed


def _expected(version: Short, found: Sequence[tuple[Extent, list[Stopwatched]]]) -> float:
    """Seconds that a version will take, by what those before it have taken."""
    timings = Timings()
    for _, taken in found:
        for one in taken:
            timings.add(timings.tried, one.stage.work, one.group, one.cost, one.seconds)
    total = 0.0
    for key, stage in version.plan.stages.items():
        rate = timings.rate(stage.work, short.group_of(version.alike[key], version.sizes.of(stage)))
        cost = version.sizes.cost_of(stage)
        total += rate.of(cost.work, cost.parts) if rate else 0.0
    return total


def _least(prepared: Prepared, rows: int, speed: float) -> int:
    """Rows of the first version: fewer where even these would take seconds."""
    least = min(short.LEAST_ROWS, rows)
    while least > 1 and not prepared.size.known:
        version = short.shortened(prepared.config, prepared.hints, prepared.size, Extent(least / rows))
        costs = map(version.sizes.cost_of, version.plan.stages.values())
        if sum(cost.seconds(speed, 0) for cost in costs if not cost.fixed_seconds) < FIRST:
            break
        least //= 2
    return least


def _time_version(
    version: Short, prepared: Prepared, wanted: Collection[str], store: Store, keeper: Timekeeper
) -> list[Stopwatched]:
    """Compute the stages of a short version, as a run does; of each that is wanted, how long it took."""
    store.begin()
    executor, taken = LocalExecutor(store), list[Stopwatched]()
    planned = version.plan.stages
    groups = {key: short.group_of(alike, version.sizes.of(planned[key])) for key, alike in version.alike.items()}
    stages = _here(planned.values())
    for stage in scheduler.missing(stages, store, lambda stage: groups[stage.key] in wanted):
        if stage.key in prepared.real:
            _put(stage, prepared.real[stage.key], version.extent, store)
            continue
        before, group, cost = keeper.now(), groups[stage.key], version.sizes.cost_of(stage)
        try:
            executor.compute(stage, keeper)
        except EnoughError:
            took = (keeper.now() - before) / keeper.done
            return [*taken, *([Stopwatched(stage, group, cost, took, whole=False)] if group in wanted else [])]
        if group in wanted:
            taken.append(Stopwatched(stage, group, cost, keeper.now() - before))
        if keeper.now() > keeper.until:
            keeper.stopped = True
            return taken
    return taken


def _here(planned: Iterable[Stage]) -> list[Stage]:
    """The stages of a plan whose work, and that of all that they are made from, is done on this machine alone."""
    here: dict[str, Stage] = {}
    for stage in planned:
        if stage.of.here and all(made.key in here for made in stage.inputs.values()):
            here[stage.key] = stage
    return [*here.values()]


def _put(stage: Stage, made: Finished, extent: Extent, store: Store) -> None:
    """Real data that are there already: so many of their rows as a stage of another store."""
    with store.locked(stage.key):
        store.publish(stage, short.cut(made, extent, store.attempt(stage.key)), made.seconds)


@contextmanager
def _quietly() -> Iterator[None]:
    """What the engine has to say of a model it says when that is at work."""
    ours = logging.getLogger("collapse_cli")
    before = ours.disabled, ours.level
    ours.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ours.disabled, ours.level = before
