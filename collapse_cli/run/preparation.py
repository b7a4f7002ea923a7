"""Before a run: everything looked up, the real data in the store, and how many stages are computed at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from collapse_cli import cores, families, learners
from collapse_cli.config import Experiment
from collapse_cli.config.pool import notes as notes_on_pool
from collapse_cli.data.dataset import UNSCORED, load_text, pinned
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.executors.processes import workers_for
from collapse_cli.engine.folder_store import size_of
from collapse_cli.engine.stage import Finished, NotYetHere, Plan, Product, Stage, never_split
from collapse_cli.engine.store import Store, store_at
from collapse_cli.errors import ConfigError, how_many
from collapse_cli.experiment import foreign_sources, mixing, mixture
from collapse_cli.experiment.costs import Size, Sizes
from collapse_cli.experiment.kinds import plan
from collapse_cli.experiment.pool import Pool
from collapse_cli.experiment.stages.public import PUBLIC
from collapse_cli.experiment.stages.translate import TRANSLATE
from collapse_cli.experiment.stages.written import WRITTEN
from collapse_cli.learners import Hints, Resolved
from collapse_cli.learners.protocol import TOKENIZER
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.early_checks import of_lineage
from collapse_cli.run.execution import Execution
from collapse_cli.run.observers.computed import Computed
from collapse_cli.run.threads import that_pay
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
        real: by key, the real data of the first seed, where they are.
        execution: how it was asked to be computed.
        of_command: what the user should know of what this command asked for.
    """

    config: Experiment
    hints: Hints
    plan: Plan
    notes: list[str]
    computed: list[str]
    size: Sizes
    workers: int
    threads: dict[str, int]
    real: dict[str, Finished]
    execution: Execution
    of_command: Sequence[str]

    def took_as_long(self, stage: Stage, made: Finished) -> bool:
        """Whether a finished stage says how long such a stage takes in this run: not a training on another number of devices."""
        return stage.of.product is not Product.MODEL or made.facts.get("devices", 1) == self.execution.devices


def prepare(
    config: Experiment,
    folder: RunFolder,
    store: Store,
    temporary: Path | None,
    execution: Execution,
) -> Prepared:
    """Look everything up and bring the real data into the store (or, for a dry run, into a temporary one)."""
    here = execution.executor == "local"
    shared = notes_on_devices(config, execution.devices) if here else []  # a node looks for itself
    config, public = with_public(config)
    found = looked_up(config)
    if public:
        found = {name: replace(one, hints=replace(one.hints, public=public)) for name, one in found.items()}
    hints = found[""].hints if "" in found else Hints(lineages={name: one.hints for name, one in found.items()})
    config = config.with_lineages({name: one.config for name, one in found.items()})
    hints = hints.with_devices(execution.devices)
    config, hints, said = foreign_sources.resolve(config, hints, next(iter(found.values())).hints.text)
    config = folder.joined_with(config)
    planned = plan(config, hints)
    of_command = list[str]()
    shards = execution.shards
    if shards > 1 and not any(stage.of.split(stage, shards) for stage in planned.stages.values()):
        of_command = [
            f"--shards {shards}: no stage of this experiment is computed in parts; those of language models are"
        ]
    observer, sizes, real = Computed(), dict[str, Size](), dict[str, Finished]()
    notes = [*(note for one in found.values() for note in one.notes), *said, *shared]
    notes += notes_on_pool(config.pool, config.lineages)
    pool = Pool(config.pool.rule, len(found), len(config.pool.foreign))
    for number, (name, one) in enumerate(found.items()):
        with of_lineage(config, name):
            rows, own, there = _real_rows(
                one.config if name else config, planned, name, store, temporary, observer, real
            )
        notes += own
        for policy in config.policies if there and config.kind == "generational" else ():
            notes += foreign_sources.check_rows(config, policy, pool.members(number), rows["train"], there)
        data = real_data(planned, name)
        made = real.get(data.key) if data else None
        sizes[name] = _size(one, one.config if name else config, rows, made)
    size = Sizes(sizes, planned)
    parts = shards_of_stages(planned, store, folder, shards, size)
    most = max((most_rows(planned.stages[key], size) for key in parts), default=shards)
    if shards > most:
        of_command.append(f"--shards {shards}: no stage has more than {most:,} rows, so none has more shards")
    planned = planned.in_shards(parts)
    size = Sizes(sizes, planned)
    workers, threads = shared_out(planned, size, execution)
    notes = list(dict.fromkeys(notes))
    computed = observer.keys
    return Prepared(config, hints, planned, notes, computed, size, workers, threads, real, execution, of_command)


