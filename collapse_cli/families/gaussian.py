"""Mean and covariance, refitted."""

from typing import Any

from pydantic import Field

from collapse_cli.families.description import SHARE, TEST_LOSS, Description, Headline, Measure, Theory
from collapse_cli.families.section import Section, added


class GaussianConfig(Section):
    """The learner `gaussian`: mean and covariance, refitted."""

    unbiased: bool = False
    """Divide by n - 1 (as the theorem of the Nature paper does) instead of n (as its code does)."""
    trials: int = Field(default=1, ge=1, le=100_000)
    """Independent repetitions computed together; measures are means over them."""
    truncate: float = added(0.0, ge=0, le=10)
    """Truncated loss: rows nearer than so many standard deviations to the model that a fit starts from (`loop.init`) do not
    count. 0: all count."""


def all_rows_count(experiment: Any) -> bool:
    """Whether it does not matter which model a fit starts from: none is asked which rows are likely."""
    return bool(experiment.gaussian.truncate == 0)


MEASURES = (
    Measure(
        "variance",
        "Fitted variance",
        "of the truth's",
        "1 is right. Mean over trials and dimensions; models that are refitted to their own samples lose variance.",
        "A mean over trials: a few that grow can hide that most have collapsed. Read it with the share collapsed.",
    ),
    Measure(
        "std",
        "Fitted standard deviation",
        "of the truth's",
        "Falls even where the mean variance stands still, for it weighs the few large trials less.",
        "Still a mean: see the logarithm for the typical trial.",
    ),
    Measure(
        "log_variance",
        "Log-variance",
        "ln(v / truth)",
        "That of the typical trial: a straight line down is collapse at a constant rate.",
        "A single trial near 0 weighs heavily.",
    ),
    Measure(
        "mean_shift_squared",
        "Drift of the mean",
        "v₀",
        "Squared distance of the fitted mean from the true one, in units of the true variance; a random walk.",
        "Says nothing about the shape.",
        zero=True,
    ),
    Measure(
        "w2_squared",
        "Wasserstein distance to the truth",
        "W₂², v₀",
        "Drift of the mean and loss of variance in one number.",
        "Does not tell the two apart.",
        zero=True,
    ),
    Measure(
        "log_det",
        "Log-determinant",
        "ln det C/C₀",
        "Volume of the fitted ellipsoid; falls in every dimension at once.",
        "One lost dimension alone sends it down.",
    ),
    Measure(
        "collapsed_share",
        "Trials collapsed",
        SHARE,
        "Share of trials whose variance is below 1% of the start.",
        "The threshold is a convention.",
        zero=True,
    ),
    Measure(
        "distance_to_others",
        "Distance to the other lineages",
        "v₀",
        "Squared distance of the mean from those of the other lineages' models, a mean over them: of several lineages; 0 once they are one.",
        "Models with equal means may differ in their variances.",
        zero=True,
    ),
    Measure(
        "mixture_variance",
        "Variance of all lineages together",
        "of the truth's",
        "Of the mixture of all lineages' models: what they hold between them; 1 is right where all have one truth.",
        "Models that have drifted apart widen it, too.",
        zero=True,
    ),
    TEST_LOSS,
)


GAUSSIAN = Description(
    name="gaussian",
    learner="collapse_cli.learners.gaussian:Gaussian",
    settings=GaussianConfig,
    reads=("gaussian",),
    rows="numbers",
    sources=("blobs",),
    headline=Headline("variance", "fitted variance, truth 1", better="more"),
    measures=MEASURES,
    starts_anew=all_rows_count,
    theory=Theory(
        loop="collapse_cli.findings.predictions:refitted_gaussian",
        lineages="collapse_cli.findings.exchanged:exchanged_gaussian",
    ),
)
