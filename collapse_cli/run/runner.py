"""`collapse run`: from a configuration to a run folder. What the loop itself does stands in `experiment/loop.py`."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from collapse_cli import families, report, tracking
from collapse_cli.config import Experiment, variants_of
from collapse_cli.engine.stage import Stage
from collapse_cli.engine.store import Store
from collapse_cli.errors import ConfigError
from collapse_cli.experiment import foreign_sources
from collapse_cli.findings import causes
from collapse_cli.findings.run_result import Results, RunResult
from collapse_cli.process import interruptible, interrupts_kept, quiet_libraries
from collapse_cli.records.at_work import working
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import store_of
from collapse_cli.run import early_checks, finished, kept_timings
from collapse_cli.run.computing import compute
from collapse_cli.run.costs import CostsAsked, check_disk, describe
from collapse_cli.run.execution import DEFAULT, Execution
from collapse_cli.run.garbage import drop_shards
from collapse_cli.run.observers import Observers
from collapse_cli.run.observers.computed import Computed
from collapse_cli.run.observers.events import Events
from collapse_cli.run.observers.kept_texts import KeepingTexts
from collapse_cli.run.observers.mirroring import Mirroring
from collapse_cli.run.observers.progress import Progress
from collapse_cli.run.observers.pruning import Pruning
from collapse_cli.run.observers.reporting import Reporting
from collapse_cli.run.observers.rows import Rows
from collapse_cli.run.preparation import Prepared, prepare, to_do
from collapse_cli.terminal.plan import PlanCosts
from collapse_cli.terminal.progress import ProgressBars

log = logging.getLogger(__name__)


def run_all(
    config: Experiment,
    runs: Path,
    name: str,
    console: Console,
    execution: Execution = DEFAULT,
) -> Results:
    """Run an experiment, or each of its variants as a run of its own, `NAME-VARIANT`, and one report on all of them.

    Arguments and errors as those of `run`.
    """
    variants = variants_of(config, name)
    if not variants:
        return Results([run(config, runs, name, console, execution)])
    folders = _folders_of_variants(variants, runs, name, execution)
    done = []
    for folder, changed in folders.items():
        console.print(f"{folder.name}:", style="bold", highlight=False, markup=False)
        done.append(run(changed, runs, folder.name, console, execution))
    rows = {variant: folder.rows() for variant, folder in zip(variants, folders, strict=True)}
    return Results(done, _page_of_variants(list(folders), runs / f"{name}.html"), causes.shares(rows))


def plan_all(
    config: Experiment,
    runs: Path,
    name: str,
    console: Console,
    execution: Execution = DEFAULT,
    *,
    loading: float = 0.0,
) -> list[PlanCosts]:
    """What `run_all` would cost, of each run: a stage that several share is counted with the first. Nothing is run but short trials.

    Args:
        loading: seconds that the libraries took to load, as they will again.
    """
    variants = variants_of(config, name)
    folders = _folders_of_variants(variants, runs, name, execution) if variants else {RunFolder(runs, name): config}
    with tempfile.TemporaryDirectory(prefix="collapse-") as temporary:
        asked = CostsAsked(Path(temporary) / "timed", len(folders), loading=loading)
        made = []
        with closing(asked.places):
            for folder, changed in folders.items():
                made.append(_plan(changed, folder, Path(temporary) / "store", console, execution, asked))
                asked.loading = 0.0
    kept_timings.keep(asked.timings, execution)
    return made


def _folders_of_variants(
    variants: Mapping[str, Experiment], runs: Path, name: str, execution: Execution
) -> dict[RunFolder, Experiment]:
    """Where each variant is run; a name that is none, or a variant that cannot be, is said before anything runs."""
    folders = {RunFolder(runs, f"{name}-{variant}"): changed for variant, changed in variants.items()}
    for folder, changed in folders.items():
        early_checks.check_experiment(changed, folder)
        execution.check(changed)
    return folders


def _page_of_variants(folders: Sequence[RunFolder], page: Path) -> Path | None:
    """One report on all of them; None where it could not be written."""
    try:
        return report.write_report(folders, page)
    except Exception as error:  # the runs are done, and it can be made again
        log.warning("%s could not be written (%s: %s); the runs are not affected", page, type(error).__name__, error)
        return None


def run(
    config: Experiment,
    runs: Path,
    name: str,
    console: Console,
    execution: Execution = DEFAULT,
    *,
    worded: Callable[[str], str] = str,
) -> RunResult:
    """Run an experiment.

    Args:
        execution: how it is computed.
        worded: how a command that made the configuration says a note on the data.

    Raises:
        ConfigError, InputError: for what the user has to mend; nothing has been written into the run folder then.
    """
    folder, store = RunFolder(runs, name), store_of(runs)
    early_checks.check_experiment(config, folder)
    execution.check(config)
    with interruptible():
        before = finished.circumstances(config)
        with _looking_up(config, console):
            _begin(store)
            prepared = prepare(config, folder, store, None, execution)
        prepared = replace(prepared, notes=[worded(note) for note in prepared.notes])
        result = _run(prepared, folder, store, console)
        if result.report is not None:
            finished.remember(before, folder, prepared.plan, prepared.notes)
        return result


def _plan(
    config: Experiment,
    folder: RunFolder,
    temporary: Path,
    console: Console,
    execution: Execution,
    asked: CostsAsked,
) -> PlanCosts:
    """What one run would cost."""
    store, began = store_of(folder.runs), time.perf_counter()
    early_checks.check_experiment(config, folder)
    execution.check(config)
    with interruptible():
        with _looking_up(config, console):
            prepared = prepare(config, folder, store, temporary, execution)
        reading = sum(prepared.real[key].seconds for key in prepared.computed if key in prepared.real)
        asked.loading += max(0.0, time.perf_counter() - began - reading)
        with console.status("timing a few steps of each kind of stage") if console.is_interactive else nullcontext():
            return describe(prepared, store, folder, asked)


@contextmanager
def _looking_up(config: Experiment, console: Console) -> Iterator[None]:
    """While model and text are looked up: that is said, and nothing of what libraries would say of it."""
    with console.status("looking up model and text") if console.is_interactive else nullcontext():
        if not families.of(config.learner).light:
            quiet_libraries()
        yield


def _run(prepared: Prepared, folder: RunFolder, store: Store, console: Console) -> RunResult:
    planned, config = prepared.plan, prepared.config
    needed = to_do(planned, store)
    check_disk(prepared, needed, folder.runs)
    foreign_sources.check_servers(needed)
    missing = {stage.key for stage in needed}
    there = [stage for key, stage in planned.stages.items() if key not in missing and store.has(key)]
    measured = {made.where: [stage.key for stage in made.measured] for made in planned.generations}
    with working(folder.path):
        folder.start(config, planned.record(), measured)
        store.tidy(planned.stages)
        computed, page = _compute(prepared, folder, store, console, there, needed)
    cached = len(there) + len(needed) - computed
    return RunResult.of(folder.path, config, folder.rows(), page, computed=computed, cached=cached)


def _compute(
    prepared: Prepared,
    folder: RunFolder,
    store: Store,
    console: Console,
    there: Sequence[Stage],
    needed: Sequence[Stage],
) -> tuple[int, Path | None]:
    """Make what is needed, with all that hears of it, and write how it ended.

    Returns:
        How many stages were computed; the report, None where it could not be written.
    """
    planned, config = prepared.plan, prepared.config
    reporting, computed, pruning = Reporting(folder), Computed(), Pruning(folder, store, config, planned)
    texts = KeepingTexts(folder, store, config, planned)
    before = [
        (stage, made.seconds)
        for stage in there
        if stage.key not in prepared.computed and prepared.took_as_long(stage, made := store.get(stage.key))
    ]
    with ProgressBars(console, len(there) + len(needed)) as shown:
        try:
            with (
                interrupts_kept(),
                tracking.open_mirrors(config, folder.path, folder.name, folder.record(), folder.rows) as mirrors,
            ):
                for note in (*prepared.notes, *prepared.of_command):
                    shown.line(f"note: {note}")
                rows = Rows(folder, store, config, planned, readers=[Mirroring(mirrors), texts, reporting])
                progress = Progress(shown, prepared, needed, before)
                observers = [computed, Events(folder, planned), progress, rows, pruning]
                compute([*there, *needed], prepared, store, Observers(observers, new=prepared.computed))
            pruning.prune()
            drop_shards(planned, store)
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt | BrokenPipeError)  # the latter as by `| head -1`
            folder.finish("interrupted" if interrupted else "error", "" if interrupted else str(error))
            reporting.write(forecast=False)
            raise
        folder.finish("success")
        reporting.write(forecast=True)
    return len(computed.keys), reporting.page


def _begin(store: Store) -> None:
    try:
        store.begin()
    except FileNotFoundError as error:  # as below /proc
        raise ConfigError(f"{store.here} cannot be made ({error.strerror}); choose another --runs-dir") from None
