"""How unlikely a row is under a model: under generation 0 (perplexity), or under the model that made it (surprise)."""

import numpy as np

from collapse_cli.config.selection import Need, Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.selection.score import Material, Scored


class _Loss:
    """Loss of each row as the next model would be fitted on it, in nats per predicted token; of numbers, the learner's loss of a row.

    So a row is read without the prompt that it continues, unless that is part of the row (`train.target = "full"`).
    """

    under: Need

    def __init__(self, step: Step, material: Material) -> None:
        self.model = material.model(self.under)

    def score(self, rows: Dataset) -> Scored:
        losses = np.asarray(self.model.score(rows), np.float64)
        if "lengths" in rows.arrays:  # of text; a first token is not predicted
            losses = np.where(rows.arrays["lengths"] > 1, losses, np.nan)
        return Scored(losses)


class Perplexity(_Loss):
    """Under the model of generation 0 of the same policy and seed."""

    under: Need = "reference"


class Surprise(_Loss):
    """Under the model that made the candidates (arXiv 2410.12341)."""

    under: Need = "maker"
