"""The section on a comparison of two texts, and the sentences that open the page of `collapse check`."""

from collections.abc import Sequence

from collapse_cli.findings.check import CheckTable, Remark
from collapse_cli.findings.shares import ShareVerdict
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import percent, spread
from collapse_cli.report.contents import Contents
from collapse_cli.report.figures import Figure, Trace, rounded
from collapse_cli.report.grid_figures import y_axis
from collapse_cli.report.html_elements import cells, folded, swatch
from collapse_cli.report.loading import Run
from collapse_cli.report.text import cell, escaped, visible

MOST_DRAWN = 1e6  # times real text alone
FIRST = 6  # sentences that stand on the first screen
CLASSES = {"bad": "bad", "good": "good", "plain": "open"}
SIGNS = {"bad": "look at this", "good": "fine", "plain": "note"}


def opening_remarks(run: Run) -> str:
    """The verdict: the first sentence large, the others as a list; "" of a run that is no check."""
    remarks = said(run)
    if not remarks:
        return ""
    first, rest = remarks[0], remarks[1:]
    shown, more = rest[:FIRST], rest[FIRST:]
    inside = f'<p class="verdict">{escaped(first.text)}</p><ul class="remarks">{_items(shown)}</ul>'
    return inside + (folded(f"{len(more)} more", f'<ul class="remarks">{_items(more)}</ul>') if more else "")


def said(run: Run) -> Sequence[Remark]:
    """All sentences of a check, what matters most first."""
    if run.compared is None:
        return ()
    return [*(run.verdict.remarks if run.verdict is not None else ()), *run.compared.remarks]


def _items(remarks: Sequence[Remark]) -> str:
    return "".join(
        f'<li><span class="pill {CLASSES[remark.tone]}">{SIGNS[remark.tone]}</span> {escaped(remark.text)}</li>'
        for remark in remarks
    )


def checks(contents: Contents) -> None:
    """A section for each run that compared two texts."""
    for index, run in enumerate(contents.runs):
        found = run.compared
        if found is None:
            continue
        several = len(contents.runs) > 1
        if run.verdict is not None:
            _models(contents, run, run.verdict, index, several=several)
        parts = [_table(table) for table in found.tables]
        if several:
            parts.insert(0, f'<ul class="remarks">{_items(said(run))}</ul>')
        for title, groups in found.examples.items():
            shown = "".join(
                f"<li>{''.join(f'<blockquote>{escaped(text)}</blockquote>' for text in group)}</li>" for group in groups
            )
            parts.append(folded(escaped(title), f'<ul class="examples">{shown}</ul>'))
        if found.notes:
            parts.append(
                f'<ul class="reading">{"".join(f"<li>{escaped(note, 600)}</li>" for note in found.notes)}</ul>'
            )
        of = f" · {escaped(run.name)}" if several else ""
        name = f"check-{index}" if several else "check"
        contents.add(
            name, f"The texts: {escaped(found.real, 60)} and {escaped(found.synthetic, 60)}{of}", "".join(parts)
        )


def _models(contents: Contents, run: Run, verdict: ShareVerdict, index: int, *, several: bool) -> None:
    """The section on trained models; its chart opens the page where no other does."""
    of = f" · {escaped(run.name)}" if several else ""
    title = f"What training on them does{of}"
    figure = share_figure(verdict, f"shares_{index}")
    lines = ("replacing real text, at equal tokens", "adding to all real text")
    key = "".join(f"<li>{swatch(colour, colour)} {line}</li>" for colour, line in enumerate(lines))
    tools = f'<div class="tools"><ul class="key" aria-label="colours of lines">{key}</ul></div>'
    tables = "".join(_table(table) for table in verdict.tables)
    contents.lead(f"shares-{index}", title, figure, tools, "")
    contents.add(f"share-tables-{index}", f"The numbers of that{of}", tables)


