"""Generations of model families that are no language models: headline measure, theory through it, the rest, pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from collapse_cli.families import FAMILIES, SHARE, Headline, Measure, headline, headline_measure, measures_of
from collapse_cli.findings.expectations import theory_at
from collapse_cli.metrics.intervals import Interval
from collapse_cli.records.fields import GeneratedImages
from collapse_cli.report.contents import Contents
from collapse_cli.report.figures import (
    TINY,
    Figure,
    Trace,
    apart,
    bounded,
    curve,
    in_words,
    layout_of,
    level,
    lines,
    log_ticks,
    numbers_of,
    rounded,
)
from collapse_cli.report.generated_images import data_uri, strip
from collapse_cli.report.html_elements import cells, heading, how_to_read
from collapse_cli.report.loading import Series, thinned
from collapse_cli.report.summaries import left_out
from collapse_cli.report.text import escaped, label, one_line

PICTURE = 48  # pixels on the page that a generated image is high, about
POINTS = 60  # generations at which a curve of theory is worked out
FACTORS = 1e4  # between values of a measure, from which on its axis is logarithmic
STRIPS = 20  # generations of which pictures are shown
LOWEST = 20.0  # times below a mean that its band may reach on a logarithmic axis
LOG = '<button type="button" data-log="headline" aria-pressed="true">logarithmic axis</button>'


def families(contents: Contents) -> None:
    """A section for each family: its headline measure, and the others below it."""
    for index, learner in enumerate(contents.learners):
        series = contents.of(learner)
        title = contents.title_of(learner)
        title = f"{title[:1].upper()}{title[1:]}, by generation"
        figure = headline_figure(series, learner, f"headline_{index}")
        if figure is None:
            continue
        tools = LOG if figure.group else ""
        notes_said = [*left_out(series), *_thinning(series)]
        if any(trace["meta"]["role"] == "theory" for trace in figure.traces):
            notes_said.append(
                "theory: the closed form for this very protocol (docs/theory.md), an expectation over all seeds"
            )
        notes = "".join(f"<li>{escaped(sentence, 400)}</li>" for sentence in notes_said)
        below = f'<ul class="reading">{notes}</ul>' if notes else ""
        rest = [
            with_theory(measure, series)
            for measure in measures_of(learner)
            if measure.name != headline_of(learner).name
        ]
        named = [replace(plot, name=f"family_{index}_{plot.name}") for plot in rest if plot is not None]
        contents.lead(f"family-{index}", escaped(title), figure, tools, below + contents.grid(named, "small"))


def own_of_text(contents: Contents) -> None:
    """What a family of text has beside the instruments of all of them."""
    for family in FAMILIES.values():
        series = [line for line in contents.texts if line.run.learner == family.name]
        figures = [curve(measure, series) for measure in family.measures]
        if any(figures):
            contents.add(f"{family.name}s", family.own_title, contents.grid(figures, "small"))


def headline_of(learner: str) -> Headline:
    return headline(learner, "generational")


def headline_figure(series: Sequence[Series], learner: str, name: str) -> Figure | None:
    """The headline measure by generation: bands over seeds, single seeds, theory; logarithmic where it changes by factors."""
    top, measure = headline_of(learner), headline_measure(learner, "generational")
    means_of = {line.index: shown(line, measure, log=top.log) for line in series}
    share = measure.unit == SHARE
    traces: list[Trace] = []
    for line in series:
        seeds = {
            seed: {g: y for g, y in values.items() if y > TINY or not top.log}
            for seed, values in line.by_seed(measure.name).items()
        }
        traces += lines(line, means_of[line.index], seeds, legend=True, share=share)
    if not traces:
        return None
    for line in series:
        traces += theory_lines(
            line, measure.name, log=top.log, legend=not any(t["meta"]["role"] == "theory" for t in traces)
        )
    layout = layout_of(measure.unit, max(max(line.generations) for line in series)) | {"showlegend": True}
    seen = [y for trace in traces for y in trace["y"]]
    if top.log:
        low, high = apart(min(seen), max(seen))
        layout["yaxis"] |= {"type": "log"} | log_ticks(low, high)
        if low < min(seen):
            layout["yaxis"]["logrange"] = [math.log10(low), math.log10(high)]
    else:
        layout["yaxis"] |= {"rangemode": "tozero"} if min(seen) >= 0 else {}
        if ends := level(seen, measure):
            layout["yaxis"]["range"] = ends
    faint = ", faint lines are single seeds" if any(trace["meta"]["role"] == "seed" for trace in traces) else ""
    return Figure(
        name,
        top.title,
        f"{measure.reading} The line is the mean over seeds, the band its 95% interval{faint}.",
        measure.misses,
        in_words(top.title, series, means_of, share),
        traces,
        layout,
        height=430,
        group="headline" if top.log else "",
        numbers=numbers_of(series, _few(means_of), share),
        columns=series,
    )


def with_theory(measure: Measure, series: Sequence[Series]) -> Figure | None:
    """A field by generation as `curve` draws it, with the line of theory where there is one."""
    figure = curve(measure, series)
    if figure is None:
        return None
    ahead = [trace for line in series for trace in theory_lines(line, measure.name)]
    means_of = _few({line.index: bounded(line, measure) for line in series})
    seen = [y for trace in (*figure.traces, *ahead) if trace["meta"]["role"] != "edge" for y in trace["y"]]
    if min(seen) > TINY and max(seen) > FACTORS * min(seen):  # on a linear axis all but the largest would be 0
        figure.layout["yaxis"].pop("rangemode", None)
        figure.layout["yaxis"].pop("autorangeoptions", None)
        figure.layout["yaxis"].update({"type": "log"} | log_ticks(min(seen), max(seen)))
        for trace in figure.traces:
            trace["y"] = [max(y, min(seen)) for y in trace["y"]]  # bands that end below 0
        room = 0.03 * math.log10(max(seen) / min(seen))
        figure.layout["yaxis"]["logrange"] = [math.log10(min(seen)) - room, math.log10(max(seen)) + room]
    return replace(figure, traces=[*figure.traces, *ahead], numbers=numbers_of(series, means_of, measure.unit == SHARE))


def theory_lines(line: Series, what: str, *, log: bool = False, legend: bool = False) -> list[Trace]:
    """What theory says of a field along a series; at most `POINTS` generations, none where it says nothing."""
    known = theory_of_series(line, what)
    known = {g: y for g, y in known.items() if y > TINY or not log}
    if not known:
        return []
    name = label(line.label)
    return [
        {
            "x": list(known),
            "y": [rounded(y) for y in known.values()],
            "mode": "lines",
            "name": "theory",
            "showlegend": legend,
            "hovertemplate": f"theory, {name}: %{{y:.4g}}<extra></extra>",
            "meta": {"s": line.index, "role": "theory"},
        }
    ]


def theory_of_series(line: Series, what: str) -> dict[int, float]:
    """Generation -> what theory says; empty unless it says something at the last one."""
    steps = thinned(line.generations, POINTS)
    if not steps or theory_at(line.run.config, what, line.arm, steps[-1]) is None:
        return {}
    known = {g: theory_at(line.run.config, what, line.arm, g) for g in steps}
    return {g: y for g, y in known.items() if y is not None}


def shown(line: Series, measure: Measure, *, log: bool) -> dict[int, Interval]:
    """Generation -> mean; on a logarithmic axis those above 0, with bands that end above it."""
    means = bounded(line, measure)
    if not log:
        return means
    return {
        g: Interval(there.mean, None if there.low is None else max(there.low, there.mean / LOWEST), there.high, there.n)
        for g, there in means.items()
        if there.mean > TINY
    }


def pictures(contents: Contents) -> None:
    """What the models generate: a strip of images a generation, a column a policy; the first seed's."""
    parts = []
    for line in contents.series:
        strips = strips_of(line)
        if not strips:
            continue
        rows = []
        for g, images in strips.items():
            width, height, grey = strip(images)
            larger = max(2, round(PICTURE / images.height))  # small ones are blown up, their pixels to be seen
            alt = f"{len(images.images)} images generated at generation {g}, {line.label}"
            rows.append(
                [f"{g:,}", f'<img class="strip" src="{data_uri(width, height, grey)}" alt="{escaped(alt)}" '
                           f'width="{larger * width}" height="{larger * height}">']
            )  # fmt: skip
        table = cells(f"Images by generation, seed {line.seeds[0]}", ["gen.", "generated"], rows, kind="strips")
        parts.append(f'<div class="card" data-series="{line.index}"><h3>{heading(line)}</h3>{table}</div>')
    if parts:
        reading = how_to_read(
            "Down the page a policy grows older; the images of a row are drawn at random. They become alike, and blurred, as "
            "the spread of the latents falls.",
            "All but a few images of the first seed.",
        )
        contents.add("pictures", "What is generated", f'{reading}<div class="grid pairs">{"".join(parts)}</div>')


def strips_of(line: Series) -> dict[int, GeneratedImages]:
    """Generation -> pictures of the first seed; at most `STRIPS` generations."""
    of_first = [row for row in line.rows if row.where.seed == line.seeds[0]]
    held = {row.where.generation: images for row in of_first if (images := row.images) is not None}
    return {g: held[g] for g in thinned(sorted(held), STRIPS)}


def _thinning(series: Sequence[Series]) -> list[str]:
    """That lines leave generations out, where they do."""
    most = max((line for line in series), key=lambda line: len(line.generations))
    if len(most.generations) <= len(most.shown):
        return []
    return [
        f"of {len(most.generations):,} generations lines are drawn through {len(most.shown):,}, close together at the "
        f"beginning; the ends are among them, and metrics.jsonl of {one_line(most.run.name)} has all"
    ]


def _few(means_of: Mapping[int, Mapping[int, Interval]]) -> dict[int, dict[int, Interval]]:
    """Of a table of numbers at most `POINTS` lines."""
    chosen = set(thinned(sorted({g for means in means_of.values() for g in means}), POINTS))
    return {index: {g: there for g, there in means.items() if g in chosen} for index, means in means_of.items()}
