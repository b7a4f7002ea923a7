"""What all figures for papers are drawn with: axes, lines told apart by marker and dash as well as by colour, legends."""

from collections.abc import Sequence
from typing import Any

from collapse_cli.families import Measure
from collapse_cli.metrics.intervals import Interval
from collapse_cli.report.figures import bounded, level
from collapse_cli.report.loading import Series
from collapse_cli.report.palette import colours
from collapse_cli.report.text import one_line

COLOURS = colours()
MARKERS = ("o", "s", "D", "^", "X", "P")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)))
MARKED = 30  # points of a line up to which each has a marker
WIDTH = 7.1  # inches, both columns of a page
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
THEORY = {"color": "black", "linewidth": 0.9, "linestyle": (0, (4, 2.5)), "zorder": 5}


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


def draw_curve(axes: Any, series: Sequence[Series], measure: Measure) -> None:
    seen: list[float] = []
    for line in series:
        if means := bounded(line, measure):
            draw_line(axes, line, means)
            seen += [end for there in means.values() for end in (there.mean, there.low, there.high) if end is not None]
    axes.set(title=measure.title, xlabel="generation", ylabel=measure.unit)
    whole(axes)
    if seen and (ends := level(seen, measure)):
        axes.set_ylim(*ends)
    elif measure.zero and min(seen, default=0.0) >= 0:
        axes.set_ylim(bottom=0)


def draw_line(axes: Any, line: Series, means: dict[int, Interval]) -> None:
    look = line.look
    colour = shaded(COLOURS[look.colour % len(COLOURS)], look.shade)
    marker = MARKERS[(look.colour if not look.shade else look.colour + look.dash) % len(MARKERS)]
    steps = list(means)
    axes.plot(
        steps,
        [means[g].mean for g in steps],
        linestyle=DASHES[look.dash],
        color=colour,
        marker=marker if len(steps) <= MARKED else "",
        label=plain(line.label),
        clip_on=False,
    )
    ends = [(g, means[g].low, means[g].high) for g in steps]
    if all(low is not None for _, low, _ in ends):
        axes.fill_between(steps, [e[1] for e in ends], [e[2] for e in ends], color=colour, alpha=0.18, linewidth=0)


def shaded(colour: str, shade: float) -> str:
    """A hue mixed with white, or below 0 with black."""
    end = 255 if shade > 0 else 0
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return f"#{''.join(f'{round(part + (end - part) * abs(shade)):02x}' for part in parts)}"


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


def plain(text: str) -> str:
    """A name for matplotlib, which reads formulas between dollars, in letters its own font has."""
    return one_line(text).encode("ascii", "replace").decode().replace(" ? ", " / ").replace("$", r"\$")
