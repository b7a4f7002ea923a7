"""Does more data stop helping? error(n) = E_inf + A (n - n0)^-b fitted to the cells of a mixture, a law for each share.

Pure functions of a grid's cells. The shift n0 keeps two things apart that look alike: a curve that is steep because
it begins near an interpolation threshold (least squares with d dimensions: d/(n - d)), and one that flattens towards a
plateau. Sizes to which no such law extends, as those around a peak, are left out, the smallest first.

What may be said of a plateau: its 95% interval holds all values with which some shift and some exponent fit the means within
their errors over seeds (a profile of the weighted sum of squares). A plateau is claimed only where all of the interval lies
above half of the error at the largest size; anything less is called not seen, with a bound. One seed tells nothing of chance,
so nothing is claimed. Error rates and coverage: benchmarks/plateaus.py, docs/theory.md.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from collapse_cli.config.cell import AXES
from collapse_cli.errors import UserError
from collapse_cli.findings.grid import Point
from collapse_cli.findings.scaling.profile import ScalingFit, knees

LEAST_SIZES = 4  # a plateau, an amplitude, an exponent and a shift
# of the error at the largest size, which a plateau must make up with certainty: the error is then at most twice the plateau
VISIBLE = 0.5


class ScalingError(UserError):
    """Rows that no law can be fitted to."""


@dataclass(frozen=True)
class ScalingLaw:
    """error(n) = level + amplitude · (n - shift)^-exponent.

    Attributes:
        level: E_inf of the simplest law that fits; 0 wherever one without a plateau does. Claimed or not: see `plateau`.
        amplitude: A, at least 0; 0 where the error does not depend on n.
        exponent: b; math.nan where the amplitude is 0.
        knee: rows from which on doubling them lowers the error by less than 5% of it; math.inf where no plateau is
            claimed, and never less than the smallest size.
        shift: n0, at least 0: rows that an interpolation threshold takes away.
        claimed: whether there is a plateau beyond chance that makes up half of the error at the largest size or more.
        intervals: 95% intervals of plateau, exponent and knee; that of a plateau that is not claimed begins at 0. None
            where a size has a single seed, or where no law fits.
        n_points: sizes that the law is fitted to; `sizes`, the smallest and the largest of them.
        left_out: smaller sizes, to which it does not extend.
        seeds: of each size.
        fits: whether the means lie on the law within their errors; of one seed that is not known, and True.
        theory: the plateau that a closed form says; None where none is known.
        where: share and other axes of the cells, as rows have them.
    """

    level: float
    amplitude: float
    exponent: float
    knee: float
    shift: float
    claimed: bool
    intervals: Mapping[str, tuple[float, float]]
    n_points: int
    sizes: tuple[float, float]
    left_out: int = 0
    seeds: int = 1
    fits: bool = True
    theory: float | None = None
    where: Mapping[str, float] = field(default_factory=dict)

    def at(self, n: float) -> float:
        """The law's error for n rows, more than its shift."""
        return self.level + (self.amplitude * (n - self.shift) ** -self.exponent if self.amplitude else 0.0)

    @property
    def plateau(self) -> float:
        """E_inf where it is claimed, else 0."""
        return self.level if self.claimed else 0.0

    @property
    def extrapolated(self) -> bool:
        """Whether the knee may lie beyond all sizes that were measured: the end of its interval does."""
        return max(self.knee, self.intervals.get("knee", (0.0, 0.0))[1]) > self.sizes[1]

    def record(self) -> dict[str, Any]:
        """Plain numbers for JSON; what is infinite or not a number is None."""
        return {
            **self.where,
            **{name: _plain(getattr(self, name)) for name in ("amplitude", "exponent", "knee", "shift")},
            "plateau": self.plateau if self.claimed else None,
            "intervals": {name: [_plain(low), _plain(high)] for name, (low, high) in self.intervals.items()},
            "n_points": self.n_points,
            "sizes": list(self.sizes),
            "left_out": self.left_out,
            "seeds": self.seeds,
            "fits": self.fits,
            "claimed": self.claimed,
            "extrapolated": self.extrapolated,
            "theory": self.theory,
        }


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def laws(
    cells: Iterable[Point],
    shares: Sequence[float] = (),
    known: Callable[[Mapping[str, float]], tuple[float | None, float | None]] = lambda where: (None, None),
) -> list[ScalingLaw]:
    """A law for each share and each combination of the other axes with at least 4 sizes; others are left out.

    Args:
        cells: with their measure by seed.
        shares: nominal ones, to which shares that were rounded to whole rows belong; empty: to three decimals.
        known: what theory knows of a place: its interpolation threshold and its plateau, either may be None.
    """
    groups: dict[tuple[tuple[str, float], ...], dict[float, dict[int, float]]] = {}
    for cell in cells:
        n, share = cell.record["rows"], cell.share
        nominal = next(
            (named_share for named_share in shares if abs(named_share - share) <= 0.5 / n * (1 + 1e-9)), round(share, 3)
        )
        where = {"share": nominal, **{axis: cell.record[axis] for axis in AXES if axis in cell.record}}
        if errors := {seed: value for seed, value in cell.by_seed.items() if 0 < value < math.inf}:
            groups.setdefault(tuple(where.items()), {}).setdefault(n, {}).update(errors)
    fitted = []
    for items, sizes in groups.items():
        if len(sizes) >= LEAST_SIZES:
            threshold, plateau = known(where := dict(items))
            beyond = [n for n in sizes if threshold is None or n > threshold]
            threshold = threshold if len(beyond) >= LEAST_SIZES else None
            fitted.append(fit(sizes, where, threshold=threshold, theory=plateau))
    return fitted


