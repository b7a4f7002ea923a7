"""The report as Markdown: the same tables, and links to pictures beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from collapse_cli.families import headline, headline_measure
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import spread
from collapse_cli.report.figures import bounded, perplexities
from collapse_cli.report.forecast import Forecast, outlook
from collapse_cli.report.grid_figures import TITLES as AXES
from collapse_cli.report.grid_figures import cells_of
from collapse_cli.report.loading import Run, Series, thinned
from collapse_cli.report.mixtures import cells_table, laws_table
from collapse_cli.report.summaries import (
    diagnoses,
    facts,
    family_glance,
    glance_table,
    left_out,
    most_frequent,
    other_experiments,
    provenance,
    published_table,
    stages,
    warned,
)
from collapse_cli.report.text import cell

TITLES = {
    "perplexity": "Perplexity on real test text, by generation; bands are 95% intervals over seeds",
    "histograms": "Perplexity of samples under generation 0; one curve per generation",
    "deciles": "Loss on real tokens by frequency decile, against generation 0",
    "diversity": "Diversity and repetition of the samples",
    "headline": "The first measure of the family by generation; bands are 95% intervals, dashed is theory",
    "measures": "The family's other measures by generation; dashed is theory",
    "pictures": "Images that are generated, a row a generation; the first seed's",
    **{
        f"mixture_{axis}": f"Over the grid, against {said}; bars are 95% intervals, dashed is theory"
        for axis, said in AXES.items()
    },
}
LINES = 30  # generations of a table
CELLS = 200  # cells of a table


def markdown(
    runs: Sequence[Run], series: Sequence[Series], forecasts: Sequence[Forecast | None], pictures: Sequence[Path]
) -> str:
    """The whole report; `pictures` lie in the folder it is written to."""
    found = diagnoses(runs)
    parts = [f"# Report on {', '.join(cell(run.name) for run in runs)}"]
    for run, diagnosis in zip(runs, found, strict=True):
        parts.append(f"**{cell(diagnosis.verdict, 2000)}**")
        if not run.finished:
            said = (
                f"Rows are missing: {run.lacking}" if run.lacking else f"This run is not finished ({cell(run.status)})"
            )
            parts.append(f"{said}: all below is of what it measured so far.")
        parts.append("\n".join(f"- {name}: {cell(said)}" for name, said in facts(run).items()))
        if diagnosis.notes:
            parts.append("\n".join(f"- {cell(note, 400)}" for note in diagnosis.notes))
    lines = [f"- {cell(run.name)}: {cell(text, 300)} ({cell(where, 300)})" for run, text, where, _ in warned(runs)]
    lines += [f"- {cell(run.name)}: {cell(one, 300)}" for run in runs for one in run.notes]
    if lines:
        parts += ["## Warnings", "\n".join(lines)]
    texts = [one for one in series if one.run.text]
    if texts:
        parts += ["## At a glance", _table(*glance_table(texts, found))]
        means = {one.index: perplexities(one) for one in texts}
        parts += ["## Perplexity by generation", _generations(texts, means)]
    for learner in dict.fromkeys(one.run.learner for one in series if not one.run.text):
        parts += _family(learner, [one for one in series if one.run.learner == learner and not one.run.text])
    if lines := [f"- {cell(one, 400)}" for one in left_out(series)]:
        parts.append("\n".join(lines))
    for run in runs:
        parts += _mixture(run, several=len(runs) > 1) if run.mixture else []
    parts += [f"![{TITLES[_name(one)]}]({quote(one.name)})\n\n{TITLES[_name(one)]}." for one in pictures]
    if published := published_table(runs):
        theory = any(one.theory for one in published)
        rows = [[one.what, one.where, one.published, one.ours, one.said, one.source] for one in published]
        value = "published or theory" if theory else "published"
        names = ["what", "where", value, "measured here", "verdict", "source"]
        parts += [f"## Measured against published{' numbers and theory' if theory else ''}"]
        parts += [f"{cell(said, 600)[:1].upper()}{cell(said, 600)[1:]}." for said in other_experiments(runs)]
        parts += [_table(names, rows)]
    for run, forecast in zip(runs, forecasts, strict=True):
        if forecast is not None:
            head, rows = outlook(forecast)
            parts += [
                f"## Forecast of {cell(run.name)}",
                "\n".join(f"- {cell(one, 600)}" for one in forecast.sentences),
            ]
            parts += [_table(head, rows)] if rows else []
    for one in texts:
        there = [g for g in one.generations if any(row.phrases for row in one.at(g))]
        if there:
            rows = [
                [text, f"{count:,.0f}", "–" if held is None else f"{held:,.0f}"]
                for text, count, held in most_frequent(one.at(there[-1]))
            ]
            parts += [f"## Most frequent 8-grams: {cell(one.label)}, generation {there[-1]}"]
            parts += [_table(["phrase", "times", "samples"], rows)]
    for run in runs:
        parts += [
            f"## How {cell(run.name)} was made",
            _table(["", ""], [list(pair) for pair in provenance(run).items()]),
        ]
        head, rows = stages(run)
        parts += [_table(head, rows)] if rows else []
    return "\n\n".join(parts) + "\n"


def _family(learner: str, series: Sequence[Series]) -> list[str]:
    """Glance and headline measure of another family."""
    top, measure = headline(learner, "generational"), headline_measure(learner, "generational")
    means = {one.index: bounded(one, measure) for one in series}
    said = cell(f"{top.title[:1].upper()}{top.title[1:]}")
    return [
        f"## At a glance: {cell(learner)}",
        _table(*family_glance(series)),
        f"## {said}, by generation",
        _generations(series, means),
    ]


def _generations(series: Sequence[Series], means: Mapping[int, Mapping[int, Interval]]) -> str:
    """A line a generation, at most `LINES` of them."""
    every = sorted({g for there in means.values() for g in there})
    steps = thinned(every, LINES)
    rows = [[f"{g:,}", *(spread(means[one.index].get(g)) for one in series)] for g in steps]
    made = _table(["generation", *(one.label for one in series)], rows)
    return (
        made
        if len(steps) == len(every)
        else f"{made}\n\n{len(steps)} of {len(every):,} generations that lines are drawn through."
    )


def _mixture(run: Run, *, several: bool) -> list[str]:
    """Scaling laws and cells of a mixture."""
    found = cells_of(run)
    if not found:
        return []
    of = f" of {cell(run.name)}" if several else ""
    parts = []
    head, rows = laws_table(run, found)
    if rows:
        parts += [f"## Where more data stops helping{of}", _table(head, rows)]
    head, rows = cells_table(run, found)
    parts += [f"## Cells{of}", _table(head, rows[:CELLS])]
    return parts + ([f"The first {CELLS} of {len(rows):,} cells."] if len(rows) > CELLS else [])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[cell(one, 300) for one in row] for row in (head, *rows)]
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:]))


def _name(picture: Path) -> str:
    return picture.stem.rpartition("-")[2]
