"""How much of a row repeats itself."""

from collapse_cli.config.selection import Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.metrics.grams import Grams
from collapse_cli.metrics.repetition import repetition
from collapse_cli.selection.score import Material, Scored


class Repetition:
    """rep-n of a row: the share of its n-grams that occurred in it before, 0 to 1 (Welleck et al. 2020); NaN of shorter rows.

    Of dialogues their last answers are looked at.
    """

    def __init__(self, step: Step, material: Material) -> None:
        self.gram = step.gram

    def score(self, rows: Dataset) -> Scored:
        said = rows.answers().arrays
        return Scored(repetition(Grams(said["tokens"], said["lengths"]), self.gram))
