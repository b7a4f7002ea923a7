"""The report as Markdown: the same tables, and links to pictures beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from collapse_cli.families import headline, headline_measure
from collapse_cli.findings.known_world import world_left, world_said
from collapse_cli.findings.several_models import between, between_said, more_than_one_said
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import spread
from collapse_cli.report.check import in_markdown
from collapse_cli.report.figures import bounded, perplexities
from collapse_cli.report.forecast import Forecast, outlook
from collapse_cli.report.grid_figures import TITLES as AXES
from collapse_cli.report.grid_figures import cells_of
from collapse_cli.report.loading import Run, Series, thinned
from collapse_cli.report.mixtures import cells_table, laws_table
from collapse_cli.report.several_models import between_table, compared, more_table
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
    "lineages": "Several models by generation: distance between them, one alone and all together; means over lineages, 95% intervals over seeds",
    "more": "Growth of perplexity with one and more lineages, mean over lineages; bands are 95% intervals over seeds",
    "pictures": "Images that are generated, a row a generation; the first seed's",
    **{
        f"mixture_{axis}": f"Over the grid, against {title}; bars are 95% intervals, dashed is theory"
        for axis, title in AXES.items()
    },
}
LINES = 30  # generations of a table
CELLS = 200  # cells of a table


def markdown(
    runs: Sequence[Run], series: Sequence[Series], forecasts: Sequence[Forecast | None], pictures: Sequence[Path]
) -> str:
    """The whole report; `pictures` lie in the folder it is written to."""
    diagnosed = diagnoses(runs)
    parts = [f"# Report on {', '.join(cell(run.name) for run in runs)}"]
    for run, diagnosis in zip(runs, diagnosed, strict=True):
        parts += in_markdown(run)
        if run.compared is None:
            parts.append(f"**{cell(diagnosis.verdict, 2000)}**")
        parts += [cell(said, 1000) for said in world_said(world_left(run.rows, run.config))]
        if not run.finished:
            why = (
                f"Rows are missing: {run.lacking}" if run.lacking else f"This run is not finished ({cell(run.status)})"
            )
            parts.append(f"{why}: all below is of what it measured so far.")
        if run.trained:
            parts.append("\n".join(f"- {name}: {cell(fact)}" for name, fact in facts(run).items()))
        if diagnosis.notes:
            parts.append("\n".join(f"- {cell(note, 400)}" for note in diagnosis.notes))
    lines = [f"- {cell(run.name)}: {cell(text, 300)} ({cell(where, 300)})" for run, text, where, _ in warned(runs)]
    lines += [f"- {cell(run.name)}: {cell(run_note, 300)}" for run in runs for run_note in run.notes]
    if lines:
        parts += ["## Warnings", "\n".join(lines)]
    texts = [line for line in series if line.run.text]
    if texts:
        parts += ["## At a glance", _table(*glance_table(texts, diagnosed))]
        means = {line.index: perplexities(line) for line in texts}
        parts += ["## Perplexity by generation", _generations(texts, means)]
    for learner in dict.fromkeys(line.run.learner for line in series if not line.run.text):
        parts += _family(learner, [line for line in series if line.run.learner == learner and not line.run.text])
    if lines := [f"- {cell(left, 400)}" for left in left_out(series)]:
        parts.append("\n".join(lines))
    for run in runs:
        if run.compared is None:  # a check has said it above
            parts += _mixture(run, several=len(runs) > 1) if run.mixture else _lineages(run)
    if (found := compared(runs)) is not None:
        parts += [
            "## Does more than one hold longer?",
            "\n".join(f"- {cell(said, 600)}" for said in more_than_one_said(found)),
        ]
        parts += [_table(*more_table(found)), "\n".join(f"- {cell(note, 400)}" for note in found.notes)]
    parts += [
        f"![{TITLES[_name(picture)]}]({quote(picture.name)})\n\n{TITLES[_name(picture)]}." for picture in pictures
    ]
    if published := published_table(runs):
        theory = any(entry.theory for entry in published)
        rows = [[entry.what, entry.where, entry.published, entry.ours, entry.said, entry.source] for entry in published]
        value = "published or theory" if theory else "published"
        names = ["what", "where", value, "measured here", "verdict", "source"]
        parts += [f"## Measured against published{' numbers and theory' if theory else ''}"]
        parts += [
            f"{cell(difference, 600)[:1].upper()}{cell(difference, 600)[1:]}." for difference in other_experiments(runs)
        ]
        parts += [_table(names, rows)]
    for run, forecast in zip(runs, forecasts, strict=True):
        if forecast is not None:
            head, rows = outlook(forecast)
            parts += [
                f"## Forecast of {cell(run.name)}",
                "\n".join(f"- {cell(sentence, 600)}" for sentence in forecast.sentences),
            ]
            parts += [_table(head, rows)] if rows else []
    for line in texts:
        there = [g for g in line.generations if any(row.phrases for row in line.at(g))]
        if there:
            rows = [
                [text, f"{count:,.0f}", "–" if held is None else f"{held:,.0f}"]
                for text, count, held in most_frequent(line.at(there[-1]))
            ]
            parts += [f"## Most frequent 8-grams: {cell(line.label)}, generation {there[-1]}"]
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
    means = {line.index: bounded(line, measure) for line in series}
    title = cell(f"{top.title[:1].upper()}{top.title[1:]}")
    return [
        f"## At a glance: {cell(learner)}",
        _table(*family_glance(series)),
        f"## {title}, by generation",
        _generations(series, means),
    ]


def _generations(series: Sequence[Series], means: Mapping[int, Mapping[int, Interval]]) -> str:
    """A line a generation, at most `LINES` of them."""
    every = sorted({g for there in means.values() for g in there})
    steps = thinned(every, LINES)
    rows = [[f"{g:,}", *(spread(means[line.index].get(g)) for line in series)] for g in steps]
    made = _table(["generation", *(line.label for line in series)], rows)
    return (
        made
        if len(steps) == len(every)
        else f"{made}\n\n{len(steps)} of {len(every):,} generations that lines are drawn through."
    )


def _lineages(run: Run) -> list[str]:
    """How the lineages of a run stand to each other; nothing of a run that has one."""
    found = between(run.rows)
    if not found:
        return []
    parts = [f"## Several models: {cell(run.name)}", "\n".join(f"- {cell(said, 600)}" for said in between_said(found))]
    for one in found:
        parts += [
            f"### {cell(one.policy)}: mean over {len(one.lineages)} lineages, by generation",
            _table(*between_table(one)),
        ]
    return parts


def _mixture(run: Run, *, several: bool) -> list[str]:
    """Scaling laws and cells of a mixture."""
    measured = cells_of(run)
    if not measured:
        return []
    of = f" of {cell(run.name)}" if several else ""
    parts = []
    head, rows = laws_table(run, measured)
    if rows:
        parts += [f"## Where more data stops helping{of}", _table(head, rows)]
    head, rows = cells_table(run, measured)
    parts += [f"## Cells{of}", _table(head, rows[:CELLS])]
    return parts + ([f"The first {CELLS} of {len(rows):,} cells."] if len(rows) > CELLS else [])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[cell(text, 300) for text in row] for row in (head, *rows)]
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:]))


def _name(picture: Path) -> str:
    return picture.stem.rpartition("-")[2]
