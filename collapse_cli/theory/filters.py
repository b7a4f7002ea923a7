"""What selection among synthetic rows does to the next model: verifiers, curation, and truncation.

Sources: verification arXiv 2406.07515, a biased verifier arXiv 2510.16657, curation arXiv 2407.09499, truncation
arXiv 2509.08972; what is derived stands in docs/theory.md: Selection. Limits of many rows where it is not said otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collapse_cli.theory.checks import MOST_GENERATIONS, Array, TheoryError, not_negative, positive, share, whole
from collapse_cli.theory.normal import below, chi_quadrature, density, quadrature

LARGEST_REWARD = 200.0  # difference of rewards: e to that power is still a float, and its square
MOST_ROWS = 10_000_000  # of which the number that counts is summed over
MOST_WORDS, MOST_CANDIDATES = 1000, 1e9
LEAST_EVIDENCE = 1e-12  # kept rows of each kind


@dataclass(frozen=True)
class Verified:
    """What a verifier leaves of labelled rows.

    Attributes:
        threshold: the share of wrong labels below which training recovers: 1/(1 + psi/phi).
        kept: the share of all rows that it keeps.
        wrong: the share of wrong labels among those.
        cosine: expected, of the fitted direction with the true one.
    """

    threshold: float
    kept: float
    wrong: float
    cosine: float


def verification_threshold(*, phi: float, psi: float) -> float:
    """p* = 1/(1 + psi/phi): with a larger share of wrong labels than that, more wrong than right ones are kept.

    Source: arXiv 2406.07515, Theorem 4.2.

    Args:
        phi: probability that a row with the right label is kept.
        psi: that one with a wrong label is.
    """
    right, wrong = share("phi", phi), share("psi", psi)
    if right == 0:
        raise TheoryError("phi is 0: a verifier that keeps no right row leaves nothing to learn from")
    return right / (right + wrong)


def verifier(*, phi: float, psi: float, wrong: float, d: int, n: float, separation: float = 1.0) -> Verified:
    """Two Gaussians N(±s e, I) labelled ±1, a share of labels wrong; least squares on the rows that the verifier keeps.

    The cosine is an expectation over what the fit fluctuates by, normal at n rows (docs/theory.md: Selection).

    Args:
        phi, psi: as `verification_threshold` has them.
        wrong: share of wrong labels before.
        d: dimensions.
        n: labelled rows, before the verifier.
        separation: s, half the distance of the two means in standard deviations.
    """
    threshold, before = verification_threshold(phi=phi, psi=psi), share("wrong", wrong)
    size, rows, s = whole("d", d, 1), positive("n", n), positive("separation", separation)
    kept = (1 - before) * phi + before * psi
    if rows * kept < size + 2:
        raise TheoryError(f"of {rows:g} rows {rows * kept:g} are kept; least squares in {size} dimensions needs more")
    after = before * psi / kept
    agree = 1 - 2 * after
    slope = agree * s / (1 + s * s)
    # E e^2 x x' of the fit's errors e = label - x slope, in the true direction and across
    along = 1 + s * s - 2 * slope * agree * (s**3 + 3 * s) + slope**2 * (s**4 + 6 * s * s + 3)
    across = 1 - slope * agree * s
    return Verified(threshold, kept, after, _cosine(slope, along / (1 + s * s) ** 2, across, size, rows * kept))


def flipped_cosine(*, phi: float, psi: float, wrong: float, d: int, n: float, noise: float) -> float:
    """The same of regression: labels x.w + noise, |w| = 1 and x ~ N(0, I), of which a wrong one has the other sign."""
    threshold = verification_threshold(phi=phi, psi=psi)
    assert threshold > 0
    before, rows = share("wrong", wrong), positive("n", n)
    kept = (1 - before) * phi + before * psi
    after = before * psi / kept
    slope, doubt = 1 - 2 * after, 4 * after * (1 - after)
    level = not_negative("noise", noise) ** 2
    return _cosine(slope, 3 * doubt + level, doubt + level, whole("d", d, 1), rows * kept)


def _cosine(slope: float, along: float, across: float, d: int, rows: float) -> float:
    """E a/sqrt(a^2 + b^2): a ~ N(slope, along/rows), b the length of d - 1 normal numbers of variance across/rows."""
    if d == 1:
        return math.erf(slope / math.sqrt(2 * along / rows)) if along > 0 else math.copysign(1.0, slope)
    z, of_z = quadrature()
    r, of_r = chi_quadrature(d - 1)
    a = slope + z[:, None] * math.sqrt(along / rows)
    b = r[None, :] * math.sqrt(across / rows)
    length = np.hypot(a, b)
    cosines = np.divide(a, length, out=np.zeros_like(length), where=length > 0)
    return float(of_z @ cosines @ of_r)


def biased_verifier(
    *, offset: float, noise: float, slack: float, radius: float = 0.0, d: int = 1, generations: int
) -> tuple[float, ...]:
    """Distance of each generation's theta from the verifier's theta_c, generation 0 first; in the end it is 0.

    Rows are x ~ N(0, I), y = x.theta + N(0, noise^2) of the model before; a row is kept where |y - x.theta_c| <= radius |x| + slack,
    and least squares is fitted to those. The rule is that of arXiv 2510.16657, Theorem 4.1; the map is derived (docs/theory.md).

    Args:
        offset: |theta - theta_c| of generation 0.
    """
    far, level = not_negative("offset", offset), positive("noise", noise)
    room, more = not_negative("slack", slack), not_negative("radius", radius)
    if room + more == 0:
        raise TheoryError("slack and radius are 0: a verifier that allows no error keeps no row")
    size, steps = whole("d", d, 1), whole("generations", generations, 0)
    if steps > MOST_GENERATIONS // 1000:
        raise TheoryError(f"generations is {steps}; at most {MOST_GENERATIONS // 1000} are gone through")
    u, of_u = quadrature()
    rest, of_rest = chi_quadrature(size - 1)
    bound = (more * np.hypot(u[:, None], rest[None, :]) + room) / level
    distances = [far]
    for _ in range(steps):
        distances.append(_verified(distances[-1] / level, u, of_u, of_rest, bound) * level)
    return tuple(distances)


def _verified(off: float, u: Array, of_u: Array, of_rest: Array, bound: Array) -> float:
    """The next offset, in standard deviations of the noise: E[u y; kept]/E[u^2; kept], u the input along the offset."""
    centre = (off * u)[:, None]
    low, high = -bound - centre, bound - centre
    kept = below(high) - below(low)
    kept_y = centre * kept + density(low) - density(high)
    over, under = float((u * of_u) @ kept_y @ of_rest), float((u * u * of_u) @ kept @ of_rest)
    if under < LEAST_EVIDENCE:
        raise TheoryError(f"the verifier keeps no row of a model that is {off:g} standard deviations away from its own")
    return max(over / under, 0.0)


def approach(*, noise: float, slack: float) -> float:
    """The factor by which a small offset shrinks a generation under `biased_verifier` with radius 0.

    The variance that noise has left within ± slack, over its own: 1 - 2 b phi(b)/(2 Phi(b) - 1), b = slack/noise.
    """
    b = positive("slack", slack) / positive("noise", noise)
    if b < 1e-3:
        return b * b / 3  # the uniform distribution's; the formula is a difference of nearly equal numbers there
    return 1 - 2 * b * math.exp(-b * b / 2) / math.sqrt(2 * math.pi) / math.erf(b / math.sqrt(2))


def curation(
    *, probabilities: Sequence[float], rewards: Sequence[float], candidates: float, generations: int = 1
) -> tuple[tuple[float, ...], ...]:
    """A distribution curated again and again: of K rows one is taken, a row of reward r in proportion to e^r (Bradley-Terry).

    p' = p H, H(x) = E over K - 1 rivals of K e^r(x)/(e^r(x) + sum of e^r(rivals)); of ever more candidates p' = p e^r/E e^r.
    Source: arXiv 2407.09499, equation 6 and Theorem 2.1. Ever more rows.

    Args:
        probabilities: (words,) of the model of generation 0; they sum to 1.
        rewards: (words,).
        candidates: K, at least 1; math.inf too.

    Returns:
        (generations + 1, words); generation 0 is as it was given.
    """
    p, r = np.asarray(probabilities, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    if p.ndim != 1 or not 1 <= len(p) <= MOST_WORDS:
        raise TheoryError(f"there are {len(p)} probabilities; a distribution has 1 to {MOST_WORDS}")
    if p.shape != r.shape:
        raise TheoryError(f"there are {len(p)} probabilities and {len(r)} rewards; each word has one of both")
    if not (np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1) < 1e-9):
        raise TheoryError(f"the probabilities sum to {p.sum():g}; they are shares of 0 or more that sum to 1")
    if not np.isfinite(r).all() or np.ptp(r) > LARGEST_REWARD:
        raise TheoryError(f"rewards must be finite numbers, at most {LARGEST_REWARD:g} apart")
    if not (candidates == math.inf or (1 <= candidates <= MOST_CANDIDATES and candidates == int(candidates))):
        raise TheoryError(
            f"candidates is {candidates:g}; it must be a whole number from 1 to {MOST_CANDIDATES:g}, or inf"
        )
    steps = whole("generations", generations, 0)
    if steps > MOST_GENERATIONS // 1000:
        raise TheoryError(f"generations is {steps}; at most {MOST_GENERATIONS // 1000} are gone through")
    worth = np.exp(r - r.max())
    curated = [p]
    for _ in range(steps):
        curated.append(_curated(curated[-1], worth, candidates))
    return tuple(tuple(float(value) for value in each) for each in curated)


def _curated(p: Array, worth: Array, candidates: float) -> Array:
    """One round: H(x) = K e^r(x) integral of e^(-t e^r(x)) L(t)^(K-1), L(t) = E e^(-t e^r), over t = e^u from 0."""
    if candidates == math.inf:
        after: Array = p * worth / (p @ worth)
        return after
    there = p > 0
    own, mass = worth[there], p[there]
    # the integrand is over when K t E e^r is some hundreds, or t is beyond all e^-r; trapezoids of a smooth one are exact
    u = np.linspace(-45.0 - math.log(candidates), 8.0 - math.log(float(own.min())), 4001)
    t = np.exp(u)
    logs = -t[:, None] * own
    mean = np.log(np.maximum(np.exp(logs) @ mass, np.finfo(np.float64).tiny))
    inside = np.exp(logs + ((candidates - 1) * mean + u)[:, None])
    share_of = candidates * own * inside.sum(axis=0) * (u[1] - u[0])
    curated: Array = np.zeros_like(p)
    curated[there] = mass * share_of
    return curated


@dataclass(frozen=True)
class Truncated:
    """A Gaussian refitted to the rows that lie beyond `threshold` standard deviations of the model that made them.

    Attributes:
        growth: eta(a) = 1 + a phi(a)/(1 - Phi(a)), the mean square of those rows.
        counted: the share of rows that count.
        shrink: lambda, what fitting the mean as well leaves: 1 - E 1/N over the number N >= 1 of rows that count.
        variance: E of the fitted one at the last generation; generation 0 is fitted to all n real rows.
    """

    growth: float
    counted: float
    shrink: float
    variance: float


def truncated_loss(*, threshold: float, n: int, generations: int, unbiased: bool = False) -> Truncated:
    """E s^2_{t+1} = lambda eta(a) s^2_t: a loss in which only rows less likely than the threshold count.

    Source: arXiv 2509.08972 (truncated cross-entropy); eta for a Gaussian and lambda derived (docs/theory.md: Selection).

    Args:
        threshold: a, in standard deviations; 0: all rows count.
        unbiased: squares are divided by N - 1, so that lambda is 1 where N >= 2 is sure.
    """
    a, size, steps = not_negative("threshold", threshold), whole("n", n, 2), whole("generations", generations, 0)
    if size > MOST_ROWS:
        raise TheoryError(f"n is {size}; the number of rows that count is summed over at most {MOST_ROWS}")
    counted = math.erfc(a / math.sqrt(2))
    if size * counted < LEAST_EVIDENCE:
        raise TheoryError(f"threshold is {a:g}: of {size} rows none lies beyond so many standard deviations")
    growth = 1 + 2 * a * math.exp(-a * a / 2) / math.sqrt(2 * math.pi) / counted
    shrink = _spread_left(size, counted, unbiased)
    first = 1.0 if unbiased else 1 - 1 / size
    return Truncated(growth, counted, shrink, first * (shrink * growth) ** steps)


def _spread_left(n: int, counted: float, unbiased: bool) -> float:
    """1 - E 1/N, N ~ Binomial(n, counted) given N >= 1; unbiased: the chance that N >= 2."""
    if counted == 1:
        return 1.0 if unbiased else 1 - 1 / n
    k = np.arange(1, n + 1, dtype=np.float64)
    steps = np.log((n - k[:-1]) / (k[:-1] + 1)) + math.log(counted) - math.log1p(-counted)
    logs = np.concatenate(([0.0], np.cumsum(steps)))
    chances = np.exp(logs - logs.max())
    chances /= chances.sum()
    return 1 - float(chances[0]) if unbiased else 1 - float(chances @ (1 / k))
