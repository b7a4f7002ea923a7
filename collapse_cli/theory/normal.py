"""The standard normal distribution, for arrays, and a rule to integrate against it; NumPy only."""

import math

import numpy as np

from collapse_cli.theory.checks import Array

REACH = 9.0  # standard deviations beyond which nothing is left that a float would notice
_ERFC = np.frompyfunc(math.erfc, 1, 1)


def density(x: Array) -> Array:
    """The density of N(0, 1)."""
    values: Array = np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)
    return values


def below(x: Array) -> Array:
    """The distribution function of N(0, 1), of the same shape."""
    return np.asarray(_ERFC(-np.asarray(x, dtype=np.float64) / math.sqrt(2)), dtype=np.float64) / 2


def quadrature(points: int = 201) -> tuple[Array, Array]:
    """Points and weights, (points,), of E f(x) for x ~ N(0, 1): the trapezoidal rule, exact to rounding for smooth f."""
    x = np.linspace(-REACH, REACH, points)
    weights = density(x)
    return x, weights / weights.sum()


def chi_quadrature(freedom: int, points: int = 201) -> tuple[Array, Array]:
    """The same of the root of a chi-squared variable with so many degrees of freedom; of none it is 0."""
    if freedom == 0:
        return np.zeros(1), np.ones(1)
    middle = math.sqrt(freedom)
    r = np.linspace(max(middle - REACH, 0.0), middle + REACH, points)
    with np.errstate(divide="ignore"):
        logs = (freedom - 1) * np.log(r) - r * r / 2 if freedom > 1 else -r * r / 2
    weights = np.exp(logs - logs.max())
    if r[0] == 0:
        weights[0] /= 2  # the rule ends there where the density does not
    return r, weights / weights.sum()
