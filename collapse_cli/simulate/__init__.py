"""Seeded Monte-Carlo counterparts of `collapse_cli.theory`: what the formulas are checked against. NumPy, float64.

What is averaged follows docs/theory.md. Ridge, projections and weights: the exact conditional risk given the inputs (and
S), labels integrated out. The rest is sampled through: models, inputs, labels, rows. Shares are whole rows here: n p2 is
rounded. Systems are solved on their smaller side; with a penalty below 1e-8 by a pseudo-inverse.
"""

from collapse_cli.simulate.conditional import projections, ridge, weighted
from collapse_cli.simulate.estimates import Estimate
from collapse_cli.simulate.gaussians import gaussian, std_above
from collapse_cli.simulate.mixed_rows import (
    contaminated,
    corrected_mean,
    feedback,
    mixed_mean,
    subsampled_mean,
    word_survival,
)
from collapse_cli.simulate.pooled_rows import isotropic_exchange, pooled_means
from collapse_cli.simulate.sampled import (
    accumulate_regression,
    generational,
    iterative_fixed,
    iterative_fresh,
    projections_fixed,
    projections_sampled,
)
from collapse_cli.simulate.selected_rows import biased_verifier, curation, truncated_loss, verifier

__all__ = [
    "Estimate",
    "accumulate_regression",
    "biased_verifier",
    "contaminated",
    "corrected_mean",
    "curation",
    "feedback",
    "gaussian",
    "generational",
    "isotropic_exchange",
    "iterative_fixed",
    "iterative_fresh",
    "mixed_mean",
    "pooled_means",
    "projections",
    "projections_fixed",
    "projections_sampled",
    "ridge",
    "std_above",
    "subsampled_mean",
    "truncated_loss",
    "verifier",
    "weighted",
    "word_survival",
]
