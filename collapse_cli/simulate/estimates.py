"""What all simulations share: means with standard errors, seeded streams, whole rows, and a least squares solver."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from collapse_cli.theory import TheoryError

Array = np.ndarray
TINY = 1e-8  # a penalty below it regularises nothing
LARGEST = 2**28  # numbers in one matrix of inputs, 2 GiB


@dataclass(frozen=True)
class Estimate:
    """A mean over independent trials with its standard error (math.nan for one trial)."""

    mean: float
    error: float
    trials: int

    def relative(self, predicted: float) -> float:
        """theory/MC - 1; math.nan where both are 0."""
        if self.mean == 0:
            return math.nan if predicted == 0 else math.inf
        return predicted / self.mean - 1


def estimate(values: Array) -> Estimate:
    """The mean of (trials,) and its standard error."""
    trials = len(values)
    with np.errstate(invalid="ignore"):  # ln 0 = -inf of a variance that is gone has no standard error
        error = float(values.std(ddof=1) / math.sqrt(trials)) if trials > 1 else math.nan
    return Estimate(float(values.mean()), error, trials)


def average(trials: int, seed: int, trial: Callable[[np.random.Generator], float]) -> Estimate:
    return estimate(np.array([trial(random) for random in streams(trials, seed)]))


def streams(trials: int, seed: int) -> Iterator[np.random.Generator]:
    """One generator a trial, so that a trial's draws do not depend on how many there are."""
    if trials < 1 or trials != int(trials):
        raise TheoryError(f"trials is {trials}; a simulation has at least 1")
    if seed < 0:
        raise TheoryError(f"seed is {seed}; it must be 0 or more")
    for number in np.random.SeedSequence(seed).spawn(int(trials)):
        yield np.random.Generator(np.random.Philox(number))


def whole_rows(name: str, value: float) -> int:
    if value < 1 or value != int(value):
        raise TheoryError(f"{name} is {value:g}; a simulation needs a whole number of them, 1 or more")
    return int(value)


def synthetic_rows(rows: int, p2: float) -> int:
    """Synthetic rows: p2 n to the nearest whole row, refused where that changes the share by more than 1%."""
    synthetic = round(rows * p2)
    if abs(synthetic - rows * p2) > 0.01 * rows * p2:
        raise TheoryError(
            f"p2 is {p2:g}: of {rows} rows that is {rows * p2:g}, no whole number; choose another n or p2"
        )
    return synthetic


def least_squares(z: Array, y: Array, lam: float, d: int) -> Array:
    """Argmin (1/n)|z v - y|^2 + lam |v|^2, the least-norm one at lam = 0; z (n, k) of rank d at most, y (n, draws)."""
    rows, width = z.shape
    if lam < TINY and (rows <= width or width > d):
        return np.asarray(np.linalg.lstsq(z, y, rcond=None)[0])
    if width <= rows:
        return np.asarray(np.linalg.solve(z.T @ z + rows * lam * np.eye(width), z.T @ y))
    return np.asarray(z.T @ np.linalg.solve(z @ z.T + rows * lam * np.eye(rows), y))
