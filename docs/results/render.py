"""A run as a Markdown table and a picture: .venv/bin/python docs/results/render.py RUN_FOLDER PICTURE.png

Reads `metrics.jsonl` and `run.json` alone. The table goes to standard output.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from collapse_cli.findings.diagnosis import diagnose
from collapse_cli.metrics.intervals import Interval, interval
from collapse_cli.metrics.numbers import change, perplexity
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.terminal.run import protocols

COLOURS = ("#c0392b", "#d68910", "#1f618d", "#1e8449", "#6c3483")
Series = dict[tuple[str, int], list[float]]


def collect(rows: Sequence[Row]) -> Series:
    """Perplexities by (policy, generation), one for each seed."""
    found: Series = {}
    for row in rows:
        if (value := row.perplexity) is not None:
            found.setdefault((row.where.policy, row.where.generation), []).append(value)
    return found


def geometric(values: Sequence[float]) -> Interval:
    """The geometric mean with the interval of the mean logarithm."""
    return interval([math.log(value) for value in values]).within(math.exp)


def table(rows: Sequence[Row], names: Sequence[str], generations: int) -> str:
    """Perplexity by generation and policy and its change from generation 0: of several seeds geometric means.

    With them the 95% t interval of the mean logarithm: seeds differ by factors, and no end of it can be below 0.
    """
    series = collect(rows)
    ratios = {str(one.arm): one.ratios for one in diagnose(rows).arms}
    lines = ["| generation | " + " | ".join(names) + " |", "|---:|" + "---:|" * len(names)]
    for generation in range(generations + 1):
        cells = []
        for name in names:
            found = geometric(series[name, generation])
            said = perplexity(found.mean)
            if found.low is not None and found.high is not None:
                said += f", {perplexity(found.low)} to {perplexity(found.high)}"
            cells.append(said + (f" ({change(ratios[name][generation].mean, 1)})" if generation else ""))
        lines.append(f"| {generation} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(series: Series, names: Sequence[str], generations: int, title: str, target: Path) -> None:
    """Perplexity on a logarithmic axis by generation: a line per policy, thin ones for its seeds where there are several."""
    figure, axes = plt.subplots(figsize=(7.2, 4.3), dpi=160, layout="constrained")
    steps = range(generations + 1)
    ends: list[tuple[float, str, str]] = []
    for name, colour in zip(names, COLOURS, strict=False):
        values = [series[name, generation] for generation in steps]
        means = [geometric(each).mean for each in values]
        if len(values[0]) > 1:
            for seed in zip(*values, strict=True):
                axes.plot(steps, seed, color=colour, linewidth=0.8, alpha=0.35)
        axes.plot(steps, means, color=colour, linewidth=2.2, marker="o", markersize=4.5)
        ends.append((means[-1], f"{name}  {perplexity(means[-1])}", colour))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.2, generations * 1.27)
    axes.set_xticks(list(steps))
    axes.spines["bottom"].set_bounds(-0.2, generations)
    low, high = axes.get_ylim()
    gap, floor = 0.05 * math.log(high / low), -math.inf
    for value, label, colour in sorted(ends):  # from below, each at least a line's height above the one before
        floor = max(math.log(value), floor + gap)
        axes.text(generations * 1.02, math.exp(floor), label, color=colour, va="center", fontweight="bold")
    axes.set_xlabel("generation")
    axes.set_ylabel("perplexity on real test text")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, facecolor="white")


def main() -> None:
    """Print the table and save the picture."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    path = Path(sys.argv[1])
    run = RunFolder(path.resolve().parent, path.resolve().name)
    rows = run.rows()
    names = list(map(str, run.config().loop.policies))
    generations = max(row.where.generation for row in rows)
    seeds = sorted({row.where.seed for row in rows})
    print(table(rows, names, generations))
    print()
    said = f"geometric mean of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    how = "and its 95% interval; change: the same of the ratios to generation 0"
    print("; ".join([f"{said} {how}" if len(seeds) > 1 else said, *protocols(rows)]))
    thin = "; thin lines: single seeds" if len(seeds) > 1 else ""
    picture(collect(rows), names, generations, f"{run.name} ({said}{thin})", Path(sys.argv[2]))


if __name__ == "__main__":
    main()
