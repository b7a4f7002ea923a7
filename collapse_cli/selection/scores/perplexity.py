"""How unlikely a row is under a model: under generation 0 (perplexity), or under the model that made it (surprise)."""

from typing import TYPE_CHECKING

import numpy as np

from collapse_cli.config.selection import Need, Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.selection.score import Material, Scored

if TYPE_CHECKING:
    from collapse_cli.selection.scores.named_model import NamedModel


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
    """Under the model of generation 0 of the same policy and seed, or under one that is named."""

    under: Need = "reference"
    named: "NamedModel | None" = None

    def __init__(self, step: Step, material: Material) -> None:
        if not step.model_sha256:
            super().__init__(step, material)
            return
        from collapse_cli.selection.scores import named_model

        assert material.text is not None, "refused before"
        source, sha256 = material.judges[step.model_sha256], step.model_sha256
        self.named = named_model.NamedModel(source, sha256, material.text, material.tell)

    def score(self, rows: Dataset) -> Scored:
        return super().score(rows) if self.named is None else Scored(self.named.losses(rows))


class Surprise(_Loss):
    """Under the model that made the candidates (arXiv 2410.12341)."""

    under: Need = "maker"
