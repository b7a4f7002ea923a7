"""Figures for papers: PNG at 300 dpi and SVG whose text is text; told apart by marker and dash as well as by colour."""

from collections.abc import Callable, Sequence
from typing import Any

from collapse_cli.families import INSTRUMENTS, Measure
from collapse_cli.metrics.intervals import Interval
from collapse_cli.report.figures import apart, bounded, exponential, level, log_ticks, perplexities
from collapse_cli.report.markup import dash
from collapse_cli.report.reading import Histogram, Series, pooled
from collapse_cli.report.text import one_line

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#444444")  # after Okabe and Ito
MARKERS = ("o", "s", "D", "^", "X", "P")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)))
MARKED = 30  # points of a line up to which each has a marker
WIDTH = 7.1  # inches, both columns of a page
SHOWN = ("distinct_2", "self_bleu", "unigram_entropy", "rep_4", "near_duplicate_rate", "mauve")
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "collapse",
    "text.usetex": False,
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.2,
    "savefig.dpi": 300,
    "savefig.bbox": "tight",
    "figure.constrained_layout.use": True,
}


def _perplexity(series: Sequence[Series]) -> Any:
    found = [(one, there) for one in series if (there := perplexities(one))]
    if not found:
        return None
    figure, (axes,) = new_axes(1, 1, 3.5, 2.7)
    for one, means in found:
        draw_line(axes, one, means)
    seen = [y for _, means in found for m in means.values() for y in (m.mean, m.low, m.high) if y is not None]
    axes.set(xlabel="generation", ylabel="perplexity on real test text", yscale="log")
    whole(axes)
    low, high = apart(min(seen), max(seen))
    if low < min(seen):
        axes.set_ylim(low, high)
    log_axis(axes.yaxis, log_ticks(low, high))
    legend(figure, axes, 3.5)
    return figure


