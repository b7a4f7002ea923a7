"""Models, inputs and labels all drawn: projections with one S, iterative mixing, regression across generations.

Sections of docs/theory.md.
"""

import math
from collections.abc import Iterator

import numpy as np

from collapse_cli.simulate.estimates import (
    Array,
    Estimate,
    average,
    estimate,
    least_squares,
    streams,
    synthetic_rows,
    whole_rows,
)
from collapse_cli.theory import Problem, TheoryError

DRAWS = 8  # of w1, delta and labels on the same inputs


def projections_fixed(
    *,
    projection: Array,
    covariance: Array,
    gamma: Array,
    delta: Array,
    n: int,
    p2: float,
    lam: float,
    noise: float,
    noise_synthetic: float | None = None,
    trials: int,
    seed: int,
) -> Estimate:
    """One S (m, d), everything else sampled: w1, delta, inputs, labels; compare with `theory.projections_fixed`.

    Covariances are (d, d) and need not commute. A trial has DRAWS draws of w1, delta and labels.
    """
    root, first, apart = (_root(matrix) for matrix in (covariance, gamma, delta))
    rows, d = whole_rows("n", n), projection.shape[1]
    real = rows - synthetic_rows(rows, p2)
    other = noise if noise_synthetic is None else noise_synthetic
    spread = np.where(np.arange(rows) < real, noise, other)[:, None]

    def trial(random: np.random.Generator) -> float:
        x = random.standard_normal((rows, d)) @ root
        w1 = first @ random.standard_normal((d, DRAWS))
        w2 = w1 + apart @ random.standard_normal((d, DRAWS))
        y = np.concatenate((x[:real] @ w1, x[real:] @ w2)) + spread * random.standard_normal((rows, DRAWS))
        wrong = projection.T @ least_squares(x @ projection.T, y, lam, d) - w1
        return float(np.mean(np.sum((root @ wrong) ** 2, axis=0)))

    return average(trials, seed, trial)


def projections_sampled(given: Problem, *, m: int, trials: int, seed: int) -> Estimate:
    """`projections` with w1, delta, S, inputs and labels sampled, DRAWS draws of w1, delta and labels for each S."""
    m, rows = whole_rows("m", m), whole_rows("n", given.n)
    real = rows - synthetic_rows(rows, given.p2)
    scales = np.sqrt(given.eigenvalues)
    spread = np.sqrt(np.where(np.arange(rows) < real, *given.variances))[:, None]

    def trial(random: np.random.Generator) -> float:
        s = random.standard_normal((m, given.d)) / math.sqrt(given.d)
        x = random.standard_normal((rows, given.d)) * scales
        w1 = _draws(random, given.gamma, given.eigenvalues)
        w2 = w1 + _draws(random, given.delta, given.eigenvalues)
        y = np.concatenate((x[:real] @ w1, x[real:] @ w2)) + spread * random.standard_normal((rows, DRAWS))
        return _risk(s.T @ least_squares(x @ s.T, y, given.lam, given.d) - w1, given.eigenvalues)

    return average(trials, seed, trial)


def iterative_fresh(given: Problem, *, iterations: int, trials: int, seed: int) -> list[Estimate]:
    """Risks after 0..t iterations with new real rows in each; compare with `theory.iterative_fresh(...).risks`.

    A trial has DRAWS draws of w1, delta and labels on the same inputs.
    """
    rows = whole_rows("n", given.n)
    real = rows - synthetic_rows(rows, given.p2)
    scales = np.sqrt(given.eigenvalues)
    spread = np.sqrt(np.where(np.arange(rows) < real, *given.variances))[:, None]

    def trial(random: np.random.Generator) -> Iterator[float]:
        w1 = _draws(random, given.gamma, given.eigenvalues)
        w = w1 + _draws(random, given.delta, given.eigenvalues)
        yield _risk(w - w1, given.eigenvalues)
        for _ in range(iterations):
            x = random.standard_normal((rows, given.d)) * scales
            y = np.concatenate((x[:real] @ w1, x[real:] @ w)) + spread * random.standard_normal((rows, DRAWS))
            w = least_squares(x, y, given.lam, given.d)
            yield _risk(w - w1, given.eigenvalues)

    risks = np.array([list(trial(random)) for random in streams(trials, seed)])
    return [estimate(column) for column in risks.T]


