"""The corpus of a mixture's cell, or of its generator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.experiment.costs import Size, put_together
from collapse_cli.experiment.mixing import seeded_order
from collapse_cli.experiment.stages.base import CORPUS, ROWS, at, on_one_thread, with_history


def combine_stage(
    config: Experiment, data: Stage, made: Stage | None, real: int, synthetic: int, seed: int, *, end: bool = False
) -> Stage:
    """The first `real` real rows, then as many synthetic ones; `end`: the last real rows, for a generator (0: all)."""
    which = Combined(real, synthetic, seed_for(seed, "mix", 0), end)
    inputs = {"data": data} | ({"made": made} if made else {})
    return Stage(COMBINE, {"learner": config.learner, "mixture": vars(which)}, inputs)


@dataclass(frozen=True)
class Combined:
    """Which rows a corpus has.

    Attributes:
        real: so many real rows; 0 with `end`: all.
        synthetic: so many of the generator's, which stand where the next real ones would.
        order: the seed of the order of real rows.
        end: whether real rows are taken from the end of that order.
    """

    real: int
    synthetic: int
    order: int
    end: bool

    @classmethod
    def of(cls, stage: Stage) -> "Combined":
        return cls(**stage.params["mixture"])

    def real_of(self, rows: int) -> int:
        """How many real rows it has, of so many that there are."""
        return self.real or (rows if self.end else 0)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    which, real = Combined.of(stage), Dataset.load(inputs["data"].file(CORPUS))
    order = seeded_order(len(real), which.order)
    if which.end:
        order = order[::-1]
    n1 = which.real_of(len(real))
    parts = [real.take(order[:n1])]
    if which.synthetic:
        made = Dataset.load(inputs["made"].file(ROWS))
        parts.append(made.take(np.arange(n1, n1 + which.synthetic)))
    Dataset.concat(parts).save(place.folder / CORPUS)
    return with_history(stage, inputs, "made") if which.synthetic else {"sample_tokens": 0}


def cost(stage: Stage, size: Size) -> Cost:
    which = Combined.of(stage)
    return put_together(size, which.real_of(size.rows) + which.synthetic, 0.1)


COMBINE = StageKind[Size](name="mix", kind="mix", version=1, product=Product.ROWS, body=body, cost=cost, label=at)
