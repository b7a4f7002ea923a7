"""Ridge regression on random projections, f(x) = v.Sx with S (m, d) of N(0, 1/d): how the model's size m comes in.

Model of arXiv 2410.04840, section 4. Fixed S and the single scalar equation for random S are derived in
docs/theory.md: Random projections; the latter equals the paper's Definition 2, as recalled, to 1e-14.
"""

import math
from typing import Unpack

import numpy as np

from collapse_cli.theory.checks import Array, TheoryError, positive, symmetric
from collapse_cli.theory.fixed_point import projection_root, ridge_root
from collapse_cli.theory.regression import Risk, assembled, ratio
from collapse_cli.theory.spectra import Problem, ProblemArguments, problem


def projections(*, m: float, **asked: Unpack[ProblemArguments]) -> Risk:
    """Risk of w_hat = S'v, v = argmin (1/n)|XS'v - y|^2 + lam |v|^2, averaged over S. `m` rows of S; others as `ridge`.

    lam = 0 is the ridgeless limit. The effective penalty on w is lam d/m, so `ridge` with that penalty is the limit of
    large m. kappa solves kappa (1 - df1/n)(1 - df1/m) = lam d/m. Valid as `ridge`, with m of some hundreds as well; near
    m = n with lam < 1e-2 a simulation's mean has heavy tails and lies well above.

    Raises:
        TheoryError: for an impossible value.
    """
    given = problem(**asked)
    return _averaged(given, given.n, positive("m", m))


def plateau_projections(
    *,
    eigenvalues: Array,
    m: float,
    p2: float,
    c2: float | None = None,
    lam: float = 0.0,
    gamma: Array | None = None,
    delta: Array | None = None,
) -> Risk:
    """What n -> inf of `projections` comes to at fixed m: what m directions miss, and p2^2 of the labeller's error.

    zeta rises with m, from 0 to p2^2 c2 (checked numerically, docs/theory.md); isotropic, lam = 0, m < d: bias
    (1 - m/d) tr Gamma, zeta p2^2 c2 m/d. Derived: docs/theory.md: Plateaus.
    """
    given = problem(eigenvalues=eigenvalues, n=1.0, p2=p2, c2=c2, lam=lam, noise=0.0, gamma=gamma, delta=delta)
    return _averaged(given, math.inf, positive("m", m))


def _averaged(given: Problem, n: float, m: float) -> Risk:
    at, short_n, short_m = projection_root(given.eigenvalues, n, m, given.lam)
    over = short_m + at.rq  # m - df2
    r = short_m / over if over > 0 else 0.0  # at lam = 0, m <= d nothing of the last factor is left
    spread = r * at.rq
    u = 0.0 if math.isinf(n) else ratio(at.df1 - spread, short_n + spread)
    passed = at.kept * (1 - r * at.lost)  # diagonal of E R'R
    missed = at.lost * (1 - r * at.kept)  # of E (1-R)'(1-R)
    p1, p2 = given.p1, given.p2
    mixed = p1 * p1 + 2 * p1 * p2 * at.lost + p2 * p2 * missed  # of E (1 - p2 R)'(1 - p2 R), as a sum
    apart = given.eigenvalues * given.delta
    return assembled(
        given,
        u,
        lost=float((given.eigenvalues * given.gamma) @ missed),
        passed=float(apart @ passed),
        missed=float(apart @ mixed),
        kappa=at.kappa,
        df=(at.df1, at.df2),
    )


def projections_fixed(
    *,
    projection: Array,
    covariance: Array,
    gamma: Array,
    delta: Array,
    n: float,
    p2: float,
    lam: float,
    noise: float,
    noise_synthetic: float | None = None,
) -> Risk:
    """Risk for one given S; derived in docs/theory.md: Random projections. Valid for n of some hundreds.

    Args:
        projection: S, (m, d).
        covariance, gamma, delta: Sigma (positive definite), Gamma, Delta, (d, d) each; they need not commute.
        n, p2, lam, noise, noise_synthetic: as `ridge`.

    Raises:
        TheoryError: for an impossible value or matrices that do not fit each other.
    """
    s = np.asarray(projection, dtype=np.float64)
    if s.ndim != 2 or not np.isfinite(s).all() or not s.any():
        raise TheoryError("projection must be a matrix, (m, d), of finite numbers that are not all 0")
    d = s.shape[1]
    sigma = symmetric("covariance", covariance, d)
    seen, apart = symmetric("gamma", gamma, d), symmetric("delta", delta, d)
    values, vectors = np.linalg.eigh(sigma)
    if values.min() <= 0:
        raise TheoryError("covariance must be positive definite; an eigenvalue of it is not above 0")
    root = (vectors * np.sqrt(values)) @ vectors.T
    # with S Sigma^1/2 = U diag(t) V', R is Sigma^-1/2 P Sigma^1/2, P = V diag(t^2/(t^2 + kappa)) V'
    stretch, right = np.linalg.svd(s @ root, full_matrices=False)[1:]
    kept = stretch > stretch[0] * max(s.shape) * np.finfo(np.float64).eps
    given = problem(
        eigenvalues=stretch[kept] ** 2, n=n, p2=p2, c2=0.0, lam=lam, noise=noise, noise_synthetic=noise_synthetic
    )
    at, gap = ridge_root(given.eigenvalues, given.n, given.lam)
    basis = right[kept].T
    shown = (basis * at.kept) @ basis.T
    missed, mixed = np.eye(d) - shown, np.eye(d) - given.p2 * shown

    def trace(middle: Array, of: Array) -> float:
        return float(np.sum((root @ of @ root) * (middle @ middle)))

    return assembled(
        given,
        ratio(at.df2, gap + at.rq),
        lost=trace(missed, seen),
        passed=trace(shown, apart),
        missed=trace(mixed, apart),
        kappa=at.kappa,
        df=(at.df1, at.df2),
    )
