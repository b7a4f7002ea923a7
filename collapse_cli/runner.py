"""`collapse run`: from a configuration to a run folder. What the loop itself does stands in `loop.py`."""

import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collapse_cli import console as show
from collapse_cli import costs, learners, metrics, policies
from collapse_cli.config import ConfigError, Experiment
from collapse_cli.costs import Cost, Size
from collapse_cli.executors import LocalExecutor, missing
from collapse_cli.loop import BODIES, Generation, Plan, plan
from collapse_cli.rundir import STORE, RunFolder, all_runs
from collapse_cli.stage import Finished, Stage
from collapse_cli.store import Store


@dataclass
class Prepared:
    """An experiment ready to run: everything looked up, and its real data in the store."""

    config: Experiment
    resolved: Any
    plan: Plan
    data: Finished
    size: Size


class Work:
    """One run at work: hears of its stages, shows them, and writes its rows and events."""

    def __init__(self, folder: RunFolder, store: Store, prepared: Prepared, shown: show.Progressing) -> None:
        self.folder, self.store, self.shown, self.plan = folder, store, shown, prepared.plan
        self.config = prepared.config
        self.computed: list[str] = []
        self.warnings: list[str] = []
        self._by_eval: dict[str, list[Generation]] = {}
        for generation in self.plan.generations:
            self._by_eval.setdefault(generation.eval.key, []).append(generation)
        self._clock = Clock(prepared)

    def started(self, stage: Stage) -> None:
        self.shown.started(stage.kind, self._label(stage))
        self.folder.add_event({"event": "started", **self._event(stage)})

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        self.shown.progress(done, total, unit)

    def waiting(self, stage: Stage) -> None:
        self.shown.waiting(f"{stage.kind} {self._label(stage)}")

    def finished(self, stage: Stage, made: Finished, *, cached: bool) -> None:
        if not cached:
            self.computed.append(stage.key)
            speed = {"seconds": made.seconds, "note": show.stage_note(made), "peak_memory_mb": peak_memory_mb()}
            self.folder.add_event({"event": "finished", **self._event(stage), **speed})
        else:
            self.folder.add_event({"event": "cached", **self._event(stage)})
        self._clock.finished(stage, None if cached else made.seconds)
        self.shown.left = self._clock.left()
        note = "" if cached else show.stage_note(made)
        self.shown.finished(stage.kind, self._label(stage), seconds=made.seconds, cached=cached, note=note)
        for generation in self._by_eval.get(stage.key, []):
            self._add_row(generation, made)
        if not cached and self.config.store.keep_models != "all" and stage.kind in ("eval", "sample", "train"):
            prune(self.folder, self.store, self.config, self.plan)

    def _add_row(self, generation: Generation, made: Finished) -> None:
        rows = {(row["policy"], row["seed"], row["generation"]): row for row in self.folder.rows()}
        before = rows.get((generation.policy, generation.seed, generation.generation - 1))
        row = metrics_row(generation, made, self.store)
        row["warnings"] = metrics.warnings(
            row, before, max_duplicates=self.config.sample.max_duplicates, selects=self.config.train.select == "valid"
        )
        if self.folder.add_row(row):
            where = f"{generation.policy}, seed {generation.seed}, generation {generation.generation}"
            self.warnings.extend(f"{where}: {warning}" for warning in row["warnings"])

    def _label(self, stage: Stage) -> str:
        return show.stage_label(stage, self.plan.serves[stage.key])

    def _event(self, stage: Stage) -> dict[str, Any]:
        return {"kind": stage.kind, "key": stage.key, "for": self.plan.serves[stage.key][0]}


class Clock:
    """Time left for a plan: guesses per stage, corrected by how long finished stages of the kind took."""

    def __init__(self, prepared: Prepared) -> None:
        self.plan, speed = prepared.plan, costs.matmul_speed(prepared.config.train.dtype)
        self.guesses = {
            key: costs.seconds(stage.kind, stage_cost(prepared, stage), speed, prepared.size.layers)
            for key, stage in self.plan.stages.items()
        }
        self.todo = dict(self.guesses)
        self.observed: list[tuple[str, float, float]] = []

    def finished(self, stage: Stage, seconds: float | None) -> None:
        self.todo.pop(stage.key, None)
        if seconds is not None:
            self.observed.append((stage.kind, self.guesses[stage.key], seconds))

    def left(self, among: Mapping[str, Any] | None = None) -> float:
        """Seconds, for all stages still to do, or for some of them."""
        factors = costs.correction(self.observed)
        keys = self.todo if among is None else {key: self.todo[key] for key in among if key in self.todo}
        return sum(guess * factors.get(self.plan.stages[key].kind, 1.0) for key, guess in keys.items())


