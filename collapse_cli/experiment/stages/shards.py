"""What kinds that split have in common.

A shard is a stage that works on a part of the rows, and leaves what it found of each. The whole stage puts that together, in
order, and goes on from there as if it had worked on all rows itself: so its key knows nothing of shards.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from collapse_cli import learners
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import (
    Body,
    Cost,
    Finished,
    Product,
    Shard,
    Stage,
    StageKind,
    Workplace,
    never_split,
    tokens_a_second,
)
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.stages.base import on_one_thread
from collapse_cli.learners.protocol import Arrays
from collapse_cli.where import Where

FOUND = "found.safetensors"  # by a shard, of each of its rows
SHARD = "shard"  # in the parameters of a shard, which one it is, of how many


def split_into(kind: StageKind[Size], stage: Stage, number: int) -> list[Stage]:
    """So many shards of a stage, of a kind of theirs; none where its learner does not work on parts of the rows."""
    if not issubclass(learners.learner_class(stage.params["learner"]), learners.Divisible):
        return []
    return [
        Stage(kind, {**stage.params, SHARD: [one, number]}, stage.inputs, stage.seed, stage.hints)
        for one in range(1, number + 1)
    ]


def shard_of(stage: Stage) -> Shard:
    """Which one a shard is."""
    return Shard(*stage.params[SHARD])


def kind_of_shards(
    whole: StageKind[Size], body: Body, left: Callable[[Stage, Size], int] | None = None
) -> StageKind[Size]:
    """The kind of the shards of a kind: they share its words and its version, and each has its part of the costs.

    Args:
        left: bytes that all shards of a stage leave together; None: as many as the whole stage.
    """

    def cost(stage: Stage, size: Size) -> Cost:
        cost = whole.cost(stage, size)
        return _part(cost if left is None else replace(cost, disk=left(stage, size)), shard_of(stage))

    def label(stage: Stage, where: Where) -> str:
        shard = shard_of(stage)
        return f"{whole.label(stage, where)}, shard {shard.number} of {shard.of}"

    return replace(
        whole,
        product=Product.PART,
        body=on_one_thread(body),
        cost=cost,
        label=label,
        note=tokens_a_second,
        listed=False,
        split=never_split,
    )


def _part(cost: Cost, shard: Shard) -> Cost:
    """Of the costs of a whole stage."""

    def own(count: int) -> int:
        return len(range(count)[shard.rows(count)])

    return replace(
        cost,
        rows=own(cost.rows),
        tokens=own(cost.tokens),
        flops=cost.flops / shard.of,
        disk=own(cost.disk),
        steps=-(-cost.steps // shard.of),
        fixed_seconds=cost.fixed_seconds / shard.of,
        amount=cost.amount / shard.of,
    )


def divisible(learner: learners.Learner) -> learners.Divisible:
    """A learner of stages that are in shards."""
    assert isinstance(learner, learners.Divisible), "a learner whose stages do not split"
    return learner


def leave(found: Arrays, place: Workplace) -> None:
    """What a shard found, for the whole."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, place.folder / FOUND)


def found_by_shards(stage: Stage, inputs: Mapping[str, Finished]) -> Arrays | None:
    """What the shards of a stage found of all rows, in order; None of a stage without any, which works on them itself."""
    if not stage.shards:
        return None
    shards = sorted(name for name in stage.needs if name not in stage.inputs)
    parts = [Dataset.load_arrays(inputs[name].file(FOUND)) for name in shards]
    # of no rows it may be unknown how wide they are, and what else there is to say of them
    names = dict.fromkeys(name for part in parts for name in part)
    found = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: np.concatenate([some for some in each if len(some)] or each[:1]) for name, each in found.items()}
