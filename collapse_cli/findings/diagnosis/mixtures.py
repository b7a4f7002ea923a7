"""What a mixture came to, in a sentence: synthetic data against real data alone, and what else varied; pure functions."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from collapse_cli.config.cell import AXES
from collapse_cli.families import Headline
from collapse_cli.findings.diagnosis.headline import headline_of, intervals_said, seeds_said, sentence
from collapse_cli.findings.expectations import law_of
from collapse_cli.findings.grid import Point, axes_of, in_sentence, points, words
from collapse_cli.findings.predictions import Tree
from collapse_cli.findings.scaling import ScalingLaw, laws
from collapse_cli.metrics.intervals import LEVEL, Interval, interval, paired
from collapse_cli.metrics.numbers import spread, to_two_digits, value
from collapse_cli.records.row import Row

Said = Callable[[Mapping[str, float | None]], str]  # a place of the grid in words
LAWS = 32  # scaling laws that are fitted for one run


def mixture_verdict(rows: Sequence[Row], tree: Tree, *, plain: bool = False) -> str:
    """One sentence on a mixture: synthetic data against real data alone where there is most of it, and what else varied.

    Args:
        rows: of one run.
        tree: its configuration.
        plain: in words, as the page has it, where else there are the symbols of the papers.
    """
    said: Said = in_sentence if plain else words
    measure = headline_of(tree)
    cells = points(rows, measure.name, tree)
    if not cells:
        return "No cell is measured yet."
    axes = axes_of(cells, tree)
    if not axes:
        only = cells[0].mean
        return sentence(
            f"{measure.title} is {spread(only)} in the only cell, {seeds_said(only.n)}{intervals_said([only])}"
        )
    most = _last(cells, _others_of(axes), axes)  # of the other axes their last value: the extreme of a grid
    parts = [part for part in (_shares(cells, measure, tree, said), *_others(cells, axes, most, measure, said)) if part]
    if not parts:
        best, worst = (pick(cells, key=lambda cell: cell.mean.mean) for pick in (min, max))
        parts = [
            f"{_short(measure)} is least at {said(_place(best, axes))}: {spread(best.mean)}, "
            f"and largest at {said(_place(worst, axes))}: {spread(worst.mean)}"
        ]
    seeds = max(cell.mean.n for cell in cells)
    if re.search(r"\(\S+ to \S+\)", "; ".join(parts)) and seeds > 1:
        parts.append(f"intervals are 95% over {seeds} seeds")
    elif seeds == 1:
        parts.append("one seed: no interval, and what differs may be chance")
    return sentence("; ".join(parts))


def laws_of(cells: Sequence[Point], tree: Tree) -> list[ScalingLaw]:
    """Scaling laws over rows, one for each share and place along the other axes with enough sizes; `LAWS` at most."""
    there = [
        replace(cell, by_seed={seed: value for seed, value in cell.by_seed.items() if 1e-100 < value < 1e100})
        for cell in cells
        if 1 <= cell.record["rows"] <= 1e15  # numbers that a run makes
    ]
    there = [cell for cell in there if cell.by_seed]
    kept = list(dict.fromkeys(cell.place(("share", *AXES)) for cell in there))[:LAWS]
    there = [cell for cell in there if cell.place(("share", *AXES)) in kept]
    try:
        return laws(there, sorted({cell.share for cell in there}), partial(law_of, tree))
    except (ArithmeticError, ValueError):  # numbers that no run makes
        return []


@dataclass(frozen=True)
class Contrast:
    """Synthetic data against real data alone, at one place of the grid.

    Attributes:
        place: rows, and the last value of every other axis.
        cell, alone: the cell with synthetic rows, and the one with none.
        of_same: what that one has, in words.
        ratio: of the measure, the first over the second; None where it has none.
        told: whether the ratio leaves out 1, with allowance for the number of shares it was chosen among.
    """

    place: Mapping[str, float | None]
    cell: Point
    alone: Point
    of_same: str
    ratio: Interval | None
    told: bool


def contrast_of(cells: Sequence[Point], tree: Tree) -> Contrast | None:
    """The smallest synthetic share that is worse than real data alone beyond chance, where there is most data.

    Ratios are paired over seeds, on the log scale. That one of several shares is named allows for their number
    (Bonferroni); the interval beside it is that of this ratio alone. Where none is shown to be worse it is the largest.
    """
    axes = axes_of(cells, tree)
    others = _others_of(axes)
    most = _last(cells, others, axes)
    there = [cell for cell in cells if all(cell.at(axis) == most[axis] for axis in others)] or list(cells)
    for rows in sorted({cell.record["rows"] for cell in there}, reverse=True):
        largest = [cell for cell in there if cell.record["rows"] == rows and cell.share > 0]
        if not largest:
            continue
        alone, of_same = _alone(there, rows, largest[0])
        if alone is None:
            continue
        ranked = sorted(largest, key=lambda cell: cell.share)
        level = 1 - (1 - LEVEL) / len(ranked)
        chosen = next((cell for cell in ranked if _told(_ratio(cell, alone, level), above=True)), ranked[-1])
        place = {"rows": rows, **{axis: chosen.at(axis) for axis in others}}
        told = _told(_ratio(chosen, alone, level))
        return Contrast(place, chosen, alone, of_same, _ratio(chosen, alone), told)
    return None


def _shares(cells: Sequence[Point], measure: Headline, tree: Tree, said: Said) -> str:
    """`contrast_of` as a clause; "" where there is none."""
    there = contrast_of(cells, tree)
    if there is None:
        return ""
    chosen, ratio, times = there.cell, there.ratio, ""
    if ratio is not None:
        times = f", {value(ratio.mean) if ratio.exact else spread(ratio)} times that of {there.of_same}"
        if ratio.n > 1 and not there.told:
            times += ", not told apart"
    clause = f"at {said(there.place)}, {_short(measure)} with {said({'share': chosen.share})} is {spread(chosen.mean)}{times}"
    others = _others_of(axes_of(cells, tree))
    line = [
        cell
        for cell in cells
        if cell.share == chosen.share and all(cell.at(axis) == there.place[axis] for axis in others)
    ]
    fitted = laws_of(line, tree)
    if len(fitted) == 1 and fitted[0].claimed and not fitted[0].extrapolated:
        knee, first = fitted[0].knee, fitted[0].sizes[0]
        clause += f"; more data {'does not help from' if knee <= first else 'stops helping near'} {said({'rows': to_two_digits(knee)})}"
    return clause


def _others_of(axes: Mapping[str, Sequence[float]]) -> list[str]:
    """The axes that do not say how many rows there are."""
    return [axis for axis in axes if axis not in ("rows", "real_rows", "synthetic_rows", "share")]


def _alone(cells: Sequence[Point], rows: float, beside: Point) -> tuple[Point | None, str]:
    """The cell without synthetic rows to compare with: as many rows in all, else as many real ones."""
    real = [cell for cell in cells if cell.share == 0]
    for name, wanted, comparison in (
        ("rows", rows, "real data alone"),
        ("real_rows", beside.record.get("real_rows"), "the same real data alone"),
    ):
        same = next((cell for cell in real if cell.record.get(name) == wanted), None)
        if same is not None:
            return same, comparison
    return None, ""


def _others(
    cells: Sequence[Point],
    axes: Mapping[str, Sequence[float]],
    most: Mapping[str, float | None],
    measure: Headline,
    said: Said,
) -> list[str]:
    """What sizes, weights and rounds change, all else at the grid's last values."""
    parts = []
    for axis in ("size", "weight", "iterations"):
        if axis not in axes:
            continue
        rest = {name: most[name] for name in axes if name != axis}
        line = [cell for cell in cells if all(cell.at(name) == wanted for name, wanted in rest.items())]
        line = sorted((cell for cell in line if cell.at(axis) is not None), key=lambda cell: cell.at(axis) or 0.0)
        if len(line) < 2:
            continue
        first, last = line[0], line[-1]
        best, worst = (pick(line, key=lambda cell: cell.mean.mean) for pick in (min, max))
        clause = f"at {said(rest)}, " if any(v is not None for v in rest.values()) else ""
        clause += f"{_short(measure)} is {value(first.mean.mean)} at {said({axis: first.at(axis)})}"
        if best is not first and best is not last:
            chance = _by_chance(best, min(first, last, key=lambda cell: cell.mean.mean), axis, len(line) - 1, said)
            clause += f", least at {said({axis: best.at(axis)})}: {value(best.mean.mean)}{chance},"
        elif worst.mean.mean > 1.5 * max(first.mean.mean, last.mean.mean):  # an interpolation peak
            clause += f", up to {value(worst.mean.mean)} at {said({axis: worst.at(axis)})},"
        parts.append(f"{clause} and {value(last.mean.mean)} at {said({axis: last.at(axis)})}")
    return parts