def shards_of_stages(planned: Plan, store: Store, folder: RunFolder, asked: int, sizes: Sizes) -> dict[str, int]:
    """By key, in how many shards stages are computed that are not there yet: as many as asked for, but no more than they may have rows.

    A stage that this run has begun in shards goes on in as many, whatever is asked for now: what is there is not computed again.
    """
    try:
        before = [shard for shard in folder.plan() if shard.shard_of]
    except ConfigError:  # it is written anew
        before = []
    of: dict[str, list[str]] = {}
    for shard in before:
        of.setdefault(shard.shard_of, []).append(shard.key)
    begun = {whole: len(keys) for whole, keys in of.items() if any(map(store.has, keys))}
    number = dict[str, int]()
    for key, stage in planned.stages.items():
        if stage.of.split is never_split or begun.get(key, asked) == 1:
            continue
        count = begun.get(key) or min(asked, most_rows(stage, sizes))
        if count > 1 and not store.has(key):
            number[key] = count
    return number


def most_rows(stage: Stage, sizes: Sizes) -> int:
    """How many rows a stage that may be split has at most."""
    size = sizes.of(stage)
    return sizes.cost_of(stage).rows or max(size.rows, size.test_rows)


def looked_up(config: Experiment) -> dict[str, Resolved]:
    """Of each lineage by name ("" of one alone), what its configuration names, found."""
    learner = learners.learner_class(config.learner)
    found = {}
    for name, own in config.of_lineages().items():
        with of_lineage(config, name):
            found[name] = resolve(learner.resolve(own))
    return found


def with_public(config: Experiment) -> tuple[Experiment, dict[str, str]]:
    """A configuration with the hash of its public text, and the arguments of `load_text` that find it; none where there is none.

    Raises:
        InputError: when it is not what it was, or no text.
    """
    if not config.pool.public:
        return config, {}
    where = {"source": config.pool.public, "scored": UNSCORED}
    sha256 = pinned(config.pool.public_sha256, "pool.public_sha256", load_text(**where).sha256)
    return config.model_copy(update={"pool": config.pool.model_copy(update={"public_sha256": sha256})}), where


def real_data(planned: Plan, lineage: str) -> Stage | None:
    """The stage of a lineage's real data, of the first seed; None of a mixture that is done in memory, which draws its own."""
    return next(
        (
            stage
            for key, stage in planned.stages.items()
            if stage.of.product is Product.DATA and any(where.lineage == lineage for where in planned.serves[key])
        ),
        None,
    )


def other_texts(planned: Plan, data: Stage) -> list[Stage]:
    """Texts of other models, and the public one, in the tokens of real data: how many rows they have is known once they are read."""
    of_them = [stage for stage in planned.stages.values() if stage.of in (WRITTEN, PUBLIC)]
    return [stage for stage in of_them if stage.inputs["data"] is data]


def _real_rows(
    config: Experiment,
    planned: Plan,
    lineage: str,
    store: Store,
    temporary: Path | None,
    observer: Computed,
    real: dict[str, Finished],
) -> tuple[dict[str, int], list[str], dict[str, int]]:
    """How many rows of real data there are by split, and what the user should know of them; they are brought into the store.

    And by hash, how many rows texts of other models have. Where all these stand is added to `real`, by key.
    """
    notes, rows, foreign = list[str](), dict.fromkeys(("train", "test", "reserve"), 0), dict[str, int]()
    stage = real_data(planned, lineage)
    if stage is not None:
        texts = other_texts(planned, stage)
        there = all(store.has(each.key) for each in (stage, *texts))
        place = store if temporary is None or there else store_at(temporary)
        place.begin()
        scheduler.run([stage, *texts], LocalExecutor(place), observer)
        real |= {each.key: place.get(each.key) for each in (stage, *texts)}
        data = real[stage.key]
        rows, notes = {split: about["rows"] for split, about in data.facts["splits"].items()}, [*data.facts["notes"]]
        facts = [place.get(text.key).facts for text in texts if text.of is WRITTEN]
        foreign = {about["source"]["sha256"]: about["rows"] for about in facts}
        if config.kind == "mixture":
            mixture.check_real_rows(config, rows["train"])
            if foreign:
                mixture.check_foreign_rows(config, foreign)
        if "dialogues" in data.facts and any(stage.of in (TRANSLATE, PUBLIC) for stage in planned.stages.values()):
            raise ConfigError(
                "rows of chats and of prompts with answers say which of their tokens are answers, which a public text (pool.public) does not "
                "and text in another lineage's tokens no longer does; give lineages one tokenizer and no public text"
            )
        rows["public"] = sum(place.get(text.key).facts["rows"] for text in texts if text.of is PUBLIC)
    for policy in config.policies if config.kind == "generational" else ():
        mixing.check_real_rows(
            policy, rows["train"], rows["reserve"], config.loop.generations, growing=config.mix.size == "growing"
        )
        if config.mix.size == "constant" and (note := mixing.rounding_note(policy, rows["train"])):
            notes.append(note)
        if note := mixing.schedule_note(policy, config.loop.generations):
            notes.append(note)
    return rows, notes, foreign


