"""Mixing again and again, each model labelling the next one's synthetic rows: docs/theory.md: Iterative mixing.

arXiv 2410.04840 discusses iterative mixing after Ferbach et al. 2024; whether its real rows are drawn anew is
UNCONFIRMED, so both protocols are here: "fresh" (A) draws n1 real rows in every iteration, "fixed" (B) once.
"""

import math
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from collapse_cli.theory.checks import Array, TheoryError, both_noises, diagonal, positive, share, whole
from collapse_cli.theory.fixed_point import bisect, ridge_root
from collapse_cli.theory.regression import ratio, times
from collapse_cli.theory.spectra import Problem, ProblemArguments, problem

MOST = 100_000  # iterations
NODES = 400  # of the quadrature over the Marchenko-Pastur law
HUGE = 1e250  # a risk beyond it counts as infinite, so that nothing overflows


@dataclass(frozen=True)
class FreshRisk:
    """Iterative mixing with new real rows in every iteration.

    Attributes:
        risk: after the last iteration; bias: what of it is due to w1, variance: all else.
        risks: after 0..t iterations; the first is c2, the risk of the model mixing starts from.
        floor: what the risk comes to as t -> inf; math.inf where it grows without end.
        rate: g, by which the distance to the floor shrinks in an iteration; None unless lam = 0 and n > d.
        clean: risk of n real rows, one fit. clean_real: of the n1 = p1 n real rows of one iteration.
        kappa: the effective ridge penalty of a fit.
    """

    risk: float
    bias: float
    variance: float
    risks: tuple[float, ...]
    floor: float
    rate: float | None
    clean: float
    clean_real: float
    kappa: float


@dataclass(frozen=True)
class FixedRisk:
    """Iterative mixing, least squares, with real rows drawn once, in the limit of many iterations.

    Attributes:
        risk: clean + excess. clean: risk of least squares on the n1 real rows alone.
        excess: what mixing adds; 0 only where the synthetic labels have no noise.
        iterations: about as many are needed to get there, 1/(1 - max R_j); many where p2 is near 1.
    """

    risk: float
    clean: float
    excess: float
    iterations: float


def iterative_fresh(*, iterations: int, **asked: Unpack[ProblemArguments]) -> FreshRisk:
    """Protocol A: w_0 = w2; w_t is the ridge fit to p1 n new real rows and p2 n new inputs labelled by w_{t-1}.

    Arguments as `ridge`, `iterations` t >= 0. Recursion over eigen-directions; for lam = 0, n > d it is
    E_t = E_inf + g^t (c2 - E_inf), g = p2^2 + p1 p2 u, E_inf = s^2 u/(1 - g). Valid as `ridge`.

    Raises:
        TheoryError: for an impossible value.
    """
    given = problem(**asked)
    steps = whole("iterations", iterations, 0)
    if steps > MOST:
        raise TheoryError(f"iterations is {steps}; at most {MOST} are gone through, and the floor is their limit")
    ev, p1, p = given.eigenvalues, given.p1, given.p2
    at, gap = ridge_root(ev, given.n, given.lam)
    short = (gap + at.rq) / given.n  # 1 - df2/n
    fresh = p1 * given.variances[0] + p * given.variances[1]
    unseen = p1 * at.kept + at.lost  # 1 - p2 R
    gain = ev / (given.n * (ev + at.kappa) ** 2)  # of the noise, on P
    a, spread = np.zeros(given.d), given.delta.copy()
    risks, biases = [float(ev @ spread)], [0.0]
    for _ in range(steps):
        if not risks[-1] < HUGE:
            risks.append(math.inf)
            biases.append(biases[-1])
            continue
        before = a
        a = at.lost + p * at.kept * before
        e1 = float(ev @ (a**2 * given.gamma + (p * at.kept) ** 2 * spread))
        e2 = float(ev @ ((a - before) ** 2 * given.gamma + unseen**2 * spread))
        top = fresh + p1 * e1 + p * e2
        scale = top / short if short > 0 else (math.inf if top > 0 else 0.0)
        biases.append(float((ev * given.gamma) @ a**2))
        if not scale < HUGE:
            risks.append(math.inf)
            continue
        spread = (p * at.kept) ** 2 * spread + scale * gain
        risks.append(float(ev @ (a**2 * given.gamma + spread)))
    exact = given.lam == 0 and given.n > given.d
    return FreshRisk(
        risk=risks[-1],
        bias=biases[-1],
        variance=risks[-1] - biases[-1],
        risks=tuple(risks),
        floor=_fresh_floor(given, short),
        rate=p * p + p1 * p * ratio(at.df2, gap + at.rq) if exact else None,
        clean=_clean(given, given.n),
        clean_real=_clean(given, given.n * p1),
        kappa=at.kappa,
    )


