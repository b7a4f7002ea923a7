"""A lineage's part of all rows that lineages made: shuffled, and cut into disjoint parts."""

from collections.abc import Mapping, Sequence
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.experiment.costs import Size, put_together
from collapse_cli.experiment.pool import segment
from collapse_cli.experiment.stages.base import ROWS, at, on_one_thread
from collapse_cli.experiment.stages.pool import as_inputs, history, members_of
from collapse_cli.learners import learner_class


def segment_stage(config: Experiment, place: int, members: Sequence[Stage], seed: int, generation: int) -> Stage:
    """The part of the lineage at a place among the members."""
    trials = learner_class(config.learner).trials(config)
    params = {"learner": config.learner, "part": place} | ({"trials": trials} if trials > 1 else {})
    return Stage(SEGMENT, params, as_inputs(members), seed_for(seed, "pool", generation))


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    members, rows = members_of(inputs)
    chosen = segment(rows, stage.params["part"], stage.seed, stage.params.get("trials", 1))
    chosen.save(place.folder / ROWS)
    return history(members, [len(chosen) / max(1, sum(map(len, rows)))] * len(rows))


def cost(stage: Stage, size: Size) -> Cost:
    own = stage.inputs[f"member-{stage.params['part'] + 1:05d}"]
    return put_together(size, size.rows_of(own), 0.1)


SEGMENT = StageKind[Size](name="pool", kind="pool", version=1, product=Product.ROWS, body=body, cost=cost, label=at)
