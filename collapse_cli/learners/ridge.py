"""The learner `ridge`: min (1/n)|Xw - y|² + lam |w|², solved exactly in float64."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collapse_cli.config.cell import Cell
from collapse_cli.data.dataset import Dataset
from collapse_cli.families.ridge import RidgeConfig
from collapse_cli.learners import regression_mixture
from collapse_cli.learners.family import State
from collapse_cli.learners.protocol import Facts, Hints, Tell
from collapse_cli.learners.regression import Regression, RegressionSettings, fit_sums
from collapse_cli.learners.settings import Part


class RidgeSettings(RegressionSettings):
    model = Part(RidgeConfig)


class Ridge(Regression):
    """Ridge regression; for lam = 0 least squares, of least norm where there are fewer rows than dimensions."""

    section = "ridge"
    summarises = True

    settings: RidgeSettings

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        super().__init__(params, hints, tell)
        self.settings = RidgeSettings(params)

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts:
        return self.fit_summary(self.summary_of(data))

    def fit_summary(self, summary: State) -> Facts:
        self._w = fit_sums(summary, self.settings.model.lam)
        return {"train_loss": self._training_loss(summary)}

    def cell(self, cell: Cell, *, seed: int, scratch: Path) -> dict[str, float]:
        """A cell of a mixture; its fields are those of `Rounds.after`."""
        mix = regression_mixture.Mix(cell.real, cell.synthetic, cell.weight)
        lam = self.settings.model.lam if cell.lam is None else cell.lam
        fixed = self.settings.mixture.real_data == "fixed"
        rounds = regression_mixture.rounds(self.setting, seed, mix, cell.quality or 0.0, lam, fixed)
        return rounds.after(cell.iterations or 1)
