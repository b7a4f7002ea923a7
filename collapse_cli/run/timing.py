"""Times the stages of short versions of an experiment, in a folder of their own, for a few seconds.

Nothing of it enters the store or the runs folder, nothing is downloaded, and no server is asked.
"""

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import psutil

from collapse_cli import families
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.base import Ended, Executor
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.executors.processes import ProcessExecutor
from collapse_cli.engine.folder_store import size_of
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.record import RECORD
from collapse_cli.engine.stage import Cost, Finished, Stage
from collapse_cli.engine.store import Store, store_at
from collapse_cli.errors import UserError
from collapse_cli.experiment import short
from collapse_cli.experiment.short import Extent, Short
from collapse_cli.learners import ALL, Fewer
from collapse_cli.learners.device_processes import devices_stay
from collapse_cli.process import MEGABYTE, peak_memory_mb
from collapse_cli.run import worker
from collapse_cli.run.ending import Ending, time_ending
from collapse_cli.run.preparation import Prepared, threads_by_work
from collapse_cli.run.rates import Estimates, Timings, sameness
from collapse_cli.run.threads import of_this_process

SECONDS = 6.0  # of this process's own computing, for the short versions of a plan
MOST = 150.0  # seconds until a stage is stopped at its next step: on a machine that has much else to do that computing takes longer
MORE_OF = 15.0  # times `SECONDS`, for a second size: of one alone nothing can be said of others
LARGE = 2.0  # nominal seconds of a first short version, from which on a model counts as large
OF_LARGE = 60.0  # nominal seconds that all short versions of one may take
# of these versions: rows at once, as a share, and rows of a step, of which fewer tell more than of those that are sampled or measured at once
SCALES = ((1.0, 32), (1.0, 16), (1.0, 8), (1.0, 4), (0.5, 4), (0.5, 2), (0.25, 2), (0.125, 1))

# what a model may say of a corpus that is too short for it; anything else ends a trial too, but never a command
ANY = (UserError, ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError)
PYDANTICS = "For further information visit"  # the last line of its errors
Now = Callable[[], float]


class EnoughError(Exception):
    """The time is up, in the middle of a stage."""


class Stopwatch(Observer):
    """Times stages, and stops them at their next step when the time is up.

    Attributes:
        taken: of each that is done, seconds, by key; of those that were stopped, what they would have taken.
        stopped: whether the time was up.
        whole: the keys of those that were not stopped.
        memory: the most bytes that a process had held when it was done with one.
        first, last: when the first began and the last ended.
        half: of each that told how far it was, seconds that it would have taken for half of its work.
    """

    def __init__(self, now: Now, late: Callable[[], bool], begin: Callable[[], object] = lambda: None) -> None:
        """`begin` is called when the first of all stages begins."""
        self.now, self.late = now, late
        self._begin: Callable[[], object] | None = begin
        self.stopped, self.memory = False, 0
        self.again()

    def again(self) -> None:
        """For other stages."""
        self.taken, self.whole = dict[str, float](), set[str]()
        self.first: float | None = None
        self.last = 0.0
        self.half = dict[str, float]()
        self._began, self._done = dict[str, float](), dict[str, float]()
        self._told = dict[
            str, list[tuple[float, float]]
        ]()  # when, and which part was done: the first time and the last

    def started(self, stage: Stage) -> None:
        if self._begin is not None:
            self._begin()
            self._begin = None
        self._began[stage.key] = self.now()
        if self.first is None:
            self.first = self.now()

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        part = done / max(1, total)
        self._done[stage.key] = part
        if part:
            self._told[stage.key] = [*self._told.get(stage.key, [])[:1], (self.now(), part)]
        if done and done < total and self.late():
            for key, reached in self._done.items():
                if key not in self.whole and reached:
                    rest = self._each(key) * (1 - reached)
                    self._took(key, self.now() - self._began[key] + rest)
            self.stopped = True
            raise EnoughError

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        self.memory = max(self.memory, memory_mb * MEGABYTE)
        if cached:
            return
        self.last = self.now()
        self._took(stage.key, self.last - self._began[stage.key])
        self.whole.add(stage.key)
        if self.late():
            self.stopped = True
            raise EnoughError

    def _took(self, key: str, seconds: float) -> None:
        self.taken[key] = seconds
        if len(self._told.get(key, ())) > 1:
            self.half[key] = max(0.0, seconds - self._each(key) / 2)

    def _each(self, key: str) -> float:
        """Seconds for all that a stage does, by how fast it went on after its first steps, which take longer."""
        (before, little), (after, more) = self._told[key][0], self._told[key][-1]
        if more > little:
            return (after - before) / (more - little)
        return (after - self._began[key]) / more


