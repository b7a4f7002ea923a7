"""A mixture of Gaussians with full covariances, fitted by EM."""

from typing import Literal

from pydantic import Field

from collapse_cli.families.description import SHARE, TEST_LOSS, Description, Headline, Measure
from collapse_cli.families.section import Section


class GmmConfig(Section):
    """The learner `gmm`: a mixture of Gaussians with full covariances, fitted by EM."""

    components: int = Field(default=2, ge=1, le=100)
    """Gaussians of the mixture that is fitted."""
    tol: float = Field(default=1e-5, gt=0)
    """EM stops when the mean log-likelihood of a row rises by less."""
    max_iter: int = Field(default=2000, ge=1)
    """Steps of EM at most."""
    ridge: float = Field(default=1e-6, ge=0)
    """Added to the diagonal of covariances, as scikit-learn's `reg_covar`."""
    start: Literal["kmeans", "parent"] = "kmeans"
    """Where EM starts: k-means on the rows, as scikit-learn does, or the parameters of the model that made them."""
    engine: Literal["fast", "sklearn"] = "fast"
    """The same EM in natural parameters (one matrix product a step), or scikit-learn's own."""


MEASURES = (
    Measure(
        "l2_squared",
        "Distance to generation 0",
        "L2², squared",
        "Squared L2 distance between the two densities, exactly; generation 0's own is 0 and has no place on a "
        "logarithmic axis.",
        "Where the two have come apart, distance no longer counts: it then grows with how thin components are.",
    ),
    Measure(
        "component_std_min",
        "Narrowest component",
        "std",
        "Root of the smallest mean variance of a component over dimensions; towards 0 a component becomes a point.",
        "A component that is thin in one direction only; and says nothing about its weight.",
        zero=True,
    ),
    Measure(
        "component_std_max",
        "Widest component",
        "std",
        "The same of the widest; falling with the narrowest, the whole mixture shrinks.",
        "One component that swallows the others is wide, too.",
        zero=True,
    ),
    Measure(
        "largest_weight",
        "Largest component",
        SHARE,
        "Weight of the heaviest component; towards 1 the others are lost.",
        "Two components on the same place share their weight.",
        zero=True,
    ),
    Measure(
        "iterations",
        "EM steps",
        "steps",
        "Steps until the likelihood stood still; many where components overlap.",
        "Not a quality: a bad optimum may be found fast.",
        zero=True,
    ),
    Measure(
        "log_likelihood",
        "Likelihood of its own corpus",
        "nats a row",
        "Rising: the corpus becomes easier to fit, because it varies less.",
        "High is not good: it is of the corpus, not of the truth.",
    ),
    Measure(
        "distance_to_others",
        "Distance to the other lineages",
        "L2², squared",
        "Squared L2 distance of the density from those of the other lineages' models, a mean over them: of several lineages.",
        "Where two have come apart, it no longer counts how far.",
        zero=True,
    ),
    TEST_LOSS,
)


GMM = Description(
    name="gmm",
    learner="collapse_cli.learners.gmm:GaussianMixture",
    settings=GmmConfig,
    reads=("gmm",),
    rows="numbers",
    sources=("blobs",),
    headline=Headline("l2_squared", "squared L2 distance to generation 0", log=True),
    measures=MEASURES,
    numbers=frozenset({"log10_l2_squared", "converged"}),
    starts_anew=lambda experiment: experiment.gmm.start == "kmeans",
)
