"""Many generations of several lineages in one stage, for families whose generations take milliseconds.

A generation of all of them is made before the next one, for their rows are one pool (`stages/pool.py`); what each is made from, its seeds
and its row of `metrics.jsonl` are those of the plain loop. How far the models of lineages are from each other is measured here.
"""

import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.config.weights import Shares
from collapse_cli.engine import checkpoint
from collapse_cli.engine.stage import Cost, Finished, Generation, Product, Stage, StageKind, Workplace
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.loop import step_together
from collapse_cli.experiment.pool import Pool, sharing_of
from collapse_cli.experiment.stages import block as alone
from collapse_cli.experiment.stages.base import first_measure, on_one_thread
from collapse_cli.experiment.stages.block import Block, InMemory, InPool, models_of, part_of
from collapse_cli.experiment.stages.sample import Sharing
from collapse_cli.learners.family import State
from collapse_cli.where import Where


def together_stage(
    lineages: Mapping[str, Experiment],
    pool: Pool,
    hints: learners.Hints,
    policy: Policy,
    data: Sequence[Stage],
    firsts: Sequence[Stage],
    before: Sequence[Stage],
    seed: int,
    first: int,
    last: int,
    shares: Shares,
    public: Stage | None,
) -> Stage:
    """Generations `first` to `last` of one policy, of all lineages.

    Args:
        data: the real rows of each lineage, in order.
        firsts: the block of generation 0 of each; where `first` is 0 it is measured here, not made again.
        before: the stages of this kind before it, of the same policy.
        shares: of the loss, those of private, public and pooled rows.
        public: real rows that all lineages share.
    """
    own = {name: Block.by(config, policy, first, last, shares, public is not None) for name, config in lineages.items()}
    trials = (
        max(learners.learner_class(config.learner).trials(config) for config in lineages.values()) if pool.cut else 1
    )
    together = Together(tuple(own), tuple(own.values()), pool.rule, (first, last), trials)
    inputs = {f"data-{place}": stage for place, stage in enumerate(data)}
    inputs |= {f"first-{place}": stage for place, stage in enumerate(firsts)}
    inputs |= {"before": before[-1]} if before else {}
    inputs |= {"public": public} if public else {}
    if any(block.carries_rows for block in together.blocks):
        inputs |= {f"made-{number:05d}": stage for number, stage in enumerate(before, 1)}
    return Stage(TOGETHER, together.params(), inputs, seed, hints)


@dataclass(frozen=True)
class Together:
    """What such a stage is made from.

    Attributes:
        names: of the lineages, in order.
        blocks: what each is made from.
        rule: as `pool.rule`.
        generations: the first and the last.
        trials: how many have parts of a pool apart that is cut.
    """

    names: tuple[str, ...]
    blocks: tuple[Block, ...]
    rule: str
    generations: tuple[int, int]
    trials: int

    def params(self) -> dict[str, Any]:
        """As a stage's parameters have it."""
        return {
            "learner": self.blocks[0].learner,
            "lineages": list(self.names),
            "blocks": [block.params() for block in self.blocks],
            "rule": self.rule,
            "generations": list(self.generations),
            "trials": self.trials,
        }

    @classmethod
    def of(cls, stage: Stage) -> "Together":
        """What a stage's parameters say."""
        first, last = stage.params["generations"]
        blocks = tuple(Block.read(params) for params in stage.params["blocks"])
        return cls(tuple(stage.params["lineages"]), blocks, stage.params["rule"], (first, last), stage.params["trials"])

    @property
    def pool(self) -> Pool:
        return Pool(self.rule, len(self.names))

    def part(self, place: int, generation: int) -> int:
        """Where the facts of a generation of a lineage stand among all."""
        first, last = self.generations
        return place * (last - first + 1) + generation - first


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """Generations one after the other, of all lineages. Facts: `generations`, lineage by lineage those of each."""
    together = Together.of(stage)
    first, last = together.generations
    made = _lineages(stage, together, inputs, place)
    kept, written = place.scratch / "together.safetensors", time.monotonic()
    for generation in range(_resumed(made, kept), last + 1):
        _step(made, generation)
        place.tell(generation - first + 1, last - first + 1, "generations")
        if time.monotonic() - written > checkpoint.seconds_between():
            _keep(made, kept)
            written = time.monotonic()
    for number, lineage in enumerate(made):
        folder = place.folder / str(number)
        folder.mkdir()
        lineage.save(folder)
    return {"first": first, "generations": [facts for lineage in made for facts in lineage.facts]}


