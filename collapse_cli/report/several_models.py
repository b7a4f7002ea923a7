"""Several models: whether they become alike, who knows whose text, what they hold together; and runs with more and fewer of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from collapse_cli.errors import how_many
from collapse_cli.families import instruments
from collapse_cli.findings.several_models import (
    HEADS,
    HELD,
    TOGETHER,
    Between,
    Course,
    MoreThanOne,
    between,
    between_said,
    more_than_one,
    more_than_one_said,
)
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import factors, spread, value
from collapse_cli.report.contents import Contents
from collapse_cli.report.figures import Figure, Trace, apart, layout_of, log_ticks, rounded
from collapse_cli.report.html_elements import cells, how_to_read, of_all, split
from collapse_cli.report.loading import Run, thinned
from collapse_cli.report.text import escaped, label

COLUMNS = 48  # of a map of all generations
NUMBERED = 14  # columns of a map up to which numbers stand in its cells
MATRICES = {  # field -> title, what stands across, unit, how to read it, what it misses
    "bits_per_byte_on": (
        "Each model on each lineage's text",
        "text of",
        "bits/byte",
        "Down the models; across, within each generation, whose real text it is, in the same order. A diagonal that stands out: each "
        "model knows its own world best. Bits per byte, so that models with other tokenizers compare.",
        "Why a text is hard: a text may be hard for all.",
    ),
    "cross_bits_per_byte": (
        "Each model on each lineage's samples",
        "samples of",
        "bits/byte",
        "Down the models; across, within each generation, whose samples it reads: as cells become alike, so does what the models write.",
        "Samples that become simple are easy for all, which looks the same.",
    ),
    "js_distance_to": (
        "Distance between each two models",
        "from",
        "Jensen-Shannon distance",
        "Distance of the next-token distributions of two models on the same real text: 0 for models that predict the same, 1 for "
        "such that agree in nothing.",
        "Models that become alike need not become worse, or better.",
    ),
}


def lineages(contents: Contents) -> None:
    """What is measured between the lineages of each run."""
    parts: list[str] = []
    explained: set[str] = set()  # maps of which the page has said how they are read
    of_each = [measure for measure in instruments("between") if measure.name not in TOGETHER]
    for index, run in enumerate(contents.runs):
        found = between(run.rows) if not run.mixture else []
        if not found:
            continue
        name = f"<b>{escaped(run.name)}.</b> " if len(contents.runs) > 1 else ""
        said = [
            f'<p data-run="{index}">{name}{escaped(sentence, 600)}{of_all("seeds")}</p>'
            for sentence in between_said(found)
        ]
        figures = []
        for field in MATRICES:
            for one in (one for one in found if field in one.matrices):
                figures.append(map_of(contents, index, one, found, field, explained=field in explained))
                explained.add(field)
        policies = {line.arm.policy: line.policy_index for line in contents.of_run(index)}
        tables = [_table(run, one, index, policies[one.policy], several=len(contents.runs) > 1) for one in found]
        together = contents.plots([_mixture(contents, index, found)], "middle")
        maps = f'<div class="grid pairs">{contents.plots(figures, "middle")}</div>' if figures else ""
        parts.append(f"{''.join(said)}{together}{maps}{''.join(tables)}")
    if parts:
        reading = how_to_read(
            "Lineages that train on each other's text may become one model that is named several times: then their distance falls, and "
            "the mixture of all knows no more than one of them. What all know together and each alone has lost is not lost yet.",
            "Anything that no lineage knows any more; and whether what they agree on is right.",
        )
        inside = f"{reading}{contents.curves(of_each)}{''.join(parts)}"
        contents.add("lineages", "Several models: do they become one?", inside)


def more(contents: Contents) -> None:
    """Runs with one, two, four lineages: whether more than one hold longer."""
    found = compared(contents.runs)
    if found is None:
        return
    said = "".join(f"<p>{escaped(sentence, 600)}{of_all()}</p>" for sentence in more_than_one_said(found))
    reading = how_to_read(
        "Growth: perplexity on real test text as a multiple of generation 0's. Beside it perplexity itself. The mean over the lineages of a "
        "run; the band is the 95% interval over seeds.",
        "Growth alone is no answer: lineages that share one corpus have less text each, begin worse and so have less to lose.",
    )
    figures = contents.grid(
        [growth_figure(contents.runs, found, absolute=absolute) for absolute in (False, True)], "tall"
    )
    names, rows = more_table(found)
    table = cells(
        f"Runs at generation {found.generation}; means over lineages within a seed, 95% intervals over seeds",
        names,
        [[split(cell) for cell in row] for row in rows],
        kind="wide glance",
        beside=of_all("seeds"),
    )
    notes = "".join(f"<li>{escaped(note, 400)}</li>" for note in found.notes)
    contents.add(
        "more", "Does more than one hold longer?", f'{said}{reading}{figures}{table}<ul class="reading">{notes}</ul>'
    )


def compared(runs: Sequence[Run]) -> MoreThanOne | None:
    """Runs of language models with other numbers of lineages; None where there are not two."""
    return more_than_one({run.name: run.rows for run in runs if run.text})


def more_table(found: MoreThanOne) -> tuple[list[str], list[list[str]]]:
    """A line a run and policy, for HTML and Markdown."""
    several = len({one.policy for one in found.runs}) > 1
    names = ["run", "lineages", "generation 0", f"generation {found.generation}", "growth"]
    names += [
        f"mean within {HELD:g}× until",
        "growth against the fewest",
        "perplexity against the fewest",
        "verdict",
        "all together",
    ]
    rows = []
    for one in found.runs:
        step = found.generation
        rows.append(
            [
                f"{one.run} · {one.policy}" if several else one.run,
                str(one.lineages),
                spread(one.perplexity.get(0)),
                spread(one.perplexity.get(step)),
                _factor(one.growth.get(step)),
                f"generation {one.until}",
                "–" if one.longer is None else _factor(one.longer),
                "–" if one.level is None else _factor(one.level),
                one.verdict or "–",
                spread(one.together.get(step)),
            ]
        )
    return names, rows


def growth_figure(runs: Sequence[Run], found: MoreThanOne, *, absolute: bool) -> Figure | None:
    """Perplexity by generation, a line a run; relative to generation 0, or as it is with that of the mixture dashed."""
    traces: list[Trace] = []
    names = {run.name: index for index, run in enumerate(runs)}
    several = len({one.policy for one in found.runs}) > 1
    ends = []
    for at, one in enumerate(found.runs):
        meta = {"c": names[one.run], "d": at % 6 if several else 0, "r": names[one.run]}
        name = label(f"{one.run}{f', {one.policy}' if several else ''}: {how_many(one.lineages, 'lineage')}")
        courses: list[tuple[str, Course, int]] = [(name, one.perplexity if absolute else one.growth, meta["d"])]
        if absolute and one.together:
            courses.append((f"{name}, all together", one.together, 2))
        for said, course, dash in courses:
            traces += lines_of(said, course, {**meta, "d": dash})
        last = courses[0][1].get(found.generation)
        ends.append(f"{one.run} {spread(last) if absolute else _factor(last)}")
    if not traces:
        return None
    steps = sorted({step for one in found.runs for step in one.growth})
    layout = _log_layout("perplexity" if absolute else "times generation 0's", found.generation, traces)
    title = (
        "Perplexity on real test text, mean over lineages" if absolute else "Growth of perplexity, mean over lineages"
    )
    numbers = [
        [
            str(step),
            *(spread(one.perplexity.get(step)) if absolute else _factor(one.growth.get(step)) for one in found.runs),
        ]
        for step in steps
    ]
    return Figure(
        f"more_{'level' if absolute else 'growth'}",
        title,
        "Dashed: all lineages together, the mean of their probabilities."
        if absolute and any(one.together for one in found.runs)
        else "",
        "",
        f"{title} by generation. At generation {found.generation}: {'; '.join(ends)}.",
        traces,
        layout,
        height=340,
        group="perplexity",
        numbers=(["generation", *(f"{one.run}, {one.policy}" for one in found.runs)], numbers),
    )


def _log_layout(title: str, last: int, traces: Sequence[Trace]) -> dict[str, Any]:
    """Of lines by generation up to `last` on a logarithmic axis that holds them all, with a legend."""
    seen = [y for trace in traces for y in trace["y"]]
    low, high = apart(min(seen), max(seen))
    layout = layout_of(title, last) | {"showlegend": True}
    layout["yaxis"] |= {"type": "log"} | log_ticks(low, high)
    layout["yaxis"]["logrange"] = [math.log10(low) - 0.02, math.log10(high) + 0.02]
    return layout


def lines_of(name: str, course: Course, meta: Mapping[str, object]) -> list[Trace]:
    """A mean over lineages in a plot over generations: band and line; it is of all seeds."""
    traces: list[Trace] = []
    banded = {step: over for step, over in course.items() if over.low is not None and over.high is not None}
    hidden = {"mode": "lines", "name": name, "hoverinfo": "skip", "showlegend": False}
    if len(banded) > 1:
        for role, ends in (
            ("edge", [over.low for over in banded.values()]),
            ("band", [over.high for over in banded.values()]),
        ):
            y = [rounded(end or 0.0) for end in ends]
            traces.append({"x": list(banded), "y": y, **hidden, "meta": {**meta, "role": role}})
        traces[-1]["fill"] = "tonexty"
    traces.append(
        {
            "x": list(course),
            "y": [rounded(over.mean) for over in course.values()],
            "mode": "lines+markers",
            "name": name,
            "customdata": [spread(over) for over in course.values()],
            "hovertemplate": f"{name}: %{{customdata}}<extra></extra>",
            "showlegend": True,
            "meta": {**meta, "role": "mean"},
        }
    )
    return traces


def map_of(
    contents: Contents, index: int, one: Between, beside: Sequence[Between], field: str, *, explained: bool
) -> Figure:
    """What each model is to each lineage, generations beside each other, one scale of colour for all policies.

    Args:
        beside: all policies of the run.
        explained: whether a map above it has said how it is read.
    """
    policy = next(line.policy_index for line in contents.of_run(index) if line.arm.policy == one.policy)
    by = one.matrices[field]
    title, across, unit, reading, misses = MATRICES[field]
    every = [
        cell.mean
        for other in beside
        for cells_of in other.matrices.get(field, {}).values()
        for cell in cells_of.values()
    ]
    steps = thinned_to(sorted(by), max(2, COLUMNS // len(one.lineages)))
    columns = [(step, name) for step in steps for name in one.lineages]
    z = [[_mean(by[step].get((own, name))) for step, name in columns] for own in one.lineages]
    x = [f"{step} · {label(name)}" for step, name in columns]
    middles = [x[at * len(one.lineages) + len(one.lineages) // 2] for at in range(len(steps))]
    trace = {
        "type": "heatmap",
        "x": x,
        "y": [label(name) for name in one.lineages],
        "z": z,
        "zmin": rounded(min(every)),
        "zmax": rounded(max(every)) if max(every) > min(every) else rounded(min(every) + 1.0),
        "xgap": 1,
        "ygap": 1,
        "customdata": [[[label(own), cell] for cell in row] for own, row in zip(one.lineages, z, strict=True)],
        "text": [[value(cell) if cell is not None and len(columns) <= NUMBERED else "" for cell in row] for row in z],
        "texttemplate": "%{text}",
        "hovertemplate": f"generation %{{x}}<br>model %{{y}}: %{{z:.3g}} {unit}<extra></extra>",
        "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 1, "title": {"text": unit, "side": "right"}},
        "meta": {"role": "matrix", "p": policy, "r": index},
    }
    layout = layout_of("", 0)
    layout["xaxis"] = {
        "title": {"text": f"generation · {across}"},
        "type": "category",
        "fixedrange": True,
        "tickvals": middles,
        "ticktext": [str(step) for step in steps],
    }
    layout["yaxis"] = {"fixedrange": True, "showgrid": False, "autorange": "reversed", "type": "category"}
    layout["hovermode"] = "closest"
    layout["shapes"] = [
        {"type": "line", "x0": at * len(one.lineages) - 0.5, "x1": at * len(one.lineages) - 0.5, "y0": 0, "y1": 1, "yref": "paper",
         "line": {"color": "rgba(128,128,128,0.9)", "width": 2}}
        for at in range(1, len(steps))
    ]  # fmt: skip
    numbers = [
        [f"{step}", own, *(spread(by[step].get((own, name))) for name in one.lineages)]
        for step in sorted(by)
        for own in one.lineages
    ]
    last = by[steps[-1]]
    ends = [cell.mean for cell in last.values()]
    name = one.policy if len(contents.runs) == 1 else f"{contents.runs[index].name} · {one.policy}"
    return Figure(
        f"matrix_{field}_{index}_{policy}",
        f"{title}: {name}" if len(beside) + len(contents.runs) > 2 else title,
        "" if explained else reading,
        "" if explained else misses,
        f"{title}, {name}: {unit} by model and {across} lineage. At generation {steps[-1]} from {value(min(ends))} to {value(max(ends))}.",
        [trace],
        layout,
        height=280,
        numbers=(["generation", "model", *(f"{across} {other}" for other in one.lineages)], numbers),
        policy=policy,
        row="model",
    )


def thinned_to(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of them, the ends among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(at * (len(steps) - 1) / (most - 1))] for at in range(most)]


def _mixture(contents: Contents, index: int, found: Sequence[Between]) -> Figure | None:
    """Perplexity of one lineage, and of the mean of all models' probabilities, by policy."""
    traces: list[Trace] = []
    ends = []
    looks = {line.arm.policy: line for line in contents.of_run(index)}
    shown = [one for one in found if one.single and "mixture_perplexity" in one.together]
    for one in shown:
        line = looks[one.policy]
        colour = line.look.colour if line.look.of == "policy" else 0
        meta = {"c": colour, "p": line.policy_index, "r": index}
        mixture = one.together["mixture_perplexity"]
        name = label(one.policy)
        traces += lines_of(f"{name}, one (mean over lineages)", one.single, {**meta, "d": 0})
        traces += lines_of(f"{name}, all together", mixture, {**meta, "d": 2})
        last = max(mixture)
        ends.append(
            f"{one.policy}: one {spread(one.single.get(last))}, all together {spread(mixture[last])} at generation {last}"
        )
    if not traces:
        return None
    steps = sorted({step for one in shown for step in one.single})
    layout = _log_layout("perplexity", max(steps), traces)
    heads = [f"{one.policy}, {which}" for one in shown for which in ("one", "all together")]
    numbers = [
        [
            str(step),
            *(spread(course.get(step)) for one in shown for course in (one.single, one.together["mixture_perplexity"])),
        ]
        for step in steps
    ]
    title = "One model, and all of them together"
    return Figure(
        f"together_{index}",
        title if len(contents.runs) == 1 else f"{title}: {contents.runs[index].name}",
        "Perplexity on the same real test text: the geometric mean of the lineages, and of the mixture, which is the mean of all models' "
        "probabilities. Where the lines meet, all know what one knows.",
        "Nobody samples from the mixture; it is a measure of what is still known.",
        f"{title}. {'; '.join(ends)}.",
        traces,
        layout,
        height=300,
        group="perplexity",
        numbers=(["generation", *heads], numbers),
    )


