"""Real data as rows that the learner can take."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from collapse_cli import families, learners
from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.experiment.costs import Size, put_together
from collapse_cli.experiment.stages.base import learner_of, on_one_thread, stage_of
from collapse_cli.where import Where


def data_stage(config: Experiment, hints: learners.Hints, seed: int = 0, behind: int = 0) -> Stage:
    """Real data; for a run's seed where each draws its own. With `behind` only the rows of the corpus behind so many."""
    drawn = learners.learner_class(config.learner).drawn(config)
    more = {"behind": behind} if behind else {}
    return stage_of(DATA, config, {}, seed_for(seed, "data", 0) if drawn else 0, hints, verb="data", **more)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    return learner_of(stage, inputs, place).encode(place.folder, seed=stage.seed)


def cost(stage: Stage, size: Size) -> Cost:
    cost = put_together(size, size.rows, 2.0)
    return replace(cost, disk=size.data_bytes or cost.disk)


def label(stage: Stage, where: Where) -> str:
    if families.of(stage.params["learner"]).text:
        return "real text to tokens"
    return "real rows" + (f", seed {stage.seed}" if stage.seed else "")


DATA = StageKind[Size](name="data", kind="data", version=2, product=Product.DATA, body=body, cost=cost, label=label)
