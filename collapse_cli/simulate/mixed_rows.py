"""Means of mixed rows (docs/theory.md), drawn row by row; counterparts of `collapse_cli.theory.means`."""

import numpy as np

from collapse_cli.simulate.estimates import LARGEST, Array, Estimate, estimate, streams, whole_rows
from collapse_cli.theory import TheoryError
from collapse_cli.theory.means import Variance


def mixed_mean(
    *,
    n: int,
    real: int,
    synthetic: int,
    weight: float | None = None,
    kept: bool = False,
    generations: int,
    variance: Variance = "known",
    trials: int,
    seed: int,
) -> dict[str, Estimate]:
    """mean_error, variance and relative of `theory.mixed_mean`, of the same arguments; every row is drawn."""
    size = _fits(n, trials, 2 * (n + real + synthetic))
    random = next(streams(1, seed))
    rows = random.standard_normal((trials, size))
    mean, spread = _fitted(rows, None, variance)
    mass = real / (real + synthetic) if weight is None else weight
    each = np.concatenate([np.full(real, mass / max(real, 1)), np.full(synthetic, (1 - mass) / max(synthetic, 1))])
    for _ in range(generations):
        if not kept:
            used = random.standard_normal((trials, real))
        else:
            used = rows if real == size else np.take_along_axis(rows, _chosen(random, trials, size, real), axis=1)
        made = mean[:, None] + np.sqrt(spread)[:, None] * random.standard_normal((trials, synthetic))
        mean, spread = _fitted(np.concatenate([used, made], axis=1), each, variance)
    return _said(mean, spread, size)


def subsampled_mean(
    *, n: int, generations: int, variance: Variance = "known", trials: int, seed: int
) -> dict[str, Estimate]:
    """The same of `theory.subsampled_mean`."""
    size = _fits(n, trials, 3 * n * (generations + 1))
    random = next(streams(1, seed))
    pool = random.standard_normal((trials, size))
    mean, spread = _fitted(pool, None, variance)
    for _ in range(generations):
        made = mean[:, None] + np.sqrt(spread)[:, None] * random.standard_normal((trials, size))
        pool = np.concatenate([pool, made], axis=1)
        chosen = _chosen(random, trials, pool.shape[1], size)
        mean, spread = _fitted(np.take_along_axis(pool, chosen, axis=1), None, variance)
    return _said(mean, spread, size)


def contaminated(*, share_synthetic: float, n: int, generations: int, trials: int, seed: int) -> Estimate:
    """Of `theory.contaminated`: n (mean - true mean)^2, of n rows a generation, each synthetic with the given probability."""
    size = _fits(n, trials, 2 * n)
    random = next(streams(1, seed))
    mean = np.zeros(trials)
    for fit in range(1, generations + 2):
        synthetic = random.random((trials, size)) < share_synthetic
        rows = random.standard_normal((trials, size)) + synthetic * mean[:, None]
        mean += (rows.mean(axis=1) - mean) / fit
    return estimate(size * mean**2)


def feedback(
    *, n0: int, real: int, synthetic: int, generations: int, off: float = 0.02, trials: int, seed: int
) -> Estimate:
    """Of `theory.feedback`: rows are yes or no, a model says yes by `off` more often than what it is fitted to."""
    start = whole_rows("n0", n0)
    random = next(streams(1, seed))
    truth = 0.5
    yes, rows = random.binomial(start, truth, trials).astype(float), start
    for _ in range(generations):
        says = np.clip(yes / rows + off, 0, 1)
        yes += random.binomial(real, truth, trials) + random.binomial(synthetic, says)
        rows += real + synthetic
    return estimate((yes / rows + off - truth) / off)


def corrected_mean(*, n: int, ratio: float, gamma: float, generations: int, trials: int, seed: int) -> Estimate:
    """Of `theory.corrected_mean`: a synthetic row is the model's with probability 1/(1 + gamma), else the truth's."""
    made = round(ratio * n)
    size = _fits(n, trials, 2 * (n + made))
    random = next(streams(1, seed))
    rows = random.standard_normal((trials, size))
    mean = rows.mean(axis=1)
    for _ in range(generations):
        own = random.random((trials, made)) < 1 / (1 + gamma)
        drawn = random.standard_normal((trials, made)) + own * mean[:, None]
        mean = np.concatenate([rows, drawn], axis=1).mean(axis=1)
    return estimate(size * mean**2)


def word_survival(*, n: int, frequency: float, generations: int, trials: int, seed: int) -> Estimate:
    """Of `theory.word_survival`: n tokens drawn from the last n tokens' shares, so that counts are binomial."""
    rows = whole_rows("n", n)
    random = next(streams(1, seed))
    counts = random.binomial(rows, frequency, trials)
    for _ in range(generations):
        counts = random.binomial(rows, counts / rows)
    return estimate((counts > 0).astype(float))


def _fits(n: int, trials: int, numbers: int) -> int:
    """The rows, where that many numbers a trial fit in memory."""
    size = whole_rows("n", n)
    if trials < 1:
        raise TheoryError(f"trials is {trials}; a simulation has at least 1")
    if trials * numbers > LARGEST:
        raise TheoryError(f"{trials} trials do not fit in memory; take fewer")
    return size


def _chosen(random: np.random.Generator, trials: int, rows: int, wanted: int) -> Array:
    """(trials, wanted) different rows of each trial."""
    return np.argpartition(random.random((trials, rows)), wanted - 1, axis=1)[:, :wanted]


def _fitted(rows: Array, weights: Array | None, variance: Variance) -> tuple[Array, Array]:
    """Means and variances, (trials,), of weighted rows (trials, rows)."""
    each = np.full(rows.shape[1], 1 / rows.shape[1]) if weights is None else weights
    mean = rows @ each
    if variance == "known":
        return mean, np.ones(len(rows))
    squares = np.square(rows - mean[:, None]) @ each
    return mean, squares / (1 - float(each @ each)) if variance == "unbiased" else squares


def _said(mean: Array, spread: Array, n: int) -> dict[str, Estimate]:
    return {"mean_error": estimate(mean**2), "variance": estimate(spread), "relative": estimate(n * mean**2)}
