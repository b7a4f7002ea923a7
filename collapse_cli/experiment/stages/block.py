"""Many generations in one stage, for families whose generations take milliseconds.

What a generation is made from, its seeds and its row of `metrics.jsonl` are exactly those of the loop's own stages, whose
functions do the work here too; only what lies between two generations stays in memory. How many make a block changes nothing.
"""

import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.config.selection import Need, candidates
from collapse_cli.config.weights import Shares, Weights
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine import checkpoint
from collapse_cli.engine.stage import ALL_POLICIES, Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import FACTS_BYTES, NUMBER_BYTES, Size
from collapse_cli.experiment.loop import Lineage, Verbs, step_together
from collapse_cli.experiment.pool import Pool, quota, segment, taken
from collapse_cli.experiment.stages.base import (
    CORPUS,
    RESERVE,
    ROWS,
    TEST,
    first_measure,
    hints_of,
    on_one_thread,
    own,
)
from collapse_cli.experiment.stages.mix import trials_apart
from collapse_cli.experiment.stages.sample import Continued, Sharing, continued
from collapse_cli.experiment.stages.select import Choosing, Selected, selected
from collapse_cli.experiment.stages.train import counted, counts
from collapse_cli.learners.family import State
from collapse_cli.where import Where

MODELS = "models.safetensors"  # every generation's, by name "12.mean"
CARRIED = "carried.safetensors"  # what the next block needs besides the last model
MADE = "made.safetensors"  # the synthetic rows of the block, where a corpus accumulates as rows
OF = "of"  # in those: which generation of the block each row was kept for
VERBS: tuple[learners.Verb, ...] = ("train", "sample", "eval")  # of which a block has parameters
LARGEST = 64_000_000  # bytes of models that a block keeps; of larger ones only the last
NONE = np.arange(0)


def block_stage(
    config: Experiment,
    hints: learners.Hints,
    policy: Policy | None,
    inputs: Mapping[str, Stage],
    seed: int,
    first: int,
    last: int,
    shares: Shares | None = None,
) -> Stage:
    """Generations `first` to `last` of one policy (generation 0 is of all) in one stage; it is made as they would be.

    The run's seed itself is part of it: each generation's own follow from it.

    Args:
        inputs: `data`, the blocks before, and `public`, real rows that all lineages share, where there are some.
        shares: of the loss, those of private, public and pooled rows.
    """
    block = Block.by(config, policy, first, last, shares, "public" in inputs)
    return Stage(BLOCK, block.params(), inputs, seed, hints)


