"""Interactive plots as plain plotly figures, without colours: the page's script paints them for light, dark and paper.

A trace's `meta` says what it is: {"s": index of its series, "role": mean | band | edge | seed | theory | floor | wave,
"t": 0..1 of a generation}. Building dicts by hand keeps plotly's Python half (seconds of import) out of the way.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collapse_cli.families import SHARE, Measure
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import percent, spread, value
from collapse_cli.report.loading import Series
from collapse_cli.report.text import label

Trace = dict[str, Any]
SEEDS = 12  # up to which each is drawn, faintly
MARKED = 60  # generations up to which each has a marker
EXPONENT = 690.0  # the largest whose exponential is a float with room to spare
TINY = 1e-250  # no logarithmic axis goes below
NEAR = 20.0  # times the largest perplexity: a ceiling beyond that is named, and not on the axis
TICKS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)


@dataclass(frozen=True)
class Figure:
    """A plot and the words around it.

    Attributes:
        name: unique in the page; of the element's id.
        title, reading, misses: plain text.
        alt: what the plot shows, for those who cannot see it.
        height: pixels.
        series: the one series it is about, where it is about one.
        group: plots with a common switch of the axis.
        numbers: the same as a table: names of columns, and rows of cells.
        still: the one value that all of it has, in words; "" where something moves.
        policy: the number of the one policy it is about, where it is about all lineages of one.
        row: of a map what its rows are.
    """

    name: str
    title: str
    reading: str
    misses: str
    alt: str
    traces: Sequence[Trace]
    layout: Mapping[str, Any]
    height: int = 240
    series: Series | None = None
    group: str = ""
    numbers: tuple[Sequence[str], Sequence[Sequence[str]]] = ((), ())
    columns: Sequence[Series] = field(default=())
    still: str = ""
    policy: int | None = None
    row: str = ""


def exponential(nats: float) -> float:
    """Perplexity of a log-perplexity, kept within what a plot can hold."""
    return math.exp(max(-EXPONENT, min(nats, EXPONENT)))


def perplexity(series: Sequence[Series], floors: Mapping[int, float], ceilings: Collection[int]) -> Figure | None:
    """Perplexity on real test text by generation; the mean over seeds is one of log-perplexities.

    Args:
        floors: by run, the entropy rate of the data in nats per token, where it is known.
        ceilings: how many tokens models choose among, where that is known.
    """
    means_of = {line.index: perplexities(line) for line in series}
    traces: list[Trace] = []
    for line in series:
        traces += lines(line, means_of[line.index], line.by_seed("nll"), exponential, legend=True)
    if not traces:
        return None
    last = max(max(line.generations) for line in series)
    traces += [level_line(exponential(floor), last, FLOOR, "floor") for floor in sorted(set(floors.values()))]
    seen = [y for trace in traces for y in trace["y"]]
    ceiling = [level_line(there, last, CEILING, "ceiling") for there in sorted(ceilings)]
    near = [trace["y"][0] for trace in ceiling if trace["y"][0] <= NEAR * max(seen)]
    layout = layout_of("perplexity", last) | {"showlegend": True}
    low, high = apart(min(seen), max((*seen, *near)))  # may be one number, of a run with one generation yet
    layout["yaxis"] |= {"type": "log"} | log_ticks(low, high)
    room = 0.02 * (math.log10(high) - math.log10(low))
    layout["yaxis"]["logrange"] = [math.log10(low) - room, math.log10(high) + room]
    traces += ceiling
    return Figure(
        "perplexity",
        "Perplexity on real test text",
        "Lower is better; a level line means that nothing is lost. The line is the mean over seeds, the band its 95% "
        "interval, faint lines are single seeds.",
        "One number for all tokens: it can stand still while rare tokens are forgotten, and it says nothing about samples.",
        in_words("Perplexity", series, means_of),
        traces,
        layout,
        height=430,
        group="perplexity",
        numbers=numbers_of(series, means_of),
        columns=series,
    )


FLOOR = "no model can be below: exp(entropy rate)"
CEILING = "guessing evenly among all tokens"


def level_line(y: float, last: int, name: str, role: str) -> Trace:
    """A line that all policies are to be held against; its value is in its name, for it may lie beyond the axis."""
    return {
        "x": [0, max(last, 1)],
        "y": [rounded(y)] * 2,
        "mode": "lines",
        "name": f"{name}: {value(y)}",
        "showlegend": True,
        "hovertemplate": f"{name}: %{{y:.4g}}<extra></extra>",
        "meta": {"role": role},
    }


def perplexities(line: Series) -> dict[int, Interval]:
    """Generation -> perplexity over seeds: mean and interval of log-perplexities, exponentiated."""
    return {g: there.within(exponential) for g, there in line.means("nll").items()}


def curve(measure: Measure, series: Sequence[Series]) -> Figure | None:
    """A field by generation, every series a line; None where no row has it."""
    means_of = {line.index: bounded(line, measure) for line in series}
    traces: list[Trace] = []
    for line in series:
        traces += lines(
            line,
            means_of[line.index],
            line.by_seed(measure.name, measure.part),
            share=measure.unit == SHARE,
            bounds=measure.bounds,
        )
    if not traces:
        return None
    layout = layout_of(measure.unit, max(max(line.generations) for line in series))
    if measure.zero:
        layout["yaxis"] |= {"rangemode": "tozero", "autorangeoptions": {"minallowed": 0}}
    if measure.name in ("head_change", "tail_change"):
        layout["yaxis"] |= {"zeroline": True}
    if ends := level([y for trace in traces for y in trace["y"]], measure):
        layout["yaxis"]["range"] = ends
    name = measure.name if measure.part is None else f"{measure.name}_{measure.part + 1}"
    seen = {there.mean for means in means_of.values() for there in means.values()}
    formatted = percent if measure.unit == SHARE else value
    return Figure(
        name,
        measure.title,
        measure.reading,
        measure.misses,
        in_words(measure.title, series, means_of, measure.unit == SHARE),
        traces,
        layout,
        numbers=numbers_of(series, means_of, measure.unit == SHARE),
        columns=series,
        still=f"{formatted(seen.pop())} throughout"
        if len(seen) == 1 and any(len(means) > 1 for means in means_of.values())
        else "",
    )


def bounded(line: Series, measure: Measure) -> dict[int, Interval]:
    """Generation -> mean over seeds; the interval cut at what the measure's values cannot be outside of."""
    low, high = measure.bounds
    return {
        g: there.within(lambda end: min(high, max(low, end)))
        for g, there in line.means(measure.name, measure.part).items()
    }


