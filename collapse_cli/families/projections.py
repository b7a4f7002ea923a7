"""Ridge on random projections of the inputs."""

from pydantic import Field

from collapse_cli.families.description import TEST_LOSS, Description, Grid, Theory, always
from collapse_cli.families.ridge import COSINE, ERROR, HEADLINE, lam_is_an_axis
from collapse_cli.families.section import Section


class ProjectionsConfig(Section):
    """The learner `projections`: ridge on m random projections S x, S ~ N(0, 1/d)."""

    width: int = Field(default=250, ge=1)
    """m, how many random projections: the size of the model."""
    lam: float = Field(default=1e-6, ge=0)
    """The ridge penalty on the weights of the projections, normalised per row."""


PROJECTIONS = Description(
    name="projections",
    learner="collapse_cli.learners.projections:Projections",
    settings=ProjectionsConfig,
    reads=("projections", "sample.prompts"),
    rows="numbers",
    sources=("regression",),
    headline=HEADLINE,
    measures=(ERROR, COSINE, TEST_LOSS),
    grid=Grid(
        axes=("quality", "size", "lam"),
        headline=HEADLINE,
        measures=(ERROR, TEST_LOSS),
        in_memory=True,
        size="width",
    ),
    starts_anew=always,
    unread=(
        (
            ("projections.width",),
            lambda experiment: experiment.kind == "mixture" and bool(experiment.mixture.size),
            "mixture.size is given in its place",
        ),
        (("projections.lam",), lam_is_an_axis, "mixture.lam is given in its place"),
    ),
    theory=Theory(
        cell="collapse_cli.findings.predictions:regression_cell", law="collapse_cli.findings.predictions:regression_law"
    ),
)
