"""Before a run: everything looked up, the real data in the store, and how many stages are computed at a time."""

from dataclasses import dataclass
from pathlib import Path

from collapse_cli import families, learners
from collapse_cli.config import Experiment
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.executors.processes import workers_for
from collapse_cli.engine.stage import Plan, Product, Stage
from collapse_cli.engine.store import Store, store_at
from collapse_cli.experiment import mixing, mixture
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.kinds import plan
from collapse_cli.learners import Resolved
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.observers.computed import Computed
from collapse_cli.selection.resolve import resolve

# When several stages are computed at the same time unasked. Nothing measured has a say: it decides how sums are rounded.
LARGE = 20_000_000  # parameters; a model of more keeps all cores busy, and two at once need twice the memory
WORTH = 60.0  # nominal seconds of a whole plan; for less, starting the workers takes longer than they save
LIGHT_WORTH = 5.0  # the same of workers that need no torch
NOMINAL_SPEED = 1e11  # FLOP/s


@dataclass
class Prepared:
    """An experiment ready to run: everything looked up, and its real data in the store.

    Attributes:
        notes: what the user should know of the real data.
        computed: keys of the stages that were computed for this: the real data of the first seed.
        workers: how many stages are computed at the same time.
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
    learner = learners.learner_class(config.learner)
    resolved = resolve(learner.resolve(config))
    config = folder.joined_with(resolved.config)
    planned = plan(config, resolved.hints)
    observer, notes, rows = Computed(), [], dict.fromkeys(("train", "test", "reserve"), 0)
    stage = next(iter(planned.stages.values()))
    if stage.of.product is Product.DATA:  # a mixture that is done in memory draws its own
        place = store if temporary is None or store.has(stage.key) else store_at(temporary)
        place.begin()
        scheduler.run([stage], LocalExecutor(place), observer)
        data = place.get(stage.key)
        rows, notes = {split: about["rows"] for split, about in data.facts["splits"].items()}, data.facts["notes"]
        if config.kind == "mixture":
            mixture.check_real_rows(config, rows["train"])
    for policy in config.policies if config.kind == "generational" else ():
        mixing.check_real_rows(
            policy, rows["train"], rows["reserve"], config.loop.generations, growing=config.mix.size == "growing"
        )
        if config.mix.size == "constant" and (note := mixing.rounding_note(policy, rows["train"])):
            notes = [*notes, note]
        if note := mixing.schedule_note(policy, config.loop.generations):
            notes = [*notes, note]
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
        resolved.adapter_parameters,
    )
    workers, threads = shared_out(planned, size, jobs)
    notes = list(dict.fromkeys([*resolved.notes, *notes]))
    return Prepared(config, resolved, planned, notes, observer.keys, size, workers, threads)


def shared_out(planned: Plan, size: Size, jobs: int) -> tuple[int, dict[str, int]]:
    """How many stages are computed at a time, and by key how many threads each has."""
    import torch

    cores = torch.get_num_threads()
    stages = planned.stages.values()
    seconds = sum(size.cost_of(stage).seconds(NOMINAL_SPEED, size.layers) for stage in stages)
    worth = LIGHT_WORTH if families.of(size.config.learner).light else WORTH
    pays = not torch.cuda.is_available() and size.parameters <= LARGE and seconds > worth
    workers = workers_for(planned, cores, jobs, pays=pays)
    return workers, {key: max(1, cores // min(at_once, workers)) for key, at_once in scheduler.width(planned).items()}


def to_do(planned: Plan, store: Store) -> list[Stage]:
    """The stages that are still to be computed so that every generation is measured."""
    return scheduler.missing(list(planned.stages.values()), store, lambda stage: stage.of.product is Product.MEASURES)
