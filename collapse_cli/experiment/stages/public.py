"""The public text, which all lineages train on besides, in the tokens of one of them."""

from collections.abc import Mapping
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace
from collapse_cli.experiment.costs import Size, put_together
from collapse_cli.experiment.stages.base import ROWS, at, on_one_thread
from collapse_cli.learners import Hints


def public_stage(config: Experiment, hints: Hints, sha256: str, rows: int, data: Stage) -> Stage:
    """Rows of the public text, cut into blocks as those of the training text are.

    Args:
        config: of the lineage.
        sha256: of the text; `hints.public` says where it is.
        rows: how many of it; 0: all.
        data: the lineage's real data, with its tokenizer.
    """
    params: dict[str, Any] = {
        "learner": config.learner,
        "sha256": sha256,
        "block_size": config.data.block_size,
        "line_bos": config.data.line_bos,
    }
    if rows:
        params["rows"] = rows
    return Stage(PUBLIC, params, {"data": data}, hints=hints)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    from collapse_cli.learners import other_texts

    assert isinstance(stage.hints, Hints)
    params = stage.params
    rows = other_texts.public_rows(
        stage.hints.public,
        params["sha256"],
        inputs["data"].folder,
        params["block_size"],
        params.get("rows", 0),
        line_bos=params["line_bos"],
    )
    rows.save(place.folder / ROWS)
    return {"rows": len(rows)}


def cost(stage: Stage, size: Size) -> Cost:
    return put_together(size, size.public_rows, 2.0)


PUBLIC = StageKind[Size](name="public", kind="public", version=1, product=Product.ROWS, body=body, cost=cost, label=at)
