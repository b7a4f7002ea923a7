"""Several cells of a mixture in one stage: each is drawn, mixed, fitted and measured in memory."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.cell import Cell
from collapse_cli.engine import checkpoint
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace
from collapse_cli.experiment.costs import FACTS_BYTES, Size
from collapse_cli.experiment.stages.base import first_measure, hints_of, on_one_thread, own
from collapse_cli.where import Where


def cells_stage(config: Experiment, hints: learners.Hints, chosen: Sequence[Cell], seed: int) -> Stage:
    """Some cells of a run's seed; what each draws follows from that."""
    params = {
        "learner": config.learner,
        **own(config, "train"),
        **own(config, "data"),
        "mixture": {"real_data": config.mixture.real_data},
        "cells": [vars(cell) for cell in chosen],
    }
    return Stage(CELLS, params, {}, seed, hints)


def cells_of(stage: Stage) -> list[Cell]:
    """The cells that a stage makes."""
    return [Cell(**cell) for cell in stage.params["cells"]]


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """Cells one after the other. Facts: `generations`, those of each."""
    hints, learner = hints_of(stage, inputs), stage.params["learner"]
    file, chosen = place.scratch / "cells.safetensors", cells_of(stage)
    _, facts = checkpoint.take_up(file) or ({}, [])
    written = time.monotonic()
    for done, cell in enumerate(chosen[len(facts) :], len(facts) + 1):
        start = time.perf_counter()
        mixing = learners.mixing(learner, stage.params, hints, place.tell)
        measures = mixing.cell(cell, seed=stage.seed, scratch=place.scratch)
        facts.append({**measures, "train_rows": cell.rows, "seconds": {"block": round(time.perf_counter() - start, 6)}})
        place.tell(done, len(chosen), "cells")
        if time.monotonic() - written > checkpoint.seconds_between():
            checkpoint.keep(file, {"done": np.array([done])}, facts)
            written = time.monotonic()
    return {"first": 0, "generations": facts}


def cost(stage: Stage, size: Size) -> Cost:
    done = cells_of(stage)
    rows = sum(cell.rows * (cell.iterations or 1) for cell in done)
    return Cost(
        flops=rows * size.row_flops, disk=FACTS_BYTES * len(done), efficiency=0.35, amount=rows, parts=len(done)
    )


def label(stage: Stage, where: Where) -> str:
    return f"seed {where.seed}, {len(cells_of(stage))} cells from {where.name}"


def note(stage: Stage, made: Finished) -> str:
    return first_measure(stage, made.facts["generations"][-1], "mixture")


CELLS = StageKind[Size](
    name="block",
    kind="block",
    version=1,
    product=Product.MEASURES,
    body=body,
    cost=cost,
    label=label,
    note=note,
    listed=True,
)
