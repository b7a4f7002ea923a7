"""A model measured on real test data; the facts are those of its training and these."""

from collections.abc import Mapping
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace
from collapse_cli.experiment.costs import NUMBER_BYTES, ROW_MEASURES, TOKEN_MEASURES, TWENTIETH, Size
from collapse_cli.experiment.stages.base import (
    ROWS,
    TEST,
    at,
    first_measure,
    learner_of,
    on_one_thread,
    stage_of,
    with_history,
)
from collapse_cli.experiment.stages.shards import (
    divisible,
    found_by_shards,
    kind_of_shards,
    leave,
    shard_of,
    split_into,
)


def eval_stage(config: Experiment, model: Stage, data: Stage, first: Stage | None) -> Stage:
    """A model on real test data, beside `first`, the same of generation 0."""
    return stage_of(EVAL, config, {"model": model, "data": data} | ({"first": first} if first else {}), verb="eval")


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["model"].folder)
    test = Dataset.load(inputs["data"].file(TEST))
    first = Dataset.load(inputs["first"].file(ROWS)) if "first" in inputs else None
    found = found_by_shards(stage, inputs)
    measured = learner.measure(test, first) if found is None else divisible(learner).measured(test, first, found)
    measured.rows.save(place.folder / ROWS)
    return with_history(stage, inputs, "model") | measured.facts


def body_of_shard(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["model"].folder)
    found = divisible(learner).score_part(Dataset.load(inputs["data"].file(TEST)), shard_of(stage))
    leave(found, place)
    return {"rows": len(found["nll"]), "predicted_tokens": int(found["predicted"].sum())}


def split(stage: Stage, number: int) -> list[Stage]:
    return split_into(EVAL_SHARD, stage, number)


def cost(stage: Stage, size: Size) -> Cost:
    rows = size.test_rows
    if size.row_flops:
        return Cost(flops=rows * size.row_flops * TWENTIETH, disk=8 * rows, efficiency=0.4, amount=rows)
    tokens = rows * (size.config.eval.block_size or size.config.data.block_size)
    return Cost(
        tokens=tokens,
        flops=2.0 * (size.layer_parameters + size.head_parameters) * tokens,
        disk=ROW_MEASURES * rows,
        steps=-(-rows // 64),
        efficiency=0.4,
        step_seconds=0.01,
    )


def left(stage: Stage, size: Size) -> int:
    """Bytes that shards leave, of each row and each token."""
    return cost(stage, size).tokens * TOKEN_MEASURES + 2 * NUMBER_BYTES * size.test_rows


def note(stage: Stage, made: Finished) -> str:
    return first_measure(stage, made.facts)


EVAL = StageKind[Size](
    name="eval",
    kind="eval",
    version=3,
    product=Product.MEASURES,
    body=body,
    cost=cost,
    label=at,
    note=note,
    listed=True,
    counts="predicted_tokens",
    split=split,
)
EVAL_SHARD = kind_of_shards(EVAL, body_of_shard, left)
