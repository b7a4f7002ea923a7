"""Spectra of the input covariance, and the regression problem that all formulas of ridge type are asked about."""

from dataclasses import dataclass
from typing import Required, TypedDict

import numpy as np

from collapse_cli.theory.checks import Array, TheoryError, both_noises, diagonal, not_negative, positive, share, whole

KINDS = ("iso", "pow")
LARGEST = 10_000_000  # eigenvalues
AGREEMENT = 1e-6  # relative, between c2 and tr(Sigma Delta) where both are given


def spectrum(kind: str, d: int, beta: float = 1.5) -> Array:
    """Eigenvalues of Sigma, (d,): ones for "iso", k^-beta for k = 1..d for "pow" (`beta` is not used for "iso").

    Raises:
        TheoryError: for another kind, d < 1, or eigenvalues that a float cannot hold.
    """
    if kind not in KINDS:
        raise TheoryError(f"spectrum {kind!r} is not known; there are {' and '.join(KINDS)}")
    size = whole("d", d, 1)
    if size > LARGEST:
        raise TheoryError(f"d is {size}; a spectrum holds at most {LARGEST} eigenvalues")
    if kind == "iso":
        return np.ones(size)
    slope = not_negative("beta", beta)
    if slope * np.log10(size) > 100:
        raise TheoryError(f"beta is {beta:g}; with d = {size} the smallest eigenvalue would be below 1e-100")
    return np.arange(1, size + 1, dtype=np.float64) ** -slope


@dataclass(frozen=True)
class Problem:
    """Real labels y = x.w1 + N(0, s1^2), synthetic y = x.w2 + N(0, s2^2), w2 = w1 + delta, x ~ N(0, Sigma), d dimensions.

    Attributes:
        eigenvalues: of Sigma, (d,).
        gamma, delta: diagonals, (d,), of the covariances of w1 and of delta in the eigenbasis of Sigma. Only they
            matter, because both covariances are traced against functions of Sigma.
        n: rows in all, n1 real and n2 synthetic; a real number, for the formulas are limits.
        p1, p2: n1/n and n2/n.
        lam: ridge penalty of (1/n) |Xw - y|^2 + lam |w|^2.
        variances: s1^2 and s2^2.
    """

    eigenvalues: Array
    gamma: Array
    delta: Array
    n: float
    p1: float
    p2: float
    lam: float
    variances: tuple[float, float]

    @property
    def d(self) -> int:
        return len(self.eigenvalues)

    @property
    def c2(self) -> float:
        """tr(Sigma Delta): the risk of the synthetic labels' model itself; 0 is perfect."""
        return float(self.eigenvalues @ self.delta)

    @property
    def s2(self) -> float:
        """The mixed noise variance p1 s1^2 + p2 s2^2."""
        return self.p1 * self.variances[0] + self.p2 * self.variances[1]


def checked_eigenvalues(eigenvalues: Array) -> Array:
    """Eigenvalues of Sigma as (d,) floats.

    Raises:
        TheoryError: unless they are a vector of numbers above 0.
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not (np.isfinite(values).all() and (values > 0).all()):
        raise TheoryError("eigenvalues must be a vector of numbers above 0, one for each dimension")
    return values


class ProblemArguments(TypedDict, total=False):
    """What `problem` makes a problem of, and what the formulas of ridge type are asked with.

    Attributes:
        eigenvalues: of Sigma, (d,), above 0.
        n: rows, above 0.
        p2: synthetic share, 0..1.
        c2: tr(Sigma Delta), the synthetic labeller's own risk; or `delta`, or both where they agree.
        lam: penalty per row (scikit-learn's alpha is n lam).
        noise, noise_synthetic: standard deviations of real and synthetic labels; the second is the first by default.
        gamma, delta: diagonals, (d,), of the covariances of w1 and w2 - w1 in Sigma's eigenbasis; by default
            I / tr Sigma (so that tr Gamma Sigma = 1) and (c2/d) Sigma^-1.
    """

    eigenvalues: Required[Array]
    n: Required[float]
    p2: Required[float]
    c2: float | None
    lam: Required[float]
    noise: Required[float]
    noise_synthetic: float | None
    gamma: Array | None
    delta: Array | None


def problem(
    *,
    eigenvalues: Array,
    n: float,
    p2: float,
    c2: float | None = None,
    lam: float,
    noise: float,
    noise_synthetic: float | None = None,
    gamma: Array | None = None,
    delta: Array | None = None,
) -> Problem:
    """The problem with its defaults; arguments as in `ProblemArguments`.

    Raises:
        TheoryError: for an impossible value.
    """
    ev = checked_eigenvalues(eigenvalues)
    d = len(ev)
    if delta is None:
        if c2 is None:
            raise TheoryError("the quality of the synthetic labels is missing: give c2 or delta")
        apart = not_negative("c2", c2) / d / ev
    else:
        apart = diagonal("delta", delta, d)
        own = float(ev @ apart)
        if c2 is not None and abs(own - c2) > AGREEMENT * max(own, abs(c2)):
            raise TheoryError(f"c2 is {c2:g}, but tr(Sigma Delta) of the given delta is {own:g}; give one of them")
    first, second = both_noises(noise, noise_synthetic)
    synthetic = share("p2", p2)
    return Problem(
        eigenvalues=ev,
        gamma=np.full(d, 1 / ev.sum()) if gamma is None else diagonal("gamma", gamma, d),
        delta=apart,
        n=positive("n", n),
        p1=1 - synthetic,
        p2=synthetic,
        lam=not_negative("lam", lam),
        variances=(first**2, second**2),
    )
