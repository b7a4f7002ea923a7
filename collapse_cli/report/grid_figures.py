"""A mixture's grid cut into plots: along each axis, lines by share or quality, small multiples beyond; theory through them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.families import headline_measure
from collapse_cli.findings.diagnosis.headline import headline_of
from collapse_cli.findings.expectations import theory_of
from collapse_cli.findings.grid import NAMES, Point, amount, axes_of, plainly, points
from collapse_cli.metrics.numbers import spread
from collapse_cli.report.figures import TINY, Figure, Trace, apart, log_ticks, rounded
from collapse_cli.report.loading import Run
from collapse_cli.report.text import label

GROUPS = (
    "share",
    "quality",
    "rows",
    "real_rows",
    "synthetic_rows",
    "size",
    "weight",
    "iterations",
    "lam",
    "generator_rows",
)
LINES, PANELS = 8, 6  # of a plot, and of an axis
BETWEEN = 40  # points of a curve of theory along an axis that is no count of rows
LOWEST = 10.0  # times below a mean that its error bar may reach on a logarithmic axis
COLOURS = 6
TITLES = {
    "rows": "n, rows in all",
    "real_rows": "real rows",
    "synthetic_rows": "synthetic rows",
    "share": "p2, synthetic share",
    "quality": "c², risk of the labeller",
    "size": "m, model size",
    "lam": "λ, ridge penalty",
    "weight": "α, weight of synthetic rows",
    "iterations": "t, rounds of mixing",
    "generator_rows": "real rows of the generator",
}


@dataclass(frozen=True)
class Line:
    """Cells that differ along one axis alone.

    Attributes:
        value: of the axis that lines are told apart by; None where there is none.
        order: which of its values that is.
        cells: by their place along the horizontal axis.
    """

    value: float | None
    order: int
    cells: Sequence[Point]

    @property
    def colour(self) -> int:
        return self.order % COLOURS

    @property
    def dash(self) -> int:
        return self.order // COLOURS


@dataclass(frozen=True)
class Panel:
    """One plot: lines along an axis, all else at one place."""

    place: Mapping[str, float | None]
    lines: Sequence[Line]


@dataclass(frozen=True)
class Cut:
    """The grid along one axis.

    Attributes:
        by: the axis that lines are told apart by; "" where there is none.
        values: of that axis, those shown.
        notes: what is not shown.
    """

    axis: str
    by: str
    values: Sequence[float]
    panels: Sequence[Panel]
    notes: Sequence[str]


@dataclass(frozen=True)
class Scale:
    """A horizontal axis: logarithmic where that suits, with a marked place for 0.

    Attributes:
        edge: where 0 stands on a logarithmic axis; None where no value is 0.
    """

    log: bool
    low: float
    high: float
    edge: float | None

    def at(self, value: float) -> float:
        return self.edge if self.edge is not None and value == 0 else value


def cells_of(run: Run) -> list[Point]:
    """The cells of a mixture that have its headline measure."""
    return points(run.rows, headline_of(run.config).name, run.config)


def cuts_of(cells: Sequence[Point], tree: Mapping[str, Any]) -> list[Cut]:
    """The grid along each axis that it has."""
    axes = axes_of(cells, tree)
    cuts = []
    for axis in axes:
        by = next((name for name in GROUPS if name in axes and name != axis), "")
        rest = [name for name in axes if name not in (axis, by)]
        values = spaced(axes[by], LINES) if by else []
        places: dict[tuple[float | None, ...], list[Point]] = {}
        for cell in cells:
            places.setdefault(cell.place(rest), []).append(cell)
        ordered = sorted(
            places, key=lambda place: [-math.inf if coordinate is None else coordinate for coordinate in place]
        )
        kept = few(rest, axes)
        chosen = [
            place
            for place in ordered
            if all(coordinate is None or coordinate in kept[name] for name, coordinate in zip(rest, place, strict=True))
        ][:PANELS]
        panels = []
        for place in chosen:
            lines = []
            for order, told_by in enumerate(values or [None]):
                own = [
                    cell for cell in places[place] if (not by or cell.at(by) == told_by) and cell.at(axis) is not None
                ]
                if own:
                    lines.append(Line(told_by, order, sorted(own, key=lambda cell: cell.at(axis) or 0.0)))
            panels.append(Panel(dict(zip(rest, place, strict=True)), lines))
        panels = [panel for panel in panels if any(len(line.cells) > 1 for line in panel.lines)]
        notes = []
        if by and len(values) < len(axes[by]):
            notes.append(f"of {len(axes[by])} values of {NAMES.get(by, by)} {len(values)} are drawn")
        if len(chosen) < len(ordered):
            notes.append(f"of {len(ordered)} places along the other axes {len(chosen)} are drawn")
        if panels:
            if notes:
                notes.append("the table of cells has all")
            cuts.append(Cut(axis, by, values, panels, notes))
    return cuts


def figures_of(run: Run, cut: Cut, name: str) -> list[Figure]:
    """A cut as plots with one vertical scale."""
    top, measure = headline_of(run.config), headline_measure(run.learner, "mixture", headline_of(run.config).name)
    every = [cell for panel in cut.panels for line in panel.lines for cell in line.cells]
    log = top.log and all(cell.mean.mean > TINY for cell in every)
    scale = scale_of(cut, every)
    drawn = [(panel, _traces(run, panel, cut, scale, log)) for panel in cut.panels]
    seen = [y for _, traces in drawn for trace in traces for y in _reach(trace)]
    made = []
    for index, (panel, traces) in enumerate(drawn):
        layout: dict[str, Any] = {
            "xaxis": x_axis(cut.axis, scale, few=len(drawn) > 1),
            "yaxis": {"title": {"text": measure.unit}, "fixedrange": True} | y_axis(seen, log),
            "hovermode": "closest",
        }
        if scale.edge is not None and scale.log:
            middle = math.sqrt(scale.edge * scale.low)
            line = {"color": "rgba(128,128,128,0.6)", "width": 1, "dash": "dot"}
            layout["shapes"] = [
                {"type": "line", "x0": middle, "x1": middle, "y0": 0, "y1": 1, "yref": "paper", "line": line}
            ]
        title = plainly(panel.place) or f"{top.title}"
        ends = "; ".join(_said(line, cut) for line in panel.lines)
        made.append(
            Figure(
                f"{name}_{index}",
                title,
                "",
                "",
                f"{top.title} against {TITLES.get(cut.axis, cut.axis)}{f', {title}' if panel.place else ''}. {ends}.",
                traces,
                layout,
                height=430 if len(drawn) == 1 else 300,
                group="mixture" if log else "",
            )
        )
    return made


def scale_of(cut: Cut, cells: Sequence[Point]) -> Scale:
    """The horizontal axis of a cut."""
    values = sorted({value for cell in cells if (value := cell.at(cut.axis)) is not None})
    positive = [value for value in values if value > 0]
    log = len(positive) > 1 and positive[-1] >= 5 * positive[0] and cut.axis != "iterations" and values[0] >= 0
    if not log:
        return Scale(False, values[0], values[-1], None)
    step = min(4.0, max(2.0, (positive[-1] / positive[0]) ** 0.12))
    return Scale(True, positive[0], positive[-1], positive[0] / step if values[0] == 0 else None)


def theory_points(run: Run, line: Line, axis: str) -> list[tuple[float, float]]:
    """Along a line what theory says: at the cells' own places, and between them where no rows are rounded."""
    points_known = []
    for cell in line.cells:
        value = theory_of(run.config, cell.record)
        if value is None:
            continue
        points_known.append((cell.at(axis) or 0.0, value))
    if len(points_known) < 2 or axis not in ("size", "lam", "weight", "quality"):
        return points_known
    positive = [x for x, _ in points_known if x > 0]
    low, high = positive[0], positive[-1]
    record = line.cells[0].record
    for index in range(1, BETWEEN):
        x = low * (high / low) ** (index / BETWEEN)
        x = float(round(x)) if axis == "size" else x
        value = theory_of(run.config, {**record, axis: x})
        if value is not None:
            points_known.append((x, value))
    return sorted(dict(points_known).items())


