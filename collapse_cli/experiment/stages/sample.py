"""Rows made by a model: it continues rows of the original corpus, or of the one it was fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.config.selection import candidates
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import TWENTIETH, Size, of_continuation
from collapse_cli.experiment.pool import quota, starting_at
from collapse_cli.experiment.stages.base import CORPUS, ROWS, SHOWN, at, learner_of, on_one_thread, stage_of
from collapse_cli.experiment.stages.shards import (
    divisible,
    found_by_shards,
    kind_of_shards,
    leave,
    shard_of,
    split_into,
)
from collapse_cli.learners.protocol import Arrays

SHOWN_ROWS = 8
FILLED = 16  # rows that a language model continues at once at least (`lm/search.py`): fewer take as long


def sample_stage(
    config: Experiment,
    policy: Policy,
    model: Stage,
    data: Stage,
    corpus: Stage,
    seed: int,
    generation: int,
    lineage: str = "",
    sharing: "Sharing | None" = None,
    takers: Sequence[Stage] = (),
) -> Stage:
    """The rows that generation `generation - 1` makes for the corpus of generation `generation`.

    Args:
        lineage: whose random numbers it has.
        sharing: which part of the rows of a pool it makes; None: as many as its own corpus takes.
        takers: with `sharing`, the real data of those who take the rows, in the order of `sharing.places`.
    """
    which = Continued.by(policy, seed, generation, growing=config.mix.size == "growing")
    inputs = {"model": model, "data": data, "prompts": corpus if config.sample.prompts == "previous" else data}
    if policy.needs_samples(generation):
        which = replace(which, oversample=config.select.oversample, sharing=sharing)
        inputs |= {f"taker-{number:05d}": taker for number, taker in enumerate(takers, 1)}
    own_seed = seed_for(seed, "sample", generation, lineage)
    return stage_of(SAMPLE, config, inputs, own_seed, verb="sample", **which.params())


@dataclass(frozen=True)
class Sharing:
    """Which rows of a pool one of several makers makes: as many as the taker takes that takes most of them.

    Attributes:
        part, of: which of the makers it is, of how many, as `pool.starting_at` has them.
        places: for each taker, the place of this maker among the members of its pool, and how many members that has.
    """

    part: int
    of: int
    places: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> "Sharing":
        """What a stage's parameters say."""
        return cls(params["part"], params["of"], tuple((place, members) for place, members in params["places"]))

    def rows(self, needed: Sequence[int]) -> int:
        """How many rows it makes, where takers need so many each."""
        return max(quota(rows, members, place) for rows, (place, members) in zip(needed, self.places, strict=True))