def iterative_fixed(
    given: Problem, *, mixing: int, kept: int, trials: int, seed: int
) -> tuple[Estimate, Estimate, list[Array]]:
    """Real rows drawn once, least squares: `mixing` iterations are thrown away, the next `kept` are averaged.

    Compare with `theory.iterative_fixed`, Sigma = I.

    Returns:
        Excess |w_t - w_clean|^2 over the fit to the real rows; the risk; and each trial's eigenvalues of X1'X1/n, (d,).
    """
    rows, d = whole_rows("n", given.n), given.d
    real = rows - synthetic_rows(rows, given.p2)
    if real < d:
        raise TheoryError(f"there are {real} real rows for {d} dimensions; fixed real rows need as many as dimensions")
    first, second = (math.sqrt(value) for value in given.variances)
    excess, risk, spectra = [], [], []
    for random in streams(trials, seed):
        x1 = random.standard_normal((real, d))
        y1 = first * random.standard_normal(real)  # w1 = 0: least squares moves with it
        gram, right = x1.T @ x1, x1.T @ y1
        clean = np.linalg.solve(gram, right)
        w, apart, wrong = clean, 0.0, 0.0
        for step in range(mixing + kept):
            x2 = random.standard_normal((rows - real, d))
            y2 = x2 @ w + second * random.standard_normal(rows - real)
            w = np.linalg.solve(gram + x2.T @ x2, right + x2.T @ y2)
            if step >= mixing:
                apart += float(np.sum((w - clean) ** 2)) / kept
                wrong += float(np.sum(w**2)) / kept
        excess.append(apart)
        risk.append(wrong)
        spectra.append(np.linalg.eigvalsh(gram / rows))
    return estimate(np.array(excess)), estimate(np.array(risk)), spectra


def generational(
    given: Problem,
    *,
    t0: int,
    generations: int,
    noise_generator: float,
    same_inputs: bool = False,
    trials: int,
    seed: int,
) -> Estimate:
    """A chain of label makers on t0 rows each, then the ridge fit on n rows; compare with `theory.generational`.

    Of `given`, eigenvalues, gamma, n, lam and the real noise are used. DRAWS draws of w0 and labels share their inputs.
    """
    rows, size, d = whole_rows("n", given.n), whole_rows("t0", t0), given.d
    scales = np.sqrt(given.eigenvalues)
    last = math.sqrt(given.variances[0])

    def trial(random: np.random.Generator) -> float:
        truth: Array = _draws(random, given.gamma, given.eigenvalues)
        w = truth
        x = random.standard_normal((size, d)) * scales
        for generation in range(generations):
            if generation and not same_inputs:
                x = random.standard_normal((size, d)) * scales
            w = least_squares(x, x @ w + noise_generator * random.standard_normal((size, DRAWS)), 0.0, d)
        x = random.standard_normal((rows, d)) * scales
        w = least_squares(x, x @ w + last * random.standard_normal((rows, DRAWS)), given.lam, d)
        return _risk(w - truth, given.eigenvalues)

    return average(trials, seed, trial)


def accumulate_regression(
    *, d: int, n: int, noise: float, generations: int, same_inputs: bool = False, trials: int, seed: int
) -> list[Estimate]:
    """Risks of generations 0..g of least squares on all labels so far; compare with `theory.accumulate_regression`."""

    def trial(random: np.random.Generator) -> Iterator[float]:
        gram: Array = np.zeros((d, d))
        right: Array = np.zeros(d)
        w: Array = np.zeros(d)
        x: Array = random.standard_normal((n, d))
        for generation in range(generations + 1):
            if generation and not same_inputs:
                x = random.standard_normal((n, d))
            gram = gram + x.T @ x
            right = right + x.T @ (x @ w + noise * random.standard_normal(n))
            w = np.linalg.solve(gram, right)
            yield float(w @ w)

    risks = np.array([list(trial(random)) for random in streams(trials, seed)])
    return [estimate(column) for column in risks.T]


def _risk(wrong: Array, eigenvalues: Array) -> float:
    """The mean of |wrong|_Sigma^2 over draws; wrong (d, DRAWS) in Sigma's eigenbasis."""
    return float(np.mean(eigenvalues @ wrong**2))


def _draws(random: np.random.Generator, variances: Array, eigenvalues: Array) -> Array:
    """Draws of N(0, diag variances), (d, DRAWS).

    Where all directions weigh the same in the Sigma-norm, that is set to its mean in every draw: it would only add noise.
    Elsewhere that would change how much the directions weigh.
    """
    drawn = random.standard_normal((len(variances), DRAWS)) * np.sqrt(variances)[:, None]
    weights = eigenvalues * variances
    if 0 < float(weights.max()) <= float(weights.min()) * (1 + 1e-9):
        drawn = drawn * np.sqrt(weights.sum() / (eigenvalues @ drawn**2))
    return np.asarray(drawn)


def _root(matrix: Array) -> Array:
    """The symmetric square root of a covariance, (d, d)."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)
