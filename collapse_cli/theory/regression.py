"""Ridge regression on a mixture of real and synthetic labels: Theorem 1 of "Strong Model Collapse" and what follows.

Dohmatob, Feng, Subramonian, Kempe, arXiv 2410.04840. Conventions: docs/theory.md. All results are limits n, d -> inf
at fixed d/n (proportionate); at n of some hundreds a simulation lies about 0.1 to 0.7 % above them.
"""

import math
from dataclasses import dataclass
from typing import Unpack

from collapse_cli.theory.checks import Array, TheoryError, both_noises, not_negative, positive, share, whole
from collapse_cli.theory.fixed_point import resolvent, ridge_root
from collapse_cli.theory.spectra import Problem, ProblemArguments, problem


@dataclass(frozen=True)
class Risk:
    """The expected error E |w_hat - w1|_Sigma^2 of a fit against the real labeller; label noise is not part of it.

    Attributes:
        risk: bias + variance + zeta; math.inf where the formula diverges.
        bias: what is due to w1 (Gamma): the real function is shrunken or not seen whole.
        variance: what is due to the labels' noise.
        zeta: what is due to the synthetic labeller being another one (Delta); 0 where p2 = 0 or c2 = 0.
        kappa: the effective ridge penalty.
        u: (df2/n)/(1 - df2/n), by which fluctuations of the inputs inflate; math.inf at the interpolation peak.
        df1, df2: effective dimensions sum R, sum R^2.
    """

    risk: float
    bias: float
    variance: float
    zeta: float
    kappa: float
    u: float
    df1: float
    df2: float


def times(factor: float, value: float) -> float:
    """A product in which nothing stays nothing, also times infinity: at lam = 0 an exact zero is no limit."""
    return factor * value if value else 0.0


def ratio(top: float, bottom: float) -> float:
    """A quotient that is infinite where its bottom is 0."""
    return top / bottom if bottom > 0 else math.inf


def assembled(
    given: Problem, u: float, lost: float, passed: float, missed: float, kappa: float, df: tuple[float, float]
) -> Risk:
    """The risk from its traces, item by item of Theorem 1.

    `lost` = tr Gamma (1-R)' Sigma (1-R), `passed` = tr Delta R' Sigma R,
    `missed` = tr Delta (1 - p2 R)' Sigma (1 - p2 R).
    """
    p1, p2 = given.p1, given.p2
    bias = times(1 + u, lost)
    variance = times(u, given.s2)
    zeta = times(1 + times(u, p1), p2 * p2 * passed) + times(u, p2 * missed)
    return Risk(bias + variance + zeta, bias, variance, zeta, kappa, u, *df)


def ridge(**asked: Unpack[ProblemArguments]) -> Risk:
    """Risk of w = argmin (1/n)|Xw - y|^2 + lam |w|^2 on n rows, a share p2 of them synthetic.

    Source: Theorem 1 of arXiv 2410.04840 (re-derived in docs/theory.md: Ridge on a mixture). `lam` = 0 is the ridgeless
    limit: least squares for n > d, the least-norm interpolator for n < d.

    Args:
        asked: the problem, as `spectra.ProblemArguments` has it.

    Returns:
        Risk; risk is math.inf at lam = 0, n = d unless nothing is noisy or mixed.

    Raises:
        TheoryError: for an impossible value.
    """
    given = problem(**asked)
    at, gap = ridge_root(given.eigenvalues, given.n, given.lam)
    u = ratio(at.df2, gap + at.rq)
    seen, apart = given.eigenvalues * given.gamma, given.eigenvalues * given.delta
    missed = given.p1 * at.kept + at.lost  # 1 - p2 R without a difference
    return assembled(
        given,
        u,
        lost=float(seen @ at.lost**2),
        passed=float(apart @ at.kept**2),
        missed=float(apart @ missed**2),
        kappa=at.kappa,
        df=(at.df1, at.df2),
    )


def plateau_ridge(
    *,
    eigenvalues: Array,
    p2: float,
    c2: float | None = None,
    lam: float = 0.0,
    gamma: Array | None = None,
    delta: Array | None = None,
) -> Risk:
    """What no amount of data brings the risk below: n -> inf of `ridge`. At lam = 0 it is p2^2 c2 ("strong collapse").

    tr (lam^2 Gamma Sigma + p2^2 Delta Sigma^3)(Sigma + lam)^-2; consequence of Theorem 1, arXiv 2410.04840.
    """
    given = problem(eigenvalues=eigenvalues, n=1.0, p2=p2, c2=c2, lam=lam, noise=0.0, gamma=gamma, delta=delta)
    at = resolvent(given.eigenvalues, given.lam)
    lost = float((given.eigenvalues * given.gamma) @ at.lost**2)
    passed = float((given.eigenvalues * given.delta) @ at.kept**2)
    return assembled(given, 0.0, lost, passed, 0.0, given.lam, (at.df1, at.df2))


def knee(*, d: int, p2: float, c2: float, noise: float, noise_synthetic: float | None = None) -> float:
    """Rows at which the risk of least squares is twice its floor p2^2 c2: from here on more of the same mixture helps little.

    All that more rows take away, u (s^2 + p1 p2 c2) with u = d/(n - d), equals the floor there:
    n* = d (1 + (s^2 + p1 p2 c2)/(p2^2 c2)), s^2 = p1 s1^2 + p2 s2^2; math.inf without a floor. From Theorem 1 of arXiv
    2410.04840 at lam = 0: see docs/theory.md: Ridge on a mixture.
    """
    size, synthetic, quality = whole("d", d, 1), share("p2", p2), not_negative("c2", c2)
    first, second = both_noises(noise, noise_synthetic)
    mixed = (1 - synthetic) * first**2 + synthetic * second**2
    floor = synthetic**2 * quality
    return size * (1 + (mixed + (1 - synthetic) * synthetic * quality) / floor) if floor else math.inf


def harmless_share(*, d: int, n: float, c2: float, noise: float) -> float:
    """The share at which synthetic labels double the risk of least squares on n real rows: at most 1.

    (p2^2 + p1 p2 u) c2 = s^2 u, u = d/(n - d): the smallest p2 that solves it. About sqrt(s^2 d/(n c2)) where d is far
    below n and c2 d/n far below s^2, so ever less as n grows. From Theorem 1 of arXiv 2410.04840 at lam = 0.

    Raises:
        TheoryError: for an impossible value, and for n <= d.
    """
    rows, size, quality = positive("n", n), whole("d", d, 1), not_negative("c2", c2)
    if rows <= size:
        raise TheoryError(f"n is {rows:g} with {size} dimensions: least squares needs more rows than dimensions")
    if quality == 0:
        return 1.0
    u = size / (rows - size)
    wanted = not_negative("noise", noise) ** 2 * u / quality
    below = u * u + 4 * (1 - u) * wanted
    return min(1.0, 2 * wanted / (u + math.sqrt(below))) if below >= 0 else 1.0
