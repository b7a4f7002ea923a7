"""Closed-form predictions about models fitted to synthetic data: ridge regression, random projections, Gaussians.

NumPy only. Sources, conventions and what is not settled: docs/theory.md. Sizes are keyword arguments; standard
deviations are called `noise`, the synthetic share `p2`, the synthetic labeller's own risk `c2`.
"""

from collapse_cli.theory.checks import TheoryError
from collapse_cli.theory.gaussian import POLICIES, GaussianRefit, digamma, gaussian
from collapse_cli.theory.generational import AccumulatedRisk, accumulate_regression, generational, replace_regression
from collapse_cli.theory.iterative import FixedRisk, FreshRisk, iterative_fixed, iterative_fresh
from collapse_cli.theory.projections import plateau_projections, projections, projections_fixed
from collapse_cli.theory.regression import Risk, harmless_share, knee, plateau_ridge, ridge
from collapse_cli.theory.spectra import Problem, problem, spectrum
from collapse_cli.theory.weighted import WeightedRisk, Weighting, low_dimensional_weight, optimal_weight, weighted

__all__ = [
    "POLICIES",
    "AccumulatedRisk",
    "FixedRisk",
    "FreshRisk",
    "GaussianRefit",
    "Problem",
    "Risk",
    "TheoryError",
    "WeightedRisk",
    "Weighting",
    "accumulate_regression",
    "digamma",
    "gaussian",
    "generational",
    "harmless_share",
    "iterative_fixed",
    "iterative_fresh",
    "knee",
    "low_dimensional_weight",
    "optimal_weight",
    "plateau_projections",
    "plateau_ridge",
    "problem",
    "projections",
    "projections_fixed",
    "replace_regression",
    "ridge",
    "spectrum",
    "weighted",
]
