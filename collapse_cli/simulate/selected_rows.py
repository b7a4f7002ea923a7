"""Selections among rows (docs/theory.md: Selection), drawn row by row; counterparts of `collapse_cli.theory.filters`."""

import math
from collections.abc import Sequence

import numpy as np

from collapse_cli.simulate.estimates import (
    LARGEST,
    Array,
    Estimate,
    average,
    estimate,
    least_squares,
    streams,
    whole_rows,
)
from collapse_cli.theory import TheoryError

ROWS = 20_000  # of a generation that is curated


def verifier(
    *, phi: float, psi: float, wrong: float, d: int, n: int, separation: float = 1.0, trials: int, seed: int
) -> dict[str, Estimate]:
    """kept, wrong and cosine of `theory.verifier`, of the same arguments."""
    rows = whole_rows("n", n)
    if rows * (d + 4) > LARGEST:
        raise TheoryError(f"{rows} rows of {d} numbers do not fit in memory; take fewer")
    found = []
    for random in streams(trials, seed):
        y = random.integers(2, size=rows) * 2.0 - 1.0
        right = random.random(rows) >= wrong
        kept = random.random(rows) < np.where(right, phi, psi)
        x = random.standard_normal((int(kept.sum()), d))
        x[:, 0] += separation * y[kept]
        w = least_squares(x, (y * np.where(right, 1.0, -1.0))[kept, None], 0.0, d)[:, 0]
        found.append((kept.mean(), 1 - right[kept].mean(), w[0] / math.sqrt(float(w @ w))))
    measured = np.array(found)
    return {name: estimate(measured[:, i]) for i, name in enumerate(("kept", "wrong", "cosine"))}


def biased_verifier(
    *,
    offset: float,
    noise: float,
    slack: float,
    radius: float = 0.0,
    d: int = 1,
    generations: int,
    n: int,
    trials: int,
    seed: int,
) -> Estimate:
    """Of `theory.biased_verifier`: distance at the last generation along the first one's, of n rows each, theta_c at 0."""
    rows = whole_rows("n", n)
    if rows * (d + 4) > LARGEST:
        raise TheoryError(f"{rows} rows of {d} numbers do not fit in memory; take fewer")

    def trial(random: np.random.Generator) -> float:
        theta: Array = np.zeros(d)
        theta[0] = offset
        for _ in range(generations):
            x = random.standard_normal((rows, d))
            y = x @ theta + noise * random.standard_normal(rows)
            kept = np.abs(y) <= radius * np.sqrt(np.square(x).sum(axis=1)) + slack
            if kept.sum() <= d:
                raise TheoryError(f"of {rows} rows the verifier keeps {kept.sum()}; take more rows or more slack")
            theta = least_squares(x[kept], y[kept, None], 0.0, d)[:, 0]
        return float(theta[0])

    return average(trials, seed, trial)


def curation(
    *,
    probabilities: Sequence[float],
    rewards: Sequence[float],
    candidates: float,
    generations: int = 1,
    trials: int,
    seed: int,
) -> list[Estimate]:
    """Of the last generation of `theory.curation`: 20,000 rows a generation, each taken from so many candidates."""
    p, r = np.asarray(probabilities, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    if not math.isfinite(candidates) or candidates * ROWS > LARGEST:
        raise TheoryError(f"candidates is {candidates:g}; a simulation takes at most {LARGEST // ROWS}")
    worth, choice = np.exp(r - r.max()), int(candidates)
    ends = []
    for random in streams(trials, seed):
        shares = p
        for _ in range(generations):
            drawn = random.choice(len(p), (ROWS, choice), p=shares)
            chances = worth[drawn]
            at = random.random(ROWS) * chances.sum(axis=1)
            taken = np.minimum((np.cumsum(chances, axis=1) < at[:, None]).sum(axis=1), choice - 1)
            shares = np.bincount(drawn[np.arange(ROWS), taken], minlength=len(p)) / ROWS
        ends.append(shares)
    return [estimate(values) for values in np.array(ends).T]


def truncated_loss(
    *, threshold: float, n: int, generations: int, unbiased: bool = False, trials: int, seed: int
) -> Estimate:
    """The variance of `theory.truncated_loss` at the last generation."""
    rows = whole_rows("n", n)
    if trials * rows > LARGEST:
        raise TheoryError(f"{trials} trials of {rows} rows do not fit in memory; take fewer")
    if trials < 1:
        raise TheoryError(f"trials is {trials}; a simulation has at least 1")
    random = next(streams(1, seed))
    first = random.standard_normal((trials, rows))
    spread = first.var(axis=1, ddof=int(unbiased))
    for _ in range(generations):
        white = random.standard_normal((trials, rows))
        counts = np.abs(white) >= threshold
        number = np.maximum(counts.sum(axis=1), 1)
        middle = (white * counts).sum(axis=1) / number
        squares = (np.square(white - middle[:, None]) * counts).sum(axis=1)
        spread = spread * squares / np.maximum(number - int(unbiased), 1)
    return estimate(spread)
