"""Where does more data stop helping? error(n) = E_inf + A n^-b fitted to the cells of a mixture, a law for each share.

Pure functions of rows of `metrics.jsonl`. The law is an asymptote, not the exact curve: least squares with d dimensions
has d/(n - d), which is steeper near n = d, and there may be a peak. So the smallest sizes are left out, one by one, until
the rest lies on the law within its errors; and a plateau is only kept where the fit without one is clearly worse, and
where it makes up a fifth of the error at the largest size: less was not seen.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from collapse_cli.cell import AXES

Array = np.ndarray
LEAST_SIZES = 4  # three parameters and one point to spare
RESOLUTION = 0.01  # relative error of a mean below which the law itself is not to be trusted
MISFIT = 3.0  # errors by which a point may lie beside the law
WORTH = 6.0  # by which a plateau must lower the sum of squared errors to be kept: about its BIC and a half
FLATTEST, STEEPEST = 1e-3, 6.0  # exponents
EXPONENTS = 600  # of a grid of them: steps of 1.1%
VISIBLE = 0.2  # of the error at the largest size, which a plateau must make up: less is a curve's bend extrapolated
GAIN = 0.05  # of its error, which doubling the data must win to count as help
RESAMPLES = 200
CONFIDENCE = 0.95


class ScalingError(ValueError):
    """Rows that no law can be fitted to."""


@dataclass(frozen=True)
class ScalingLaw:
    """error(n) = plateau + amplitude · n^-exponent.

    Attributes:
        plateau: E_inf, at least 0; 0 where none is to be seen.
        amplitude: A, at least 0; 0 where the error does not depend on n.
        exponent: b; math.nan where the amplitude is 0.
        knee: rows from which on doubling them lowers the error by less than 5% of it; math.inf where there is no plateau,
            and never less than the smallest size.
        intervals: 95% bootstrap intervals over seeds of these four, by name; none where a size has a single seed.
        n_points: sizes that the law is fitted to; `sizes`, the smallest and the largest of them.
        left_out: smaller sizes, to which it does not extend.
        where: share and other axes of the cells, as rows have them.
    """

    plateau: float
    amplitude: float
    exponent: float
    knee: float
    intervals: Mapping[str, tuple[float, float]]
    n_points: int
    sizes: tuple[float, float]
    left_out: int = 0
    where: Mapping[str, float] = field(default_factory=dict)

    def at(self, n: float) -> float:
        """The law's error for n rows."""
        return self.plateau + (self.amplitude * n**-self.exponent if self.amplitude else 0.0)

    @property
    def extrapolated(self) -> bool:
        """Whether the knee lies beyond all sizes that were measured."""
        return self.knee > self.sizes[1]

    def record(self) -> dict[str, Any]:
        """Plain numbers for JSON; what is infinite or not a number is None."""
        return {
            **self.where,
            **{name: _plain(getattr(self, name)) for name in NAMES},
            "intervals": {name: [_plain(low), _plain(high)] for name, (low, high) in self.intervals.items()},
            "n_points": self.n_points,
            "sizes": list(self.sizes),
            "left_out": self.left_out,
            "extrapolated": self.extrapolated,
        }


NAMES = ("plateau", "amplitude", "exponent", "knee")


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def laws(rows: Iterable[Mapping[str, Any]], what: str = "error", shares: Sequence[float] = ()) -> list[ScalingLaw]:
    """A law for each share and each combination of the other axes with at least 4 sizes; others are left out.

    Args:
        rows: of `metrics.jsonl`: `rows`, `share`, `seed`, `what` and perhaps other axes.
        shares: nominal ones, to which shares that were rounded to whole rows belong; empty: to three decimals.
    """
    groups: dict[tuple[tuple[str, float], ...], dict[float, dict[Any, float]]] = {}
    for row in rows:
        value = row.get(what)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            continue
        n, share = float(row["rows"]), float(row["share"])
        nominal = next((one for one in shares if abs(one - share) <= 0.5 / n * (1 + 1e-9)), round(share, 3))
        where = {"share": nominal, **{axis: float(row[axis]) for axis in AXES if row.get(axis) is not None}}
        groups.setdefault(tuple(where.items()), {}).setdefault(n, {})[row.get("seed", 0)] = float(value)
    return [fit(sizes, dict(where)) for where, sizes in groups.items() if len(sizes) >= LEAST_SIZES]


