"""`collapse run`: from a configuration to a run folder. What the loop itself does stands in `loop.py`."""

import logging
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from collapse_cli import learners, metrics, report, tracking
from collapse_cli.config import Experiment, not_as_published, variant_experiments
from collapse_cli.engine.executors import LocalExecutor
from collapse_cli.engine.side_by_side import SideBySide, Worker, width
from collapse_cli.engine.stage import Finished, Generation, Plan, Stage
from collapse_cli.engine.store import Store
from collapse_cli.errors import ConfigError
from collapse_cli.experiment.kinds import BODIES, facts_of
from collapse_cli.findings import sources
from collapse_cli.findings.expectations import judge
from collapse_cli.process import quiet_libraries
from collapse_cli.records.rundir import STORE, RunFolder, all_runs
from collapse_cli.run import early
from collapse_cli.run.preparation import Clock, Prepared, check_disk, describe, prepare, to_do
from collapse_cli.terminal import console as show
from collapse_cli.terminal import outcome

log = logging.getLogger(__name__)
FIRST_REPORT = 0.15  # seconds that one is taken to take before any was written
REPORT_SHARE = 0.02  # of a run's time that refreshing its report may take


class Work:
    """One run at work: hears of its stages, shows them, and writes its rows, events, mirrors and report."""

    def __init__(
        self,
        folder: RunFolder,
        store: Store,
        prepared: Prepared,
        shown: show.Progressing,
        mirrors: tracking.Mirrors,
        page: "Page",
    ) -> None:
        self.folder, self.store, self.shown, self.plan = folder, store, shown, prepared.plan
        self.mirrors, self.page = mirrors, page
        self.config = prepared.config
        self.computed: list[str] = []
        self._measured_by: dict[str, list[Generation]] = {}
        self._there: set[str] = set()
        self._generations = {(one.policy, one.seed, one.generation): one for one in self.plan.generations}
        for generation in self.plan.generations:
            for stage in generation.measured:
                self._measured_by.setdefault(stage.key, []).append(generation)
        self._clock = Clock(prepared)
        self._prepared = prepared.computed  # the real data, computed before the run began

    def started(self, stage: Stage) -> None:
        self.shown.started(stage.work, self._label(stage))
        self.folder.add_event({"event": "started", **self._event(stage)})

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        self.shown.progress(stage.work, self._label(stage), done, total, unit)

    def waiting(self, stage: Stage) -> None:
        self.shown.waiting(f"{stage.work} {self._label(stage)}")

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        cached = cached and stage.key not in self._prepared
        if not cached:
            self.computed.append(stage.key)
            tokens = made.tokens
            speed = {"tokens": tokens, "tokens_per_second": round(tokens / max(made.seconds, 1e-3), 1)}
            event = {"event": "finished", **self._event(stage), "seconds": made.seconds, **speed}
            self.folder.add_event(event | {"peak_memory_mb": memory_mb})
        else:
            self.folder.add_event({"event": "cached", **self._event(stage)})
        self._clock.finished(stage, None if cached else made.seconds)
        self.shown.left = self._clock.left()
        note = "" if cached else show.stage_note(stage, made)
        self.shown.finished(stage.work, self._label(stage), seconds=made.seconds, cached=cached, note=note)
        self._there.add(stage.key)
        measured = self._measured_by.get(stage.key, [])
        self._add_rows([one for one in measured if all(each.key in self._there for each in one.measured)])
        if not cached and self.config.store.keep_models != "all" and stage.kind in ("eval", "sample", "train"):
            prune(self.folder, self.store, self.config, self.plan)

    def _add_rows(self, generations: Sequence[Generation]) -> None:
        rows = []
        made = Reading(self.store)
        for generation in generations:
            row, before = metrics_row(generation, made), self._before(generation, made)
            row["warnings"] = metrics.warnings(
                row,
                before,
                max_duplicates=self.config.sample.max_duplicates,
                selects=self.config.train.select == "valid",
            )
            rows.append(row)
        new = self.folder.add_rows(rows)
        for row in rows:
            self.mirrors.add(row)  # which may have missed it so far
        if new:
            self.page.refresh()

    def _before(self, generation: Generation, made: "Reading") -> Mapping[str, Any] | None:
        """What was measured of the model before: from the store, for its row may be written later than this one."""
        before = self._generations.get((generation.policy, generation.seed, generation.generation - 1))
        if before is None or self.config.learner != "lm":  # others may well stand still
            return None
        try:
            return facts_of(before, made.of(before.eval.key))
        except FileNotFoundError:
            return None

    def _label(self, stage: Stage) -> str:
        return show.stage_label(stage, self.plan.serves[stage.key])

    def _event(self, stage: Stage) -> dict[str, Any]:
        return {"kind": stage.kind, "work": stage.work, "key": stage.key, "for": self.plan.serves[stage.key][0]}


