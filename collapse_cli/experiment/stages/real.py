"""Real text as the model of generation 0 sees it, for samples to be compared with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace
from collapse_cli.experiment.costs import REAL_ROWS, Size, continued, scored
from collapse_cli.experiment.stages.base import at, learner_of, on_one_thread, stage_of
from collapse_cli.learners.protocol import WEIGHT_BYTES


def real_stage(config: Experiment, data: Stage, reference: Stage) -> Stage:
    """Real continuations under the model of generation 0 (`reference`)."""
    return stage_of(REAL, config, {"data": data, "reference": reference}, verb="examine")


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    learner = learner_of(stage, inputs, place)
    learner.load(inputs["reference"].folder)
    return learner.look_at_real(place.folder)


def cost(stage: Stage, size: Size) -> Cost:
    if size.row_flops:
        return scored(size, size.rows)
    rows = min(size.rows, REAL_ROWS)
    return replace(continued(size, rows), disk=WEIGHT_BYTES * size.width * rows)


def note(stage: Stage, made: Finished) -> str:
    return f"{made.facts['rows']:,} real continuations"


REAL = StageKind[Size](
    name="real",
    kind="eval",
    version=3,
    product=Product.MEASURES,
    body=body,
    cost=cost,
    label=at,
    note=note,
    counts="predicted_tokens",
)
