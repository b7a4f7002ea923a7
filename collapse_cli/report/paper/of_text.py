"""Figures of generations of models of text: perplexity, histograms, deciles, diversity."""

from collections.abc import Sequence
from typing import Any

from collapse_cli.families import INSTRUMENTS
from collapse_cli.records.fields import Histogram
from collapse_cli.report.decile_maps import root, ticks_of
from collapse_cli.report.figures import NEAR, apart, exponential, log_ticks, perplexities
from collapse_cli.report.histograms import OVERLAP, chosen
from collapse_cli.report.loading import Run, Series, pooled
from collapse_cli.report.paper.canvas import (
    WIDTH,
    draw_curve,
    draw_line,
    legend,
    log_axis,
    new_axes,
    panels,
    plain,
    whole,
)
from collapse_cli.report.summaries import ceilings

SHOWN = ("distinct_2", "self_bleu", "unigram_entropy", "rep_4", "near_duplicate_rate", "mauve")


def _texts(series: Sequence[Series]) -> list[Series]:
    return [line for line in series if line.run.text]


def perplexity(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    drawn = [(line, there) for line in _texts(series) if (there := perplexities(line))]
    if not drawn:
        return None
    figure, (axes,) = new_axes(1, 1, 3.5, 2.7)
    for line, means in drawn:
        draw_line(axes, line, means)
    seen = [y for _, means in drawn for m in means.values() for y in (m.mean, m.low, m.high) if y is not None]
    axes.set(xlabel="generation", ylabel="perplexity on real test text", yscale="log")
    whole(axes)
    near = sorted({size for size in ceilings(runs) if size <= NEAR * max(seen)})
    for size in near:
        axes.axhline(size, color="0.45", linewidth=0.8, linestyle=":", label=f"guessing evenly: {size:,}")
    low, high = apart(min(seen), max([*seen, *near]))
    if low < min(seen):
        axes.set_ylim(low, high)
    log_axis(axes.yaxis, log_ticks(low, high))
    legend(figure, axes, 3.5)
    return figure


def histograms(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    drawn: list[tuple[Series, dict[int, Histogram]]] = []
    for line in _texts(series):
        there = {g: histogram for g in line.generations if (histogram := pooled(line.at(g))) is not None}
        if there:
            drawn.append((line, there))
    if not drawn:
        return None
    steps = chosen(sorted({g for _, there in drawn for g in there}))
    figure, grid = panels(len(drawn), 0.9 + 0.16 * len(steps))
    highest = max(max(h.counts) / sum(h.counts) for _, there in drawn for h in there.values())
    for axes, (line, there) in zip(grid, drawn, strict=False):
        for row, g in enumerate(steps):
            if g in there:
                _ridge(axes, there[g], len(steps) - 1 - row, highest, row / max(1, len(steps) - 1))
        axes.set(title=plain(line.label), xscale="log", xlabel="perplexity under generation 0")
        axes.set_yticks(range(len(steps)), [f"{g:,}" for g in reversed(steps)])
        axes.set_ylim(-0.15, len(steps) - 1 + OVERLAP + 0.1)
        low, high = axes.get_xlim()
        ticks = log_ticks(low, high)
        step = -(-len(ticks["tickvals"]) // 4)  # words as wide as 10,000 four times in a third of a page
        log_axis(axes.xaxis, {name: some[::step] for name, some in ticks.items()})
        axes.set_xlim(low, high)
    grid[0].set_ylabel("generation")
    return figure


def _ridge(axes: Any, h: Histogram, base: int, highest: float, t: float) -> None:
    """Shares of one generation above its base; those of later generations lie before it."""
    total = sum(h.counts)
    centres = [exponential(h.low + (index - 0.5) * h.width) for index in range(len(h.counts) + 2)]
    tops = [base + OVERLAP * share / highest for share in (0.0, *(count / total for count in h.counts), 0.0)]
    axes.fill_between(centres, tops, base, color=_tone(t), alpha=0.6, linewidth=0, zorder=20 - base)
    axes.plot(centres, tops, color=_tone(t), linewidth=0.8, zorder=20.5 - base)


def deciles(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    drawn = []
    for line in _texts(series):
        rows = [line.means("nll_change_by_decile", decile) for decile in range(10)]
        if steps := sorted({g for row in rows for g in row}):
            drawn.append((line, steps, [[row[g].mean if g in row else float("nan") for g in steps] for row in rows]))
    if not drawn:
        return None
    figure, grid = panels(len(drawn), 2.2)
    seen = [z for _, _, rows in drawn for row in rows for z in row if z == z]
    lowest, highest = min(0.0, *seen), max(*seen, 1e-3)
    image = None
    for axes, (line, steps, changes) in zip(grid, drawn, strict=False):
        image = axes.imshow(
            [[root(z) for z in row] for row in changes],
            aspect="auto",
            origin="lower",
            cmap="cividis_r",
            vmin=root(lowest),
            vmax=root(highest),
        )
        for decile, row in enumerate(changes):
            for column, z in enumerate(row):
                if z < -0.02 * highest:  # better than generation 0: one colour scale cannot say it in grey
                    axes.text(column, decile, "−", ha="center", va="center", fontsize=6)
        shown = range(0, len(steps), max(1, len(steps) // 8))
        axes.set_xticks(list(shown), [str(steps[index]) for index in shown])
        axes.set_yticks([0, 9], ["frequent", "rare"])
        axes.set(title=plain(line.label), xlabel="generation")
    bar = figure.colorbar(image, ax=grid)
    ticks = ticks_of(lowest, highest)
    bar.set_ticks([root(tick) for tick in ticks], labels=[f"{tick:+g}" if tick else "0" for tick in ticks])
    bar.set_label("nats/token above generation 0")
    return figure


def diversity(runs: Sequence[Run], series: Sequence[Series]) -> Any:
    texts = _texts(series)
    measures = [
        measure
        for measure in INSTRUMENTS
        if measure.name in SHOWN and any(line.by_seed(measure.name) for line in texts)
    ]
    if not measures:
        return None
    figure, grid = panels(len(measures), 1.9)
    for axes, measure in zip(grid, measures, strict=False):
        draw_curve(axes, texts, measure)
    legend(figure, grid[0], WIDTH if len(grid) > 1 else 3.5)
    return figure


def _tone(t: float) -> Any:
    from matplotlib import colormaps

    return colormaps["cividis_r"](0.12 + 0.88 * t)
