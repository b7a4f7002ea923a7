"""The change `edit`: tokens that generation 0 is all too sure of are drawn anew (token editing, arXiv 2412.14689)."""

from collapse_cli.config.selection import Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.learners.protocol import Editing, Facts
from collapse_cli.selection.score import Material


class Edit:
    """Each token whose probability under generation 0, given those before it in its row, is above `above` is drawn anew from the `top` most
    probable ones there. Prompts that are part of a row are edited with it.
    """

    def __init__(self, step: Step, material: Material) -> None:
        learner = material.model("reference")
        assert isinstance(learner, Editing), "refused before"
        self.step, self.learner, self.seed = step, learner, material.seed

    def change(self, rows: Dataset) -> tuple[Dataset, Facts]:
        done = self.learner.edited(rows, above=self.step.above, top=self.step.top, seed=self.seed)
        return done.rows, done.facts
