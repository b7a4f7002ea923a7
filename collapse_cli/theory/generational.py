"""Regression across generations: each model labels the inputs of the next.

"Model Collapse Demystified", arXiv 2402.07712, Theorems 4.1, 4.3, 4.5, 4.6 (labels replaced); Gerstgrasser et al., arXiv
2404.01413 (labels accumulated). The noise of fresh inputs with T0 < d, and the exact sums, are derived in
docs/theory.md: Regression across generations. Generation 0 is the fit to real labels only.
"""

import math
from dataclasses import dataclass

import numpy as np

from collapse_cli.theory.checks import Array, TheoryError, diagonal, not_negative, positive, whole
from collapse_cli.theory.fixed_point import ridge_root
from collapse_cli.theory.regression import Risk, ratio, ridge
from collapse_cli.theory.spectra import checked_eigenvalues

MOST = 10_000_000  # generations of a sum
SPARED = 1e-9  # relative; eigenvalues nearer to each other than this are one


@dataclass(frozen=True)
class AccumulatedRisk:
    """Least squares on all labels so far.

    Attributes:
        risk: of the last generation.
        risks: of generations 0..g.
        bound: (pi^2/6) times that of generation 0, which no generation passes.
        replaced: the risk had only the last generation's labels been kept.
    """

    risk: float
    risks: tuple[float, ...]
    bound: float
    replaced: float


def generational(
    *,
    eigenvalues: Array,
    n: float,
    t0: float,
    generations: int,
    lam: float,
    noise: float,
    noise_generator: float | None = None,
    gamma: Array | None = None,
    same_inputs: bool = False,
) -> Risk:
    """A ridge fit to `n` rows labelled by the last of a chain of label makers, each least squares on `t0` rows of the one before.

    t0 >= d + 2: Theorem 4.3, with T0 - d - 1 (the inverse Wishart's exact mean) in place of T0 - d. Every label maker
    has new inputs. 2402.07712's equation (1) prints sigma_0 where Theorem 4.3 has sigma_0^2, which is right.
    t0 <= d - 2: Sigma = I, lam = 0 and n >= d + 2 only (Theorems 4.5, 4.6; exact).

    Args:
        eigenvalues: of Sigma, (d,).
        n: T, rows of the last fit.
        t0: T0, rows of each label maker; a whole number.
        generations: label makers between the truth and the last fit; 0 is a fit to real labels.
        lam: of the last fit.
        noise, noise_generator: standard deviations of the labels of the last fit and of the label makers' (the same by
            default).
        gamma: diagonal, (d,), of the covariance of the true w0 in Sigma's eigenbasis; I / tr Sigma by default.
        same_inputs: t0 < d only: all label makers share one draw of inputs.

    Returns:
        Risk; zeta is what the label makers' noise adds. For t0 < d bias holds what they never saw, and kappa is 0.

    Raises:
        TheoryError: for an impossible value, t0 or n where the mean is infinite, and cases without a formula.
    """
    ev = checked_eigenvalues(eigenvalues)
    d, steps, size = len(ev), whole("generations", generations, 0), whole("t0", t0, 1)
    last = not_negative("noise", noise)
    own = last if noise_generator is None else not_negative("noise_generator", noise_generator)
    if d - 2 < size < d + 2 and steps > 0:
        raise TheoryError(
            f"t0 is {size} with {d} dimensions: a least squares fit to {size} rows has no finite mean risk; "
            f"take at least {d + 2}" + (f" or at most {d - 2}" if d > 2 else "")
        )
    if size > d or steps == 0:
        if same_inputs and steps > 0:
            raise TheoryError(f"same inputs are only known for t0 < d; here t0 is {size} and d is {d}")
        spread = steps * own**2 / (size - d - 1) if steps else 0.0
        return ridge(eigenvalues=ev, n=n, p2=1.0, delta=spread / ev, lam=lam, noise=last, gamma=gamma)
    return _few_rows(ev, positive("n", n), size, steps, lam, (last, own), gamma, same_inputs)


def _few_rows(
    ev: Array,
    n: float,
    t0: int,
    steps: int,
    lam: float,
    noises: tuple[float, float],
    gamma: Array | None,
    same_inputs: bool,
) -> Risk:
    d = len(ev)
    if float(ev.max() - ev.min()) > SPARED * float(ev.max()):
        raise TheoryError(f"t0 is {t0}, less than d = {d}: there is a formula for the isotropic spectrum only")
    if lam != 0 or n < d + 2:
        raise TheoryError(
            f"t0 is {t0}, less than d = {d}: there is a formula for lam = 0 and n >= d + 2 only, "
            f"not for lam = {lam:g}, n = {n:g}"
        )
    weight = np.full(d, 1 / ev.sum()) if gamma is None else diagonal("gamma", gamma, d)
    norm, eta = float(ev @ weight), t0 / d
    each = noises[1] ** 2 * t0 / (d - t0 - 1)
    if same_inputs:
        bias, zeta = norm * (1 - eta), steps * each
    else:
        gone = -math.expm1(steps * math.log(eta))  # 1 - eta^g
        bias, zeta = norm * gone, each * gone / (1 - eta)
    variance = noises[0] ** 2 * d / (n - d - 1)
    at, gap = ridge_root(ev, n, 0.0)
    return Risk(bias + variance + zeta, bias, variance, zeta, 0.0, ratio(at.df2, gap), at.df1, at.df2)


def accumulate_regression(
    *, d: int, n: int, noise: float, generations: int, same_inputs: bool = False
) -> AccumulatedRisk:
    """Least squares on all (g + 1) n labels so far; those of generation g are made by generation g - 1's fit. Exact.

    same_inputs: E_g = E_0 sum_{j=1}^{g+1} 1/j^2 (arXiv 2404.01413); fresh inputs: s^2 sum d/(j (j n - d - 1)). Any Sigma.

    Args:
        d, n: dimensions and rows a generation, n >= d + 2.
        noise: standard deviation of all labels.
        generations: g >= 0; generation 0 has real labels.

    Raises:
        TheoryError: for an impossible value, and where the mean is infinite.
    """
    size, rows, steps = _sizes(d, n, generations)
    j = np.arange(1, steps + 2, dtype=np.float64)
    first = not_negative("noise", noise) ** 2 * size / (rows - size - 1)
    terms = 1 / j**2 if same_inputs else (rows - size - 1) / (j * (j * rows - size - 1))
    risks = first * np.cumsum(terms)
    return AccumulatedRisk(float(risks[-1]), tuple(risks.tolist()), first * math.pi**2 / 6, first * (steps + 1))


def replace_regression(*, d: int, n: int, noise: float, generations: int) -> float:
    """Risk of generation g where each generation keeps its own n labels only: (g + 1) s^2 d/(n - d - 1). Exact, any Sigma.

    arXiv 2404.01413, arguments as `accumulate_regression`.
    """
    size, rows, steps = _sizes(d, n, generations)
    return (steps + 1) * not_negative("noise", noise) ** 2 * size / (rows - size - 1)


def _sizes(d: int, n: float, generations: int) -> tuple[int, int, int]:
    size, rows = whole("d", d, 1), whole("n", n, 1)
    if rows < size + 2:
        raise TheoryError(f"n is {rows} with {size} dimensions: the mean risk is infinite; take at least {size + 2}")
    steps = whole("generations", generations, 0)
    if steps > MOST:
        raise TheoryError(f"generations is {steps}; at most {MOST} are summed")
    return size, rows, steps