def between_table(one: Between) -> tuple[list[str], list[list[str]]]:
    """A line a generation, for HTML and Markdown: distance, one alone, all together."""
    courses: dict[str, Course] = {"distance": one.distance, "single": one.single, **one.together}
    there = {name: course for name, course in courses.items() if course and name in HEADS}
    steps = thinned(one.generations, 30)
    return ["generation", *(HEADS[name] for name in there)], [
        [str(step), *(spread(course.get(step)) for course in there.values())] for step in steps
    ]


def _table(run: Run, one: Between, index: int, policy: int, *, several: bool) -> str:
    names, rows = between_table(one)
    of = f"{escaped(run.name)}, " if several else ""
    caption = f"{of}{escaped(one.policy)}: mean over {len(one.lineages)} lineages by generation, with 95% intervals over seeds"
    table = cells(
        caption, names, [[split(cell) for cell in row] for row in rows], kind="wide glance", beside=of_all("seeds")
    )
    return f'<div data-run="{index}"><div data-policy="{policy}">{table}</div></div>'


def _mean(over: Interval | None) -> float | None:
    return None if over is None else rounded(over.mean)


def _factor(over: Interval | None) -> str:
    if over is None:
        return "–"
    mean, ends = factors(over)
    return f"{mean} ({ends})" if ends else mean
