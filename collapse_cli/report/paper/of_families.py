"""Figures of generations of other model families: headline measure, the others, pictures."""

from collections.abc import Sequence
from typing import Any

from collapse_cli import families
from collapse_cli.families import Measure, headline_measure, measures_of
from collapse_cli.report.figures import TINY, apart, bounded, level, log_ticks
from collapse_cli.report.generated_images import strip
from collapse_cli.report.loading import Run, Series, thinned
from collapse_cli.report.other_families import shown, strips_of, theory_of_series
from collapse_cli.report.paper.canvas import THEORY, WIDTH, draw_line, legend, log_axis, panels, plain, whole

STRIPS = 8  # generations of which pictures are shown


def _learners(series: Sequence[Series]) -> dict[str, list[Series]]:
    by_learner: dict[str, list[Series]] = {}
    for line in series:
        if not line.run.text:
            by_learner.setdefault(line.run.learner, []).append(line)
    return by_learner


def headline(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    by_learner = _learners(series)
    drawn = {
        learner: own
        for learner, own in by_learner.items()
        if any(line.by_seed(families.headline(learner, "generational").name) for line in own)
    }
    if not drawn:
        return None
    figure, grid = panels(len(drawn), 2.7)
    for axes, (learner, own) in zip(grid, drawn.items(), strict=False):
        top = families.headline(learner, "generational")
        _measured(axes, own, headline_measure(learner, "generational"), log=top.log)
        axes.set(ylabel=top.title, title=plain(learner) if len(drawn) > 1 else "")
    legend(figure, grid[0], WIDTH if len(grid) > 1 else 3.5)
    return figure


def measures(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    wanted = [
        (own, measure)
        for learner, own in _learners(series).items()
        for measure in measures_of(learner)
        if measure.name != families.headline(learner, "generational").name
        and any(line.by_seed(measure.name) for line in own)
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
    named = False
    for line in series:
        means = shown(line, measure, log=log) if log else bounded(line, measure)
        if not means:
            continue
        draw_line(axes, line, means)
        seen += [end for there in means.values() for end in (there.mean, there.low, there.high) if end is not None]
    for line in series:
        theory = {g: y for g, y in theory_of_series(line, measure.name).items() if y > TINY or not log}
        if theory:
            axes.plot(list(theory), list(theory.values()), label=None if named else "theory", **THEORY)
            named = True
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


def pictures(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    import numpy as np

    strips_of_lines = [(line, strips_of(line)) for line in series]
    strips_of_lines = [
        (line, {g: strips[g] for g in thinned(sorted(strips), STRIPS)}) for line, strips in strips_of_lines if strips
    ]
    if not strips_of_lines:
        return None
    rows = max(len(strips) for _, strips in strips_of_lines)
    figure, grid = panels(min(len(strips_of_lines), 6), 0.32 * rows + 0.4)
    for axes, (line, strips) in zip(grid, strips_of_lines, strict=False):
        images = []
        for held in strips.values():
            width, height, grey = strip(held)
            images.append(np.frombuffer(grey, np.uint8).reshape(height, width))
        widest = max(image.shape[1] for image in images)
        whole_image = np.concatenate([np.pad(image, ((0, 2), (0, widest - image.shape[1]))) for image in images])
        axes.imshow(whole_image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        middles = np.cumsum([image.shape[0] + 2 for image in images]) - images[0].shape[0] / 2
        axes.set_yticks(middles, [str(g) for g in strips])
        axes.set_xticks([])
        axes.set_title(plain(line.label))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    grid[0].set_ylabel("generation")
    return figure