class Spent:
    """Seconds of computing so far, of short versions: what workers do until they are at work does not count.

    Attributes:
        began: when the first stage did, or this was made.
    """

    def __init__(self, computed: Now, now: Now) -> None:
        self._computed, self._now = computed, now
        self.begin()

    def begin(self) -> None:
        """The first stage begins."""
        self._before, self.began = self._computed(), self._now()

    def __call__(self) -> float:
        return self._computed() - self._before


@dataclass
class Timed:
    """What was timed.

    Attributes:
        seconds: how long that took.
        warming: seconds that the first version took longer than the same once more: libraries are loaded when they are first needed.
        cold: the same of the stages of each group.
        starting: seconds until the workers were at work; 0 where there are none, or they were at work before.
        ending: what a run does besides its stages; None where that was not timed.
        fault: why nothing more was timed, where that was not for the time.
        memory: of each version by its share of the rows, the most bytes that this process had held when it was done.
        fewer: what a large model did less of in the last version.
        at_end: the most bytes that it had held when the report was made; 0 where that was not timed.
        slower: how many times as long what was timed took as had been guessed; 1 where nothing was.
    """

    seconds: float = 0.0
    warming: float = 0.0
    cold: dict[str, float] = field(default_factory=dict)
    starting: float = 0.0
    ending: Ending | None = None
    fault: str = ""
    memory: dict[float, int] = field(default_factory=dict)
    fewer: Fewer = ALL
    at_end: int = 0
    slower: float = 1.0


class Places:
    """Where short versions are computed: as those of the run, in this process or in as many workers, beside each other.

    Workers take some seconds to start, so those of one plan go on with the next. Ray's stages are timed in workers, as its own are.
    """

    def __init__(self) -> None:
        self._workers: ProcessExecutor | None = None

    def executor(
        self, prepared: Prepared, version: Short, store: Store, workers: int, set_threads: Callable[[int], None]
    ) -> Executor:
        """One for a version, of so many stages at a time; `set_threads` is for this process."""
        if workers == 1 and prepared.execution.executor == "local":
            return LocalExecutor(store, set_threads)
        order = worker.order(version.config, prepared.hints, store)
        if self._workers is not None and self.workers == workers:
            self._workers.anew(store, order)
            return self._workers
        self.close()
        self._workers = ProcessExecutor(store, worker.command(), order, workers)
        return self._workers

    @property
    def workers(self) -> int:
        """How many are at work."""
        return self._workers.slots if self._workers is not None else 0

    def close(self) -> None:
        """End the workers."""
        if self._workers is not None:
            self._workers.__exit__()
        self._workers = None

    def computed(self) -> float:
        """Seconds of computing so far: of this process, and of its workers one beside the other. Devices compute beside these."""
        own = time.process_time()
        if self._workers is None:
            return own
        with suppress(psutil.Error):
            own += sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children()) / self._workers.slots
        return own