def _size(found: Resolved, config: Experiment, rows: Mapping[str, int], data: Finished | None) -> Size:
    """What the costs of a lineage depend on; `data`: its real data, where they are."""
    here = data is not None and not isinstance(data, NotYetHere)  # files elsewhere are not brought for this
    return Size(
        config,
        found.parameters,
        found.layer_parameters,
        found.head_parameters,
        found.layers,
        rows["train"],
        rows["test"],
        found.row_bytes,
        found.row_flops,
        found.adapter_parameters,
        rows.get("public", 0),
        size_of(data.folder) if data and here else 0,
        size_of(data.folder / TOKENIZER) if data and here else 0,
    )


def notes_on_devices(config: Experiment, devices: int) -> list[str]:
    """What the user should know of a training on so many devices.

    Raises:
        ConfigError: when this machine has fewer.
    """
    if devices == 1:
        return []
    import torch

    from collapse_cli.lm import devices as together
    from collapse_cli.lm.model import device

    together.check(devices)
    if device().type == "cpu" and devices > (there := cores()):
        raise ConfigError(
            f"--devices {devices}: torch finds no GPU here (collapse doctor), and on a CPU each device is a process, for which there "
            f"{'is' if there == 1 else 'are'} {how_many(there, 'core')} here; {'leave it out' if there == 1 else f'ask for {there} at most'}"
        )
    threads, batch, notes = torch.get_num_threads(), config.train.batch_size, list[str]()
    if device().type == "cpu" and devices > threads:
        notes.append(f"--devices {devices}: a training has {how_many(threads, 'thread')} here, which the devices share")
    if batch < devices:
        notes.append(
            f"--devices {devices}: a step has {how_many(batch, 'row')} (train.batch_size), so not all have some"
        )
    return notes


def shared_out(planned: Plan, size: Sizes, execution: Execution) -> tuple[int, dict[str, int]]:
    """How many stages are computed at a time, and by key how many threads each has; devices of a training share those of its stage."""
    import torch

    cores = torch.get_num_threads()
    stages = planned.stages.values()
    seconds = sum(size.seconds(stage, NOMINAL_SPEED) for stage in stages)
    worth = LIGHT_WORTH if families.of(size.config.learner).light else WORTH
    pays = not torch.cuda.is_available() and size.parameters <= LARGE and seconds > worth
    workers = workers_for(planned, max(1, cores // execution.devices), execution.jobs, pays=pays)
    threads = dict[str, int]()
    for key, at_once in scheduler.width(planned).items():
        own = max(1, cores // min(at_once, workers))
        threads[key] = that_pay(planned.stages[key], size, own, execution.devices)
    return workers, threads


def to_do(planned: Plan, store: Store) -> list[Stage]:
    """The stages that are still to be computed so that every generation is measured."""
    return scheduler.missing(list(planned.stages.values()), store, lambda stage: stage.of.product is Product.MEASURES)


def threads_by_work(prepared: Prepared) -> dict[str, int]:
    """How many threads stages of a kind of work have: the fewest of all of them, as those have that are computed beside others."""
    least = dict[str, int]()
    for key, threads in prepared.threads.items():
        work = prepared.plan.stages[key].work
        least[work] = min(threads, least.get(work, threads))
    return least
