"""Text of someone else's model, from a file, as rows that the learner can take."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset, unchanged
from collapse_cli.data.known import KNOWN
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace
from collapse_cli.errors import InputError
from collapse_cli.experiment.costs import Size, put_together
from collapse_cli.experiment.stages.base import ROWS, hints_of, on_one_thread
from collapse_cli.foreign import written
from collapse_cli.where import Where


def written_stage(config: Experiment, hints: learners.Hints, data: Stage, sha256: str) -> Stage:
    """All rows of a text of that hash, in the tokens of `data`."""
    source = config.data.source
    documents = {"documents": True} if source in KNOWN and KNOWN[source].documents else {}
    shape = {"block_size": config.data.block_size, "line_bos": config.data.line_bos, **documents}
    return Stage(WRITTEN, {"learner": config.learner, "foreign": {"sha256": sha256, **shape}}, {"data": data}, 0, hints)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    from collapse_cli.learners.other_texts import rows_of_text

    hints, how = hints_of(stage, inputs), stage.params["foreign"]
    named = hints.foreign.get(how["sha256"])
    if named is None:
        raise InputError(
            f"the text of another model with the hash {how['sha256'][:12]}… is not in the store, and no file of it is named here; "
            "give the run's command again"
        )
    text = written.read(named, hints.foreign_column)
    unchanged(how["sha256"], text.sha256, f"the text {named}")
    made, unknown = rows_of_text(
        hints.real(),
        text.rows,
        how["block_size"],
        line_bos=how["line_bos"],
        documents=how.get("documents", False),
        what=named,
    )
    Dataset(made.arrays, np.ones(len(made), np.int32)).save(place.folder / ROWS)
    return {
        "rows": len(made),
        "tokens": int(made.arrays["lengths"].sum()),
        "unknown_share": unknown,
        "source": {"sha256": how["sha256"]},
    }


def cost(stage: Stage, size: Size) -> Cost:
    return put_together(size, size.rows, 2.0)


def label(stage: Stage, where: Where) -> str:
    return "text of another model to tokens"


def note(stage: Stage, made: Finished) -> str:
    return f"{made.facts['rows']:,} rows of another model's"


WRITTEN = StageKind[Size](
    name="foreign",
    kind="foreign",
    version=1,
    product=Product.ROWS,
    body=body,
    cost=cost,
    label=label,
    note=note,
)