def level(seen: Sequence[float], measure: Measure) -> list[float] | None:
    """Ends of the axis for values that are all one, around which plotly would draw -100% to 100%; else None."""
    low, high = min(seen), max(seen)
    if high - low > 1e-9 * max(1.0, abs(high)):
        return None
    room = 0.25 * abs(high) or (0.05 if measure.bounds[1] == 1 else 0.1)
    least, most = measure.bounds
    return [rounded(0.0 if measure.zero else max(least, low - room)), rounded(min(most, high + room))]


def same_scale(figures: Sequence[Figure | None]) -> list[Figure]:
    """The figures with one vertical scale, so that they compare at a glance."""
    there = [figure for figure in figures if figure is not None]
    seen = [y for figure in there for trace in figure.traces for y in trace["y"]]
    if seen:
        low, high = min(0.0, *seen), max(0.0, *seen)
        room = (high - low) * 0.06 or 0.1
        for figure in there:
            figure.layout["yaxis"]["range"] = [rounded(low - room), rounded(high + room)]
    return there


def apart(low: float, high: float) -> tuple[float, float]:
    """Ends of a logarithmic axis: those of the values, or 20% around a single one, which would have no ticks."""
    return (low / 1.2, high * 1.2) if high < low * 1.001 else (low, high)


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Round numbers for a logarithmic axis, at most about eight; plotly's own crowd or fail within one decade."""
    decades = [
        digit * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.floor(math.log10(high)) + 2)
        for digit in TICKS
    ]
    room = min(0.05, (math.log(high) - math.log(low) or 0.2) * 0.04)
    inside = [tick for tick in decades if low * math.exp(-room) <= tick <= high * math.exp(room)]
    for keep in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        if len(inside) > 8:
            inside = [tick for tick in inside if round(tick / 10 ** math.floor(math.log10(tick) + 1e-9), 6) in keep]
    if len(inside) < 3 and high > low:  # much less than a decade: evenly spaced round numbers
        rough = (high - low) / 4
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(digit * unit for digit in (1, 2, 5, 10) if digit * unit >= rough)
        inside = [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
    inside = inside[:: math.ceil(len(inside) / 8)] if inside else []
    return {"tickvals": inside, "ticktext": [_tick(tick) for tick in inside]}


def _tick(number: float) -> str:
    if number >= 1e6:
        return f"{number:.0e}"
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def lines(
    line: Series,
    means: Mapping[int, Interval],
    by_seed: Mapping[int, Mapping[int, float]],
    scale: Callable[[float], float] = float,
    *,
    legend: bool = False,
    share: bool = False,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> list[Trace]:
    """A series in a plot over generations: band, faint seeds, mean.

    Args:
        means: those of all seeds; the page works them out again for seeds that are chosen.
        scale: what is shown of a value; means of what `exponential` shows are means of logarithms.
        bounds: what no value is outside of.
    """
    traces: list[Trace] = []
    name = label(line.label)
    banded = {g: there for g, there in means.items() if there.low is not None and there.high is not None}
    if len(banded) > 1:
        for role, ends in (("edge", [t.low for t in banded.values()]), ("band", [t.high for t in banded.values()])):
            traces.append(
                {
                    "x": list(banded),
                    "y": [rounded(end or 0.0) for end in ends],
                    "mode": "lines",
                    "name": name,
                    "hoverinfo": "skip",
                    "showlegend": False,
                    "meta": {"s": line.index, "role": role},
                }
            )
        traces[-1]["fill"] = "tonexty"
    if 1 < len(by_seed) <= SEEDS:
        for seed, values in by_seed.items():
            traces.append(
                {
                    "x": list(values),
                    "y": [rounded(scale(y)) for y in values.values()],
                    "mode": "lines",
                    "name": f"{name}, seed {seed}",
                    "hoverinfo": "skip",
                    "showlegend": False,
                    "meta": {"s": line.index, "role": "seed", "seed": seed},
                }
            )
    if means:
        traces.append(
            {
                "x": list(means),
                "y": [rounded(there.mean) for there in means.values()],
                "mode": "lines+markers" if len(means) <= MARKED else "lines",
                "cliponaxis": False,
                "name": name,
                "customdata": [_hover(there, share) for there in means.values()],
                "hovertemplate": f"{name}: %{{customdata}}<extra></extra>",
                "showlegend": legend,
                "meta": {"s": line.index, "role": "mean", "log": scale is exponential, "bounds": ends_of(bounds)},
            }
        )
    return traces


def ends_of(bounds: tuple[float, float]) -> list[float | None]:
    """Bounds as JSON: None where there is none."""
    return [end if math.isfinite(end) else None for end in bounds]


def _hover(there: Interval, share: bool) -> str:
    return spread(there, share=share) + ("" if there.n > 1 else ", one seed")


def layout_of(unit: str, last: int) -> dict[str, Any]:
    steps = 1 if last <= 12 else 5 if last <= 60 else _step(last)
    return {
        "xaxis": {
            "title": {"text": "generation"},
            "range": [-0.03 * max(last, 1) - 0.1, last + 0.03 * max(last, 1) + 0.1],
            "dtick": steps,
            "fixedrange": True,
        },
        "yaxis": {"title": {"text": unit}, "fixedrange": True} | ({"tickformat": ".3~p"} if unit == SHARE else {}),
        "hovermode": "x unified",
    }


def _step(last: int) -> int:
    """Between ticks of so many generations that a small plot has room for six labels."""
    power: int = 10 ** math.floor(math.log10(last / 6))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= last / 6)


def in_words(
    title: str, series: Sequence[Series], means_of: Mapping[int, Mapping[int, Interval]], share: bool = False
) -> str:
    """A plot in words: where each line starts and ends."""
    parts, written = [], percent if share else value
    for line in series:
        if means := means_of[line.index]:
            first, last = min(means), max(means)
            parts.append(
                f"{line.label}: {written(means[first].mean)} at generation {first}, "
                f"{written(means[last].mean)} at generation {last}"
            )
    return f"{title} by generation. {'; '.join(parts)}."


def numbers_of(
    series: Sequence[Series], means_of: Mapping[int, Mapping[int, Interval]], share: bool = False
) -> tuple[list[str], list[list[str]]]:
    generations = sorted({g for means in means_of.values() for g in means})
    rows = [[str(g), *(spread(means_of[line.index].get(g), share=share) for line in series)] for g in generations]
    return ["generation", *(line.label for line in series)], rows


def rounded(number: float) -> float:
    return float(f"{number:.6g}")
