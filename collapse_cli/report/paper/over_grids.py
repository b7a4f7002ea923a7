"""Figures of mixtures: the headline measure along an axis of the grid."""

from collections.abc import Sequence
from typing import Any

from collapse_cli.findings.diagnosis.headline import headline_of
from collapse_cli.findings.grid import plainly
from collapse_cli.report.figures import TINY, apart, log_ticks
from collapse_cli.report.grid_figures import (
    TITLES,
    Cut,
    Panel,
    bar,
    cells_of,
    cuts_of,
    named,
    scale_of,
    theory_points,
    ticks_of,
)
from collapse_cli.report.loading import Run, Series
from collapse_cli.report.paper.canvas import (
    COLOURS,
    DASHES,
    MARKERS,
    THEORY,
    WIDTH,
    legend,
    log_axis,
    new_axes,
    panels,
    plain,
)


def mixture(axis: str, runs: Sequence[Run], series: Sequence[Series]) -> Any:
    drawn: list[tuple[Run, Cut, Panel]] = []
    for run in runs:
        if run.mixture:
            for cut in cuts_of(cells_of(run), run.config):
                drawn += [(run, cut, panel) for panel in cut.panels if cut.axis == axis]
    if not drawn:
        return None
    drawn = drawn[:9]
    if len(drawn) == 1:
        figure, grid = new_axes(1, 1, 3.5, 2.9)
    else:
        figure, grid = panels(len(drawn), 2.2)
    theory = False
    for axes, (run, cut, panel) in zip(grid, drawn, strict=False):
        theory = _panel(axes, run, cut, panel, many=len(drawn) > 1, theory=theory)
        title = plainly(panel.place)
        if sum(run_compared.mixture for run_compared in runs) > 1:
            title = f"{plain(run.name)} {title}"
        axes.set_title(title)
    legend(figure, grid[0], WIDTH if len(grid) > 1 else 3.5)
    return figure


def _panel(axes: Any, run: Run, cut: Cut, panel: Panel, *, many: bool, theory: bool) -> bool:
    """One plot; whether theory is named in its legend, or was in an earlier one's."""
    top = headline_of(run.config)
    every = [cell for each in cut.panels for line in each.lines for cell in line.cells]
    log = top.log and all(cell.mean.mean > TINY for cell in every)
    scale = scale_of(cut, every)
    seen = []
    for line in panel.lines:
        xs = [scale.at(cell.at(cut.axis) or 0.0) for cell in line.cells]
        ys = [cell.mean.mean for cell in line.cells]
        bars = [bar(cell, log) for cell in line.cells]
        seen += [y - down for y, (down, _) in zip(ys, bars, strict=True)] + [
            y + up for y, (_, up) in zip(ys, bars, strict=True)
        ]
        axes.errorbar(
            xs,
            ys,
            yerr=[[down for down, _ in bars], [up for _, up in bars]],
            color=COLOURS[line.colour],
            marker=MARKERS[line.colour],
            linestyle=DASHES[line.dash],
            capsize=1.5,
            elinewidth=0.7,
            label=named(line, cut) or None,
        )
    for line in panel.lines:
        known = [(scale.at(x), y) for x, y in theory_points(run, line, cut.axis) if y > TINY or not log]
        if len(known) > 1:
            axes.plot(*zip(*known, strict=True), label=None if theory else "theory", **THEORY)
            seen += [y for _, y in known]
            theory = True
    axes.set(xlabel=TITLES.get(cut.axis, cut.axis), ylabel=top.title if not many else top.name)
    if scale.log:
        axes.set_xscale("log")
        log_axis(axes.xaxis, ticks_of(scale, 3 if many else 6))
        if scale.edge is not None:
            axes.axvline((scale.edge * scale.low) ** 0.5, color="0.6", linewidth=0.6, linestyle=":")
    if log:
        axes.set_yscale("log")
        low, high = apart(min(seen), max(seen))
        if low < min(seen):
            axes.set_ylim(low, high)
        log_axis(axes.yaxis, log_ticks(low, high))
    return theory
