"""The scalar equations behind the formulas, solved by bisection of the logarithm: no start value, nothing to tune.

With R = Sigma (Sigma + kappa)^-1 and Q = 1 - R, df1 = sum R and df2 = sum R^2. Differences such as n - df1 are never
taken of nearly equal numbers: where n >= d they are sums of positive terms, elsewhere the equation itself gives them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from collapse_cli.theory.checks import Array

STEPS = 2000  # of bisection; about 65 suffice to use up a float


@dataclass(frozen=True)
class Resolvent:
    """What the formulas need of the root.

    Attributes:
        kappa: the root; 0 where the limit is ordinary least squares.
        kept, lost: R and 1 - R, (d,).
        df1, df2: sum R, sum R^2.
        rq: sum R (1 - R) = df1 - df2.
    """

    kappa: float
    kept: Array
    lost: Array
    df1: float
    df2: float
    rq: float


def resolvent(eigenvalues: Array, kappa: float) -> Resolvent:
    """R and its sums at one kappa >= 0, for eigenvalues (d,)."""
    kept = eigenvalues / (eigenvalues + kappa)
    lost = kappa / (eigenvalues + kappa)
    return Resolvent(kappa, kept, lost, float(kept.sum()), float(kept @ kept), float(kept @ lost))


def bisect(too_large: Callable[[float], bool], low: float, high: float) -> float:
    """The point in [low, high], 0 < low, where `too_large` turns true, to the last bit or nearly."""
    for _ in range(STEPS):
        middle = math.sqrt(low) * math.sqrt(high)
        if not low < middle < high:
            break
        if too_large(middle):
            high = middle
        else:
            low = middle
    return high


def short_of(size: float, eigenvalues: Array, kappa: float) -> float:
    """What `size` is above df1(kappa), as a sum of positive terms where size >= d."""
    if size >= len(eigenvalues):
        return float(size - len(eigenvalues) + (kappa / (eigenvalues + kappa)).sum())
    return float(size - (eigenvalues / (eigenvalues + kappa)).sum())


def below(size: float, eigenvalues: Array) -> float:
    """A kappa at which df1 is still at least `size`, for size < d; 0 otherwise."""
    d = len(eigenvalues)
    return float(eigenvalues.min()) * (d - size) / size if size < d else 0.0


def ridge_root(eigenvalues: Array, n: float, lam: float) -> tuple[Resolvent, float]:
    """The kappa with kappa - lam = kappa df1(kappa)/n and df1 < n (df1 = n where lam = 0 and n < d), and n - df1.

    `eigenvalues` (d,). lam = 0 and n >= d: kappa = 0 (least squares).
    """
    if lam == 0 and n >= len(eigenvalues):
        return resolvent(eigenvalues, 0.0), n - len(eigenvalues)
    low, high = max(lam, below(n, eigenvalues)), lam + float(eigenvalues.sum()) / n
    kappa = bisect(lambda at: at * short_of(n, eigenvalues, at) > n * lam, low, max(low, high))
    return resolvent(eigenvalues, kappa), n * lam / kappa


def projection_root(eigenvalues: Array, n: float, m: float, lam: float) -> tuple[Resolvent, float, float]:
    """The kappa with kappa (1 - df1/n)(1 - df1/m) = lam d/m and df1 < min(n, m), and n - df1, m - df1.

    `eigenvalues` (d,). n or m may be math.inf: the factor is 1 then (and lam d/m is taken to be `lam` for m = inf).
    """
    d, least = len(eigenvalues), min(n, m)
    if lam == 0 and least >= d:
        return resolvent(eigenvalues, 0.0), n - d, m - d
    if math.isinf(least):
        return resolvent(eigenvalues, lam), math.inf, math.inf
    level = lam if math.isinf(m) else lam * d / m
    other = max(n, m)

    def too_large(at: float) -> bool:
        gap = short_of(least, eigenvalues, at)
        beside = 1.0 if math.isinf(other) else short_of(other, eigenvalues, at) / other
        return gap > 0 and at * (gap / least) * beside > level

    low = max(level, below(least, eigenvalues))
    high = level + float(eigenvalues.sum()) * (1 / n + 1 / m)
    kappa = bisect(too_large, low, max(low, high))
    # least - df1 =: x solves kappa x (x + |m - n|) = level n m, a quadratic; with an infinite size it is linear
    if math.isinf(other):
        gap = least * level / kappa
        return resolvent(eigenvalues, kappa), (gap if n < m else math.inf), (gap if m < n else math.inf)
    apart, right = other - least, level / kappa * n * m
    gap = 2 * right / (apart + math.sqrt(apart * apart + 4 * right)) if right > 0 else 0.0
    return resolvent(eigenvalues, kappa), gap + max(n - m, 0.0), gap + max(m - n, 0.0)