def fit(
    sizes: Mapping[float, Mapping[Any, float]],
    where: Mapping[str, float] | None = None,
    *,
    threshold: float | None = None,
    theory: float | None = None,
) -> ScalingLaw:
    """The law of errors above 0, by number of rows and by seed.

    Args:
        sizes: errors by number of rows and by seed; seeds that not all sizes have are left out, where some are common.
        where: of the cells.
        threshold: the shift, where theory knows it; sizes up to it are left out.
        theory: the plateau, where theory knows it.

    Raises:
        ScalingError: for fewer than 4 sizes (above the threshold).
    """
    n = np.array(sorted(size for size in sizes if threshold is None or size > threshold), dtype=np.float64)
    if len(n) < LEAST_SIZES:
        raise ScalingError(f"a scaling law needs {LEAST_SIZES} sizes, there are {len(n)}")
    common = sorted(set.intersection(*(set(sizes[size]) for size in n)), key=str)
    if common:
        table = np.array([[sizes[size][seed] for seed in common] for size in n])
    else:  # seeds differ from size to size: means only
        table = np.array([[float(np.mean(list(sizes[size].values())))] for size in n])
    most = len(n) - LEAST_SIZES
    if table.shape[1] == 1:
        peak = int(table[:, 0].argmax())  # what comes before it, and the peak itself, is not the law's
        skips = [min(most, peak + 1 if peak else 0)]
    else:
        skips = list(range(most + 1))
    for skipped in skips:
        fitted = ScalingFit(n[skipped:], table[skipped:], threshold)
        if fitted.fits:
            break
    return _said(fitted, len(sizes) - len(n) + skipped, theory, dict(where or {}))


def _said(fitted: ScalingFit, left_out: int, theory: float | None, where: dict[str, float]) -> ScalingLaw:
    """What may be said: the simplest law of those that fit, and the intervals of all."""
    n = fitted.n
    intervals = fitted.intervals() if fitted.seeds > 1 and fitted.fits else {}
    claimed = bool(intervals) and intervals["plateau"][0] >= VISIBLE * fitted.last
    if intervals and not claimed:
        del intervals["knee"]
        intervals["plateau"] = (0.0, intervals["plateau"][1])
    level, top, b, shift = fitted.simplest(claimed)
    knee = float(knees(float(n[0]), *(np.array([parameter]) for parameter in (level, top, b, shift)))[0])
    for name, value in (("plateau", level if claimed else 0.0), ("exponent", b), ("knee", knee)):
        if name in intervals:
            low, high = intervals[name]
            intervals[name] = (min(low, value), max(high, value))
    flat = top <= 1e-6 * level
    if flat:
        intervals.pop("exponent", None)
    return ScalingLaw(
        level,
        0.0 if flat else top * (float(n[0]) - shift) ** b,
        math.nan if flat else b,
        knee if claimed else math.inf,
        shift,
        claimed,
        intervals,
        len(n),
        (float(n[0]), float(n[-1])),
        left_out,
        fitted.seeds,
        bool(fitted.fits),
        theory,
        where,
    )