def _by_chance(best: Point, end: Point, axis: str, others: int, said: Said) -> str:
    """What to add to the least of several means where it is not shown to be below that of an end of the line.

    Differences are paired over seeds; the interval allows for the least being the least of `others` differences (Bonferroni).
    """
    over = paired(end.by_seed, best.by_seed, 1 - (1 - LEVEL) / others)
    if over is None or over.low is None:
        return " (which may be chance: one seed)"
    return "" if over.low > 0 else f" (not told apart from {said({axis: end.at(axis)})})"


def _last(
    cells: Sequence[Point], others: Sequence[str], axes: Mapping[str, Sequence[float]]
) -> dict[str, float | None]:
    """By axis its last value, of those where there are cells; shares and rows where all the others are such."""
    place: dict[str, float | None] = {}
    left = list(cells)
    for axis in (*others, *(axis for axis in axes if axis not in others)):
        values = [value for cell in left if (value := cell.at(axis)) is not None]
        place[axis] = max(values) if values else None
        left = [cell for cell in left if cell.at(axis) == place[axis]]
    return place


def _ratio(cell: Point, alone: Point, level: float = LEVEL) -> Interval | None:
    """A cell's measure over another's: geometric mean of the ratios of the seeds that both have; None where it has none.

    Of seeds that are not the same the ratio of the means, without an interval.
    """
    common = sorted(cell.by_seed.keys() & alone.by_seed.keys())
    values = [(cell.by_seed[seed], alone.by_seed[seed]) for seed in common] or [(cell.mean.mean, alone.mean.mean)]
    if min(min(pair) for pair in values) <= 0:
        return None
    return interval([math.log(a) - math.log(b) for a, b in values], level).within(math.exp)


def _told(ratio: Interval | None, *, above: bool = False) -> bool:
    """Whether the interval of a ratio leaves out 1, or lies above it; without an interval it is not known."""
    if ratio is None or ratio.low is None or ratio.high is None:
        return False
    return ratio.low > 1 or (not above and ratio.high < 1)


def _place(cell: Point, axes: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    return {axis: cell.at(axis) for axis in axes}


def _short(measure: Headline) -> str:
    """A measure in as few words as a sentence can do with: `error`, `loss`."""
    return {"nll": "loss", "test_loss": "loss"}.get(measure.name, measure.name.replace("_", " "))