@dataclass(frozen=True)
class Block:
    """What a block is made from.

    Attributes:
        verbs: the parameters of the learner for each verb that it does.
        policy: None of generation 0, which is fitted on real rows whatever that is.
        growing: whether a corpus grows with the generations.
        prompts: as `sample.prompts`.
        init: as `loop.init`.
        generations: the first and the last.
        trials: how many draw their rows apart.
        select: how rows are chosen, and how many are made for each that is needed; empty where all enter.
        weights: of real and synthetic rows in fits.
        shares: of the loss in them, those of private, public and pooled rows; empty where all rows count alike.
        public: whether there are rows that all lineages share.
    """

    verbs: Mapping[str, Mapping[str, Any]]
    policy: Policy | None
    growing: bool
    prompts: str
    init: str
    generations: tuple[int, int]
    learner: str
    trials: int = 1
    select: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights = field(default_factory=Weights)
    shares: Sequence[float] = ()
    public: bool = False

    def params(self) -> dict[str, Any]:
        """As a stage's parameters have it; a key has trials, a choice and weights only where they change anything."""
        own = {"policy": self.policy.params() if self.policy else {}, "weights": self.weights.params()}
        off = {"trials": self.trials == 1, "select": not self.select, "weights": self.weights.equal}
        off |= {"shares": not self.shares, "public": not self.public}
        params = {name: value for name, value in (vars(self) | own).items() if not off.get(name)}
        # corpora were once kept as sums then, too, so that real rows were continued in place of the corpus'
        return params | ({"kept": "rows"} if self._could_sum and not self.sums else {})

    @property
    def _could_sum(self) -> bool:
        """Whether a fit to a corpus that accumulates needs only sums over its rows."""
        kinds = self.public or len(self.shares) > 0
        summarises = learners.family_class(self.learner).summarises and not self.select and not kinds
        return summarises and (self.policy is None or self.policy.rule == "accumulate")

    @property
    def sums(self) -> bool:
        """Whether a corpus that accumulates is kept as sums over its rows: not where rows of it are continued."""
        return self._could_sum and (self.policy is None or self.prompts != "previous")

    @property
    def carries_rows(self) -> bool:
        """Whether rows of earlier blocks are needed."""
        return self.policy is not None and self.policy.accumulates and not self.sums

    @classmethod
    def by(
        cls,
        config: Experiment,
        policy: Policy | None,
        first: int,
        last: int,
        shares: Shares | None = None,
        public: bool = False,
    ) -> "Block":
        """That of a configuration."""
        own_shares = (shares or Shares()).at(last, public=public)
        return cls(
            {verb: own(config, verb) for verb in VERBS + (("select",) if config.select.on and policy else ())},
            policy,
            config.mix.size == "growing",
            config.sample.prompts,
            config.loop.init,
            (first, last),
            config.learner,
            trials_apart(config, policy) if policy else 1,
            Choosing.by(config).params() | {"oversample": config.select.oversample}
            if policy and config.select.on
            else {},
            config.mix.weights if policy else Weights(),
            () if own_shares.equal else own_shares.params(),
            public,
        )

    @classmethod
    def of(cls, stage: Stage) -> "Block":
        """What a stage's parameters say."""
        return cls.read(stage.params)

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> "Block":
        """What parameters say."""
        first, last = params["generations"]
        policy = Policy.of(params["policy"]) if params["policy"] else None
        weights = Weights.of(params.get("weights"))
        rest = {name: value for name, value in params.items() if name != "kept"}
        return cls(**{**rest, "policy": policy, "generations": (first, last), "weights": weights})


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """Generations one after the other. Facts: `generations`, those of each."""
    block = Block.of(stage)
    first, last = block.generations
    made = InMemory(block, stage.seed, inputs, hints_of(stage, inputs), place.scratch)
    written = time.monotonic()
    for generation in range(made.resume(), last + 1):
        made.step(generation)
        place.tell(generation - first + 1, last - first + 1, "generations")
        if time.monotonic() - written > checkpoint.seconds_between():
            made.write(place.scratch)
            written = time.monotonic()
    made.save(place.folder)
    return {"first": first, "generations": made.facts}


@dataclass(frozen=True)
class InPool:
    """A lineage among others whose rows are one pool.

    Attributes:
        name: its own; "" of one alone.
        place: its number among them.
        pool: whose rows it takes.
        sharing, takers: as `sample_stage` has them, but that takers are rows of original corpora.
        trials: how many have parts of the pool apart.
    """

    name: str = ""
    place: int = 0
    pool: Pool = field(default_factory=lambda: Pool("own", 1))
    sharing: Sharing | None = None
    takers: tuple[int, ...] = ()
    trials: int = 1


class _Timed:
    """Writes down the seconds that a block of code takes. As a class: a generator would take longer than some verbs."""

    __slots__ = ("name", "seconds", "start")

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = round(time.perf_counter() - self.start, 6)


