"""THE LOOP, top to bottom: `plan` goes through seeds, generations and policies; `step_together` does one generation of the
lineages of a policy, `step` that of one of them.

Generation 0 is fitted on real data; each later one on a mix of real rows and rows that the model before it made. How the four
verbs of a step are done is not the loop's affair: `Planning` has each add a stage, which a process of any kind does later
(`stages/`); a block (`stages/block.py`) does them at once, in memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import FRESH, Policy
from collapse_cli.config.selection import Input, Need
from collapse_cli.config.weights import Shares
from collapse_cli.engine.stage import Generation, Plan, Stage
from collapse_cli.experiment import mixing
from collapse_cli.experiment.foreign_rows import Sources
from collapse_cli.experiment.pool import Pool, sharing_of, turns
from collapse_cli.experiment.stages.between import Standing, between_stage
from collapse_cli.experiment.stages.data import data_stage
from collapse_cli.experiment.stages.detector import detector_stage
from collapse_cli.experiment.stages.eval import eval_stage
from collapse_cli.experiment.stages.examine import examine_stage
from collapse_cli.experiment.stages.mix import mix_stage
from collapse_cli.experiment.stages.pool import pool_stage
from collapse_cli.experiment.stages.public import public_stage
from collapse_cli.experiment.stages.real import real_stage
from collapse_cli.experiment.stages.sample import Sharing, sample_stage
from collapse_cli.experiment.stages.segment import segment_stage
from collapse_cli.experiment.stages.select import select_stage
from collapse_cli.experiment.stages.train import train_stage
from collapse_cli.experiment.stages.translate import translate_stage
from collapse_cli.where import Where

Model = TypeVar("Model")
Rows = TypeVar("Rows")
Measured = TypeVar("Measured")


def plan(config: Experiment, hints: learners.Hints) -> Plan:
    """The stages of an experiment. `config` is resolved (hashes filled in); `hints` say where its inputs are.

    Stages with equal keys are one stage: generation 0 is trained once for all policies of a seed without a special case.
    """
    made, loop, lineages, shared = Plan(), config.loop, config.of_lineages(), config.pool
    sources = Sources.of(config, hints)
    for seed in loop.seeds:
        pool = Pool(shared.rule, len(lineages), len(sources.names))
        if pool.rule == "random":
            pool = replace(pool, turns=turns(len(lineages), loop.generations, seed))
        every = [
            # one for all seeds, but where the source is a distribution
            Own(name, own, hints.of_lineage(name), data_stage(own, hints.of_lineage(name), seed))
            for name, own in lineages.items()
        ]
        if shared.public:
            every = [own.with_public(shared.public_sha256, shared.public_rows) for own in every]
        groups = []
        for policy in config.policies:
            lines = [Lineage[Stage, Stage, Stage](policy, loop.init, own.data, config.select.among) for own in every]
            verbs = [
                Planning(made, every, place, policy, seed, pool, shared.weights, sources) for place in range(len(every))
            ]
            groups.append((lines, verbs, list[tuple[int, Stage]]()))
        for generation in range(loop.generations + 1):
            for lines, verbs, chain in groups:
                if pool.turns:
                    step_in_turn(lines, verbs, generation, pool, chain)
                else:
                    step_together(lines, verbs, generation)
                    if len(lineages) > 1:
                        compare(made, verbs, generation)
    return made


def compare(made: Plan, lineages: "Sequence[Planning]", generation: int) -> None:
    """Plan what is measured between the lineages of a policy and seed, once each of them has its model of a generation."""
    standing = {do.lineage: do.standing() for do in lineages}
    stage = between_stage(standing, reserve=lineages[0].policy.rule not in FRESH)
    if stage is not None:
        for do in lineages:
            do.compared(stage, generation)


def step_together(
    lines: "Sequence[Lineage[Model, Rows, Measured]]", verbs: "Sequence[Verbs[Model, Rows, Measured]]", generation: int
) -> list[tuple[Model, Measured]]:
    """One generation of all lineages of a policy: what their models made is one pool, before any of them goes on."""
    pool = [sample(line, do, generation) for line, do in zip(lines, verbs, strict=True)]
    return [step(line, do, generation, pool) for line, do in zip(lines, verbs, strict=True)]


def step_in_turn(
    lines: "Sequence[Lineage[Stage, Stage, Stage]]",
    verbs: "Sequence[Planning]",
    generation: int,
    pool: Pool,
    chain: list[tuple[int, Stage]],
) -> None:
    """One generation of a chain whose models are each of one of the lineages; at generation 0 each lineage has one.

    Args:
        chain: where rows of all generations accumulate, those of the generations so far, each with the number of the lineage in whose
            tokens they are; this one's are put behind them.
    """
    for place in pool.at_work(generation):
        line, do = lines[place], verbs[place]
        made: list[Stage | None] = [None] * len(lines)
        if generation:
            before = pool.turns[generation - 1]
            made[before] = sample(lines[before], verbs[before], generation)
            line.samples = [do.read(rows, owner, generation) for owner, rows in chain]
        step(line, do, generation, made)
        if generation and line.policy.accumulates and line.policy.needs_samples(generation):
            chain.append((place, line.samples[-1]))


def sample(line: "Lineage[Model, Rows, Measured]", do: "Verbs[Model, Rows, Measured]", generation: int) -> Rows | None:
    """What the newest model of a lineage makes for the corpora of a generation; None where they take nothing."""
    if line.model is None or not line.policy.needs_samples(generation):
        return None
    return do.sample(line.model, line.corpus, generation)


def step(
    line: "Lineage[Model, Rows, Measured]",
    do: "Verbs[Model, Rows, Measured]",
    generation: int,
    pool: "Sequence[Rows | None]",
) -> tuple[Model, Measured]:
    """One generation of one lineage: take rows of the pool, choose among them, mix, fit the next model, measure it.

    Args:
        pool: what the newest model of each lineage made, in order.
    """
    corpus = line.real
    if line.model is not None:
        needed = line.policy.needs_samples(generation)
        if needed:
            made = do.take(pool, generation)
            line.keep(do.select(made, line.model, generation) if line.chooses == "synthetic" else made)
        corpus = do.mix(line.samples if needed or line.policy.accumulates else [], generation)
        if needed and line.chooses == "pool":
            corpus = do.select(corpus, line.model, generation)
    model = do.fit(line.start, corpus, generation)
    measured = do.measure(model, corpus, line.measured, generation)
    line.go_on(model, corpus, measured)
    return model, measured


@dataclass
class Lineage(Generic[Model, Rows, Measured]):
    """Models that descend from each other: those of one policy and seed.

    Attributes:
        init: what each starts from: the base model, generation 0 (`gen0`) or the previous model.
        real: the original corpus.
        chooses: among which rows it is chosen: those that the newest model made (`synthetic`), all of a corpus (`pool`), or none ("").
        corpus: what the newest model was fitted on.
        samples: rows that models made: of all so far where the policy accumulates, else of the newest.
        first, measured: the model of generation 0, and what was measured of it.
    """

    policy: Policy
    init: str
    real: Rows
    chooses: str = ""
    corpus: Rows = field(init=False)
    samples: list[Rows] = field(default_factory=list)
    model: Model | None = None
    first: Model | None = None
    measured: Measured | None = None

    def __post_init__(self) -> None:
        self.corpus = self.real

    @property
    def start(self) -> Model | None:
        """The model that the next one starts from; None: the base model."""
        return {"base": None, "gen0": self.first, "previous": self.model}[self.init]

    def keep(self, samples: Rows) -> None:
        """The rows that the newest model made: beside those of all before it where the policy accumulates."""
        self.samples = [*self.samples, samples] if self.policy.accumulates else [samples]

    def go_on(self, model: Model, corpus: Rows, measured: Measured) -> None:
        """The next generation: a model, what it was fitted on, and what was measured of it."""
        if self.model is None:
            self.first, self.measured = model, measured
        self.model, self.corpus = model, corpus


class Verbs(Protocol[Model, Rows, Measured]):
    """What a generation is made by; `generation` is always the one that is being made."""

    def sample(self, model: Model, corpus: Rows, generation: int) -> Rows:
        """The rows that the model of the generation before makes; it was fitted on `corpus`."""

    def take(self, pool: Sequence[Rows | None], generation: int) -> Rows:
        """The rows that the lineage takes of those that each made, itself among them; of one alone its own."""

    def select(self, rows: Rows, model: Model, generation: int) -> Rows:
        """Those of the rows that stay: of a sample that `model` made, or of a corpus that holds one."""

    def mix(self, samples: list[Rows], generation: int) -> Rows:
        """Real rows and these, as the policy says."""

    def fit(self, start: Model | None, corpus: Rows, generation: int) -> Model:
        """A model fitted on a corpus, from another or from the base model."""

    def measure(self, model: Model, corpus: Rows, first: Measured | None, generation: int) -> Measured:
        """A model, fitted on `corpus`, on real test data, beside what was measured of generation 0."""


@dataclass(frozen=True)
class Own:
    """What is a lineage's own: its name ("" of one alone), its experiment as if it were alone, where its things are, its real data.

    `public` are the rows that all lineages train on besides, in its tokens.
    """

    name: str
    config: Experiment
    hints: learners.Hints
    data: Stage
    public: Stage | None = None

    def with_public(self, sha256: str, rows: int) -> "Own":
        """The same with so many rows of the public text, which has this hash; 0: all."""
        return replace(self, public=public_stage(self.config, self.hints, sha256, rows, self.data))

    @property
    def written_in(self) -> Mapping[str, Any]:
        """As `Learner.written_in`."""
        return learners.learner_class(self.config.learner).written_in(self.config)


class Planning(Verbs[Stage, Stage, Stage]):
    """The verbs of one lineage, each of which plans a stage.

    Attributes:
        every: what is each lineage's own; `place` is the number of this one.
        pool: whose rows it takes.
        shares: of the loss, those of private, public and pooled rows.
        sources: of text that other models wrote, which gives rows to the pool as well.
    """

    def __init__(
        self,
        plan: Plan,
        every: Sequence[Own],
        place: int,
        policy: Policy,
        seed: int,
        pool: Pool,
        shares: Shares,
        sources: Sources,
    ) -> None:
        self.plan, self.every, self.place, self.policy, self.seed = plan, every, place, policy, seed
        self.pool, self.shares, self.own, self.sources = pool, shares, every[place], sources
        self.lineage, self.config, self.hints, self.data = (
            self.own.name,
            self.own.config,
            self.own.hints,
            self.own.data,
        )
        self.examines = self.config.eval.samples and learners.learner_class(self.config.learner).examines
        self.sampled: Stage | None = None  # what the newest model made
        self.first_rows: Stage | None = None  # what the first made that was sampled from
        self.first: Generation | None = None
        self.newest: Stage | None = None  # model
        self.corpus: Stage | None = None  # that the newest model was fitted on
        self.latest: Generation | None = None  # of the newest model

    def sample(self, model: Stage, corpus: Stage, generation: int) -> Stage:
        """Planned when the model was measured: what it made is measured, too."""
        assert self.sampled is not None
        return self.sampled

    def take(self, pool: Sequence[Stage | None], generation: int) -> Stage:
        makers = self.pool.makers(self.place, generation)
        made = [(stage, maker) for maker in makers if (stage := pool[maker]) is not None]
        assert len(made) == len(makers), "a policy needs rows of all lineages, or of none"
        members = [self.read(stage, maker, generation) for stage, maker in made]
        takers = [len(self.pool.takers(maker, generation)) for maker in makers]
        foreign = self._foreign(self.pool.members(self.place, generation), generation)
        if len(members) == 1 and not foreign and self.every[makers[0]].data.key == self.data.key:
            return members[0]
        if self.pool.cut:
            return self._add(segment_stage(self.config, self.place, members, self.seed, generation), generation)
        members += foreign
        takers += [sum(other.data.key == self.data.key for other in self.every)] * len(foreign)
        stage = pool_stage(self.config, self.policy, self.data, members, generation, takers=takers)
        return self._add(stage, generation)

    def _foreign(self, members: int, generation: int) -> list[Stage]:
        """Rows of text that other models wrote, of each source."""
        ways = self.sources.rows(
            self.config, self.hints, self.data, self.policy, self.pool, members, self.seed, generation
        )
        return [[self._add(stage, generation) for stage in way][-1] for way in ways]

    def read(self, rows: Stage, maker: int, generation: int) -> Stage:
        """Rows that are in the tokens of a lineage in those of this one."""
        other = self.every[maker]
        if other is self.own or other.written_in == self.own.written_in:
            return rows
        return self._add(translate_stage(self.config, rows, other.data, self.data), generation)

    def select(self, rows: Stage, model: Stage, generation: int) -> Stage:
        assert self.first is not None
        models: dict[Need, Stage] = {"reference": self.first.train, "maker": model}
        others = {name: self._beside(name, generation) for step in self.config.select.chosen for name in step.inputs}
        made = select_stage(
            self.config, self.hints, self.policy, self.data, rows, models, others, self.seed, generation, self.lineage
        )
        return self._add(made, generation)

    def _beside(self, name: Input, generation: int) -> Stage:
        """What steps of a selection look at besides models: the rows that generation 0 made, and the detector that was fitted to them."""
        assert self.first_rows is not None, "a policy that takes rows only later is refused"
        if name == "first":
            return self.first_rows
        sha256 = next(step.detector_sha256 for step in self.config.select.chosen if name in step.inputs)
        stage = detector_stage(self.config, self.hints, sha256, self.data, self.first_rows, self.seed)
        return self._add(stage, generation)

    def mix(self, samples: list[Stage], generation: int) -> Stage:
        self._add(self.data, generation)
        pooled = mixing.pooled(self.policy) if self.config.select.among == "pool" else self.policy
        return self._add(mix_stage(self.config, pooled, self.data, samples, self.seed, generation), generation)

    def fit(self, start: Stage | None, corpus: Stage, generation: int) -> Stage:
        if generation == 0:
            self._add(self.data, generation)
        anchor = self._anchor(generation)
        if generation == 0 and self.own.public:
            self._add(self.own.public, generation)
        stage = train_stage(
            self.config,
            self.hints,
            self.data,
            corpus,
            start,
            self.seed,
            generation,
            anchor,
            self.lineage,
            self.own.public,
            self.shares,
        )
        return self._add(stage, generation)

    def _anchor(self, generation: int) -> Stage | None:
        """The model of a generation that one is held to while it is trained; generation 0 is held to none."""
        train = self.config.train
        if train.anchor == "none" or train.anchor_to == "base" or generation == 0:
            return None
        assert self.first is not None
        return self.first.train if train.anchor_to == "gen0" else self.newest

    def measure(self, model: Stage, corpus: Stage, first: Stage | None, generation: int) -> Stage:
        """The model; and what it makes, of the last generation, too, where that is examined."""
        config, data = self.config, self.data
        measured = self._add(eval_stage(config, model, data, first), generation)
        examined = None
        needed = generation < config.loop.generations and self.policy.needs_samples(generation + 1)
        if self.examines or needed:
            self.sampled = self._add(self._sampled(model, corpus, generation + 1), generation)
            self.first_rows = self.first_rows or self.sampled
            if self.examines:
                examined = self._examined(self.sampled, model, corpus, generation)
        made = Generation(self._where(generation), model, measured, examined)
        self.plan.generations.append(made)
        self.first, self.newest, self.corpus, self.latest = self.first or made, model, corpus, made
        return measured

    def standing(self) -> Standing:
        """The lineage with its newest model, to be measured beside others."""
        assert self.newest is not None
        sampled = self.sampled
        if (
            sampled and sampled.inputs["model"].key != self.newest.key
        ):  # the last model of a policy without synthetic rows
            sampled = None
        return Standing(self.config, self.hints, self.newest, self.data, sampled)

    def compared(self, stage: Stage, generation: int) -> None:
        """The stage that measures its newest model beside those of the others."""
        assert self.latest is not None
        made = replace(self.latest, between=self._add(stage, generation))
        self.plan.generations[self.plan.generations.index(self.latest)] = made
        if self.first is self.latest:
            self.first = made
        self.latest = made

    def _sampled(self, model: Stage, corpus: Stage, generation: int) -> Stage:
        """What a model makes for the corpora of a generation: all that its lineage takes, or its part of what several take."""
        places, takers = sharing_of(self.pool, self.place, [own.data.key for own in self.every], generation)
        part, of = (0, 1) if self.pool.turns else (self.place, self.pool.lineages + self.pool.foreign)
        sharing = Sharing(part, of, places) if places else None
        return sample_stage(
            self.config,
            self.policy,
            model,
            self.data,
            corpus,
            self.seed,
            generation,
            self.lineage,
            sharing,
            [self.every[taker].data for taker in takers],
        )

    def _examined(self, samples: Stage, model: Stage, corpus: Stage, generation: int) -> Stage:
        """The rows that a model made, under the model of generation 0."""
        reference, before = (self.first.train, self.first.samples) if self.first else (model, None)
        real = self._add(real_stage(self.config, self.data, reference), generation)
        stage = examine_stage(self.config, samples, self.data, corpus, real, reference, before)
        return self._add(stage, generation)

    def _add(self, stage: Stage, generation: int) -> Stage:
        return self.plan.add(stage, self._where(generation))

    def _where(self, generation: int) -> Where:
        return Where(self.policy.name, self.seed, generation, self.lineage)
