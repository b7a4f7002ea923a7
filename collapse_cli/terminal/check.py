"""What is printed of a comparison of two texts."""

from collections.abc import Sequence

from rich.console import Console

from collapse_cli.findings.check import CheckTable, TwoTexts
from collapse_cli.terminal.text import Table, line, safe

MARKS = {"bad": "[red]–[/] ", "good": "[green]+[/] ", "plain": "· "}


def print_compared(console: Console, found: TwoTexts, notes: Sequence[str]) -> None:
    """The figures of both texts, then what matters in sentences, and the notes on what was left out."""
    for table in found.tables:
        console.print(_table(table))
    for note in (*notes, *found.notes):
        line(console, f"note: {note}")
    print_remarks(console, found)


def print_remarks(console: Console, found: TwoTexts) -> None:
    """Sentences, the most important ones first."""
    for remark in found.remarks:
        line(console, remark.text, mark=MARKS[remark.tone])


def _table(figures: CheckTable) -> Table:
    table = Table(safe(figures.title))
    for number, name in enumerate(figures.head):
        table.add_column(safe(name), justify="right" if number else "left")
    for row in figures.rows:
        table.add_row(*(safe(text) for text in row))
    return table
