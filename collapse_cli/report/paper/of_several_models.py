"""Figures of several models: how they stand to each other, and runs with more and fewer of them."""

from collections.abc import Sequence
from typing import Any

from collapse_cli.errors import how_many
from collapse_cli.findings.several_models import Course, between
from collapse_cli.report.figures import apart, log_ticks
from collapse_cli.report.loading import Run, Series
from collapse_cli.report.palette import assigned
from collapse_cli.report.paper.canvas import (
    COLOURS,
    DASHES,
    MARKERS,
    WIDTH,
    legend,
    log_axis,
    new_axes,
    panels,
    plain,
    whole,
)
from collapse_cli.report.several_models import compared


def lineages(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    """Distance between the models, and perplexity of one beside that of all together, of the first run that has several."""
    found = next((there for run in runs if not run.mixture and (there := between(run.rows))), [])
    distances = [one for one in found if len(one.distance) > 1]
    together = [one for one in found if one.single and "mixture_perplexity" in one.together]
    if not distances and not together:
        return None
    colours = assigned([one.policy for one in found])
    figure, grid = panels(bool(distances) + bool(together), 2.4)
    if distances:
        for one in distances:
            _draw(grid[0], one.policy, one.distance, colours[one.policy], 0)
        grid[0].set(xlabel="generation", ylabel="distance between models", ylim=(0, None))
        whole(grid[0])
    if together:
        for one in together:
            _draw(grid[-1], f"{one.policy}, one", one.single, colours[one.policy], 0)
            _draw(grid[-1], f"{one.policy}, all together", one.together["mixture_perplexity"], colours[one.policy], 2)
        grid[-1].set(xlabel="generation", ylabel="perplexity on real test text")
        _logarithmic(
            grid[-1], [course for one in together for course in (one.single, one.together["mixture_perplexity"])]
        )
    legend(figure, grid[-1], WIDTH if len(grid) > 1 else 3.5)
    return figure


def more(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    """Growth of perplexity of runs with one and more lineages."""
    found = compared(runs)
    if found is None:
        return None
    figure, (axes,) = new_axes(1, 1, 3.5, 2.7)
    names = [run.name for run in runs]
    several = len({one.policy for one in found.runs}) > 1
    for at, one in enumerate(found.runs):
        name = f"{one.run}{f', {one.policy}' if several else ''}: {how_many(one.lineages, 'lineage')}"
        _draw(axes, name, one.growth, names.index(one.run), at if several else 0)
    axes.set(xlabel="generation", ylabel="perplexity against generation 0")
    _logarithmic(axes, [one.growth for one in found.runs])
    legend(figure, axes, 3.5)
    return figure


def _draw(axes: Any, name: str, course: Course, colour: int, dash: int) -> None:
    """A mean over lineages with its band over seeds."""
    steps, tone = list(course), COLOURS[colour % len(COLOURS)]
    axes.plot(
        steps,
        [course[g].mean for g in steps],
        color=tone,
        linestyle=DASHES[dash % len(DASHES)],
        marker=MARKERS[colour % len(MARKERS)],
        label=plain(name),
        clip_on=False,
    )
    ends = [(course[g].low, course[g].high) for g in steps]
    if all(low is not None for low, _ in ends):
        axes.fill_between(
            steps, [low for low, _ in ends], [high for _, high in ends], color=tone, alpha=0.18, linewidth=0
        )


def _logarithmic(axes: Any, courses: Sequence[Course]) -> None:
    seen = [
        end
        for course in courses
        for over in course.values()
        for end in (over.mean, over.low, over.high)
        if end is not None
    ]
    axes.set_yscale("log")
    whole(axes)
    low, high = apart(min(seen), max(seen))
    if low < min(seen):
        axes.set_ylim(low, high)
    log_axis(axes.yaxis, log_ticks(low, high))
