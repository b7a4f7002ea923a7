"""The rows of a mixture's generator: row i continues (or labels) the i-th real row, beginning again after the last."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.mixing import seeded_order
from collapse_cli.experiment.stages.base import CORPUS, ROWS, at, learner_of, on_one_thread, stage_of
from collapse_cli.experiment.stages.sample import continue_part, cost_of, sampled_of
from collapse_cli.experiment.stages.shards import found_by_shards, kind_of_shards, split_into


def generate_stage(config: Experiment, model: Stage, data: Stage, rows: int, seed: int) -> Stage:
    """The first `rows` rows that a mixture's generator makes, in the order of the real rows that they continue."""
    which = {"rows": rows, "order": seed_for(seed, "mix", 0)}  # read back by `rows_and_order`
    inputs, own_seed = {"model": model, "data": data}, seed_for(seed, "sample", 0)
    return stage_of(GENERATE, config, inputs, own_seed, verb="sample", mixture=which)


def rows_and_order(stage: Stage) -> tuple[int, int]:
    """How many rows are made, and the seed of the order of the real rows that they continue."""
    which = stage.params["mixture"]
    return which["rows"], which["order"]


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["model"].folder)
    found = found_by_shards(stage, inputs)
    made = sampled_of(learner, _prompts(stage, inputs), found, seed=stage.seed, scratch=place.scratch)
    Dataset(made.rows.arrays, np.ones(len(made.rows), np.int32)).save(place.folder / ROWS)
    return made.facts


def body_of_shard(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    return continue_part(stage, inputs, place, _prompts(stage, inputs))


def _prompts(stage: Stage, inputs: Mapping[str, Finished]) -> Dataset:
    """The real rows that are continued, as `Learner.sample` takes them."""
    real = Dataset.load(inputs["data"].file(CORPUS))
    rows, order = rows_and_order(stage)
    stream = np.arange(rows)
    prompts = real.take(seeded_order(len(real), order)[stream % len(real)])
    return Dataset({**prompts.arrays, "stream": stream, "extra": np.zeros(len(stream), bool)}, prompts.origin)


def split(stage: Stage, number: int) -> list[Stage]:
    return split_into(GENERATE_SHARD, stage, number)


def cost(stage: Stage, size: Size) -> Cost:
    return cost_of(rows_and_order(stage)[0], size)


GENERATE = StageKind[Size](
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
GENERATE_SHARD = kind_of_shards(GENERATE, body_of_shard)