@dataclass(frozen=True)
class Continued:
    """Which rows are continued for the corpus of a generation.

    Attributes:
        generation: whose corpus it is.
        policy: which of the rows it takes; keep-0 where it is all of them.
        growing: whether the corpus grows with the generations.
        choice: the seed of the order of the rows.
        oversample: how many candidates are made for each row that the corpus takes.
        sharing: which of a pool's rows it makes; None where the rows are for its own lineage alone.
    """

    generation: int
    policy: Policy
    growing: bool
    choice: int
    oversample: float = 1.0
    sharing: Sharing | None = None

    @classmethod
    def by(cls, policy: Policy, seed: int, generation: int, *, growing: bool) -> "Continued":
        """Those of a policy. Where it takes none, as many are made as for keep-0: they are only measured."""
        taken = policy.at(generation)
        if policy.accumulates or not policy.needs_samples(generation):
            fresh = policy.rule == "accumulate-fresh" and policy.needs_samples(generation)
            taken = Policy("fresh" if fresh else "keep", taken.percent if fresh else 0.0, size=policy.size)
        choice = mixing.order_seed(policy, seed, generation)
        return cls(generation, taken, growing and not policy.accumulates, choice)

    def params(self) -> dict[str, Any]:
        """As a stage's parameters have it; a key has `oversample` only where more is made than is needed, and `sharing` in a pool."""
        params = vars(self) | {"policy": self.policy.params()}
        if self.sharing:
            params |= {"sharing": {**vars(self.sharing), "places": [list(place) for place in self.sharing.places]}}
        off = {"oversample": self.oversample == 1, "sharing": self.sharing is None}
        return {name: value for name, value in params.items() if not off.get(name)}

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Continued":
        """What a stage's parameters say."""
        own = {field.name: params[field.name] for field in fields(cls) if field.name in params}
        sharing = Sharing.read(own["sharing"]) if own.get("sharing") else None
        return cls(**own | {"policy": Policy.of(own["policy"]), "sharing": sharing})

    def prompts(self, rows: int, takers: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Prompts and streams as `mixing.candidates_of` gives them, for an original corpus of so many rows.

        Args:
            takers: of a pool, the rows of the original corpora of those who take what it makes.
        """
        needed = mixing.prompt_rows(self.policy, rows, self.generation, self.choice, growing=self.growing)
        if self.sharing is None:
            return mixing.candidates_of(needed, rows, candidates(self.oversample, len(needed)))
        made = self.sharing.rows([self.new_rows(there) for there in takers])
        needed = starting_at(needed, self.sharing.part, self.sharing.of)[:made]
        return mixing.candidates_of(needed, rows, candidates(self.oversample, made))

    def new_rows(self, rows: int) -> int:
        """How many synthetic rows the corpus takes, for an original corpus of so many rows."""
        return mixing.new_rows(self.policy, rows, self.generation, growing=self.growing)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["model"].folder)
    shown = _shown(inputs)
    made, seen, facts = continued(
        learner,
        Dataset.load(inputs["prompts"].file(CORPUS)),
        _rows(inputs["data"]),
        Continued.of(stage.params),
        seed=stage.seed,
        scratch=place.scratch,
        shown=shown,
        takers=_takers(inputs),
        found=found_by_shards(stage, inputs),
    )
    made.save(place.folder / ROWS)
    seen.save(place.folder / SHOWN)
    return facts


def body_of_shard(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    corpus, which = Dataset.load(inputs["prompts"].file(CORPUS)), Continued.of(stage.params)
    prompts, _ = prompts_of(corpus, _rows(inputs["data"]), which, _shown(inputs), _takers(inputs))
    return continue_part(stage, inputs, place, prompts)


def continue_part(stage: Stage, inputs: Mapping[str, Finished], place: Workplace, prompts: Dataset) -> dict[str, Any]:
    """Do the work of a shard: continue its part of the prompts."""
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["model"].folder)
    found = divisible(learner).continue_part(prompts, shard_of(stage), seed=stage.seed, scratch=place.scratch)
    leave(found, place)
    return {"rows": len(found["lengths"]), "sample_tokens": int(found["lengths"].sum())}


def _shown(inputs: Mapping[str, Finished]) -> np.ndarray:
    """The same prompts in every generation, for people to read."""
    return np.unique(np.linspace(0, _rows(inputs["data"]) - 1, SHOWN_ROWS).round().astype(np.int64))


def _takers(inputs: Mapping[str, Finished]) -> list[int]:
    """As `Continued.prompts` has them."""
    return [_rows(inputs[name]) for name in sorted(inputs) if name.startswith("taker-")]


def _rows(data: Finished) -> int:
    """Of an original corpus."""
    rows: int = data.facts["splits"]["train"]["rows"]
    return rows


def prompts_of(
    corpus: Dataset, rows: int, which: Continued, shown: np.ndarray, takers: Sequence[int] = ()
) -> tuple[Dataset, np.ndarray]:
    """The rows to continue, as `Learner.sample` takes them, and their places in the corpus; arguments as those of `continued`."""
    places, chosen = which.prompts(rows, takers)
    other = shown[~np.isin(shown, chosen)]
    wanted = np.concatenate([chosen, other])
    row = mixing.spread(np.concatenate([places, other]), rows, len(corpus), which.choice)
    prompts = corpus.take(row)
    extra = np.arange(len(wanted)) >= len(chosen)
    return Dataset({**prompts.arrays, "stream": wanted, "extra": extra}, prompts.origin), row


def continued(
    learner: learners.Learner,
    corpus: Dataset,
    rows: int,
    which: Continued,
    *,
    seed: int,
    scratch: Path,
    shown: np.ndarray,
    takers: Sequence[int] = (),
    found: Arrays | None = None,
) -> tuple[Dataset, Dataset, learners.Facts]:
    """The synthetic rows that a model makes for the next generation, what it makes of the rows `shown`, and the facts.

    Args:
        corpus: rows to continue: the original corpus, of `rows` rows, or the model's own.
        which: of them.
        takers: as `Continued.prompts` has them.
        found: what shards found of all the rows; None: the learner works on them here.
    """
    prompts, row = prompts_of(corpus, rows, which, shown, takers)
    wanted, extra = prompts.arrays["stream"], prompts.arrays["extra"]
    sampled = sampled_of(learner, prompts, found, seed=seed, scratch=scratch)
    origin = np.full(len(sampled.rows), which.generation, np.int32)
    made = Dataset({**sampled.rows.arrays, "row": row.astype(np.int32)}, origin)
    if not len(shown):
        return made, made.take(np.arange(0)), sampled.facts
    seen = np.array([np.flatnonzero(wanted == index)[0] for index in shown], np.int64)
    return made.take(np.flatnonzero(~extra)), made.take(seen), sampled.facts


def sampled_of(
    learner: learners.Learner, prompts: Dataset, found: Arrays | None, *, seed: int, scratch: Path
) -> learners.Outcome:
    """What a learner makes of prompts: itself, or of what its shards found."""
    if found is None:
        return learner.sample(prompts, seed=seed, scratch=scratch)
    return divisible(learner).sampled(prompts, found)


def split(stage: Stage, number: int) -> list[Stage]:
    return split_into(SAMPLE_SHARD, stage, number)


def cost(stage: Stage, size: Size) -> Cost:
    which = Continued.of(stage.params)
    rows = which.new_rows(size.rows)
    if which.sharing:
        rows = which.sharing.rows([rows] * len(which.sharing.places))
    return cost_of(candidates(which.oversample, rows), size)


def cost_of(rows: int, size: Size) -> Cost:
    """Of so many rows that a model makes."""
    sample = size.config.sample
    new, disk = sample.new_tokens, size.row_disk(rows, sample.new_tokens)
    if size.row_flops:
        return Cost(rows=rows, flops=rows * size.row_flops * TWENTIETH, disk=disk, efficiency=0.2)
    prompt = 1 if sample.prompts == "none" else sample.prompt_tokens
    passed = of_continuation(size, prompt, new * sample.decode.beams)
    return Cost(
        rows=rows,
        tokens=rows * new,
        amount=max(rows, FILLED) * passed,
        flops=2.0 * rows * size.through * passed,
        disk=disk,
        steps=new * -(-rows // 128),
        efficiency=0.2,
        step_seconds=0.004,
    )


SAMPLE = StageKind[Size](
    name="sample",
    kind="sample",
    version=4,
    product=Product.ROWS,
    body=body,
    cost=cost,
    label=at,
    counts="sample_tokens",
    split=split,
)
SAMPLE_SHARD = kind_of_shards(SAMPLE, body_of_shard)
