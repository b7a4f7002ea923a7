"""Ridge regression in which real and synthetic rows have weights: strategic mixing in one step.

The exact formula is derived in docs/theory.md: Weighted mixing. arXiv 2410.04840 gives a first-order approximation
of the weighted risk only (as recalled); it is not used here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from collapse_cli.theory.checks import TheoryError, both_noises, not_negative, positive, share, whole
from collapse_cli.theory.fixed_point import Resolvent, bisect, resolvent, ridge_root
from collapse_cli.theory.regression import ratio, times
from collapse_cli.theory.spectra import Problem, ProblemArguments, problem

FEW = 1e-9  # rows; fewer are none


@dataclass(frozen=True)
class WeightedRisk:
    """As `Risk`; and what the weights come to.

    Attributes:
        risk, bias, variance, zeta, kappa: as in `Risk`: what is linear in Gamma, in the noise, and in Delta.
        share: q, the effective synthetic share: the floor is q^2 c2.
        weights: of a real and of a synthetic row, a1 and a2.
        alpha: the nominal synthetic mass, p2 a2/(p1 a1 + p2 a2).
    """

    risk: float
    bias: float
    variance: float
    zeta: float
    kappa: float
    share: float
    weights: tuple[float, float]
    alpha: float


@dataclass(frozen=True)
class Weighting:
    """The best nominal synthetic mass.

    Attributes:
        alpha: the minimiser of the formula; low_dimensional: its approximation for d << n, least squares.
        best, clean, unweighted: the risk at alpha, at alpha = 0 (real rows only), at alpha = p2 (equal weights).
    """

    alpha: float
    low_dimensional: float
    best: WeightedRisk
    clean: WeightedRisk
    unweighted: WeightedRisk


def weighted(
    *, alpha: float | None = None, weights: tuple[float, float] | None = None, **asked: Unpack[ProblemArguments]
) -> WeightedRisk:
    """Risk of argmin (1/n)[a1 sum over real + a2 sum over synthetic rows of squares] + lam |w|^2; others as `ridge`.

    Args:
        alpha: 0..1, the nominal synthetic mass: a1 = (1 - alpha)/p1, a2 = alpha/p2. alpha = p2 weighs all rows alike
            (the default), alpha = 0 leaves the n1 real rows.
        weights: (a1, a2) instead of alpha, not both 0.

    Raises:
        TheoryError: for an impossible value, or mass on rows that there are not.
    """
    given = problem(**asked)
    return _risk(given, *_weights(given, alpha, weights))


def optimal_weight(**asked: Unpack[ProblemArguments]) -> Weighting:
    """The alpha in [0, 1] of least risk, found numerically to about 1e-6 of its size. Arguments as `ridge`, 0 < p2 < 1.

    A grid, logarithmic towards both ends, finds the valley and golden sections its bottom.

    Raises:
        TheoryError: as `weighted`, and where p2 is 0 or 1: there is nothing to weigh.
    """
    given = problem(**asked)
    _both_kinds(given.p2)

    def at(alpha: float) -> WeightedRisk:
        return _risk(given, *_weights(given, alpha, None))

    near = np.geomspace(1e-10, 0.4, 40)
    grid = [0.0, *near.tolist(), 0.5, *(1 - near[::-1]).tolist(), 1.0]
    risks = [at(alpha).risk for alpha in grid]
    least = int(np.argmin(risks))
    low, high = grid[max(least - 1, 0)], grid[min(least + 1, len(grid) - 1)]
    best = _golden(lambda alpha: at(alpha).risk, low, high)
    best = min((given.p2, grid[least], best), key=lambda alpha: at(alpha).risk)
    return Weighting(
        best,
        low_dimensional_weight(
            d=given.d,
            n=given.n,
            p2=given.p2,
            c2=given.c2,
            noise=math.sqrt(given.variances[0]),
            noise_synthetic=math.sqrt(given.variances[1]),
        ),
        at(best),
        at(0.0),
        at(given.p2),
    )


def low_dimensional_weight(
    *, d: int, n: float, p2: float, c2: float, noise: float, noise_synthetic: float | None = None
) -> float:
    """The best alpha of least squares for phi = d/n -> 0; falls like (d/n) s1^2/(p1 c2).

    (phi s1^2/p1)/(c2 (1 + phi/p1 + phi/p2) + phi (s1^2/p1 + s2^2/p2)); p2 where nothing speaks for either kind.
    Derived from docs/theory.md: Weighted mixing.
    """
    phi, p = whole("d", d, 1) / positive("n", n), share("p2", p2)
    _both_kinds(p)
    first, second = both_noises(noise, noise_synthetic)
    real, synthetic = phi * first**2 / (1 - p), phi * second**2 / p
    below = not_negative("c2", c2) * (1 + phi / (1 - p) + phi / p) + real + synthetic
    return real / below if below > 0 else p


def _both_kinds(p2: float) -> None:
    if not 0 < p2 < 1:
        raise TheoryError(f"p2 is {p2:g}; there are rows of one kind only, and nothing to weigh")


def _weights(given: Problem, alpha: float | None, weights: tuple[float, float] | None) -> tuple[float, float]:
    if weights is not None:
        if alpha is not None:
            raise TheoryError("both alpha and weights are given; give one of them")
        a1, a2 = (
            not_negative("the real rows' weight", weights[0]),
            not_negative("the synthetic rows' weight", weights[1]),
        )
        if given.n * (given.p1 * (a1 > 0) + given.p2 * (a2 > 0)) < FEW:
            raise TheoryError(
                f"weights {weights} leave no row of the {given.p1:g} real and {given.p2:g} synthetic shares"
            )
        return a1, a2
    if alpha is None:
        return 1.0, 1.0
    mass = share("alpha", alpha)
    for kind, part, left in (("synthetic", given.p2, mass), ("real", given.p1, 1 - mass)):
        if left > 0 and given.n * part < FEW:
            raise TheoryError(f"alpha is {mass:g}, but p2 is {given.p2:g}: there are no {kind} rows to weigh")
    return ((1 - mass) / given.p1 if given.p1 else 0.0), (mass / given.p2 if given.p2 else 0.0)


def _risk(given: Problem, a1: float, a2: float) -> WeightedRisk:
    p1, p2 = given.p1, given.p2
    at, beta, rest = _root(given, a1, a2)
    z = p1 * beta[0] + p2 * beta[1]  # chi bb, and df1/n
    q = p2 * beta[1] / z
    # A/(1 - A sb) over chi^2, as a quotient of sums of positive terms
    d_factor = ratio(at.df2, at.rq * z + at.df2 * (p1 * beta[0] * rest[0] + p2 * beta[1] * rest[1]))
    real, synthetic = p1 * beta[0] ** 2, p2 * beta[1] ** 2
    lost = float((given.eigenvalues * given.gamma) @ at.lost**2)
    apart = given.eigenvalues * given.delta
    passed = float(apart @ (q * at.kept) ** 2)
    missed = float(apart @ ((1 - q) * at.kept + at.lost) ** 2)
    bias = lost + times(d_factor, (real + synthetic) * lost)
    variance = times(d_factor, real * given.variances[0] + synthetic * given.variances[1])
    zeta = passed + times(d_factor, real * passed + synthetic * missed)
    mass = p2 * a2 / (p1 * a1 + p2 * a2)
    return WeightedRisk(bias + variance + zeta, bias, variance, zeta, at.kappa, q, (a1, a2), mass)


def _root(given: Problem, a1: float, a2: float) -> tuple[Resolvent, tuple[float, float], tuple[float, float]]:
    """R at kappa = lam/bb; beta_k = chi b_k = a_k chi/(1 + a_k chi) and 1 - beta_k for both kinds of rows.

    chi solves n chi bb(chi) = df1(lam/bb(chi)), whose left side rises from 0 to the rows of weight above 0, and whose
    right side falls. Where lam = 0 and there are fewer such rows than dimensions, chi is infinite: the fit goes
    through all of them, whatever their weights.
    """
    ev, n, lam = given.eigenvalues, given.n, given.lam
    largest = float(max(a1 if given.p1 else 0.0, a2 if given.p2 else 0.0))
    a1, a2, lam = a1 / largest, a2 / largest, lam / largest  # only lam/a matters: no overflow

    def parts(chi: float) -> tuple[tuple[float, float], tuple[float, float]]:
        return (a1 * chi / (1 + a1 * chi), a2 * chi / (1 + a2 * chi)), (1 / (1 + a1 * chi), 1 / (1 + a2 * chi))

    used = given.p1 * (a1 > 0) + given.p2 * (a2 > 0)
    if lam == 0 and n * used <= given.d:
        at = ridge_root(ev, n * used, 0.0)[0]
        return at, (float(a1 > 0), float(a2 > 0)), (float(a1 == 0), float(a2 == 0))
    trace = float(ev.sum())
    smallest = min(a for a, p in ((a1, given.p1), (a2, given.p2)) if a > 0 and p > 0)
    high = math.inf if lam == 0 else trace / (n * lam)
    if n * used > given.d:  # beta_k >= beta of the smallest weight, and n z <= d
        phi = given.d / n
        high = min(high, phi / (used - phi) / smallest)
    heaviest = given.p1 * a1 + given.p2 * a2
    low = float((ev / (heaviest * ev + lam)).sum()) / n

    def too_large(chi: float) -> bool:
        beta = parts(chi)[0]
        z = given.p1 * beta[0] + given.p2 * beta[1]
        return n * z > float((ev / (ev + lam * (chi / z))).sum())

    chi = bisect(too_large, min(low, high), max(low, high) * 1.000001)
    beta, rest = parts(chi)
    z = given.p1 * beta[0] + given.p2 * beta[1]
    at = resolvent(ev, lam * (chi / z))
    return at, beta, rest


def _golden(value: Callable[[float], float], low: float, high: float) -> float:
    """The bottom of a valley in [low, high], by golden sections."""
    part = (math.sqrt(5) - 1) / 2
    left, right = high - part * (high - low), low + part * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(60):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - part * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + part * (high - low)
            at_right = value(right)
    return (low + high) / 2
