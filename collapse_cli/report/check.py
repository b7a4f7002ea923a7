"""The section on a comparison of two texts, and the sentences that open the page of `collapse check`."""

from collections.abc import Sequence

from collapse_cli.findings.check import CheckTable, Remark
from collapse_cli.report.contents import Contents
from collapse_cli.report.html_elements import cells, folded
from collapse_cli.report.loading import Run
from collapse_cli.report.text import cell, escaped, visible

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
    worst_first = {"bad": 0, "plain": 1, "good": 2}
    return sorted(run.compared.remarks, key=lambda remark: worst_first[remark.tone])


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
    for table in found.tables:
        lines = [[cell(text, 200) for text in row] for row in (table.head, *table.rows)]
        rule = ["---"] * len(table.head)
        body = "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:]))
        parts += [f"### {cell(table.title, 200)}", body]
        parts += [cell(table.misses, 600)] if table.misses else []
    if found.notes:
        parts.append("\n".join(f"- {cell(note, 600)}" for note in found.notes))
    return parts
