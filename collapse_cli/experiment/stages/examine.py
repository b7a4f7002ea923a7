"""The rows that a model made, measured under the model of generation 0."""

from collections.abc import Mapping
from typing import Any

from collapse_cli import families
from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace
from collapse_cli.experiment.costs import NUMBER_BYTES, REAL_ROWS, Size, continued, scored
from collapse_cli.experiment.stages.base import (
    CORPUS,
    ROWS,
    SHOWN,
    at,
    first_measure,
    learner_of,
    on_one_thread,
    stage_of,
)
from collapse_cli.experiment.stages.shards import (
    divisible,
    found_by_shards,
    kind_of_shards,
    leave,
    shard_of,
    split_into,
)
from collapse_cli.learners.protocol import WEIGHT_BYTES


def examine_stage(
    config: Experiment, samples: Stage, data: Stage, corpus: Stage, real: Stage, reference: Stage, first: Stage | None
) -> Stage:
    """Of `samples`, beside `real` and `first`, the same of generation 0, all under the model `reference`."""
    inputs = {
        "samples": samples,
        "data": data,
        "prompts": corpus if config.sample.prompts == "previous" else data,
        "reference": reference,
        "real": real,
    }
    return stage_of(EXAMINE, config, inputs | ({"first": first} if first else {}), verb="examine")


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["reference"].folder)
    samples, shown = (Dataset.load(inputs["samples"].file(name)) for name in (ROWS, SHOWN))
    prompts, real = Dataset.load(inputs["prompts"].file(CORPUS)), inputs["real"].folder
    first = Dataset.load(inputs["first"].file(ROWS)) if "first" in inputs else None
    found = found_by_shards(stage, inputs)
    if found is None:
        examined = learner.examine(samples, shown, prompts, real=real, first=first)
    else:
        examined = divisible(learner).examined(samples, shown, prompts, real=real, first=first, found=found)
    examined.rows.save(place.folder / ROWS)
    return examined.facts


def body_of_shard(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["reference"].folder)
    samples, prompts = Dataset.load(inputs["samples"].file(ROWS)), Dataset.load(inputs["prompts"].file(CORPUS))
    found = divisible(learner).examine_part(samples, prompts, shard_of(stage))
    leave(found, place)
    return {"rows": len(found["nll"])}


def split(stage: Stage, number: int) -> list[Stage]:
    return split_into(EXAMINE_SHARD, stage, number)


def cost(stage: Stage, size: Size) -> Cost:
    rows = size.rows_of(stage.inputs["samples"])
    return scored(size, rows) if size.row_flops else continued(size, rows)


def left(stage: Stage, size: Size) -> int:
    """Bytes that shards leave: of each sample its loss, of those that MAUVE looks at the model's state."""
    rows = size.rows_of(stage.inputs["samples"])
    return NUMBER_BYTES * rows + WEIGHT_BYTES * size.width * min(rows, size.rows // 2, REAL_ROWS)


def note(stage: Stage, made: Finished) -> str:
    from collapse_cli.metrics.numbers import perplexity

    if not families.of(stage.params["learner"]).text:
        return first_measure(stage, made.facts)
    value = made.facts.get("sample_perplexity")  # null, or absent, where the samples hold no token
    return f"its samples under generation 0: {'empty' if value is None else f'perplexity {perplexity(value)}'}"


EXAMINE = StageKind[Size](
    name="examine",
    kind="eval",
    version=3,
    product=Product.MEASURES,
    body=body,
    cost=cost,
    label=at,
    note=note,
    counts="predicted_tokens",
    split=split,
)
EXAMINE_SHARD = kind_of_shards(EXAMINE, body_of_shard, left)
