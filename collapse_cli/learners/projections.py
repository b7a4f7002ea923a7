"""The learner `projections`: ridge on m random projections of the inputs, f(x) = v·Sx, a model of adjustable size.

S (m, d) ~ N(0, 1/d) iid is not trained; the penalty is lam |v|², so the effective one on w_hat = S'v is lam d/m
(arXiv 2410.04840, section on random projections; docs/theory.md: Random projections).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collapse_cli.config.cell import Cell
from collapse_cli.config.experiment import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.families.projections import ProjectionsConfig
from collapse_cli.learners import regression_mixture
from collapse_cli.learners.protocol import Facts, Hints, Tell
from collapse_cli.learners.regression import Regression, RegressionSettings, fit_sums
from collapse_cli.learners.settings import Part


class ProjectionsSettings(RegressionSettings):
    model = Part(ProjectionsConfig)


class Projections(Regression):
    """Each fit draws a projection of its own from its seed, so that generations do not share one's blind spots.

    In a mixture the projection is the repeat's: cells of a repeat share it, and a wider one has a narrower one's rows.
    """

    section = "projections"
    settings: ProjectionsSettings

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        super().__init__(params, hints, tell)
        self.settings = ProjectionsSettings(params)

    @classmethod
    def _parameters(cls, config: Experiment) -> int:
        own: ProjectionsConfig = config.projections
        return own.width

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts:
        model = self.settings.model
        back = regression_mixture.features(self.setting.d, seed, model.width)
        summary = self.summary_of(data)
        self._w = fit_sums(summary, model.lam, back)
        return {"train_loss": self._training_loss(summary)}

    def cell(self, cell: Cell, *, seed: int, scratch: Path) -> dict[str, float]:
        """A cell of a mixture; its fields are those of `Rounds.after`."""
        mix = regression_mixture.Mix(cell.real, cell.synthetic)
        model = self.settings.model
        lam = model.lam if cell.lam is None else cell.lam
        width = model.width if cell.size is None else cell.size
        return regression_mixture.rounds(self.setting, seed, mix, cell.quality or 0.0, lam, False, width).after(1)
