"""Ridge, projections and weighted mixing of docs/theory.md: the exact risk given inputs (and S), averaged over draws."""

import math

import numpy as np

from collapse_cli.simulate.estimates import LARGEST, TINY, Array, Estimate, average, synthetic_rows, whole_rows
from collapse_cli.theory import Problem, TheoryError


def ridge(given: Problem, *, trials: int, seed: int) -> Estimate:
    """Conditional risk of ridge regression over draws of the inputs; compare with `theory.ridge`."""
    return average(trials, seed, lambda random: _conditional(given, random, None, (1.0, 1.0)))


def weighted(given: Problem, *, weights: tuple[float, float], trials: int, seed: int) -> Estimate:
    """The same with weights of real and synthetic rows; compare with `theory.weighted`."""
    return average(trials, seed, lambda random: _conditional(given, random, None, weights))


def projections(given: Problem, *, m: float, trials: int, seed: int) -> Estimate:
    """The same on m random projections, drawn anew in every trial; compare with `theory.projections`."""
    size = whole_rows("m", m)
    scale = 1 / math.sqrt(given.d)

    def trial(random: np.random.Generator) -> float:
        return _conditional(given, random, random.standard_normal((size, given.d)) * scale, (1.0, 1.0))

    return average(trials, seed, trial)


def _conditional(
    given: Problem, random: np.random.Generator, projection: Array | None, weights: tuple[float, float]
) -> float:
    """E over w1, delta and labels of |w_hat - w1|_Sigma^2 for one draw of inputs, in Sigma's eigenbasis.

    w_hat - w1 = (H1 + H2 - 1) w1 + H2 delta + noise, with H_k what the fit makes of the labels x.w of rows of kind k.
    """
    rows, ev = whole_rows("n", given.n), given.eigenvalues
    if rows * len(ev) > LARGEST:
        raise TheoryError(f"a simulation of n = {rows}, d = {len(ev)} does not fit in memory; take a smaller n")
    real = rows - synthetic_rows(rows, given.p2)
    x = random.standard_normal((rows, given.d)) * np.sqrt(ev)
    z = x if projection is None else x @ projection.T
    weight = np.where(np.arange(rows) < real, *weights)
    used = weight > 0
    first = int(used[:real].sum())
    x, z, weight = x[used], z[used], np.sqrt(weight[used])[:, None]
    z = z * weight  # sqrt(a) on features, and on labels through the linear map
    parts = (slice(0, first), slice(first, len(x)))
    penalty = rows * given.lam
    if z.shape[1] <= z.shape[0]:
        inverse = _inverse(z.T @ z, penalty, given.lam)
        out = inverse if projection is None else projection.T @ inverse
        hats = [out @ (z[part].T @ (weight[part] * x[part])) for part in parts]
        blurs = [out @ (z[part].T @ (weight[part] ** 2 * z[part])) @ out.T for part in parts]
        noises = [float(ev @ np.diagonal(blur)) for blur in blurs]
    else:
        out = z.T @ _inverse(z @ z.T, penalty, given.lam)
        out = (out if projection is None else projection.T @ out) * weight.T
        hats = [out[:, part] @ x[part] for part in parts]
        noises = [float(ev @ np.sum(out[:, part] ** 2, axis=1)) for part in parts]
    missed = hats[0] + hats[1] - np.eye(given.d)
    return float(
        ev @ missed**2 @ given.gamma
        + ev @ hats[1] ** 2 @ given.delta
        + noises[0] * given.variances[0]
        + noises[1] * given.variances[1]
    )


def _inverse(gram: Array, penalty: float, lam: float) -> Array:
    """(gram + penalty)^-1; its pseudo-inverse where the penalty is too small to make up for a missing rank."""
    if lam >= TINY:
        gram = gram.copy()
        gram[np.diag_indices_from(gram)] += penalty
        inverse: Array = np.linalg.inv(gram)
        return inverse
    values, vectors = np.linalg.eigh(gram)
    cut = values[-1] * len(values) * np.finfo(np.float64).eps * 8
    scale = np.where(values > cut, 1 / np.where(values > cut, values + penalty, 1.0), 0.0)
    return np.asarray((vectors * scale) @ vectors.T)
