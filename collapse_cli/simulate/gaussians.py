"""Refitted Gaussians (docs/theory.md): Gaussians fitted to samples of Gaussians."""

import math

import numpy as np

from collapse_cli.simulate.estimates import LARGEST, Array, Estimate, estimate, streams, whole_rows
from collapse_cli.theory import POLICIES, TheoryError, unknown_policy


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
        raise unknown_policy(policy)
    if policy == "accumulate-subsample":
        return _subsampled(size, steps, unbiased, dims, trials, seed)
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
    return _said(mean, cov)


def std_above(*, n: int, refits: int, unbiased: bool, above: float, trials: int, seed: int) -> Estimate:
    """Share of trials whose standard deviation is above a value; at most `theory.std_bound`."""
    size = whole_rows("n", n)
    if not 1 <= trials <= LARGEST:
        raise TheoryError(f"trials is {trials}; a simulation has 1 to {LARGEST}")
    random = next(streams(1, seed))
    logs = np.zeros(trials)
    for _ in range(refits):
        logs += np.log(random.chisquare(size - 1, trials) / (size - 1 if unbiased else size))
    return estimate((logs > 2 * math.log(above)).astype(float))


def _subsampled(n: int, steps: int, unbiased: bool, d: int, trials: int, seed: int) -> dict[str, Estimate]:
    """`gaussian` under accumulate-subsample: all samples are drawn, and kept to draw from."""
    if trials < 1:
        raise TheoryError(f"trials is {trials}; a simulation has at least 1")
    if 2 * trials * n * (d + 1) * max(steps, 1) > LARGEST:
        raise TheoryError(f"{trials} trials do not fit in memory; take fewer")
    random = next(streams(1, seed))
    mean, cov = np.zeros((trials, d)), np.tile(np.eye(d), (trials, 1, 1))
    pool: Array = np.empty((trials, 0, d))
    for _ in range(steps):
        made = mean[:, None, :] + random.standard_normal((trials, n, d)) @ _batch_root(cov)
        pool = np.concatenate([pool, made], axis=1)
        chosen = np.argpartition(random.random(pool.shape[:2]), n - 1, axis=1)[:, :n]
        rows = np.take_along_axis(pool, chosen[:, :, None], axis=1)
        mean, cov = rows.mean(axis=1), _white_scatter(rows) / (n - 1 if unbiased else n)
    return _said(mean, cov)


def _said(mean: Array, cov: Array) -> dict[str, Estimate]:
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
