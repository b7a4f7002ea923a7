"""Rows that a model of one tokenizer made, in the tokens of another lineage: text passes between them, not ids of tokens."""

from collections.abc import Mapping
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.stages.base import ROWS, at, on_one_thread, with_history

MICROSECONDS = 4.0  # a token, on one core


def translate_stage(config: Experiment, rows: Stage, source: Stage, target: Stage) -> Stage:
    """What `rows` says, in the tokens of the data stage `target`.

    Args:
        config: of the lineage that takes the rows.
        source: the data stage of the lineage that made them.
    """
    params = {"learner": config.learner, "most": longest(config)}
    return Stage(TRANSLATE, params, {"rows": rows, "source": source, "data": target})


def longest(config: Experiment) -> int:
    """How many tokens a row of a corpus has at most."""
    sample = config.sample
    prompt = sample.prompt_tokens if config.train.target == "full" and sample.prompts != "none" else 0
    return max(config.data.block_size, prompt + sample.new_tokens)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    from collapse_cli.learners import translation

    source, target = (inputs[name].folder for name in ("source", "data"))
    rows = Dataset.load(inputs["rows"].file(ROWS))
    made, facts = translation.in_tokens_of(rows, source, target, stage.params["most"])
    made.save(place.folder / ROWS)
    return with_history(stage, inputs, "rows") | facts


def cost(stage: Stage, size: Size) -> Cost:
    rows = size.rows_of(stage.inputs["rows"])
    tokens = rows * stage.params["most"]
    return Cost(
        rows=rows, disk=size.row_disk(rows, stage.params["most"]), fixed_seconds=0.5 + tokens * MICROSECONDS * 1e-6
    )


TRANSLATE = StageKind[Size](
    name="translate", kind="translate", version=1, product=Product.ROWS, body=body, cost=cost, label=at
)
