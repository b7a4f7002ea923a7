"""What the formulas may be asked: every refusal is one line that names the quantity, its value and what it may be."""

import math

import numpy as np

from collapse_cli.errors import UserError

Array = np.ndarray


MOST = 1e100  # of any quantity: its square is still a float
MOST_GENERATIONS = 1_000_000  # that are gone through one by one


class TheoryError(UserError):
    """A question that no formula answers: an impossible size, share or variance, or a mean that does not exist."""


def positive(name: str, value: float) -> float:
    """A finite number above 0."""
    if value > MOST:
        raise TheoryError(f"{name} is {_short(value)}; it must be at most {MOST:g}")
    if not value > 0:
        raise TheoryError(f"{name} is {value:g}; it must be a number above 0")
    return float(value)


def not_negative(name: str, value: float) -> float:
    """A finite number of at least 0."""
    if value > MOST:
        raise TheoryError(f"{name} is {_short(value)}; it must be at most {MOST:g}")
    if not value >= 0:
        raise TheoryError(f"{name} is {value:g}; it must be 0 or a number above 0")
    return float(value)


def both_noises(noise: float, noise_synthetic: float | None) -> tuple[float, float]:
    """Standard deviations of real and of synthetic labels; the second is the first where it is not given."""
    real = not_negative("noise", noise)
    return real, real if noise_synthetic is None else not_negative("noise_synthetic", noise_synthetic)


def _short(value: float) -> str:
    """A number of any size in few characters, whole numbers beyond a float's range too."""
    try:
        return f"{value:g}"
    except OverflowError:
        return f"a number of {len(str(value))} digits"


def share(name: str, value: float) -> float:
    """A number from 0 to 1."""
    if not 0 <= value <= 1:
        raise TheoryError(f"{name} is {value:g}; it is a share, from 0 to 1")
    return float(value)


def whole(name: str, value: float, least: int) -> int:
    """A whole number of at least `least`."""
    if value > MOST:
        raise TheoryError(f"{name} is {_short(value)}; it must be at most {MOST:g}")
    if math.isnan(value) or value < least or value != int(value):
        raise TheoryError(f"{name} is {value:g}; it must be a whole number, {least} or more")
    return int(value)


def steps(generations: float) -> int:
    """Generations after the first one, few enough to go through one by one."""
    number = whole("generations", generations, 0)
    if number > MOST_GENERATIONS:
        raise TheoryError(f"generations is {number}; at most {MOST_GENERATIONS} are gone through")
    return number


def diagonal(name: str, values: Array, d: int) -> Array:
    """The diagonal, (d,), of a covariance: finite numbers of at least 0."""
    variances = np.asarray(values, dtype=np.float64)
    if variances.shape != (d,):
        raise TheoryError(
            f"{name} has shape {variances.shape}; it must hold one number for each of the {d} eigenvalues"
        )
    if not (np.isfinite(variances).all() and (variances >= 0).all()):
        raise TheoryError(f"{name} must hold numbers of 0 or more: it is the diagonal of a covariance")
    return variances


def symmetric(name: str, values: Array, d: int) -> Array:
    """A covariance, (d, d): finite and symmetric."""
    covariance = np.asarray(values, dtype=np.float64)
    if covariance.shape != (d, d):
        raise TheoryError(f"{name} has shape {covariance.shape}; it must be a {d} by {d} matrix")
    if not np.isfinite(covariance).all() or not np.allclose(
        covariance, covariance.T, rtol=1e-9, atol=1e-12 * np.abs(covariance).max()
    ):
        raise TheoryError(f"{name} must be a symmetric matrix of finite numbers: it is a covariance")
    return covariance