def run(config: Experiment, runs: Path, name: str, shown: Any, *, dry_run: bool = False) -> dict[str, Any]:
    """Run an experiment, or only say what it would cost. Returns what `--json` prints.

    Raises:
        ConfigError, InputError: for what the user has to mend; nothing has been written into the run folder then.
    """
    folder, store = RunFolder(runs, name), Store(runs / STORE)
    quiet_libraries()
    for policy in config.loop.policies:
        policies.parse(policy)
    if not dry_run:
        (runs / STORE).mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="collapse-") as temporary,
        _interruptible(),
    ):
        prepared = prepare(config, folder, store, None if not dry_run else Path(temporary))
        if dry_run:
            return describe(prepared, store, folder)
        return _run(prepared, folder, store, shown)


def prepare(config: Experiment, folder: RunFolder, store: Store, temporary: Path | None) -> Prepared:
    """Look everything up and bring the real data into the store (or, for a dry run, into a temporary one)."""
    learner = learners.learner_class(config.learner)
    resolved = learner.resolve(config.model_dump(mode="json"))
    config = folder.check(Experiment.model_validate(resolved.tree))
    planned = plan(config, resolved.hints)
    stage = next(iter(planned.stages.values()))
    place = store if temporary is None or store.has(stage.key) else Store(temporary)
    place.root.mkdir(parents=True, exist_ok=True)
    LocalExecutor(place, BODIES).run([stage], Silent())
    data = place.get(stage.key)
    rows = {split: about["rows"] for split, about in data.facts["splits"].items()}
    for policy in config.loop.policies:
        policies.check(
            policies.parse(policy),
            rows["train"],
            rows["reserve"],
            config.loop.generations,
            growing=config.mix.size == "growing",
        )
    size = Size(
        resolved.parameters,
        resolved.layer_parameters,
        resolved.head_parameters,
        resolved.layers,
        rows["train"],
        rows["test"],
    )
    return Prepared(config, resolved, planned, data, size)


def _run(prepared: Prepared, folder: RunFolder, store: Store, shown: Any) -> dict[str, Any]:
    planned, config = prepared.plan, prepared.config
    needed = to_do(planned, store)
    check_disk(prepared, needed, folder.runs)
    models = {(one.policy, one.seed, one.generation): one.train.key for one in planned.generations}
    folder.start(config, plan_record(planned), models)
    there = [stage for stage in planned.stages.values() if stage not in needed and store.has(stage.key)]
    try:
        with shown(len(needed) + len(there)) as progressing:
            for note in prepared.data.facts["notes"]:
                progressing.line(f"note: {note}")
            work = Work(folder, store, prepared, progressing)
            LocalExecutor(store, BODIES).run([*there, *needed], work)
        if config.store.keep_models != "all":
            prune(folder, store, config, planned)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        folder.finish("interrupted" if interrupted else "error", "" if interrupted else str(error))
        raise
    folder.finish("success")
    return {
        "run": folder.name,
        "folder": str(folder.path),
        "computed": len(work.computed),
        "cached": len(needed) + len(there) - len(work.computed),
        "rows": folder.rows(),
        "warnings": work.warnings,
    }


def to_do(planned: Plan, store: Store) -> list[Stage]:
    """The stages that are still to be computed so that every generation is measured."""
    return missing(list(planned.stages.values()), store, lambda stage: stage.kind == "eval")