def _fresh_floor(given: Problem, short: float) -> float:
    """The recursion's fixed point; P is linear in the scale of its own noise, which is solved for."""
    ev, p1, p = given.eigenvalues, given.p1, given.p2
    at = ridge_root(ev, given.n, given.lam)[0]
    closed = p1 * at.kept + at.lost  # 1 - p2 R
    if p == 1 and at.kappa == 0:  # nothing pulls back: noise adds up, or the first model stays
        return math.inf if given.variances[1] > 0 else given.c2
    a = at.lost / closed
    each = ev / (given.n * (ev + at.kappa) ** 2) / (closed * (1 + p * at.kept))  # 1 - p2^2 R^2
    start = given.s2 + p1 * float(ev @ (a**2 * given.gamma))
    back = float(ev @ ((p1 * (p * at.kept) ** 2 + p * closed**2) * each))
    lost = float((ev * given.gamma) @ a**2)
    if start == 0:
        return lost
    return lost + start / (short - back) * float(ev @ each) if short > back else math.inf


def _clean(given: Problem, rows: float) -> float:
    """Risk of a fit to real rows only, the same penalty."""
    if rows == 0:
        return math.inf if given.lam == 0 else float(given.eigenvalues @ given.gamma)
    at, gap = ridge_root(given.eigenvalues, rows, given.lam)
    u = ratio(at.df2, gap + at.rq)
    lost = float((given.eigenvalues * given.gamma) @ at.lost**2)
    return times(1 + u, lost) + times(u, given.variances[0])


def iterative_fixed(
    *,
    d: int,
    n: float,
    p2: float,
    noise: float,
    noise_synthetic: float | None = None,
    gram_eigenvalues: Array | None = None,
) -> FixedRisk:
    """Protocol B, least squares, t -> inf: the n1 = p1 n real rows stay, the p2 n synthetic ones are drawn anew.

    Any Sigma (least squares does not see it). Derived: docs/theory.md: Iterative mixing.

    Args:
        d, n: dimensions and rows, p1 n > d.
        p2: synthetic share, below 1.
        noise, noise_synthetic: standard deviations of the labels.
        gram_eigenvalues: of X1'X1/n, whitened inputs, (d,), for one draw of the real rows. By default their limiting
            law, Marchenko and Pastur's, in place of a draw.

    Raises:
        TheoryError: for an impossible value; unless p1 n > d.
    """
    size, rows, p = whole("d", d, 1), positive("n", n), share("p2", p2)
    first, second = both_noises(noise, noise_synthetic)
    n1 = rows * (1 - p)
    if n1 <= size:
        raise TheoryError(
            f"there are {n1:g} real rows for {size} dimensions; the formula needs more rows than dimensions"
        )
    if gram_eigenvalues is None:
        mj, count = _marchenko_pastur(size / n1)
        mj, count = mj * (1 - p), count * size
    else:
        mj = diagonal("gram_eigenvalues", gram_eigenvalues, size)
        if mj.min() <= 0:
            raise TheoryError("gram_eigenvalues must be above 0: the real rows span all dimensions")
        count = np.ones(size)
    clean = first**2 * size / (n1 - size)
    b = bisect(lambda at: at * (1 + float(count @ (1 / (mj + p * at))) / rows) > 1, 1e-12, 1.0)
    kept = p * b / (mj + p * b)
    left = mj / (mj + p * b)  # 1 - kept
    step = count * p * (b / (mj + p * b)) ** 2 / rows
    short = 1 - float(np.sum(2 * step / (1 + kept)))
    excess = 0.0
    if p > 0 and second > 0:
        scale = ratio(second**2, short)
        excess = times(scale, float(np.sum(step / (left * (1 + kept)))))
    return FixedRisk(clean + excess, clean, excess, 1 / float(left.min()))


def _marchenko_pastur(aspect: float) -> tuple[Array, Array]:
    """Nodes and weights (sum 1), (NODES,), of the limiting spectrum of X'X/n, d/n = aspect < 1 (Gauss-Chebyshev)."""
    angle = np.pi * np.arange(1, NODES + 1) / (NODES + 1)
    nodes = (1 - np.sqrt(aspect)) ** 2 + 4 * np.sqrt(aspect) * np.cos(angle / 2) ** 2
    weights = np.sin(angle) ** 2 / nodes
    return nodes, weights / weights.sum()
