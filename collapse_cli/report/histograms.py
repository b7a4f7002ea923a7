"""Histograms of how surprising samples are, as ridges: a plot for every policy on common axes, a ridge a generation."""

import math
from collections.abc import Sequence
from typing import Any

from collapse_cli.metrics.numbers import value
from collapse_cli.records.fields import Histogram
from collapse_cli.report.figures import EXPONENT, Figure, exponential, layout_of, log_ticks, rounded
from collapse_cli.report.loading import Series, pooled

RIDGES = 12  # generations of a plot
OVERLAP = 2.2  # rows that the highest peak reaches over


def histograms(series: Sequence[Series]) -> list[Figure]:
    """Log-perplexity of samples under generation 0, a ridge for each generation, a plot per series on common axes.

    The page's script lays the ridges out; traces hold plain shares.
    """
    pooled_of: dict[int, dict[int, Histogram]] = {}
    for line in series:
        for g in line.generations:
            if (histogram := pooled(line.at(g))) is not None:
                pooled_of.setdefault(line.index, {})[g] = histogram
    if not pooled_of:
        return []
    steps = chosen(sorted({g for there in pooled_of.values() for g in there}))
    pooled_of = {index: {g: h for g, h in there.items() if g in steps} for index, there in pooled_of.items()}
    lows = [h.low for there in pooled_of.values() for h in there.values()]
    highs = [h.low + len(h.counts) * h.width for there in pooled_of.values() for h in there.values()]
    low, high = min(lows), max(highs)
    peak = max(max(h.counts) / sum(h.counts) for there in pooled_of.values() for h in there.values())
    least = min(1 / sum(h.counts) for there in pooled_of.values() for h in there.values())
    figures = []
    for line in series:
        if line.index not in pooled_of:
            continue
        there = pooled_of[line.index]
        traces = [_ridge(line, h, g, steps) for g, h in there.items()]
        layout = layout_of("generation", 0)
        layout["xaxis"] = {
            "title": {"text": "perplexity under generation 0"},
            "range": [low, high],
            "fixedrange": True,
        } | _spaced(low, high)
        rows = len(steps)
        layout["yaxis"] |= {
            "range": [-0.15, rows - 1 + OVERLAP + 0.1],
            "tickvals": [rows - 1 - at for at in range(rows)],
            "ticktext": [f"{g:,}" for g in steps],
            "ridges": {"peak": rounded(peak), "least": rounded(least / 1.5), "overlap": OVERLAP},
        }
        layout["hovermode"] = "closest"
        if 0 in there:
            middle = _median(there[0])
            dotted = {"color": "rgba(128,128,128,0.7)", "width": 1, "dash": "dot"}
            layout["shapes"] = [
                {"type": "line", "x0": middle, "x1": middle, "y0": 0, "y1": 1, "yref": "paper", "line": dotted}
            ]
        medians = ", ".join(f"generation {g} {value(exponential(_median(h)))}" for g, h in there.items())
        figures.append(
            Figure(
                f"histogram_{line.index}",
                line.label,
                "",
                "",
                f"Histograms of the perplexity of samples under generation 0, {line.label}. Medians: {medians}.",
                traces,
                layout,
                height=430,
                series=line,
                group="histograms",
            )
        )
    return figures


def chosen(steps: Sequence[int]) -> list[int]:
    """At most `RIDGES` generations, spaced evenly, the ends among them."""
    if len(steps) <= RIDGES:
        return list(steps)
    return [steps[round(at * (len(steps) - 1) / (RIDGES - 1))] for at in range(RIDGES)]


def _ridge(line: Series, h: Histogram, g: int, steps: Sequence[int]) -> dict[str, Any]:
    """The shares of one generation; the first stands at the top, the later ones before it."""
    total = sum(h.counts)
    centres = [h.low + (index - 0.5) * h.width for index in range(len(h.counts) + 2)]
    shares = [0.0, *(count / total for count in h.counts), 0.0]
    row = steps.index(g)
    return {
        "x": [rounded(x) for x in centres],
        "y": [rounded(y) for y in shares],
        "mode": "lines",
        "name": f"generation {g}",
        "hoveron": "points",
        "customdata": [[rounded(exponential(x)), rounded(y)] for x, y in zip(centres, shares, strict=True)],
        "hovertemplate": f"generation {g}: %{{customdata[1]:.2%}} of samples<br>near perplexity %{{customdata[0]:.3g}}"
        "<extra></extra>",
        "meta": {
            "s": line.index,
            "role": "ridge",
            "t": row / (len(steps) - 1) if len(steps) > 1 else 0.0,
            "g": g,
            "base": len(steps) - 1 - row,
        },
    }


def _median(h: Histogram) -> float:
    half, seen = sum(h.counts) / 2, 0.0
    for index, count in enumerate(h.counts):
        if (seen := seen + count) >= half:
            return float(h.low + (index + 0.5) * h.width)
    return float(h.low)


def _spaced(low: float, high: float) -> dict[str, Any]:
    """Ticks in perplexity for an axis in nats."""
    low, high = max(low, -EXPONENT), min(high, EXPONENT)
    ticks = log_ticks(math.exp(low), math.exp(high))
    step = max(1, math.ceil(len(ticks["tickvals"]) / 6))
    chosen = ticks["tickvals"][::step]
    return {"tickvals": [math.log(tick) for tick in chosen], "ticktext": ticks["ticktext"][::step]}