def _histograms(series: Sequence[Series]) -> Any:
    found: list[tuple[Series, dict[int, Histogram]]] = []
    for one in series:
        there = {g: histogram for g in one.generations if (histogram := pooled(one.at(g))) is not None}
        if there:
            found.append((one, there))
    if not found:
        return None
    figure, grid = panels(len(found), 2.1)
    last = max(max(there) for _, there in found) or 1
    highest = max(max(h.counts) / sum(h.counts) for _, there in found for h in there.values())
    for axes, (one, there) in zip(grid, found, strict=False):
        for g, h in there.items():
            shares = [count / sum(h.counts) for count in h.counts]
            edges = [exponential(h.low + index * h.width) for index in range(len(h.counts) + 1)]
            ends = g in (min(there), max(there))
            axes.stairs(
                shares,
                edges,
                color=_tone(g / last),
                linewidth=1.3 if ends else 0.6,
                linestyle="--" if g == min(there) else "-",
                label=f"generation {g}" if g == min(there) else None,
            )
        axes.set(title=plain(one.label), xscale="log", xlabel="perplexity under generation 0", ylim=(0, highest * 1.05))
        low, high = axes.get_xlim()
        ticks = log_ticks(low, high)
        step = -(-len(ticks["tickvals"]) // 4)  # words as wide as 10,000 four times in a third of a page
        log_axis(axes.xaxis, {name: some[::step] for name, some in ticks.items()})
        axes.set_xlim(low, high)
    _generations(figure, grid[0], sorted({g for _, there in found for g in there}), last)
    grid[0].set_ylabel("share of samples")
    return figure


def _deciles(series: Sequence[Series]) -> Any:
    found = []
    for one in series:
        rows = [one.means("nll_change_by_decile", decile) for decile in range(10)]
        if steps := sorted({g for row in rows for g in row}):
            found.append((one, steps, [[row[g].mean if g in row else float("nan") for g in steps] for row in rows]))
    if not found:
        return None
    figure, grid = panels(len(found), 2.2)
    seen = [z for _, _, rows in found for row in rows for z in row if z == z]
    highest = max(*seen, 1e-3)
    image = None
    for axes, (one, steps, changes) in zip(grid, found, strict=False):
        image = axes.imshow(
            changes, aspect="auto", origin="lower", cmap="cividis_r", vmin=min(0.0, *seen), vmax=highest
        )
        for decile, row in enumerate(changes):
            for column, z in enumerate(row):
                if z < -0.02 * highest:  # better than generation 0: one colour scale cannot say it in grey
                    axes.text(column, decile, "−", ha="center", va="center", fontsize=6)
        shown = range(0, len(steps), max(1, len(steps) // 8))
        axes.set_xticks(list(shown), [str(steps[index]) for index in shown])
        axes.set_yticks([0, 9], ["frequent", "rare"])
        axes.set(title=plain(one.label), xlabel="generation")
    bar = figure.colorbar(image, ax=grid)
    bar.set_label("nats/token above generation 0")
    return figure


def _diversity(series: Sequence[Series]) -> Any:
    measures = [
        measure for measure in INSTRUMENTS if measure.name in SHOWN and any(one.by_seed(measure.name) for one in series)
    ]
    if not measures:
        return None
    figure, grid = panels(len(measures), 1.9)
    for axes, measure in zip(grid, measures, strict=False):
        draw_curve(axes, series, measure)
    legend(figure, grid[0], WIDTH if len(grid) > 1 else 3.5)
    return figure


def whole(axes: Any) -> None:
    """Ticks of generations: whole numbers, and 0 alone where there is nothing else."""
    if axes.dataLim.width > 0:
        axes.xaxis.get_major_locator().set_params(integer=True)
    else:
        axes.set_xticks([0])


def legend(figure: Any, axes: Any, width: float) -> None:
    """Names of the lines above all plots, where no data can be; as many a row as `width` inches hold."""
    lines, names = axes.get_legend_handles_labels()
    if names:
        order = sorted(range(len(names)), key=lambda index: names[index] == "theory")  # theory last
        lines, names = [lines[index] for index in order], [names[index] for index in order]
        letters = max(len(name) for name in names)
        each = letters * 0.055 + 0.5  # inches: letters of 7 points, the sign and what is between
        columns = max(1, min(len(names), int(width / each)))
        more = -(-len(names) // columns) - 2
        figure.set_figheight(figure.get_figheight() + 0.15 * max(0, more))  # many names must not squeeze the plots
        figure.legend(lines, names, loc="outside upper center", ncols=columns, handlelength=3.2)


def _generations(figure: Any, axes: Any, steps: Sequence[int], last: int) -> None:
    """First and last generation, and what is drawn between."""
    from matplotlib.lines import Line2D

    first, *between = steps
    lines = [Line2D([], [], color=_tone(first / last), linestyle="--", linewidth=1.3)]
    names = [f"generation {first}"]
    if len(between) > 1:
        lines.append(Line2D([], [], color=_tone(between[(len(between) - 1) // 2] / last), linewidth=0.6))
        told = between[:-1]
        names.append(f"generation {told[0]}" if len(told) == 1 else f"each between ({told[0]} to {told[-1]})")
    if between:
        lines.append(Line2D([], [], color=_tone(between[-1] / last), linewidth=1.3))
        names.append(f"generation {between[-1]}")
    figure.legend(lines, names, loc="outside upper center", ncols=1 if axes.figure.get_figwidth() < WIDTH else 3)


def draw_curve(axes: Any, series: Sequence[Series], measure: Measure) -> None:
    seen: list[float] = []
    for one in series:
        if means := bounded(one, measure):
            draw_line(axes, one, means)
            seen += [end for there in means.values() for end in (there.mean, there.low, there.high) if end is not None]
    axes.set(title=measure.title, xlabel="generation", ylabel=measure.unit)
    whole(axes)
    if seen and (ends := level(seen, measure)):
        axes.set_ylim(*ends)
    elif measure.zero and min(seen, default=0.0) >= 0:
        axes.set_ylim(bottom=0)


def draw_line(axes: Any, one: Series, means: dict[int, Interval]) -> None:
    colour, marker = COLOURS[one.colour % len(COLOURS)], MARKERS[one.colour % len(MARKERS)]
    steps = list(means)
    axes.plot(
        steps,
        [means[g].mean for g in steps],
        linestyle=DASHES[dash(one.run_index)],
        color=colour,
        marker=marker if len(steps) <= MARKED else "",
        label=plain(one.label),
        clip_on=False,
    )
    ends = [(g, means[g].low, means[g].high) for g in steps]
    if all(low is not None for _, low, _ in ends):
        axes.fill_between(steps, [e[1] for e in ends], [e[2] for e in ends], color=colour, alpha=0.18, linewidth=0)


def new_axes(rows: int, columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, squeeze=False)
    return figure, list(grid.flat)


def panels(count: int, height: float) -> tuple[Any, list[Any]]:
    columns = min(count, 3)
    rows = -(-count // columns)
    figure, grid = new_axes(rows, columns, WIDTH if columns > 1 else 3.5, height * rows)
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def log_axis(axis: Any, ticks: dict[str, Any]) -> None:
    from matplotlib.ticker import NullLocator

    axis.set_minor_locator(NullLocator())
    axis.set_ticks(ticks["tickvals"], ticks["ticktext"])


def _tone(t: float) -> Any:
    from matplotlib import colormaps

    return colormaps["cividis_r"](0.12 + 0.88 * t)


def plain(text: str) -> str:
    """A name for matplotlib, which reads formulas between dollars, in letters its own font has."""
    return one_line(text).encode("ascii", "replace").decode().replace(" ? ", " / ").replace("$", r"\$")


TEXTS: dict[str, Callable[[Sequence[Series]], Any]] = {
    "perplexity": _perplexity,
    "histograms": _histograms,
    "deciles": _deciles,
    "diversity": _diversity,
}
