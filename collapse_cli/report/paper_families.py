"""Figures for papers of other model families and of mixtures, in the manner of `paper.py`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from collapse_cli.families import Measure, headline, headline_measure, measures_of
from collapse_cli.findings.diagnosis.families import headline_of
from collapse_cli.findings.diagnosis.grid import words
from collapse_cli.report.families import shown, strips_of, theory_of_series
from collapse_cli.report.figures import TINY, apart, bounded, level, log_ticks
from collapse_cli.report.grids import (
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
from collapse_cli.report.paper import (
    COLOURS,
    DASHES,
    MARKERS,
    WIDTH,
    draw_line,
    legend,
    log_axis,
    new_axes,
    panels,
    plain,
    whole,
)
from collapse_cli.report.reading import Run, Series, thinned

STRIPS = 8  # generations of which pictures are shown
THEORY = {"color": "black", "linewidth": 0.9, "linestyle": (0, (4, 2.5)), "zorder": 5}


def _learners(series: Sequence[Series]) -> dict[str, list[Series]]:
    found: dict[str, list[Series]] = {}
    for one in series:
        if not one.run.text:
            found.setdefault(one.run.learner, []).append(one)
    return found


def _headline(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    found = _learners(series)
    drawn = {
        learner: own
        for learner, own in found.items()
        if any(one.by_seed(headline(learner, "generational").name) for one in own)
    }
    if not drawn:
        return None
    figure, grid = panels(len(drawn), 2.7)
    for axes, (learner, own) in zip(grid, drawn.items(), strict=False):
        top = headline(learner, "generational")
        _measured(axes, own, headline_measure(learner, "generational"), log=top.log)
        axes.set(ylabel=top.title, title=plain(learner) if len(drawn) > 1 else "")
    legend(figure, grid[0], WIDTH if len(grid) > 1 else 3.5)
    return figure


def _measures(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    wanted = [
        (own, measure)
        for learner, own in _learners(series).items()
        for measure in measures_of(learner)
        if measure.name != headline(learner, "generational").name and any(one.by_seed(measure.name) for one in own)
    ]
    if not wanted:
        return None
    figure, grid = panels(len(wanted), 1.9)
    for axes, (own, measure) in zip(grid, wanted, strict=False):
        _measured(axes, own, measure, log=False)
        axes.set(title=measure.title, ylabel=measure.unit)
    legend(figure, grid[0], WIDTH if len(grid) > 1 else 3.5)
    return figure


def _measured(axes: Any, series: Sequence[Series], measure: Measure, *, log: bool) -> None:
    """A field by generation, and theory through it."""
    seen: list[float] = []
    said = False
    for one in series:
        means = shown(one, measure, log=log) if log else bounded(one, measure)
        if not means:
            continue
        draw_line(axes, one, means)
        seen += [end for there in means.values() for end in (there.mean, there.low, there.high) if end is not None]
    for one in series:
        theory = {g: y for g, y in theory_of_series(one, measure.name).items() if y > TINY or not log}
        if theory:
            axes.plot(list(theory), list(theory.values()), label=None if said else "theory", **THEORY)
            said = True
    axes.set(xlabel="generation")
    whole(axes)
    if log and seen:
        axes.set_yscale("log")
        low, high = apart(min(seen), max(seen))
        if low < min(seen):
            axes.set_ylim(low, high)
        log_axis(axes.yaxis, log_ticks(low, high))
    elif seen and (ends := level(seen, measure)):
        axes.set_ylim(*ends)
    elif measure.zero and min(seen, default=0.0) >= 0:
        axes.set_ylim(bottom=0)


def _pictures(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    import numpy as np

    found = [(one, strips_of(one)) for one in series]
    found = [(one, {g: strips[g] for g in thinned(sorted(strips), STRIPS)}) for one, strips in found if strips]
    if not found:
        return None
    rows = max(len(strips) for _, strips in found)
    figure, grid = panels(min(len(found), 6), 0.32 * rows + 0.4)
    for axes, (one, strips) in zip(grid, found, strict=False):
        images = []
        for held in strips.values():
            width, height, grey = held.strip()
            images.append(np.frombuffer(grey, np.uint8).reshape(height, width))
        widest = max(image.shape[1] for image in images)
        whole_image = np.concatenate([np.pad(image, ((0, 2), (0, widest - image.shape[1]))) for image in images])
        axes.imshow(whole_image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        middles = np.cumsum([image.shape[0] + 2 for image in images]) - images[0].shape[0] / 2
        axes.set_yticks(middles, [str(g) for g in strips])
        axes.set_xticks([])
        axes.set_title(plain(one.label))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    grid[0].set_ylabel("generation")
    return figure


def _mixture(axis: str, runs: Sequence[Run], series: Sequence[Series]) -> Any:
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
        title = words(panel.place)
        if sum(one.mixture for one in runs) > 1:
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


DRAWN: Mapping[str, Callable[[Sequence[Run], Sequence[Series]], Any]] = {
    "headline": _headline,
    "measures": _measures,
    "pictures": _pictures,
    **{f"mixture_{axis}": partial(_mixture, axis) for axis in TITLES},
}
