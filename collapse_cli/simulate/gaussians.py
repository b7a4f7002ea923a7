"""Refitted Gaussians (docs/theory.md): Gaussians fitted to samples of Gaussians."""

import math

import numpy as np

from collapse_cli.simulate.estimates import LARGEST, Array, Estimate, estimate, streams, whole_rows
from collapse_cli.theory import POLICIES, TheoryError


def gaussian(
    *, n: int, refits: int, unbiased: bool, policy: str = "replace", d: int = 1, trials: int, seed: int
) -> dict[str, Estimate]:
    """Refitted Gaussians from N(0, I) on; compare with the fields of `theory.gaussian` of the same names.

    Means and, for d = 1, sums of squares are drawn by their own laws, which is exact; for d > 1 samples are drawn.

    Returns:
        variance, mean_error, std, log_variance (of the first coordinate; mean_error of all), wasserstein, log_determinant.
    """
    size, steps, dims = whole_rows("n", n), refits, whole_rows("d", d)
    if policy not in POLICIES:
        raise TheoryError(f"policy {policy!r} is not known; there are {' and '.join(POLICIES)}")
    if trials * dims * (size if dims > 1 else 1) > LARGEST:
        raise TheoryError(f"{trials} trials do not fit in memory; take fewer")
    if trials < 1:
        raise TheoryError(f"trials is {trials}; a simulation has at least 1")
    random = next(streams(1, seed))
    mean: Array = np.zeros((trials, dims))
    cov: Array = np.tile(np.eye(dims), (trials, 1, 1))
    pooled, scatter = mean, np.zeros_like(cov)  # of all samples so far
    for step in range(1, steps + 1):
        root = _batch_root(cov)
        centre = mean + (root @ random.standard_normal((trials, dims, 1)))[:, :, 0] / math.sqrt(size)
        if dims == 1:
            white = random.chisquare(size - 1, (trials, 1, 1))
        else:
            white = _white_scatter(random.standard_normal((trials, size, dims)))
        inner = root @ white @ root
        if policy == "replace":
            mean, cov = centre, inner / (size - 1 if unbiased else size)
            continue
        off = centre - pooled
        scatter = scatter + inner + off[:, :, None] * off[:, None, :] * (size * (step - 1) / step)
        pooled = pooled + off / step
        mean, cov = pooled, scatter / (step * size - (1 if unbiased else 0))
    first = cov[:, 0, 0]
    values = np.maximum(np.linalg.eigvalsh(cov), 0)
    wandered = np.sum(mean**2, axis=1)
    with np.errstate(divide="ignore"):
        logs, determinants = np.log(first), np.log(values).sum(axis=1)
    return {
        "variance": estimate(first),
        "mean_error": estimate(wandered),
        "std": estimate(np.sqrt(first)),
        "log_variance": estimate(logs),
        "wasserstein": estimate(wandered + np.sum((np.sqrt(values) - 1) ** 2, axis=1)),
        "log_determinant": estimate(determinants),
    }


def _batch_root(cov: Array) -> Array:
    """Symmetric square roots of (trials, d, d)."""
    if cov.shape[-1] == 1:
        return np.asarray(np.sqrt(cov))
    values, vectors = np.linalg.eigh(cov)
    roots = np.sqrt(np.maximum(values, 0))
    return np.asarray((vectors * roots[:, None, :]) @ vectors.transpose(0, 2, 1))


def _white_scatter(samples: Array) -> Array:
    """Scatters about their means, (trials, d, d), of samples (trials, n, d)."""
    centred = samples - samples.mean(axis=1, keepdims=True)
    return np.asarray(centred.transpose(0, 2, 1) @ centred)