def fit(sizes: Mapping[float, Mapping[Any, float]], where: Mapping[str, float] | None = None) -> ScalingLaw:
    """The law of errors above 0, by number of rows and by seed.

    Weighted least squares of logarithms of means over seeds; seeds are resampled whole, for cells of a seed are paired.

    Raises:
        ScalingError: for fewer than 4 sizes.
    """
    if len(sizes) < LEAST_SIZES:
        raise ScalingError(f"a scaling law wants {LEAST_SIZES} sizes, there are {len(sizes)}")
    n = np.array(sorted(sizes), dtype=np.float64)
    common = sorted(set.intersection(*(set(sizes[one]) for one in n)), key=str)
    if common:
        table = np.array([[sizes[one][seed] for seed in common] for one in n])
    else:  # seeds differ from size to size: means only
        table = np.array([[float(np.mean(list(sizes[one].values())))] for one in n])
    for skipped in range(len(n) - LEAST_SIZES + 1):
        at, values = n[skipped:], table[skipped:]
        errors = _errors(values)
        logs = np.log(values.mean(axis=1))
        found = _best(at, logs, errors)
        if np.abs(_residuals(found, at, logs, errors)).max() <= MISFIT:
            break
    simpler = (_constant(logs, errors), _best(at, logs, errors, plateau=False))  # with one parameter, and with two
    costs = [_cost(theta, at, logs, errors) for theta in (*simpler, found)]
    if costs[0] - min(costs) < 2 * WORTH:
        chosen = simpler[0]
    else:
        unseen = found[1] * math.exp(found[0] - float(_law(found, at)[-1])) < VISIBLE
        chosen = simpler[1] if unseen or costs[1] - costs[2] < WORTH else found
    plateau, amplitude, exponent, knee = _named(chosen, at)
    return ScalingLaw(
        plateau,
        amplitude,
        exponent,
        knee,
        _intervals(at, values, errors, (plateau, amplitude, exponent, knee)) if table.shape[1] > 1 else {},
        len(at),
        (float(at[0]), float(at[-1])),
        skipped,
        dict(where or {}),
    )


def _errors(values: Array) -> Array:
    """Standard errors of logarithms of means, (sizes,), of (sizes, seeds)."""
    seeds = values.shape[1]
    if seeds == 1:
        return np.full(len(values), RESOLUTION)
    relative = values.std(axis=1, ddof=1) / math.sqrt(seeds) / values.mean(axis=1)
    both: Array = np.hypot(relative, RESOLUTION)
    return both


# Parameters of a fit are (log top, share, exponent): `top` is the law at the smallest size, `share` the plateau's part of it,
# so that both limits, no plateau (0) and nothing but a plateau (1), are values like others.


def _law(theta: Array, n: Array) -> Array:
    """Logarithms of the law, (sizes,)."""
    found: Array = float(theta[0]) + np.log(theta[1] + (1 - theta[1]) * (n / n[0]) ** -theta[2])
    return found


def _residuals(theta: Array, n: Array, logs: Array, errors: Array) -> Array:
    found: Array = (_law(theta, n) - logs) / errors
    return found


def _slopes(theta: Array, n: Array, logs: Array, errors: Array) -> Array:
    """Derivatives of the residuals, (sizes, 3)."""
    share, ratio = theta[1], n / n[0]
    power = ratio ** -theta[2]
    inner = share + (1 - share) * power
    slopes = (np.ones(len(n)), (1 - power) / inner, -(1 - share) * power * np.log(ratio) / inner)
    found: Array = np.stack(slopes, axis=1) / errors[:, None]
    return found


def _cost(theta: Array, n: Array, logs: Array, errors: Array) -> float:
    residuals = _residuals(theta, n, logs, errors)
    return float(residuals @ residuals)


def _constant(logs: Array, errors: Array) -> Array:
    """Nothing but a plateau."""
    return np.array([np.average(logs, weights=errors**-2), 1.0, 1.0])