def _lineages(stage: Stage, together: Together, inputs: Mapping[str, Finished], place: Workplace) -> list[InMemory]:
    """Each lineage as a block would have it alone, but that it takes rows of others."""
    public = {name: found for name, found in inputs.items() if name == "public"}
    made, pool, hints = [], together.pool, stage.hints or learners.Hints()
    assert isinstance(hints, learners.Hints)
    count = len(together.names)
    keys = [inputs[f"data-{number}"].key for number in range(count)]
    rows = [inputs[f"data-{number}"].facts["splits"]["train"]["rows"] for number in range(count)]
    for number, (name, block) in enumerate(zip(together.names, together.blocks, strict=True)):
        data, first = inputs[f"data-{number}"], inputs[f"first-{number}"]
        earlier = {
            key: _of(number, found) for key, found in inputs.items() if key == "before" or key.startswith("made-")
        }
        places, takers = sharing_of(pool, number, keys)
        beside = InPool(
            name,
            number,
            pool,
            Sharing(number, pool.lineages, places) if places else None,
            tuple(rows[taker] for taker in takers),
            together.trials,
        )
        made.append(
            InMemory(
                block,
                stage.seed,
                {"data": data, "first": first, "before": first} | earlier | public,
                replace(hints.of_lineage(name), encoded=data.folder, about=data.facts),
                place.scratch,
                beside,
            )
        )
    return made


def _of(number: int, made: Finished) -> Finished:
    """What a stage of several lineages keeps of one."""
    return replace(made, folder=made.folder / str(number))


def inputs_of(generation: Generation) -> Mapping[str, Stage]:
    """The inputs of the stage that measures a model, as they are of its lineage alone: `data`, and `first` but for generation 0."""
    stage = generation.eval
    if stage.of is not TOGETHER:
        return stage.inputs
    number = Together.of(stage).names.index(generation.where.lineage)
    first = {"first": stage.inputs[f"first-{number}"]} if generation.where.generation else {}
    return {"data": stage.inputs[f"data-{number}"], **first}


def block_of(generation: Generation) -> Block:
    """What a model in a block is made from, which is measured there."""
    stage = generation.eval
    if stage.of is not TOGETHER:
        return Block.of(stage)
    together = Together.of(stage)
    return together.blocks[together.names.index(generation.where.lineage)]


def kept_model(generation: Generation, made: Finished) -> State | None:
    """The model of a generation that a block made; None where it keeps only the last."""
    if generation.train.of is TOGETHER:
        made = _of(Together.of(generation.train).names.index(generation.where.lineage), made)
    return models_of(made).get(generation.where.generation)


def _step(made: Sequence[InMemory], generation: int) -> None:
    """One more generation of all; generation 0 is there already."""
    if generation == 0:
        models = [lineage.inherited() for lineage in made]
    else:
        for lineage in made:
            lineage.begin(generation)
        models = [model for model, _ in step_together([one.line for one in made], made, generation)]
    for number, (lineage, model) in enumerate(zip(made, models, strict=True)):
        learner = copy(lineage.learners["eval"])
        learner.restore(model)
        others = [other for place, other in enumerate(models) if place != number]
        lineage.end(model, learner.beside(others) if others else {})


def _keep(made: Sequence[InMemory], path: Path) -> None:
    """A checkpoint of all lineages at one generation."""
    arrays, facts = dict[str, np.ndarray](), list[Any]()
    for number, lineage in enumerate(made):
        own, beside = lineage.at_work()
        arrays |= {f"{number}.{name}": array for name, array in own.items()}
        facts.append(beside)
    checkpoint.keep(path, arrays, facts)


def _resumed(made: Sequence[InMemory], path: Path) -> int:
    """Take up the checkpoint, if there is one. Returns the generation to go on with."""
    checkpointed = checkpoint.take_up(path)
    if checkpointed is not None:
        arrays, facts = checkpointed
        for number, (lineage, beside) in enumerate(zip(made, facts, strict=True)):
            lineage.go_on(part_of(arrays, f"{number}."), beside)
    return made[0].next_generation


def cost(stage: Stage, size: Size) -> Cost:
    """A lineage is taken to cost as much as the first one."""
    together = Together.of(stage)
    one = alone.cost_of(together.blocks[0], size)
    count = len(together.names)
    return replace(
        one,
        flops=one.flops * count,
        disk=one.disk * count,
        amount=one.amount * count,
        parts=one.parts * count,
    )


def label(stage: Stage, where: Where) -> str:
    first, last = Together.of(stage).generations
    which = f"generation {first}" if first == last else f"generations {first} to {last}"
    return f"seed {where.seed}, {which}, {where.name}, {len(Together.of(stage).names)} lineages"


def note(stage: Stage, made: Finished) -> str:
    return first_measure(stage, made.facts["generations"][-1])


def apart(stage: Stage) -> object:
    return [alone.apart_of(block) for block in Together.of(stage).blocks]


TOGETHER = StageKind[Size](
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