def describe(prepared: Prepared, store: Store, folder: RunFolder) -> dict[str, Any]:
    """The plan in numbers, for `--dry-run`."""
    planned, needed = prepared.plan, to_do(prepared.plan, store)
    kinds: dict[str, dict[str, float]] = {}
    clock = Clock(prepared)
    for key, stage in planned.stages.items():
        if store.has(key):
            clock.finished(stage, store.get(key).seconds)
    for stage in planned.stages.values():
        entry = kinds.setdefault(
            stage.kind, {"stages": 0, "cached": 0, "tokens": 0, "flops": 0.0, "disk": 0, "seconds": 0.0}
        )
        entry["stages"] += 1
        if stage not in needed:
            entry["cached"] += 1
            continue
        cost = stage_cost(prepared, stage)
        entry["tokens"] += cost.tokens
        entry["flops"] += cost.flops
        entry["disk"] += cost.disk
        entry["seconds"] += clock.left({stage.key: 0})
    disk = costs.disk_needed([(stage.kind, stage_cost(prepared, stage)) for stage in needed], prepared.config, prepared.size)
    return {
        "run": folder.name,
        "stages": len(planned.stages),
        "cached": len(planned.stages) - len(needed),
        "kinds": kinds,
        "parameters": prepared.size.parameters,
        "rows": prepared.size.rows,
        "disk_needed": disk,
        "disk_free": shutil.disk_usage(_existing(folder.runs)).free,
        "seconds": sum(entry["seconds"] for entry in kinds.values()),
        "measured": bool(clock.observed),
    }


def stage_cost(prepared: Prepared, stage: Stage) -> Cost:
    policy, _, generation = prepared.plan.serves[stage.key][0]
    return costs.cost(stage.kind, policy, generation, prepared.config, prepared.size)


def check_disk(prepared: Prepared, needed: Sequence[Stage], runs: Path) -> None:
    """Stop before starting when the plan will not fit on the disk."""
    pairs = [(stage.kind, stage_cost(prepared, stage)) for stage in needed]
    wanted = costs.disk_needed(pairs, prepared.config, prepared.size) if needed else 0
    free = shutil.disk_usage(_existing(runs)).free
    if wanted > free:
        raise ConfigError(
            f"the plan needs about {show.size(wanted)} on the disk of {runs}, where {show.size(free)} are free; free "
            "some (collapse gc), use another --runs-dir, or --set store.keep_models=ends"
        )


def metrics_row(generation: Generation, made: Finished, store: Store) -> dict[str, Any]:
    """A row of `metrics.jsonl`, all of it from the eval stage: that of its model may be pruned by now."""
    key = generation.train.key
    seconds = {**made.facts["seconds"], "eval": made.seconds}
    return {
        "policy": generation.policy,
        "seed": generation.seed,
        "generation": generation.generation,
        "model_key": key,
        "model_dir": store.folder(key).relative_to(store.root.parent).as_posix(),
        "sample_tokens": 0,
        **made.facts,
        "seconds": seconds,
    }


def plan_record(planned: Plan) -> list[dict[str, Any]]:
    """`plan.json`: what each stage is, what it is made from, and for which generations."""
    return [
        {
            "kind": stage.kind,
            "key": key,
            "inputs": {name: made.key for name, made in stage.inputs.items()},
            "for": planned.serves[key],
        }
        for key, stage in planned.stages.items()
    ]


def prune(folder: RunFolder, store: Store, config: Experiment, planned: Plan) -> int:
    """Drop the weights that `store.keep_models` does not keep and no plan in the runs folder still needs."""
    last = config.loop.generations
    ends = {one.train.key for one in planned.generations if one.generation in (0, last)}
    mine = {one.train.key for one in planned.generations} - (ends if config.store.keep_models == "ends" else set())
    plans = [(folder.name, plan_record(planned))] + [
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


class Silent:
    """A listener that shows nothing."""

    def started(self, stage: Stage) -> None: ...
    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None: ...
    def waiting(self, stage: Stage) -> None: ...
    def finished(self, stage: Stage, made: Finished, *, cached: bool) -> None: ...


def quiet_libraries() -> None:
    """No progress bars and advice of transformers and datasets between our own lines."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def peak_memory_mb() -> int:
    """The most memory this process has held so far, in MB; on a GPU, what torch held there."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    try:
        import resource
    except ImportError:  # not on Windows
        import psutil

        return int(psutil.Process().memory_info().rss) >> 20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20


@contextmanager
def _interruptible() -> Iterator[None]:
    """A polite request to end (SIGTERM, as from a cluster's scheduler) ends a run as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())
