"""Closed-form predictions about models fitted to synthetic data: ridge regression, random projections, Gaussians, selection.

NumPy only. Sources, conventions and what is not settled: docs/theory.md. Sizes are keyword arguments; standard
deviations are called `noise`, the synthetic share `p2`, the synthetic labeller's own risk `c2`.
"""

from collapse_cli.theory.checks import TheoryError
from collapse_cli.theory.filters import (
    Truncated,
    Verified,
    approach,
    biased_verifier,
    curation,
    flipped_cosine,
    truncated_loss,
    verification_threshold,
    verifier,
)
from collapse_cli.theory.gaussian import POLICIES, GaussianRefit, digamma, gaussian, std_bound, unknown_policy
from collapse_cli.theory.generational import AccumulatedRisk, accumulate_regression, generational, replace_regression
from collapse_cli.theory.iterative import FixedRisk, FreshRisk, iterative_fixed, iterative_fresh
from collapse_cli.theory.means import (
    VARIANCES,
    Growing,
    MixedMean,
    MixedRows,
    RealRows,
    Variance,
    contaminated,
    corrected_mean,
    feedback,
    golden_weight,
    growing_means,
    mixed_mean,
    scheduled_means,
    self_correction,
    subsampled_mean,
    subsampled_means,
    survival_of_one,
    word_survival,
    words_left,
)
from collapse_cli.theory.projections import plateau_projections, projections, projections_fixed
from collapse_cli.theory.regression import Risk, harmless_share, knee, plateau_ridge, ridge
from collapse_cli.theory.spectra import Problem, problem, spectrum
from collapse_cli.theory.weighted import WeightedRisk, Weighting, low_dimensional_weight, optimal_weight, weighted

__all__ = [
    "POLICIES",
    "VARIANCES",
    "AccumulatedRisk",
    "FixedRisk",
    "FreshRisk",
    "GaussianRefit",
    "Growing",
    "MixedMean",
    "MixedRows",
    "Problem",
    "RealRows",
    "Risk",
    "TheoryError",
    "Truncated",
    "Variance",
    "Verified",
    "WeightedRisk",
    "Weighting",
    "accumulate_regression",
    "approach",
    "biased_verifier",
    "contaminated",
    "corrected_mean",
    "curation",
    "digamma",
    "feedback",
    "flipped_cosine",
    "gaussian",
    "generational",
    "golden_weight",
    "growing_means",
    "harmless_share",
    "iterative_fixed",
    "iterative_fresh",
    "knee",
    "low_dimensional_weight",
    "mixed_mean",
    "optimal_weight",
    "plateau_projections",
    "plateau_ridge",
    "problem",
    "projections",
    "projections_fixed",
    "replace_regression",
    "ridge",
    "scheduled_means",
    "self_correction",
    "spectrum",
    "std_bound",
    "subsampled_mean",
    "subsampled_means",
    "survival_of_one",
    "truncated_loss",
    "unknown_policy",
    "verification_threshold",
    "verifier",
    "weighted",
    "word_survival",
    "words_left",
]