class InMemory(Verbs[State, Dataset, Dataset]):
    """One policy's generations, and what is carried from one to the next; and the verbs they are made by, in memory."""

    def __init__(
        self,
        block: Block,
        seed: int,
        inputs: Mapping[str, Finished],
        hints: learners.Hints,
        scratch: Path,
        beside: InPool | None = None,
    ) -> None:
        """`seed`: of the run."""
        self.block, self.seed, self.scratch, self.beside = block, seed, scratch, beside or InPool()
        policy = block.policy
        self.first_generation = block.generations[0]
        data = inputs["data"]
        real, self.test, self.reserve = (Dataset.load(data.file(name)) for name in (CORPUS, TEST, RESERVE))
        self.public = Dataset.load(inputs["public"].file(CORPUS)) if "public" in inputs else None
        self.hints, self.choosing = hints, Choosing.of(block.select) if block.select else Choosing()
        self.line = Lineage[State, Dataset, Dataset](policy or Policy("keep"), block.init, real, self.choosing.among)
        self.learners = {verb: self._learner(verb, self.hints) for verb in block.verbs}
        self.sums, self.keeps_rows = block.sums, block.carries_rows
        self.continues_corpus = block.prompts == "previous"
        self.earlier = 0  # how many of the samples are of the blocks before
        self.summary: State = {}  # sums over the corpus that accumulates; with weights over its synthetic rows alone
        self.facts: list[dict[str, Any]] = []
        self.models: list[State] = []
        self._facts: dict[str, Any] = {}  # of the generation that is being made
        self._of_first: dict[str, Any] = {}
        if "first" in inputs:
            self._inherit(inputs)

    def step(self, generation: int) -> None:
        """One more generation."""
        self.begin(generation)
        ((model, _),) = step_together([self.line], [self], generation)
        self.end(model)

    def begin(self, generation: int) -> None:
        """Before a generation is made."""
        self._facts = {"sample_tokens": 0, "seconds": {}} if generation > 0 else {"seconds": {}}

    def inherited(self) -> State:
        """Generation 0 is of a stage before: its model; and what is known of it is known of it here."""
        assert self.line.first is not None
        self._facts = self._of_first
        return self.line.first

    def end(self, model: State, facts: Mapping[str, Any] | None = None) -> None:
        """A generation is made; with what is known of it besides."""
        self.models.append(model)
        self.facts.append({**self._facts, **(facts or {})})

    def sample(self, model: State, corpus: Dataset, generation: int) -> Dataset:
        with self._timed("sample"):
            real = self.line.real
            which = Continued.by(self.line.policy, self.seed, generation, growing=self.block.growing)
            beside, oversample = self.beside, self.block.select.get("oversample", 1.0)
            which = replace(which, oversample=oversample, sharing=beside.sharing)
            learner = copy(self.learners["sample"])
            learner.restore(model)
            source = corpus if self.continues_corpus else real
            seed = seed_for(self.seed, "sample", generation, beside.name)
            made, _, facts = continued(
                learner, source, len(real), which, seed=seed, scratch=self.scratch, shown=NONE, takers=beside.takers
            )
        if not beside.pool.exchanges:  # what others take is no fact of the corpus of this one
            self._facts |= facts
        return made

    def take(self, pool: Sequence[Dataset | None], generation: int) -> Dataset:
        """As the stage of a pool does (`stages/pool.py`)."""
        beside, policy = self.beside, self.line.policy
        members = [rows for maker in beside.pool.makers(beside.place) if (rows := pool[maker]) is not None]
        if not beside.pool.exchanges:
            return members[0]
        if beside.pool.cut:
            return segment(members, beside.place, seed_for(self.seed, "pool", generation), beside.trials)
        needed = mixing.new_rows(policy.at(generation), len(self.line.real), generation, growing=self.block.growing)
        oversample = self.block.select.get("oversample", 1.0)
        most = [candidates(oversample, quota(needed, len(members), one)) for one in range(len(members))]
        return taken(members, needed, most)

    def select(self, rows: Dataset, model: State, generation: int) -> Dataset:
        seed, line = self.seed, self.line

        def at_work(need: Need) -> learners.Learner:
            learner, state = copy(self.learners["select"]), line.first if need == "reference" else model
            assert state is not None
            learner.restore(state)
            return learner

        with self._timed("select"):
            which = Selected.by(self.choosing, line.policy, seed, generation, growing=self.block.growing)
            chosen, facts = selected(
                rows,
                line.real,
                self.test,
                which,
                at_work,
                self.hints,
                learner=self.block.learner,
                seed=seed_for(seed, "select", generation, self.beside.name),
                scratch=self.scratch,
                tell=learners.silent,
            )
        self._facts |= facts
        return chosen

    def mix(self, samples: list[Dataset], generation: int) -> Dataset:
        if self.sums:
            return samples.pop()  # sums stand for all rows before
        with self._timed("mix"):
            return mixing.mix(
                mixing.pooled(self.line.policy) if self.choosing.among == "pool" else self.line.policy,
                self.line.real,
                self.reserve,
                samples,
                generation,
                mixing.order_seed(self.line.policy, self.seed, generation),
                growing=self.block.growing,
                trials=self.block.trials if self.line.policy.at(generation).draws else 1,
            )

    def fit(self, start: State | None, corpus: Dataset, generation: int) -> State:
        with self._timed("train"):
            learner = copy(self.learners["train"])
            if start is not None:
                learner.restore(start)
            if self.sums and generation > 0:
                real, synthetic = mixing.rows_in_corpus(
                    self.line.policy, len(self.line.real), generation, growing=False
                )
                weights, new = self.block.weights.of_rows(real, synthetic), learner.summarise(corpus)
                self.summary = learner.merge(self.summary, new) if self.summary else new
                whole = self.summary if weights is None else learner.weighed(self._real_sums, self.summary, weights)
                facts, rows = learner.fit_summary(whole), counts(real, synthetic, weights)
            else:
                if self.block.shares or self.public:
                    corpus, rows = mixing.with_public(corpus, self.public, self.block.shares or None)
                else:
                    corpus = mixing.weighted(corpus, self.block.weights)
                    rows = counted(corpus)
                own = self.beside.name if generation else ""
                seed = seed_for(self.seed, "train", generation, own)
                facts = learner.fit(corpus, seed=seed, scratch=self.scratch)
                if self.sums:
                    self.summary = learner.summary_of(corpus)
            model = learner.state()
        self._facts |= facts | rows
        return model

    def measure(self, model: State, corpus: Dataset, first: Dataset | None, generation: int) -> Dataset:
        with self._timed("eval"):
            learner = copy(self.learners["eval"])
            learner.restore(model)
            measured = learner.measure(self.test, first)
        self._facts |= measured.facts
        return measured.rows

    @cached_property
    def _real_sums(self) -> State:
        """Sums over the original corpus."""
        return self.learners["train"].summary_of(self.line.real)

    def _timed(self, verb: str) -> "_Timed":
        return _Timed(self._facts["seconds"], verb)

    def _learner(self, verb: str, hints: learners.Hints) -> learners.Family:
        """One that has done nothing yet; each generation works with a copy, so that its settings are read once."""
        params = {"base": seed_for(self.seed, "base", 0), **self.block.verbs[verb]}
        return learners.family_class(self.block.learner)(params, hints, learners.silent)

    # --- from block to block, and through a kill ----------------------------------------------------------------------

    def _inherit(self, inputs: Mapping[str, Finished]) -> None:
        first, before = inputs["first"], inputs["before"]
        self._of_first = dict(first.facts["generations"][0])
        line, models = self.line, models_of(before)
        line.measured, line.first = Dataset.load(first.file(ROWS)), models_of(first)[0]
        line.model = models[max(models)]
        carried, _ = checkpoint.read(before.file(CARRIED)) or ({}, None)
        real_alone = before.key == first.key and not self.block.weights.equal
        self.summary = carried if self.sums and not real_alone else {}
        if self.block.prompts == "previous":
            line.corpus = Dataset.load(before.file(CORPUS))
        for name in sorted(name for name in inputs if name.startswith("made-")):
            line.samples += _by_generation(Dataset.load(inputs[name].file(MADE)))
        self.earlier = len(line.samples)

    def save(self, folder: Path) -> None:
        """What other blocks, and `collapse eval`, want to know of this one."""
        line = self.line
        assert line.measured is not None
        size = sum(array.nbytes for state in self.models for array in state.values())
        kept = range(len(self.models)) if size <= LARGEST else [len(self.models) - 1]
        arrays = {f"{self.first_generation + i}.{name}": a for i in kept for name, a in self.models[i].items()}
        checkpoint.write(folder / MODELS, arrays, None)
        if self.first_generation == 0:
            line.measured.save(folder / ROWS)
        if self.summary:
            checkpoint.write(folder / CARRIED, self.summary, None)
        if self.block.prompts == "previous":
            line.corpus.save(folder / CORPUS)
        if self.keeps_rows:
            made = line.samples[self.earlier :] or [line.real.take(NONE)]  # of fresh rows alone no model makes any
            rows = Dataset.concat(made)
            if self.block.select:  # real rows may be among them
                of = np.repeat(np.arange(len(made), dtype=np.int32), [len(some) for some in made])
                rows = Dataset({**rows.arrays, OF: of}, rows.origin)
            rows.save(folder / MADE)

    def write(self, scratch: Path) -> None:
        """A checkpoint of all that `step` changes."""
        checkpoint.keep(scratch / "block.safetensors", *self.at_work())

    def at_work(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All that a generation changes, as `go_on` takes it."""
        arrays = {f"model.{i}.{name}": array for i, state in enumerate(self.models) for name, array in state.items()}
        arrays |= {f"summary.{name}": array for name, array in self.summary.items()}
        line, parts = self.line, dict[str, Dataset]()
        if self.keeps_rows:
            parts |= {f"made.{i}": rows for i, rows in enumerate(line.samples[self.earlier :])}
        if self.continues_corpus:
            parts["corpus."] = line.corpus
        if self.first_generation == 0 and line.measured is not None:
            parts["first."] = line.measured
        for key, rows in parts.items():
            arrays |= {f"{key}.{name}": array for name, array in rows.arrays.items()} | {f"{key}.origin": rows.origin}
        return arrays, {"facts": self.facts, "parts": list(parts)}

    def resume(self) -> int:
        """Take up the checkpoint, if there is one. Returns the generation to go on with."""
        checkpointed = checkpoint.take_up(self.scratch / "block.safetensors")
        if checkpointed is not None:
            self.go_on(*checkpointed)
        return self.next_generation

    @property
    def next_generation(self) -> int:
        return self.first_generation + len(self.facts)

    def go_on(self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, Any]) -> None:
        """Be what `at_work` said."""
        self.facts = list(beside["facts"])
        self.models = [part_of(arrays, f"model.{i}.") for i in range(len(self.facts))]
        line = self.line
        line.model = self.models[-1]
        self.summary = part_of(arrays, "summary.")
        for key in beside["parts"]:
            part = part_of(arrays, f"{key}.")
            rows = Dataset(part, part.pop("origin"))
            if key == "corpus.":
                line.corpus = rows
            elif key == "first.":
                line.measured, line.first = rows, self.models[0]
            else:
                line.samples.append(rows)


def _by_generation(rows: Dataset) -> list[Dataset]:
    """The synthetic rows of a block, generation by generation: by their origin, but where that does not say it."""
    arrays = dict(rows.arrays)
    of = arrays.pop(OF, rows.origin)
    return [Dataset(arrays, rows.origin).take(np.flatnonzero(of == one)) for one in np.unique(of)]


def models_of(block: Finished) -> dict[int, State]:
    """The models that a block keeps, by generation."""
    arrays, _ = checkpoint.read(block.file(MODELS)) or ({}, None)
    models: dict[int, State] = {}
    for name, array in arrays.items():
        generation, _, own = name.partition(".")
        models.setdefault(int(generation), {})[own] = array
    return models


def part_of(arrays: Mapping[str, np.ndarray], prefix: str) -> State:
    """Those of a name that begins so, by the rest of it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def cost(stage: Stage, size: Size) -> Cost:
    return cost_of(Block.of(stage), size)


def cost_of(block: Block, size: Size) -> Cost:
    """What a block needs."""
    first, last = block.generations
    rows = [size.rows, size.rows]
    if block.policy and not block.sums:  # sums over a corpus take no longer where it grows
        rows = [
            sum(mixing.rows_in_corpus(block.policy, size.rows, generation, growing=block.growing))
            for generation in block.generations
        ]
    parts = last - first + 1
    fitted = sum(rows) // 2 * parts
    amount = fitted * size.passes(rows[-1])
    models = NUMBER_BYTES * size.parameters * parts
    kept = size.rows * size.row_bytes * parts if block.carries_rows else 0
    disk = FACTS_BYTES * parts + (models if models <= LARGEST else models // parts) + kept
    return Cost(flops=fitted * size.row_flops, disk=disk, efficiency=0.35, amount=amount, parts=parts)


def label(stage: Stage, where: Where) -> str:
    first, last = Block.of(stage).generations
    which = f"generation {first}" if first == last else f"generations {first} to {last}"
    whose = f"{where.lineage}, " if where.lineage else ""
    return f"{whose}seed {where.seed}, {which}, {where.name if first else ALL_POLICIES}"


def note(stage: Stage, made: Finished) -> str:
    return first_measure(stage, made.facts["generations"][-1])


def apart(stage: Stage) -> object:
    """A rule may keep rows, sums over them, or nothing; generation 0 has none."""
    return apart_of(Block.of(stage))


def apart_of(block: Block) -> list[object]:
    return [block.learner, block.verbs, block.policy.rule if block.policy else ""]


BLOCK = StageKind[Size](
    name="block",
    kind="block",
    version=1,
    product=Product.MEASURES,
    body=body,
    cost=cost,
    label=label,
    note=note,
    listed=True,
    apart=apart,
)
