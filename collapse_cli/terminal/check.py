"""What is printed of a comparison of two texts."""

from collections.abc import Sequence

from rich.console import Console

from collapse_cli.findings.check import CheckTable, TwoTexts
from collapse_cli.findings.shares import ShareVerdict
from collapse_cli.terminal.text import Table, line, safe

MARKS = {"bad": "[red]–[/] ", "good": "[green]+[/] ", "plain": "· "}


def print_check(console: Console, texts: TwoTexts, verdict: ShareVerdict | None, notes: Sequence[str]) -> None:
    """The figures of both texts and of trained models, then what matters in sentences; those on trained models stand last, to be read first."""
    for table in (*texts.tables, *(verdict.tables if verdict else ())):
        console.print(_table(table))
    for note in (*notes, *texts.notes):
        line(console, f"note: {note}")
    for remark in texts.remarks:
        line(console, remark.text, mark=MARKS[remark.tone])
    for remark in verdict.remarks if verdict else ():
        line(console, remark.text, "bold" if remark.tone != "plain" else "", MARKS[remark.tone])


def _table(figures: CheckTable) -> Table:
    table = Table(safe(figures.title))
    for number, name in enumerate(figures.head):
        table.add_column(safe(name), justify="right" if number else "left")
    for row in figures.rows:
        table.add_row(*(safe(text) for text in row))
    return table