def share_figure(verdict: ShareVerdict, name: str) -> Figure:
    """Perplexity against that of real text alone, by the synthetic share of all tokens; a line for each question."""
    traces: list[Trace] = []
    seen = [1.0]
    for colour, (effects, what) in enumerate(((verdict.replaced, "replaced"), (verdict.added, "added"))):
        if not effects:
            continue
        over = [effect.ratio or Interval(1.0, 1.0, 1.0, 1) for effect in effects]
        middle = [min(ratio.mean, MOST_DRAWN) for ratio in over]
        up = [
            max(0.0, min(ratio.high, MOST_DRAWN) - y) if ratio.high is not None else 0.0
            for ratio, y in zip(over, middle, strict=True)
        ]
        down = [
            max(0.0, y - ratio.low) if ratio.low is not None else 0.0 for ratio, y in zip(over, middle, strict=True)
        ]
        seen += [y + more for y, more in zip(middle, up, strict=True)] + [
            y - less for y, less in zip(middle, down, strict=True)
        ]
        traces.append(
            {
                "x": [rounded(100 * effect.place[1] / max(1, sum(effect.place))) for effect in effects],
                "y": [rounded(y) for y in middle],
                "mode": "lines+markers",
                "cliponaxis": False,
                "name": what,
                "customdata": [f"{percent(effect.amount)} {what}: {spread(effect.ratio)}" for effect in effects],
                "hovertemplate": "%{customdata}<extra></extra>",
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [rounded(y) for y in up],
                    "arrayminus": [rounded(y) for y in down],
                },
                "meta": {"role": "mean", "c": colour, "d": colour},
            }
        )
    ends = [
        f"{percent(effects[-1].amount)} {what}: {spread(effects[-1].ratio)}"
        for effects, what in ((verdict.replaced, "replaced"), (verdict.added, "added"))
        if effects
    ]
    return Figure(
        name,
        "Perplexity on held-out real text, times that of real text alone",
        "Below 1 synthetic text helps, above 1 it hurts. Bars are 95% intervals that hold for all points together; where one holds 1, nothing is told.",
        "All of this is of one model, and of perplexity: what else synthetic text is good or bad for it does not say.",
        f"Perplexity against real text alone, by the synthetic share of all tokens. {'; '.join(ends)}.",
        traces,
        {
            "xaxis": {
                "title": {"text": "synthetic share of all tokens, percent"},
                "fixedrange": True,
                "range": [-4, 104],
            },
            "yaxis": {"title": {"text": "times real text alone"}, "fixedrange": True} | y_axis(seen, max(seen) > 3),
            "hovermode": "closest",
            "shapes": [
                {
                    "type": "line",
                    "x0": 0,
                    "x1": 1,
                    "xref": "paper",
                    "y0": 1,
                    "y1": 1,
                    "line": {"color": "rgba(128,128,128,0.7)", "width": 1, "dash": "dot"},
                }
            ],
        },
        height=430,
    )


def _table(figures: CheckTable) -> str:
    rows = [[escaped(text, 200) for text in row] for row in figures.rows]
    misses = f'<p class="reading">{escaped(figures.misses, 600)}</p>' if figures.misses else ""
    numbers = ["", *["n"] * (len(figures.head) - 1)]
    return (
        cells(escaped(figures.title, 200), [escaped(name, 60) for name in figures.head], rows, classes=numbers) + misses
    )


def in_markdown(run: Run) -> list[str]:
    """The same as parts of a page of Markdown."""
    found = run.compared
    if found is None:
        return []
    parts = ["\n".join(f"- {cell(visible(remark.text), 1500)}" for remark in said(run))]
    for table in (*(run.verdict.tables if run.verdict is not None else ()), *found.tables):
        lines = [[cell(text, 200) for text in row] for row in (table.head, *table.rows)]
        rule = ["---"] * len(table.head)
        body = "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:]))
        parts += [f"### {cell(table.title, 200)}", body]
        parts += [cell(table.misses, 600)] if table.misses else []
    if found.notes:
        parts.append("\n".join(f"- {cell(note, 600)}" for note in found.notes))
    return parts
