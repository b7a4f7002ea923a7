"""The mean of a Gaussian fitted again and again to real and synthetic rows: what weights, budgets and schedules do to it.

Sources: weights arXiv 2502.18049, contamination arXiv 2601.15468, feedback arXiv 2209.03942; the rest is derived in
docs/theory.md: Means of mixed rows. Exact at every finite number of rows. Unit: the truth is N(0, 1).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice, repeat
from typing import Literal

import numpy as np

from collapse_cli.theory.checks import Array, TheoryError, not_negative, positive, share, steps, whole

Variance = Literal["known", "biased", "unbiased"]
RealRows = Literal["new", "drawn", "same"]
VARIANCES = ("known", "biased", "unbiased")


@dataclass(frozen=True)
class MixedMean:
    """Expectations at a generation, per coordinate.

    Attributes:
        mean_error: E (mean - true mean)^2.
        variance: E of the variance that synthetic rows of the next generation have; 1 where it is known.
        relative: mean_error times n: 1 is what n real rows alone give.
        relative_limit: the same after ever more generations; math.inf where it grows without end.
        weight: of the real rows, all together.
    """

    mean_error: float
    variance: float
    relative: float
    relative_limit: float
    weight: float


@dataclass(frozen=True)
class Growing:
    """A quantity of each generation.

    Attributes:
        value: of the last one.
        limit: after ever more of them.
        values: of generations 0 to the last.
    """

    value: float
    limit: float
    values: tuple[float, ...]


def golden_weight(real: float, synthetic: float) -> float:
    """The weight of all real rows together that makes the mean best in the end: (sqrt(k^2 + 4k) - k)/2, k = real/synthetic.

    For k = 1 it is the golden ratio, 0.618. Source: arXiv 2502.18049. Where real rows are drawn anew each generation.
    """
    k = positive("n", real) / positive("m", synthetic)
    return 2 / (1 + math.sqrt(1 + 4 / k))  # the same, without a difference of nearly equal numbers


@dataclass(frozen=True)
class MixedRows:
    """The rows of a generation.

    Attributes:
        real, synthetic: how many.
        weight: of the real rows, all together; None: all rows weigh alike.
    """

    real: int
    synthetic: int
    weight: float | None = None

    @property
    def mass(self) -> float:
        """The weight of the real rows."""
        return self.real / (self.real + self.synthetic) if self.weight is None else self.weight

    @property
    def spent(self) -> float:
        """The sum of squared weights of all rows."""
        real = self.mass**2 / self.real if self.real else 0.0
        return real + ((1 - self.mass) ** 2 / self.synthetic if self.synthetic else 0.0)

    def check(self, variance: Variance) -> None:
        """Raises TheoryError for what no generation can be fitted to."""
        real, synthetic = whole("real", self.real, 0), whole("synthetic", self.synthetic, 0)
        if real + synthetic == 0:
            raise TheoryError("a generation has no rows: real and synthetic are 0")
        mass = share("weight", self.mass)
        if (real == 0 and mass > 0) or (synthetic == 0 and mass < 1):
            raise TheoryError(f"weight is {mass:g}, but there are {real} real and {synthetic} synthetic rows")
        if variance == "unbiased" and self.spent >= 1:
            raise TheoryError("one row alone has no unbiased variance; take more rows")


def mixed_mean(
    *,
    n: int,
    real: int,
    synthetic: int,
    weight: float | None = None,
    kept: bool = False,
    generations: int,
    variance: Variance = "known",
) -> MixedMean:
    """A Gaussian fitted to real and synthetic rows; those are of the model before. Generation 0 has n real rows alone.

    Args:
        n: real rows of the original corpus.
        real, synthetic: rows of each later generation.
        weight: of the real rows, all together; None: all rows weigh alike.
        kept: real rows are drawn, without replacement, from the original corpus (all of them where real = n); else they are new.
        generations: the last generation.
        variance: synthetic rows have the variance 1 ("known"), or the fitted one: weighted squares about the mean ("biased"),
            or those over 1 - (sum of squared weights) ("unbiased": divided by rows - 1 where rows weigh alike).

    Raises:
        TheoryError: for sizes, shares or a variance that cannot be.
    """
    mix = MixedRows(real, synthetic, weight)
    mix.check(_rule(variance))
    mixes = repeat(mix, steps(generations))
    *_, (error, spread) = scheduled_means(n=n, mixes=mixes, real_rows="drawn" if kept else "new", variance=variance)
    limit = _limit(n, mix, kept, variance)
    return MixedMean(error, spread, n * error, n * limit, mix.mass)


def scheduled_means(
    *, n: int, mixes: Iterable[MixedRows], real_rows: RealRows, variance: Variance = "known"
) -> Iterator[tuple[float, float]]:
    """The same where generations differ: E (mean - true mean)^2 and E of the variance of generation 0, and after each of `mixes`.

    Args:
        mixes: the rows of generations 1, 2, and so on.
        real_rows: new ones each generation; "drawn" anew from the n original ones; or the "same" of those each time.

    Raises:
        TheoryError: as `mixed_mean` does, and where the same real rows are of two sizes.
    """
    size, rule = whole("n", n, 2), _rule(variance)
    first: MixedRows | None = None
    error, spread = 1 / size, _first(size, rule)
    # of rows about the true mean, or about the mean of those real rows that come back; `start` is that mean's own error
    second, start, shared = 1.0, 0.0, 0.0
    yield error, spread
    for mix in mixes:
        mix.check(rule)
        if real_rows != "new" and mix.real > size:
            raise TheoryError(f"real is {mix.real}; the original corpus has {size} rows to keep")
        if first is None:
            first, about = mix, {"new": 0, "drawn": size, "same": mix.real}[real_rows]
            if about > 0:
                second, start = 1 - 1 / about, 1 / about
                shared = 1 / size - start  # of the error with that mean
                error = start - 1 / size
        elif real_rows == "same" and first.real != mix.real:
            raise TheoryError(f"real is {mix.real}, and it was {first.real}; the same rows are of one number")
        mass, own = mix.mass, (1 - mix.mass) ** 2
        moment = mass * second + (1 - mass) * (error + spread)
        drawn = mass**2 * (1 / mix.real - start) if mix.real else 0.0
        error = drawn + own * (error + (spread / mix.synthetic if mix.synthetic else 0.0))
        shared *= 1 - mass
        if rule != "known":
            spread = (moment - error) / (1 - mix.spent if rule == "unbiased" else 1.0)
        yield start + 2 * shared + error, spread


def _limit(n: int, mix: MixedRows, kept: bool, rule: Variance) -> float:
    """Where the error of `mixed_mean` ends: the fixed point of its linear recursion."""
    second, start = (1 - 1 / n, 1 / n) if kept else (1.0, 0.0)
    mass, own = mix.mass, (1 - mix.mass) ** 2
    drawn = mass**2 * (1 / mix.real - start) if mix.real else 0.0
    each = own / mix.synthetic if mix.synthetic else 0.0
    if mass == 0:
        # no real rows: the mean wanders with the spread that is left; biased, all of the second moment ends in it
        return {"known": math.inf, "biased": start + second, "unbiased": math.inf}[rule]
    if rule == "known":
        return start + (drawn + each) / (1 - own)
    # error = drawn + own error + each spread, spread = free (mass second + (1 - mass)(error + spread) - error)
    free = 1 / (1 - mix.spent) if rule == "unbiased" else 1.0
    rest = 1 - free * (1 - mass)
    if rest <= 0:
        return math.inf
    slope, level = -free * mass / rest, free * mass * second / rest
    narrower = 1 - own - each * slope
    return start + (drawn + each * level) / narrower if narrower > 0 else math.inf


def subsampled_mean(*, n: int, generations: int, variance: Variance = "known") -> MixedMean:
    """Accumulate-subsample: n rows drawn, without replacement, from n real rows and n of each earlier model.

    `relative_limit` is that of ever more rows: pi^2/2 - 2. At a finite n it has no closed form that is known here.
    """
    error, spread = next(islice(subsampled_means(n=n, variance=variance), steps(generations), None))
    return MixedMean(error, spread, n * error, math.pi**2 / 2 - 2, math.nan)


def subsampled_means(*, n: int, variance: Variance = "known") -> Iterator[tuple[float, float]]:
    """The same of every generation from 0 on: E (mean - true mean)^2 and E of the variance."""
    size, rule = whole("n", n, 2), _rule(variance)
    error, spread = 1 / size, _first(size, rule)
    pooled, second = 1 / size, 1.0  # E of the squared mean, and of the mean square, of all rows so far
    for blocks in count(2):
        yield error, spread
        rows = blocks * size
        pooled += (error - pooled + spread / size) / blocks**2
        second += (error + spread - second) / blocks
        error = pooled + (second - pooled) * rows / (rows - 1) * (1 - 1 / blocks) / size
        if rule != "known":
            spread = (second - error) * (size / (size - 1) if rule == "unbiased" else 1.0)


def growing_means(*, n: int, mixes: Iterable[MixedRows], variance: Variance = "known") -> Iterator[tuple[float, float]]:
    """A Gaussian fitted to all rows so far: n real ones, and in each generation new real ones and some of the model before.

    The same of generation 0, and after each of `mixes`, whose rows all weigh alike; `contaminated` is the case of n rows in each and a
    known variance.
    """
    size, rule = whole("n", n, 2), _rule(variance)
    error, spread, second, rows = 1 / size, _first(size, rule), 1.0, size
    yield error, spread
    for mix in mixes:
        m, k = whole("real", mix.real, 0), whole("synthetic", mix.synthetic, 0)
        before, rows = rows, rows + m + k
        second = (before * second + m + k * (error + spread)) / rows
        error = ((before + k) / rows) ** 2 * error + (m + k * spread) / rows**2
        if rule != "known":
            spread = (second - error) * (rows / (rows - 1) if rule == "unbiased" else 1.0)
        yield error, spread


def contaminated(*, share_synthetic: float, generations: int) -> tuple[Growing, float]:
    """Accumulation where a share of each generation's rows is synthetic, the others new real ones; the variance is known.

    V_t = ((t - 1 + a)/t)^2 V_{t-1} + 1/t^2 at the t-th fit, t = generation + 1. Source: arXiv 2601.15468, Theorem 1.

    Returns:
        E (mean - true mean)^2 times the rows of a generation, and the power of 1/t at which it falls: min(1, 2 (1 - a)), so
        that it falls as with real rows alone up to a = 1/2, and not at all for a = 1 (limit pi^2/6).
    """
    a, values = share("share", share_synthetic), [0.0]
    for fit in range(1, steps(generations) + 2):
        values.append(((fit - 1 + a) / fit) ** 2 * values[-1] + 1 / fit**2)
    return Growing(values[-1], math.pi**2 / 6 if a == 1 else 0.0, tuple(values[1:])), min(1.0, 2 * (1 - a))


def feedback(*, n0: int, real: int, synthetic: int, generations: int) -> Growing:
    """How much a model's constant bias has grown: real rows and rows that it labelled itself join a set that grows.

    b_t = b_{t-1} (n_t - m)/n_t + k/n_t + (…): bias of the model of generation t over that of generation 0, where each model is
    off by the same amount from what it is fitted to. Source: arXiv 2209.03942; the limit is (m + k)/m.

    Args:
        n0: real rows of generation 0.
        real, synthetic: m and k, rows that join each generation.
    """
    start, m, k = whole("n0", n0, 1), whole("m", real, 0), whole("k", synthetic, 0)
    values, added = [1.0], 0.0
    for generation in range(1, steps(generations) + 1):
        rows = start + generation * (m + k)
        added = added * (rows - m) / rows + k / rows
        values.append(1 + added)
    return Growing(values[-1], (1.0 if k == 0 else math.inf) if m == 0 else (m + k) / m, tuple(values))


def self_correction(*, ratio: float, gamma: float, sharpness: float = 0.0) -> tuple[float, float]:
    """Is the loop stable whose synthetic rows are drawn from (p_theta + gamma p*)/(1 + gamma), p* the truth?

    Source: arXiv 2402.07087, equation 4 and Theorem 4.3: it is where ratio (1 + sharpness) < (1 + gamma)/(2 + gamma); gamma = 0
    is the 1/2 of arXiv 2310.00429.

    Args:
        ratio: lambda, synthetic rows for each real row.
        gamma: strength of the correction.
        sharpness: eps L/alpha of the theorem, 0 for a model that can be the truth.

    Returns:
        The largest ratio that is stable, and the theorem's rate: errors shrink by at least that factor a generation;
        math.inf where it says nothing.
    """
    some, strength = not_negative("ratio", ratio), not_negative("gamma", gamma)
    worse = 1 + not_negative("sharpness", sharpness)
    left = 1 - some * worse
    rate = some * worse / ((1 + strength) * left) if left > 0 else math.inf
    return (1 + strength) / (2 + strength) / worse, rate


def corrected_mean(*, n: int, ratio: float, gamma: float, generations: int) -> tuple[float, float]:
    """The Gaussian with known variance in that loop: the same n real rows, and ratio n rows of the corrected model.

    Returns:
        E (mean - true mean)^2 times n at the last generation, and the factor by which an offset of the mean shrinks.
    """
    size, some, strength = whole("n", n, 1), not_negative("ratio", ratio), not_negative("gamma", gamma)
    made = whole("ratio n", round(some * size, 9), 0)
    mass, stays = 1 / (1 + some), 1 / (1 + strength)
    rate = (1 - mass) * stays
    error = shared = 1 / size  # E mean^2, and E of its product with the real rows' mean
    for _ in range(steps(generations)):
        noise = (1 + stays * (1 - stays) * error) / made if made else 0.0
        error = mass**2 / size + 2 * mass * rate * shared + rate**2 * error + (1 - mass) ** 2 * noise
        shared = mass / size + rate * shared
    return size * error, rate


def word_survival(*, n: float, frequency: float, generations: int) -> Growing:
    """Is a word still there? Pr that n tokens drawn from the model before, again and again, have it each time.

    1 - exp(-n f g_k) with g_0 = inf, g_{k+1} = 1 - exp(-g_k), k = generation + 1: counts are taken as Poisson variables. g_k lies
    between 1/k and 3/k. Source: arXiv 2412.17646.

    Args:
        n: tokens of a generation.
        frequency: f, the word's true probability.
    """
    rows, mass = positive("n", n), share("frequency", frequency)
    values = [-math.expm1(-rows * mass * g) for g in _branching(steps(generations) + 1)]
    return Growing(values[-1], 0.0, tuple(values))


def _branching(fits: int) -> Iterator[float]:
    """g_1, g_2, … : the chance that the descendants of one token are still there after so many fits; 1 for the first."""
    g = math.inf
    for _ in range(fits):
        g = -math.expm1(-g)
        yield g


def words_left(*, n: float, probabilities: Array, generations: int) -> tuple[float, float]:
    """A language of independent words that is counted and sampled, n tokens each time: what is left of it at a generation.

    Args:
        probabilities: (words,) in truth.

    Returns:
        Words that are left, over those of the original corpus (expected numbers), and the expected probability of all that are gone.
    """
    rows, p = positive("n", n), np.asarray(probabilities, dtype=np.float64)
    if not (p.ndim == 1 and len(p) and np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1) < 1e-9):
        raise TheoryError("probabilities must be shares of 0 or more that sum to 1")
    counted = rows * p
    gone = np.exp(-counted * survival_of_one(generations))
    return float((1 - gone).sum() / -np.expm1(-counted).sum()), float(p @ gone)


def survival_of_one(generation: int) -> float:
    """g_k of `word_survival` at a generation, k = generation + 1."""
    return list(_branching(steps(generation) + 1))[-1]


def _first(n: int, rule: Variance) -> float:
    """E of the variance of generation 0."""
    return 1 - 1 / n if rule == "biased" else 1.0


def _rule(variance: str) -> Variance:
    for rule in ("known", "biased", "unbiased"):
        if variance == rule:
            return rule
    raise TheoryError(f"variance {variance!r} is not known; there are {', '.join(VARIANCES)}")