class Page:
    """The run's report, written anew while it is at work; whatever goes wrong with it, the run goes on."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._spent, self._last, self._began = 0.0, FIRST_REPORT, time.monotonic()

    def refresh(self) -> None:
        """After a generation, unless reports take much of the run's time: the next one costs what the last one did."""
        if self._spent + self._last <= REPORT_SHARE * (time.monotonic() - self._began):
            self.write(forecast=False)

    def write(self, *, forecast: bool) -> None:
        """As the run now is."""
        start = time.monotonic()
        try:
            report.write_report([self.folder], self.folder.path / "report.html", forecast=forecast)
        except Exception as error:
            log.warning(
                "the report could not be written (%s: %s); the run is not affected", type(error).__name__, error
            )
        self._last = time.monotonic() - start
        self._spent += self._last


def run_all(
    config: Experiment, runs: Path, name: str, console: Console, *, jobs: int = 0, dry_run: bool = False
) -> dict[str, Any]:
    """Run an experiment, or each of its variants as a run of its own, `NAME-VARIANT`, and one report on all of them.

    Arguments and errors as those of `run`.

    Returns:
        `runs`, what `run` returns of each; for variants also `report`, the page that lays them side by side (None
        where it could not be written), and `sources`, the share of each cause where they are those of `sources.py`
        and the truth is known, else None.
    """
    variants = variant_experiments(config.model_dump(mode="json"), name)
    if not variants:
        return {"runs": [run(config, runs, name, console, jobs=jobs, dry_run=dry_run)]}
    names = {f"{name}-{variant}": one for variant, one in variants.items()}
    folders = [RunFolder(runs, each) for each in names]  # says so before anything runs when a name is none
    for folder, one in zip(folders, names.values(), strict=True):
        early.check(one, folder)
    done: dict[str, Any] = {"runs": []}
    for each, one in names.items():
        if not dry_run:
            console.print(f"{each}:", style="bold", highlight=False, markup=False)
        done["runs"].append(run(one, runs, each, console, jobs=jobs, dry_run=dry_run))
    if not dry_run:
        rows = {variant: folder.rows() for variant, folder in zip(variants, folders, strict=True)}
        shared = sources.shares(rows)
        done |= {
            "report": _side_by_side(folders, runs / f"{name}.html"),
            "sources": shared.record() if shared else None,
        }
    return done


def _side_by_side(folders: Sequence[RunFolder], page: Path) -> str | None:
    try:
        return str(report.write_report(folders, page))
    except Exception as error:  # the runs are done, and it can be made again
        log.warning("%s could not be written (%s: %s); the runs are not affected", page, type(error).__name__, error)
        return None


def run(
    config: Experiment, runs: Path, name: str, console: Console, *, jobs: int = 0, dry_run: bool = False
) -> dict[str, Any]:
    """Run an experiment, or only say what it would cost. Returns what `--json` prints.

    Args:
        jobs: how many stages to compute side by side; 0: as many as pay.

    Raises:
        ConfigError, InputError: for what the user has to mend; nothing has been written into the run folder then.
    """
    folder, store = RunFolder(runs, name), Store(runs / STORE)
    early.check(config, folder)
    with tempfile.TemporaryDirectory(prefix="collapse-") as temporary, _interruptible():
        with console.status("looking up model and text") if console.is_terminal else nullcontext():
            if not learners.learner_class(config.learner).light:
                quiet_libraries()
            if not dry_run:
                _make(store.root)
            prepared = prepare(config, folder, store, Path(temporary) if dry_run else None, jobs)
        if dry_run:
            return describe(prepared, store, folder)
        return _run(prepared, folder, store, console)


