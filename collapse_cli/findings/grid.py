"""The cells of a mixture as they were measured: means over seeds, and the axes along which they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collapse_cli.config.cell import AXES, SHORT
from collapse_cli.findings.expectations import mean_of
from collapse_cli.findings.predictions import Tree
from collapse_cli.metrics.intervals import Interval
from collapse_cli.records.fields import finite
from collapse_cli.records.row import Row

WORDS = {
    **SHORT,
    "rows": "n",
    "real_rows": "real rows",
    "synthetic_rows": "synthetic rows",
    "share": "p2",
    "quality": "c²",
    "size": "m",
    "lam": "λ",
    "weight": "α",
    "iterations": "t",
    "generator_rows": "generator's rows",
}
NAMES = {
    "rows": "rows",
    "real_rows": "real rows",
    "synthetic_rows": "synthetic rows",
    "share": "synthetic share",
    "quality": "risk of the labeller",
    "size": "model size",
    "lam": "ridge penalty",
    "weight": "weight of synthetic rows",
    "iterations": "rounds of mixing",
    "generator_rows": "real rows of the generator",
}  # in words, for the page; `WORDS` are those of the terminal, as the papers have them
COUNTED = ("rows", "real_rows", "synthetic_rows", "generator_rows")  # of which a sentence says the number first
WHOLE = ("rows", "real_rows", "synthetic_rows", "size", "generator_rows", "iterations")


@dataclass(frozen=True)
class Point:
    """A cell, measured.

    Attributes:
        record: its coordinates, as in `metrics.jsonl`.
        share: the synthetic share as the configuration names it; that of `record` is rounded to whole rows.
        mean: of the measure over seeds.
        error: standard error of the mean; None for one seed.
        by_seed: the values.
    """

    record: Mapping[str, float]
    share: float
    mean: Interval
    error: float | None
    by_seed: Mapping[int, float]

    def at(self, axis: str) -> float | None:
        """Its place along an axis; None where the axis is none of its grid's."""
        return self.share if axis == "share" else self.record.get(axis)

    def place(self, axes: Sequence[str]) -> tuple[float | None, ...]:
        return tuple(self.at(axis) for axis in axes)


def points(rows: Sequence[Row], what: str, tree: Tree) -> list[Point]:
    """Cells that have the measure, in order of their first row."""
    section = tree.get("mixture")
    shares = section.get("share") if isinstance(section, Mapping) else None
    named = (
        [share for named_share in shares if (share := finite(named_share)) is not None]
        if isinstance(shares, list | tuple)
        else []
    )
    rows_at: dict[tuple[tuple[str, float], ...], list[Row]] = {}
    for row in rows:
        if row.measure("rows") is not None and row.measure(what) is not None:
            rows_at.setdefault(tuple(row.coordinates.items()), []).append(row)
    made = []
    for place, own in rows_at.items():
        if (mean := mean_of(own, what)) is not None:
            record = dict(place)
            share = _nominal(record.get("share", 0.0), record["rows"], named)
            made.append(
                Point(
                    record,
                    share,
                    *mean,
                    {row.where.seed: value for row in own if (value := row.measure(what)) is not None},
                )
            )
    return made


def axes_of(cells: Sequence[Point], tree: Tree) -> dict[str, list[float]]:
    """The axes along which cells differ, each with its values in order; the two that say how many rows come first."""
    section = tree.get("mixture")
    given = [
        name
        for name in ("rows", "real_rows", "share", "synthetic_rows")
        if isinstance(section, Mapping) and isinstance(section.get(name), list | tuple) and section[name]
    ]
    axes = {}
    for axis in (*(given if len(given) == 2 else ("rows", "share")), *AXES):
        values = sorted({value for cell in cells if (value := cell.at(axis)) is not None})
        if len(values) > 1:
            axes[axis] = values
    return axes


def words(place: Mapping[str, float | None]) -> str:
    """A place for people: `n = 32,000, p2 = 0.1`."""
    return ", ".join(f"{WORDS.get(axis, axis)} = {amount(axis, v)}" for axis, v in place.items() if v is not None)


def plainly(place: Mapping[str, float | None]) -> str:
    """A place without symbols: `rows 32,000, synthetic share 0.1`."""
    return ", ".join(f"{NAMES.get(axis, axis)} {amount(axis, v)}" for axis, v in place.items() if v is not None)


def in_sentence(place: Mapping[str, float | None]) -> str:
    """The same as a sentence has it: `32,000 rows, synthetic share 0.1`."""
    return ", ".join(
        f"{amount(axis, v)} {NAMES[axis]}" if axis in COUNTED and v != 1 else plainly({axis: v})
        for axis, v in place.items()
        if v is not None
    )


def amount(axis: str, value: float) -> str:
    """A place along an axis: whole numbers with commas, others with up to four digits."""
    return f"{value:,.0f}" if axis in WHOLE else f"{value:.4g}"


def _nominal(share: float, rows: float, named: Sequence[float]) -> float:
    """Of the shares that are named the nearest, where it is rounded to whole rows of this one."""
    nearest = min(named, key=lambda named_share: abs(named_share - share), default=share)
    return nearest if abs(nearest - share) <= 0.51 / max(rows, 1.0) else share