def few(names: Sequence[str], axes: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Of some axes so many values that their product has no more than `PANELS` places, the ends of each if possible."""
    counts = {name: len(axes[name]) for name in names}
    while math.prod(counts.values()) > PANELS:
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return {name: spaced(axes[name], count) for name, count in counts.items()}


def spaced(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, the ends among them."""
    if len(values) <= most:
        return list(values)
    if most == 1:
        return [values[-1]]
    return [values[round(index * (len(values) - 1) / (most - 1))] for index in range(most)]


def x_axis(axis: str, scale: Scale, *, few: bool) -> dict[str, Any]:
    """The horizontal axis, as plotly wants it; ticks are few in small plots."""
    made: dict[str, Any] = {"title": {"text": TITLES.get(axis, axis)}, "fixedrange": True}
    if not scale.log:
        room = 0.04 * (scale.high - scale.low) or 1.0
        return made | {"range": [scale.low - room, scale.high + room]}
    ticks = ticks_of(scale, 5 if few else 8)
    ends = [scale.edge or scale.low, scale.high]
    room = 0.04 * math.log10(ends[1] / ends[0])
    return made | {"type": "log", "range": [math.log10(ends[0]) - room, math.log10(ends[1]) + room]} | ticks


def ticks_of(scale: Scale, most: int) -> dict[str, Any]:
    """Round numbers, and 0 at its place."""
    ticks = log_ticks(scale.low, scale.high)
    step = max(1, math.ceil(len(ticks["tickvals"]) / most))
    values, texts = ticks["tickvals"][::step], ticks["ticktext"][::step]
    if scale.edge is not None:
        values, texts = [scale.edge, *values], ["0", *texts]
    return {"tickvals": values, "ticktext": texts}


def y_axis(seen: Sequence[float], log: bool) -> dict[str, Any]:
    """The vertical axis of values."""
    low, high = min(seen), max(seen)
    if not log:
        room = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
        return {"range": [rounded(low - room), rounded(high + room)]}
    low, high = apart(low, high)
    room = 0.04 * math.log10(high / low)
    return {"type": "log", "logrange": [math.log10(low) - room, math.log10(high) + room]} | log_ticks(low, high)


def bar(cell: Point, log: bool) -> tuple[float, float]:
    """Lengths of an error bar, down and up; 0 where there is one seed."""
    if cell.mean.low is None or cell.mean.high is None:
        return 0.0, 0.0
    low = max(cell.mean.low, cell.mean.mean / LOWEST) if log else cell.mean.low
    return cell.mean.mean - low, cell.mean.high - cell.mean.mean


def named(line: Line, cut: Cut) -> str:
    """A line for people: `synthetic share 0.1`."""
    return "" if line.value is None else f"{NAMES.get(cut.by, cut.by)} {amount(cut.by, line.value)}"


def _traces(run: Run, panel: Panel, cut: Cut, scale: Scale, log: bool) -> list[Trace]:
    traces: list[Trace] = []
    for line in panel.lines:
        bars = [bar(cell, log) for cell in line.cells]
        name = named(line, cut)
        traces.append(
            {
                "x": [rounded(scale.at(cell.at(cut.axis) or 0.0)) for cell in line.cells],
                "y": [rounded(cell.mean.mean) for cell in line.cells],
                "mode": "lines+markers",
                "cliponaxis": False,
                "name": label(name or "measured"),
                "customdata": [
                    f"{cut_words(cut.axis, cell)}: {spread(cell.mean)}{'' if cell.mean.n > 1 else ', one seed'}"
                    for cell in line.cells
                ],
                "hovertemplate": f"{label(name)}<br>%{{customdata}}<extra></extra>",
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [rounded(up) for _, up in bars],
                    "arrayminus": [rounded(down) for down, _ in bars],
                },
                "meta": {"role": "mean", "c": line.colour, "d": line.dash},
            }
        )
    for line in panel.lines:
        known = [(x, y) for x, y in theory_points(run, line, cut.axis) if y > TINY or not log]
        if not known:
            continue
        xs = [rounded(scale.at(x)) for x, _ in known]
        ys = [rounded(y) for _, y in known]
        if len(known) == 1:  # a short stroke, for a line of one point is not drawn
            xs = [xs[0] / 1.1, xs[0] * 1.1] if scale.log else [xs[0] - 0.1, xs[0] + 0.1]
            ys = ys * 2
        traces.append(
            {
                "x": xs,
                "y": ys,
                "mode": "lines",
                "name": "theory",
                "hovertemplate": f"theory, {label(named(line, cut))}: %{{y:.4g}}<extra></extra>",
                "meta": {"role": "theory"},
            }
        )
    return traces


def cut_words(axis: str, cell: Point) -> str:
    """Where a cell stands along an axis, and how many rows it has."""
    place = {axis: cell.at(axis)} | ({} if axis == "rows" else {"rows": cell.record["rows"]})
    return plainly(place)


def _reach(trace: Trace) -> list[float]:
    """All that a trace needs room for."""
    ends = trace.get("error_y")
    if ends is None:
        return list(trace["y"])
    below = [y - down for y, down in zip(trace["y"], ends["arrayminus"], strict=True)]
    return [*below, *(y + up for y, up in zip(trace["y"], ends["array"], strict=True))]


def _said(line: Line, cut: Cut) -> str:
    first, last = line.cells[0], line.cells[-1]
    who = named(line, cut)
    return f"{f'{who}: ' if who else ''}{spread(first.mean)} at {cut_words(cut.axis, first)}, {spread(last.mean)} at {cut_words(cut.axis, last)}"