class OfFewLineages:
    """An executor that computes stages of as many lineages as it has slots; what others would make is a copy of what these made.

    A copy is of a stage that does as much of the same work with the same model, so nothing that is timed takes another time.
    """

    def __init__(self, executor: Executor, version: Short) -> None:
        self.executor, self.version = executor, version
        self.store, self.slots = executor.store, executor.slots
        self._computed: dict[object, list[Stage]] = {}  # by what they do
        self._copies: list[tuple[Stage, list[Stage]]] = []

    def submit(self, stage: Stage, threads: int) -> None:
        what, may_be_copied = _what(stage, self.version)
        alike = self._computed.setdefault(what, [])
        if may_be_copied and len(alike) >= self.slots:
            self._copies.append((stage, alike))
        else:
            alike.append(stage)
            self.executor.submit(stage, threads)

    def poll(self, observer: Observer, wait: float | None) -> Iterable[Ended]:
        for copy in self._copies:
            stage, alike = copy
            done = next((one for one in alike if self.store.has(one.key)), None)
            if done is not None:
                self._copies.remove(copy)
                return [Ended(stage, _copied(stage, self.store.get(done.key), self.store), cached=True)]
        return self.executor.poll(observer, wait)


def _what(stage: Stage, version: Short) -> tuple[object, bool]:
    """What a stage does, in a value that is equal for those of other lineages (or generations) that do the same; and whether it is of those
    that may be copied.
    """
    first = version.plan.serves[stage.key][0]
    once = version.extent.once
    generation = 0 if once else first.generation
    return (version.group(stage), version.sizes.cost_of(stage), generation), bool(first.lineage) or once


def _few(version: Short, slots: int) -> list[Stage]:
    """The stages of a version that are no copies."""
    few, times = list[Stage](), Counter[object]()
    for stage in version.plan.stages.values():
        what, may_be_copied = _what(stage, version)
        if not may_be_copied or times[what] < slots:
            few.append(stage)
        times[what] += 1
    return few


def _copied(stage: Stage, made: Finished, store: Store) -> Finished:
    """A stage that leaves what another one left."""
    with store.locked(stage.key):
        left_out = shutil.ignore_patterns(RECORD)
        shutil.copytree(made.folder, store.attempt(stage.key), ignore=left_out, dirs_exist_ok=True)
        return store.publish(stage, made.facts, made.seconds)


@dataclass(frozen=True)
class Stopwatched:
    """A stage of a short version: how long it took, or would have taken where it was stopped (not `whole`), or for half of its work.

    Of one that was not stopped also how many bytes it left.
    """

    stage: Stage
    group: str
    cost: Cost
    seconds: float
    whole: bool = True
    half: float | None = None
    left: int = 0


