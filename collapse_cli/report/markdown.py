"""The report as Markdown: the same tables, and links to pictures beside it."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from collapse_cli.metrics.words import spread
from collapse_cli.report.ahead import Forecast, outlook
from collapse_cli.report.figures import perplexities
from collapse_cli.report.reading import Run, Series
from collapse_cli.report.sections import most_frequent
from collapse_cli.report.tables import (
    diagnoses,
    facts,
    glance_table,
    left_out,
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
}


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
    if series:
        parts += ["## At a glance", _table(*glance_table(series, found))]
        means = {one.index: perplexities(one) for one in series}
        steps = sorted({g for there in means.values() for g in there})
        rows = [[str(g), *(spread(means[one.index].get(g)) for one in series)] for g in steps]
        parts += ["## Perplexity by generation", _table(["generation", *(one.label for one in series)], rows)]
        if lines := [f"- {cell(one, 400)}" for one in left_out(series)]:
            parts.append("\n".join(lines))
    parts += [f"![{TITLES[_name(one)]}]({quote(one.name)})\n\n{TITLES[_name(one)]}." for one in pictures]
    if published := published_table(runs):
        rows = [[one.what, one.where, one.published, one.ours, one.said, one.source] for one in published]
        names = ["what", "where", "published", "measured here", "verdict", "source"]
        parts += ["## Measured against published", _table(names, rows)]
    for run, forecast in zip(runs, forecasts, strict=True):
        if forecast is not None:
            head, rows = outlook(forecast)
            parts += [
                f"## Forecast of {cell(run.name)}",
                "\n".join(f"- {cell(one, 600)}" for one in forecast.sentences),
            ]
            parts += [_table(head, rows)] if rows else []
    for one in series:
        there = [g for g in one.generations if any(row.get("top_8grams") for row in one.at(g))]
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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[cell(one, 300) for one in row] for row in (head, *rows)]
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:]))


def _name(picture: Path) -> str:
    return picture.stem.rpartition("-")[2]