def _run(prepared: Prepared, folder: RunFolder, store: Store, console: Console) -> dict[str, Any]:
    planned, config = prepared.plan, prepared.config
    needed = to_do(planned, store)
    check_disk(prepared, needed, folder.runs)
    missing = {stage.key for stage in needed}
    there = [stage for key, stage in planned.stages.items() if key not in missing and store.has(key)]
    measured = {
        (one.policy, one.seed, one.generation): [stage.key for stage in one.measured] for one in planned.generations
    }
    folder.start(config, planned.record(), measured)
    store.tidy(planned.stages)
    page = Page(folder)
    with show.Progressing(console, len(there) + len(needed)) as shown:
        try:
            with tracking.open_mirrors(config, folder.path, folder.name, folder.record(), folder.rows) as mirrors:
                for note in prepared.notes:
                    shown.line(f"note: {note}")
                work = Work(folder, store, prepared, shown, mirrors, page)
                _compute([*there, *needed], prepared, store, work)
            if config.store.keep_models != "all":
                prune(folder, store, config, planned)
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt | BrokenPipeError)  # the latter as by `| head -1`
            folder.finish("interrupted" if interrupted else "error", "" if interrupted else str(error))
            page.write(forecast=False)
            raise
        folder.finish("success")
        page.write(forecast=True)
    rows, tree = folder.rows(), config.model_dump(mode="json")
    return {
        "run": folder.name,
        "folder": str(folder.path),
        "computed": len(work.computed),
        "cached": len(there) + len(needed) - len(work.computed),
        "report": str(folder.path / "report.html"),
        "verdict": outcome.verdict(rows, tree),
        "expect": [vars(one) | {"ours": one.ours.record() if one.ours else None} for one in judge(rows, tree)],
        "expect_of_another": not_as_published(tree),
        "config": tree,
        "rows": rows,
        "warnings": show.row_warnings(rows),
    }


def _compute(stages: list[Stage], prepared: Prepared, store: Store, work: Work) -> None:
    """Side by side what can be; in this process, while the workers start, what all of that waits for."""
    here = LocalExecutor(store, BODIES)
    if prepared.workers == 1:
        here.run(stages, work)
        return
    at_once = width(prepared.plan)
    rest = {stage.key: stage for stage in stages}
    for stage in stages:
        if at_once[stage.key] == 1 and not any(made.key in rest for made in stage.inputs.values()):
            del rest[stage.key]
    alone = [stage for stage in stages if stage.key not in rest]
    order = {
        "config": prepared.config.model_dump(mode="json"),
        "hints": prepared.resolved.hints,
        "store": str(store.root),
    }
    missing = sum(not store.has(key) for key in rest)
    with ExitStack() as stack:
        crew = [stack.enter_context(Worker(order)) for _ in range(min(prepared.workers, missing))]
        here.run(alone, work)
        SideBySide(store, crew, prepared.threads).run(list(rest.values()), work)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # as below /proc
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); choose another --runs-dir") from None


class Reading:
    """Finished stages, each read once: a block's record holds many generations."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._read: dict[str, Finished] = {}

    def of(self, key: str) -> Finished:
        if key not in self._read:
            self._read[key] = self.store.get(key)
        return self._read[key]


def metrics_row(generation: Generation, stages: Reading) -> dict[str, Any]:
    """A row of `metrics.jsonl`, all of it from the eval stages: that of its model may be pruned by now."""
    key, made, store = generation.train.key, stages.of(generation.eval.key), stages.store
    facts = facts_of(generation, made)
    examined = stages.of(generation.samples.key) if generation.samples else None
    seconds = facts["seconds"] if generation.part is not None else {**facts["seconds"], "eval": made.seconds}
    if examined:
        seconds["examine"] = examined.seconds
    return {
        "policy": generation.policy,
        "seed": generation.seed,
        "generation": generation.generation,
        "model_key": key,
        "eval_keys": [stage.key for stage in generation.measured],
        "model_dir": store.folder(key).relative_to(store.root.parent).as_posix(),
        "sample_tokens": 0,
        **facts,
        **(examined.facts if examined else {}),
        **generation.about,
        "seconds": seconds,
    }


def prune(folder: RunFolder, store: Store, config: Experiment, planned: Plan) -> int:
    """Drop the weights that `store.keep_models` does not keep and no plan in the runs folder still needs."""
    last = config.loop.generations
    ends = {one.train.key for one in planned.generations if one.generation in (0, last)}
    mine = {one.train.key for one in planned.generations} - (ends if config.store.keep_models == "ends" else set())
    plans = [(folder.name, planned.record())] + [
        (other.name, other.plan()) for other in all_runs(folder.runs) if other.name != folder.name
    ]
    wanted: set[str] = set()
    for name, stages in plans:
        keeps = name != folder.name and RunFolder(folder.runs, name).config().store.keep_models == "all"
        for stage in stages:
            if not store.has(stage["key"], whole=False):
                wanted.update(stage["inputs"].values())
            if keeps:
                wanted.add(stage["key"])
    freed = 0
    for key in mine - wanted:
        if store.has(key):
            with store.locked(key) as held:
                freed += store.prune(key) if held else 0
    return freed


@contextmanager
def _interruptible() -> Iterator[None]:
    """A polite request to end (SIGTERM, as from a cluster's scheduler; SIGHUP, when the terminal goes) ends a run as
    Ctrl-C does. Under `nohup` SIGHUP stays ignored.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
    before = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
