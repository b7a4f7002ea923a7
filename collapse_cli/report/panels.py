"""Plots of which every policy has one of its own, on common scales: histograms of samples, maps of deciles."""

import math
from collections.abc import Sequence
from typing import Any

from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import spread, value
from collapse_cli.report.figures import EXPONENT, Figure, exponential, layout_of, log_ticks, rounded
from collapse_cli.report.reading import Histogram, Series, pooled


def histograms(series: Sequence[Series]) -> list[Figure]:
    """Log-perplexity of samples under generation 0, generations overlaid, a plot per series on common axes."""
    found: dict[int, dict[int, Histogram]] = {}
    for one in series:
        for g in one.generations:
            if (histogram := pooled(one.at(g))) is not None:
                found.setdefault(one.index, {})[g] = histogram
    if not found:
        return []
    lows = [h.low for there in found.values() for h in there.values()]
    highs = [h.low + len(h.counts) * h.width for there in found.values() for h in there.values()]
    low, high = min(lows), max(highs)
    peak = max(max(h.counts) / sum(h.counts) for there in found.values() for h in there.values())
    least = min(1 / sum(h.counts) for there in found.values() for h in there.values())
    latest = max(max(there) for there in found.values())  # of all plots: the key of colours is common to them
    figures = []
    for one in series:
        if one.index not in found:
            continue
        there = found[one.index]
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
                        "s": one.index,
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
                f"histogram_{one.index}",
                one.label,
                "",
                "",
                f"Histograms of the perplexity of samples under generation 0, {one.label}. Medians: {medians}.",
                traces,
                layout,
                height=300,
                series=one,
                group="histograms",
            )
        )
    return figures


def heat(series: Sequence[Series]) -> list[Figure]:
    """Loss by frequency decile against generation 0, a map per series, one scale of colour for all."""
    found = {}
    for one in series:
        cells = {
            (g, decile): there for decile in range(10) for g, there in one.means("nll_change_by_decile", decile).items()
        }
        if cells:
            found[one.index] = cells
    if not found:
        return []
    largest = max(abs(there.mean) for cells in found.values() for there in cells.values()) or 1.0
    figures = []
    for one in series:
        if one.index not in found:
            continue
        cells = found[one.index]
        generations = sorted({g for g, _ in cells})
        z: list[list[float | None]] = []
        marks: list[list[str]] = []
        said = []
        for decile in range(10):
            row = [cells.get((g, decile)) for g in generations]
            z.append([None if there is None else rounded(there.mean) for there in row])
            sure = [_beyond_zero(one, g, decile, there) for g, there in zip(generations, row, strict=True)]
            marks.append(["•" if yes else "" for yes in sure])
            said.append([f"decile {decile + 1}", *(spread(there) for there in row)])
        layout = layout_of("", 0)
        layout["xaxis"] = {"title": {"text": "generation"}, "type": "category", "fixedrange": True}
        layout["yaxis"] = {
            "tickvals": [0, 4, 9],
            "ticktext": ["frequent", "middle", "rare"],
            "fixedrange": True,
            "showgrid": False,
        }
        layout["hovermode"] = "closest"
        trace = {
            "type": "heatmap",
            "x": [str(g) for g in generations],
            "y": list(range(10)),
            "z": z,
            "zmin": -rounded(largest),
            "zmax": rounded(largest),
            "zmid": 0,
            "text": marks,
            "texttemplate": "%{text}",
            "customdata": [[decile + 1] * len(generations) for decile in range(10)],
            "hovertemplate": "generation %{x}, decile %{customdata}<br>%{z:+.3f} nats/token<extra></extra>",
            "xgap": 1,
            "ygap": 1,
            "colorbar": {"thickness": 10, "title": {"text": "nats", "side": "right"}, "outlinewidth": 0, "len": 1},
            "meta": {"s": one.index, "role": "heat"},
        }
        last = generations[-1]
        at_last = [cells.get((last, decile)) for decile in (0, 9)]
        figures.append(
            Figure(
                f"deciles_{one.index}",
                one.label,
                "",
                "",
                f"Change of loss by frequency decile against generation 0, {one.label}. At generation {last}: most "
                f"frequent {spread(at_last[0])}, rarest {spread(at_last[1])} nats per token.",
                [trace],
                layout,
                height=280,
                series=one,
                numbers=(["", *(f"generation {g}" for g in generations)], said),
            )
        )
    return figures


def _beyond_zero(one: Series, generation: int, decile: int, there: Interval | None) -> bool:
    """Whether a change is further from 0 than its interval; over test rows where there is one seed."""
    if there is None:
        return False
    if there.low is not None and there.high is not None:
        return there.low > 0 or there.high < 0
    errors = [row.get("nll_change_by_decile_se") for row in one.at(generation) if row["seed"] in one.counted]
    error = errors[0][decile] if len(errors) == 1 and errors[0] is not None else None
    return error is not None and abs(there.mean) > 1.96 * error


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