def time_stages(
    prepared: Prepared,
    estimates: Estimates,
    wanted: Collection[str],
    folder: Path,
    speed: float,
    places: Places,
    now: Now = time.perf_counter,
    computed: Now | None = None,
    seconds: float = SECONDS,
    turn: int = 0,
    workers: int = 1,
    ending: bool = True,
) -> Timed:
    """Time short versions of an experiment, each longer than the one before it, as long as there is time.

    Args:
        wanted: the groups of stages that are to be timed.
        folder: where their stores are made.
        speed: FLOP/s, by which the first version is made small enough.
        now, computed: clocks: that on the wall, which stages are timed by, and that of the computing that is done for this.
        seconds: of computing, for all of it.
        turn: how many experiments were timed in this process before.
        workers: how many stages are computed at a time; fewer than in the run, where memory will not do for so many.
        ending: whether to time, too, what a run does besides its stages.
    """
    timed, began, spent = Timed(), now(), Spent(computed or partial(_computed, prepared, places), now)
    watch = Stopwatch(now, lambda: spent() > MORE_OF * seconds or now() - began > MOST, spent.begin)
    found = list[tuple[Extent, list[Stopwatched]]]()
    last: tuple[Short, Store] | None = None
    started = (workers > 1 or prepared.execution.executor == "ray") and not places.workers  # they will be
    with _quietly(), devices_stay(), of_this_process(families.of(prepared.config.learner).light) as set_threads:
        ladder = _ladder(prepared, speed, workers)
        for number, extent in enumerate(ladder):
            before = now()
            try:
                version = short.shortened(prepared.config, prepared.hints, prepared.size, extent, turn, workers)
                sizes = {extent for extent, _ in found}
                if len(sizes) > 1 or (found and extent in sizes):  # of one size alone nothing is known of another
                    busy = spent() / max(1e-9, before - spent.began)  # how much of the time we were let compute
                    most = seconds * (1 if len(sizes) > 1 else MORE_OF)
                    if spent() + busy * _expected(version, found, workers) > most:
                        if extent in sizes:
                            continue  # another size tells more than the same once more
                        break
                store = store_at(folder / f"{number}")
                taken = _time_version(version, prepared, wanted, store, watch, places, workers, set_threads)
            except ANY as error:  # so few rows may be too few for a model; more may do
                places.close()
                said = [line.strip() for line in str(error).splitlines() if line.strip() and PYDANTICS not in line]
                timed.fault = (said or [type(error).__name__])[-1]
                continue
            if started and watch.first is not None:
                timed.starting, started = watch.first - before, False
            found.append((extent, taken))
            timed.fault, timed.memory[extent.share], timed.fewer = "", watch.memory, extent.fewer
            last = last if watch.stopped and last else (version, store)
            if watch.stopped:
                places.close()
                break
        if ending and last is not None:
            try:
                timed.ending = time_ending(
                    prepared.config, prepared.plan, last[0].plan, last[1], folder / "ending", now
                )
                timed.at_end = peak_memory_mb() * MEGABYTE
            except ANY as error:
                timed.fault = timed.fault or f"{type(error).__name__}: {error}"
    first = list[Stopwatched]()
    again = len(found) > 1 and found[0][0] == found[1][0]
    if again and {one.group for one in found[0][1]} <= {one.group for one in found[1][1]}:
        first = found.pop(0)[1]  # of which the first steps took longer
    works: dict[str, set[float]] = {}
    for _, taken in found:
        for one in taken:
            works.setdefault(one.group, set()).add(one.cost.work)
    for extent, taken in found:
        for one in taken:
            estimates.tried(one.stage, one.group, one.cost, one.seconds)
            if one.whole:
                estimates.left(one.group, one.cost, one.left)
            if len(works[one.group]) == 1 and one.half is not None:  # of one size nothing follows for others
                less = replace(one.cost, amount=one.cost.work / 2)
                estimates.tried(one.stage, one.group, less, one.half)
            planned = prepared.plan.stages.get(one.stage.key)
            if one.whole and extent.share == 1 and planned is not None:  # keys know of no cut
                estimates.timings.same[estimates.alike(planned)] = [one.seconds]
    timed.slower = _slower([one for _, taken in found for one in taken], prepared, speed)
    for one in first:
        rate = estimates.timings.rate(one.stage.work, one.group)
        longer = max(0.0, one.seconds - rate.of(one.cost.work, one.cost.parts)) if rate else 0.0
        timed.cold[one.group] = max(longer, timed.cold.get(one.group, 0.0))
        timed.warming += longer / workers
    timed.seconds = now() - began
    return timed


def _slower(taken: Sequence[Stopwatched], prepared: Prepared, speed: float) -> float:
    """How many times as long stages took as had been guessed of them, without those of which no operations are counted."""
    counted = [one for one in taken if one.cost.flops and not one.cost.fixed_seconds]
    guessed = sum(one.cost.seconds(speed, prepared.size.layers) for one in counted)
    return sum(one.seconds for one in counted) / guessed if guessed else 1.0


def _expected(version: Short, found: Sequence[tuple[Extent, list[Stopwatched]]], workers: int) -> float:
    """Seconds that a version will take with so many workers, by what those before it have taken."""
    timings = Timings()
    for _, taken in found:
        for one in taken:
            timings.add(timings.tried, one.stage.work, one.group, one.cost, one.seconds)
    total = 0.0
    for stage in _few(version, workers):
        rate = timings.rate(stage.work, version.group(stage))
        cost = version.sizes.cost_of(stage)
        total += rate.of(cost.work, cost.parts) if rate else 0.0
    return total / workers