def _best(n: Array, logs: Array, errors: Array, *, plateau: bool = True) -> Array:
    """The best of several starts, all of which are ordinary least squares problems within bounds."""
    from scipy.optimize import least_squares

    shares = (1e-3, 0.5, 0.97) if plateau else (1e-12,)
    starts = [np.array([logs[0], share, b]) for share in shares for b in (0.5, 1.5)]
    if plateau:
        level, slope, b = (float(one[0]) for one in _searched(n, np.exp(logs)[None], errors))
        starts.append(np.array([math.log(level + slope), np.clip(level / (level + slope), 1e-6, 1 - 1e-6), b]))
    found = [
        least_squares(
            _residuals,
            start,
            jac=_slopes,
            bounds=([-np.inf, 0.0, FLATTEST], [np.inf, 1.0 if plateau else 1e-9, STEEPEST]),
            args=(n, logs, errors),
            x_scale=(1.0, 0.1, 1.0),
        )
        for start in starts
    ]
    theta: Array = min(found, key=lambda one: one.cost).x
    if not plateau:
        theta[1] = 0.0
    return theta


def _searched(n: Array, means: Array, errors: Array) -> tuple[Array, Array, Array]:
    """Plateau, the rest of the law at the smallest size, and exponent of many curves (curves, sizes) at once.

    Of each exponent of a grid the best other two, by relative in place of logarithmic errors, which is a linear problem;
    the two agree to second order in how far points lie beside the law.
    """
    grid = np.geomspace(FLATTEST * 10, STEEPEST * 0.99, EXPONENTS)
    power = (n / n[0]) ** -grid[:, None]  # (exponents, sizes)
    weight = (means * errors) ** -2  # (curves, sizes)
    ww, wx, wxx = weight.sum(1)[:, None], weight @ power.T, weight @ (power**2).T  # (curves, exponents)
    wy, wxy = (weight * means).sum(1)[:, None], (weight * means) @ power.T
    level = (wxx * wy - wx * wxy) / (below := ww * wxx - wx**2)
    slope = (ww * wxy - wx * wy) / below
    level, slope = np.where(level < 0, 0.0, level), np.where(level < 0, wxy / wxx, slope)
    level, slope = np.where(slope < 0, wy / ww, level), np.where(slope < 0, 0.0, slope)
    cost = ww * level**2 + 2 * wx * level * slope + wxx * slope**2 - 2 * wy * level - 2 * wxy * slope
    best = cost.argmin(axis=1)
    each = np.arange(len(means))
    return level[each, best], slope[each, best], grid[best]


def _named(theta: Array, n: Array) -> tuple[float, float, float, float]:
    """Plateau, amplitude, exponent, knee."""
    top, share, b = math.exp(theta[0]), float(theta[1]), float(theta[2])
    spread = top * (1 - share)  # the amplitude's part at the smallest size
    if share < 1e-6:
        share = 0.0
    if 1 - share < 1e-6:
        return top, 0.0, math.nan, float(n[0])
    won = 1 - 2**-b - GAIN  # doubling wins (won + GAIN) of the amplitude's part, and must win GAIN of the whole
    if won <= 0:
        knee = float(n[0])
    elif share == 0:
        knee = math.inf
    else:
        knee = max(float(n[0]), float(n[0]) * (won * (1 - share) / (GAIN * share)) ** (1 / b))
    return top * share, spread * float(n[0]) ** b, b, knee


def _intervals(n: Array, values: Array, errors: Array, points: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Of resampled seeds; they hold the point itself, whose fit may be one without a plateau."""
    generator = np.random.Generator(np.random.Philox(0))
    chosen = generator.integers(0, values.shape[1], (RESAMPLES, values.shape[1]))
    levels, slopes, exponents = _searched(n, values[:, chosen].mean(axis=2).T, errors)
    found = [
        _named(np.array([math.log(level + slope), level / (level + slope), b]), n)
        for level, slope, b in zip(levels, slopes, exponents, strict=True)
    ]
    table = np.array(found)
    edges = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    intervals = {}
    for name, column, point in zip(NAMES, table.T, points, strict=True):
        known = np.sort(column[~np.isnan(column)])
        if len(known) and not math.isnan(point):  # by rank, so that infinity is a value like others
            low, high = (float(known[round(edge * (len(known) - 1))]) for edge in edges)
            intervals[name] = (min(low, point), max(high, point))
    return intervals
