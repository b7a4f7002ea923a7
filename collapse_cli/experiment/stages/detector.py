"""The detector of a lineage: fitted once, on the original corpus against the candidates of generation 1, and judged."""

import json
from collections.abc import Mapping
from typing import Any

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.stages.base import CORPUS, ROWS, at, hints_of, on_one_thread, stage_of
from collapse_cli.experiment.stages.select import text_of
from collapse_cli.selection.scores import detector

NANOSECONDS_A_TOKEN = 20_000.0  # to hash its n-grams, and for four classifiers to learn from them; measured on one core
MODEL_PARAMETERS = 1e8  # of a detector that was made elsewhere: what such models often have


def detector_stage(
    config: Experiment, hints: learners.Hints, sha256: str, data: Stage, candidates: Stage, seed: int
) -> Stage:
    """A detector.

    Args:
        sha256: of the model that was made elsewhere; "" for one that is fitted.
        candidates: the rows that generation 0 made for generation 1.
    """
    inputs, own_seed = {"data": data, "rows": candidates}, seed_for(seed, "detector", 0)
    return stage_of(DETECTOR, config, inputs, own_seed, hints, verb="select", detector=sha256)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    real, made = Dataset.load(inputs["data"].file(CORPUS)), Dataset.load(inputs["rows"].file(ROWS))
    facts = (
        _fitted(real, made, stage, place)
        if not stage.params["detector"]
        else _calibrated(real, made, stage, inputs, place)
    )
    (place.folder / detector.KNOWN).write_text(json.dumps(facts), encoding="utf-8")
    return facts


def _fitted(real: Dataset, made: Dataset, stage: Stage, place: Workplace) -> dict[str, Any]:
    fitted, facts = detector.fit(real, made, stage.seed)
    fitted.save(place.folder)
    return facts


def _calibrated(
    real: Dataset, made: Dataset, stage: Stage, inputs: Mapping[str, Finished], place: Workplace
) -> dict[str, Any]:
    hints = hints_of(stage, inputs)
    text = text_of(stage.params["learner"], hints)
    assert text is not None, "refused before"
    curve, facts = detector.calibrate_model(
        hints.detector, stage.params["detector"], real, made, text, stage.seed, place.tell
    )
    curve.save(place.folder)
    return facts


def cost(stage: Stage, size: Size) -> Cost:
    rows = 2 * min(size.rows, size.rows_of(stage.inputs["rows"]), detector.MOST_ROWS)
    tokens = rows * (size.config.data.block_size if not size.row_flops else 1)
    if stage.params["detector"]:
        return Cost(tokens=tokens, flops=2.0 * MODEL_PARAMETERS * tokens, disk=4096, steps=-(-rows // 32))
    return Cost(
        tokens=tokens, disk=8 * detector.FOLDS * detector.BUCKETS, fixed_seconds=tokens * NANOSECONDS_A_TOKEN * 1e-9
    )


def note(stage: Stage, made: Finished) -> str:
    return detector.in_words(made.facts)


DETECTOR = StageKind[Size](
    name="detector",
    kind="detector",
    version=1,
    product=Product.ROWS,
    body=body,
    cost=cost,
    label=at,
    note=note,
)
