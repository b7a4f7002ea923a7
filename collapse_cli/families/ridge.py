"""Ridge regression, and what it shares with ridge on random projections."""

from typing import Any

from pydantic import Field

from collapse_cli.families.description import TEST_LOSS, Description, Grid, Headline, Measure, Theory, always
from collapse_cli.families.section import Section


class RidgeConfig(Section):
    """The learner `ridge`: min (1/n)|Xw - y|² + lam |w|²."""

    lam: float = Field(default=1e-6, ge=0)
    """The penalty, normalised per row: scikit-learn's alpha is n·lam. 0: least squares (of least norm where n < d)."""


HEADLINE = Headline("error", "test error |ŵ - w|² (without noise)", log=True)
ERROR = Measure(
    "error",
    "Test error",
    "|ŵ − w|²",
    "Squared distance of the fitted function from the true one, exactly (the truth is known), without the labels' noise.",
    "Errors in directions where inputs vary little count little.",
)
COSINE = Measure(
    "cosine",
    "Direction",
    "cosine",
    "Of the angle between fitted and true weights, where labels may have the wrong sign: 1 is right, below 0 the opposite is learned.",
    "How large the weights are.",
)
DISTANCE = Measure(
    "distance_to_others",
    "Distance to the other lineages",
    "|ŵ − w|²",
    "Squared distance of the fitted function from those of the other lineages' models, a mean over them: of several lineages.",
    "Which of the models are near each other; and whether they are right.",
    zero=True,
)


def lam_is_an_axis(experiment: Any) -> bool:
    """Whether the grid of a mixture says which penalties there are."""
    return experiment.kind == "mixture" and bool(experiment.mixture.lam)


RIDGE = Description(
    name="ridge",
    learner="collapse_cli.learners.ridge:Ridge",
    settings=RidgeConfig,
    reads=("ridge", "sample.prompts"),
    rows="numbers",
    sources=("regression",),
    headline=HEADLINE,
    measures=(ERROR, COSINE, DISTANCE, TEST_LOSS),
    grid=Grid(
        axes=("quality", "lam", "weight", "iterations"),
        headline=HEADLINE,
        measures=(ERROR, TEST_LOSS),
        in_memory=True,
    ),
    starts_anew=always,
    unread=((("ridge.lam",), lam_is_an_axis, "mixture.lam is given in its place"),),
    theory=Theory(
        loop="collapse_cli.findings.predictions:regression_generations",
        cell="collapse_cli.findings.predictions:regression_cell",
        law="collapse_cli.findings.predictions:regression_law",
        lineages="collapse_cli.findings.exchanged:exchanged_ridge",
    ),
)
