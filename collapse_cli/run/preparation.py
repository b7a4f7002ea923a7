"""Before a run: everything looked up, the real data in the store, and what the plan will cost."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collapse_cli import families, learners
from collapse_cli.config import Experiment
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.executors.processes import workers_for
from collapse_cli.engine.stage import Cost, Plan, Stage
from collapse_cli.engine.store import Store, store_at
from collapse_cli.errors import ConfigError
from collapse_cli.experiment import mixture, policies
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.kinds import plan
from collapse_cli.learners import Resolved
from collapse_cli.metrics import numbers
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run import costs
from collapse_cli.run.observers.computed import Computed

# When stages are worked on side by side unasked. Nothing measured has a say: it decides how sums are rounded.
LARGE = 20_000_000  # parameters; a model of more keeps all cores busy, and two at once need twice the memory
WORTH = 60.0  # nominal seconds of a whole plan; for less, starting the workers takes longer than they save
LIGHT_WORTH = 5.0  # the same of workers that need no torch
NOMINAL_SPEED = 1e11  # FLOP/s
RECENT = 24  # finished stages that the estimate of the time left is made from


@dataclass
class Prepared:
    """An experiment ready to run: everything looked up, and its real data in the store.

    Attributes:
        notes: what the user should know of the real data.
        computed: keys of the stages that were computed for this: the real data of the first seed.
        workers: how many stages are computed side by side.
        threads: by key, how many a stage may use.
    """

    config: Experiment
    resolved: Resolved
    plan: Plan
    notes: list[str]
    computed: list[str]
    size: Size
    workers: int
    threads: dict[str, int]


def prepare(config: Experiment, folder: RunFolder, store: Store, temporary: Path | None, jobs: int) -> Prepared:
    """Look everything up and bring the real data into the store (or, for a dry run, into a temporary one)."""
    import torch

    learner = learners.learner_class(config.learner)
    resolved = learner.resolve(config.model_dump(mode="json"))
    config = folder.check(Experiment.model_validate(resolved.tree))
    planned = plan(config, resolved.hints)
    observer, notes, rows = Computed(), [], dict.fromkeys(("train", "test", "reserve"), 0)
    stage = next(iter(planned.stages.values()))
    if stage.kind == "data":  # a mixture that is done in memory draws its own
        place = store if temporary is None or store.has(stage.key) else store_at(temporary)
        place.begin()
        scheduler.run([stage], LocalExecutor(place), observer)
        data = place.get(stage.key)
        rows, notes = {split: about["rows"] for split, about in data.facts["splits"].items()}, data.facts["notes"]
        if config.kind == "mixture":
            mixture.check(config, rows["train"])
    for policy in config.loop.policies if config.kind == "generational" else ():
        policies.check(
            policies.parse(policy),
            rows["train"],
            rows["reserve"],
            config.loop.generations,
            growing=config.mix.size == "growing",
        )
        if config.mix.size == "constant" and (said := policies.rounded(policies.parse(policy), rows["train"])):
            notes = [*notes, said]
    size = Size(
        config,
        resolved.parameters,
        resolved.layer_parameters,
        resolved.head_parameters,
        resolved.layers,
        rows["train"],
        rows["test"],
        resolved.row_bytes,
        resolved.row_flops,
    )
    cores = torch.get_num_threads()
    prepared = Prepared(
        config, resolved, planned, list(dict.fromkeys([*resolved.notes, *notes])), observer.keys, size, 1, {}
    )
    worth = LIGHT_WORTH if families.of(config.learner).light else WORTH
    pays = not torch.cuda.is_available() and size.parameters <= LARGE and nominal_seconds(prepared) > worth
    workers = workers_for(planned, cores, jobs, pays=pays)
    threads = {key: max(1, cores // min(at_once, workers)) for key, at_once in scheduler.width(planned).items()}
    return replace(prepared, workers=workers, threads=threads)


def to_do(planned: Plan, store: Store) -> list[Stage]:
    """The stages that are still to be computed so that every generation is measured."""
    return scheduler.missing(list(planned.stages.values()), store, lambda stage: stage.kind in ("eval", "block"))


def describe(prepared: Prepared, store: Store, folder: RunFolder) -> dict[str, Any]:
    """The plan in numbers, for `--dry-run`."""
    planned, needed = prepared.plan, {stage.key: stage for stage in to_do(prepared.plan, store)}
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
        if stage.key not in needed:
            entry["cached"] += 1
            continue
        cost = stage_cost(prepared, stage)
        entry["tokens"] += cost.tokens
        entry["flops"] += cost.flops
        entry["disk"] += cost.disk
        entry["seconds"] += clock.left({stage.key: 0})
    disk = costs.disk_needed([(stage.kind, stage_cost(prepared, stage)) for stage in needed.values()], prepared.size)
    return {
        "run": folder.name,
        "stages": len(planned.stages),
        "cached": len(planned.stages) - len(needed),
        "kinds": kinds,
        "parameters": prepared.size.parameters,
        "rows": prepared.size.rows,
        "disk_needed": disk,
        "disk_free": shutil.disk_usage(existing(folder.runs)).free,
        "seconds": sum(entry["seconds"] for entry in kinds.values()),
        "measured": bool(clock.observed),
        "notes": prepared.notes,
    }


def nominal_seconds(prepared: Prepared) -> float:
    """Of the whole plan, on a machine of `NOMINAL_SPEED`."""
    return sum(
        stage_cost(prepared, stage).seconds(NOMINAL_SPEED, prepared.size.layers)
        for stage in prepared.plan.stages.values()
    )


def stage_cost(prepared: Prepared, stage: Stage) -> Cost:
    return stage.of.cost(stage, prepared.size)


def check_disk(prepared: Prepared, needed: Sequence[Stage], runs: Path) -> None:
    """Stop before starting when the plan will not fit on the disk."""
    pairs = [(stage.kind, stage_cost(prepared, stage)) for stage in needed]
    wanted = costs.disk_needed(pairs, prepared.size) if needed else 0
    free = shutil.disk_usage(existing(runs)).free
    if wanted > free:
        raise ConfigError(
            f"the plan needs about {numbers.size(wanted)} on the disk of {runs}, where {numbers.size(free)} are free; free "
            "some (collapse gc), use another --runs-dir, or --set store.keep_models=ends"
        )


class Clock:
    """Time left for a plan: guesses per stage, corrected by how long finished stages of the kind took."""

    def __init__(self, prepared: Prepared) -> None:
        self.plan, self.workers = prepared.plan, prepared.workers
        known = prepared.resolved.row_flops > 0  # a family says what its rows cost at the nominal speed
        speed = NOMINAL_SPEED if known else costs.matmul_speed(prepared.config.train.dtype)
        self.guesses = {
            # a stage beside others has its share of the cores
            key: stage_cost(prepared, stage).seconds(speed, prepared.size.layers) * self.workers
            for key, stage in self.plan.stages.items()
        }
        self.todo = dict(self.guesses)
        self.observed: list[tuple[str, float, float]] = []  # kind, guessed, real; the newest count

    def finished(self, stage: Stage, seconds: float | None) -> None:
        self.todo.pop(stage.key, None)
        if seconds is not None:
            self.observed.append((stage.work, self.guesses[stage.key], seconds))

    def left(self, among: Mapping[str, Any] | None = None) -> float:
        """Seconds, for all stages still to do, or for some of them."""
        factors = costs.correction(self.observed[-RECENT:])
        keys = self.todo if among is None else {key: self.todo[key] for key in among if key in self.todo}
        return sum(guess * factors.get(self.plan.stages[key].work, 1.0) for key, guess in keys.items()) / self.workers


def existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())
