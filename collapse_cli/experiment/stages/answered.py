"""A server's answers as rows that the learner can take."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.data.dialogues import Turn
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.stages.asked import ANSWERS, PROMPTS, TURNS
from collapse_cli.experiment.stages.base import ROWS, at, on_one_thread
from collapse_cli.foreign.answers import all_of


def answered_stage(config: Experiment, data: Stage, asked: Sequence[Stage], generation: int = 1) -> Stage:
    """Answers as rows in the tokens of `data`: `sample.new_tokens` of them at most, behind their prompt where `train.target` says so;
    to dialogues behind the turns that they answer.

    Args:
        generation: whose corpus they are for.
    """
    inputs = {"data": data, **{f"answers-{number:05d}": stage for number, stage in enumerate(asked)}}
    target = None if config.data.template_sha256 else config.train.target
    how = Answered(config.sample.new_tokens, target, generation)
    return Stage(ANSWERED, {"learner": config.learner, "answered": how.params()}, inputs)


@dataclass(frozen=True)
class Answered:
    """How answers become rows.

    Attributes:
        new_tokens: of an answer, at most.
        target: as `train.target`; None for dialogues, whose rows have the form of real ones.
        generation: whose corpus they are for.
    """

    new_tokens: int
    target: str | None
    generation: int = 1

    def params(self) -> dict[str, Any]:
        """As a stage's parameters have it; a key has `generation` only behind the first."""
        off = {"target": self.target is None, "generation": self.generation == 1}
        return {name: value for name, value in vars(self).items() if not off.get(name)}

    @classmethod
    def of(cls, stage: Stage) -> "Answered":
        """What a stage's parameters say."""
        return cls(**{"target": None, **stage.params["answered"]})


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    from collapse_cli.learners.other_texts import rows_of_answers, rows_of_replies

    how, encoded = Answered.of(stage), inputs["data"].folder
    asked = [inputs[name] for name in sorted(inputs) if name.startswith("answers-")]
    prompts = Dataset.concat([Dataset.load(made.file(PROMPTS)) for made in asked])
    texts = [answer for made in asked for answer in all_of(made.file(ANSWERS))]
    said, ended = [answer.text for answer in texts], [answer.ended for answer in texts]
    if how.target is None:
        lines = [line for made in asked for line in made.file(TURNS).read_text(encoding="utf-8").splitlines()]
        turns = [[Turn(*turn) for turn in json.loads(line)] for line in lines]
        most = inputs["data"].facts["dialogues"]["most"]
        rows, cut = rows_of_replies(encoded, prompts, turns, said, ended, how.new_tokens, most)
    else:
        rows, cut = rows_of_answers(encoded, prompts, said, ended, how.new_tokens, full=how.target == "full")
    more = {name: prompts.arrays[name] for name in ("row", "place")}
    origin = np.full(len(rows), how.generation, np.int32)
    Dataset({**rows.arrays, **more}, origin).save(place.folder / ROWS)
    models = sorted({model for made in asked for model in made.facts["source"]["models"]})
    return {
        "rows": len(rows),
        "cut_rows": cut,
        "sample_tokens": sum(made.facts["sample_tokens"] for made in asked),
        "source": {**asked[0].facts["source"], "models": models},
    }


def cost(stage: Stage, size: Size) -> Cost:
    rows = sum(size.rows_of(made) for name, made in stage.inputs.items() if name != "data")
    return Cost(rows=rows, disk=size.row_disk(rows, size.config.sample.new_tokens), fixed_seconds=0.5)


def note(stage: Stage, made: Finished) -> str:
    cut, how = made.facts["cut_rows"], Answered.of(stage)
    at_end = " or the end of a row" if how.target is None else ""
    return f"{made.facts['rows']:,} rows" + (f", {cut:,} of them cut at {how.new_tokens} tokens{at_end}" if cut else "")


ANSWERED = StageKind[Size](
    name="foreign",
    kind="foreign",
    version=1,
    product=Product.ROWS,
    body=body,
    cost=cost,
    label=at,
    note=note,
)