def _ladder(prepared: Prepared, speed: float, workers: int) -> list[Extent]:
    """Short versions, the smaller before the larger; the first is made twice, for libraries are loaded in it."""
    ladder = short.extents(prepared.config, prepared.size.rows)
    if not prepared.size.known and _nominal(prepared, ladder[0], speed, workers) >= LARGE:
        for scale, of_a_step in SCALES:
            devices = prepared.execution.devices
            ladder = short.of_large_model(prepared.config, prepared.size.rows, scale, of_a_step, devices)
            first, second = (_nominal(prepared, extent, speed, workers) for extent in ladder)
            if 2 * first + second <= OF_LARGE:
                break
    return [*ladder[:1], *ladder] if len(ladder) > 1 else ladder


def _nominal(prepared: Prepared, extent: Extent, speed: float, workers: int) -> float:
    """Seconds that a version takes, as its stages are guessed."""
    version = short.shortened(prepared.config, prepared.hints, prepared.size, extent)
    costs = map(version.sizes.cost_of, _few(version, workers))
    return sum(cost.seconds(speed, 0) for cost in costs if not cost.fixed_seconds)


def _time_version(
    version: Short,
    prepared: Prepared,
    wanted: Collection[str],
    store: Store,
    watch: Stopwatch,
    places: Places,
    workers: int,
    set_threads: Callable[[int], None],
) -> list[Stopwatched]:
    """Compute the stages of a short version, as a run does; of each that is wanted, how long it took."""
    store.begin()
    watch.again()
    planned = version.plan.stages
    groups = {key: version.group(stage) for key, stage in planned.items()}
    # of each seed the rows of the first one, where rows are not its own to draw
    real = {
        sameness(prepared.plan.stages[key]): made for key, made in prepared.real.items() if key in prepared.plan.stages
    }
    needed = scheduler.missing(_here(planned.values()), store, lambda stage: groups[stage.key] in wanted)
    for stage in needed:
        if (made := real.get(sameness(stage))) is not None:
            _put(stage, made, version.extent, store)
    by_work = threads_by_work(prepared)
    threads = {key: by_work.get(stage.work, 0) for key, stage in planned.items()}
    with suppress(EnoughError):
        executor = places.executor(prepared, version, store, workers, set_threads)
        scheduler.run(needed, OfFewLineages(executor, version), watch, threads)
    return [
        Stopwatched(
            planned[key],
            groups[key],
            _cost(planned[key], version, store if key in watch.whole else None),
            seconds,
            key in watch.whole,
            watch.half.get(key),
            size_of(store.get(key).folder) if key in watch.whole else 0,
        )
        for key, seconds in watch.taken.items()
        if groups[key] in wanted
    ]


def _computed(prepared: Prepared, places: Places) -> float:
    """Seconds of computing so far, as the clock of a machine has them that does nothing else: threads of a language model count once."""
    together = 1 if prepared.size.known else max(threads_by_work(prepared).values(), default=1)
    return places.computed() / max(1, together // prepared.execution.devices)


def _cost(stage: Stage, version: Short, store: Store | None) -> Cost:
    """What a stage of a version did, finished where a store is given.

    Where samples are shorter than rows are, so is a training on them.
    """
    cost, corpus = version.sizes.cost_of(stage), stage.inputs.get("corpus")
    if store is None or corpus is None or not version.extent.fewer.new_tokens or not _of_samples(corpus):
        return cost
    return replace(cost, tokens=store.get(stage.key).facts.get("train_tokens", cost.tokens))


def _of_samples(rows: Stage) -> bool:
    """Whether rows are samples of a model, or made from some."""
    return rows.kind == "sample" or any(map(_of_samples, rows.inputs.values()))


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
