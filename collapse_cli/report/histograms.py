"""Histograms of how surprising samples are, a plot for every policy on common axes."""

import math
from collections.abc import Sequence
from typing import Any

from collapse_cli.metrics.numbers import value
from collapse_cli.records.fields import Histogram
from collapse_cli.report.figures import EXPONENT, Figure, exponential, layout_of, log_ticks, rounded
from collapse_cli.report.loading import Series, pooled


def histograms(series: Sequence[Series]) -> list[Figure]:
    """Log-perplexity of samples under generation 0, generations overlaid, a plot per series on common axes."""
    pooled_of: dict[int, dict[int, Histogram]] = {}
    for line in series:
        for g in line.generations:
            if (histogram := pooled(line.at(g))) is not None:
                pooled_of.setdefault(line.index, {})[g] = histogram
    if not pooled_of:
        return []
    lows = [h.low for there in pooled_of.values() for h in there.values()]
    highs = [h.low + len(h.counts) * h.width for there in pooled_of.values() for h in there.values()]
    low, high = min(lows), max(highs)
    peak = max(max(h.counts) / sum(h.counts) for there in pooled_of.values() for h in there.values())
    least = min(1 / sum(h.counts) for there in pooled_of.values() for h in there.values())
    latest = max(max(there) for there in pooled_of.values())  # of all plots: the key of colours is common to them
    figures = []
    for line in series:
        if line.index not in pooled_of:
            continue
        there = pooled_of[line.index]
        last = max(there)
        traces = []
        for g, h in there.items():
            total = sum(h.counts)
            centres = [h.low + (index - 0.5) * h.width for index in range(len(h.counts) + 2)]
            shares = [0.0, *(count / total for count in h.counts), 0.0]
            traces.append(
                {
                    "x": [rounded(x) for x in centres],
                    "y": [rounded(y) for y in shares],
                    "mode": "lines",
                    "line": {"shape": "hvh"},
                    "name": f"generation {g}",
                    "customdata": [rounded(exponential(x)) for x in centres],
                    "hovertemplate": f"generation {g}: %{{y:.2%}} of samples<br>perplexity %{{customdata:.3g}}<extra></extra>",
                    "meta": {
                        "s": line.index,
                        "role": "wave",
                        "t": g / latest if latest else 0.0,
                        "g": g,
                        "last": g == last,
                    },
                }
            )
        layout = layout_of("share of samples", 0)
        layout["xaxis"] = {
            "title": {"text": "perplexity of a sample under generation 0"},
            "range": [low, high],
            "fixedrange": True,
        } | _spaced(low, high)
        layout["yaxis"] |= {"range": [0, rounded(peak * 1.05)], "tickformat": ".0%"}
        layout["yaxis"]["logrange"] = [math.log10(least / 1.5), math.log10(peak * 1.5)]
        layout["hovermode"] = "closest"
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
                height=300,
                series=line,
                group="histograms",
            )
        )
    return figures


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
