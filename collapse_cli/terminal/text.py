"""The terminal: text from outside without control characters and in bounded length, and tables that cut no word."""

import errno
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.segment import Segment
from rich.table import Column
from rich.table import Table as RichTable

NARROWEST, USUAL = 10, 80  # columns: fewer are no screen, but a wrong setting
LONGEST, LONGEST_NAME = 2000, 100  # characters of a message, and of a name in a table
# C0 and C1 (ESC and CSI among them), DEL, soft hyphen, marks and overrides of direction, invisible and zero-width
# characters, line and paragraph separators, fillers, tags, and halves of surrogate pairs. Joiners that scripts and emoji
# need (U+200C, U+200D) and variation selectors stay.
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
BREAKS = re.compile(r"[ \t\r\n\f\v\x85\u2028\u2029]+")


def plain(text: object, most: int = LONGEST) -> str:
    r"""Text from outside as one line that a terminal shows as it stands.

    Line breaks and tabs become a space. Characters that would command the terminal or hide become `\x1b`, `\u202e`.
    Of more than `most` characters the middle is left out, and how many.
    """
    shown = HIDDEN.sub(_shown, BREAKS.sub(" ", _cut(str(text), most))).strip()
    return shown if len(shown) <= 2 * most else _cut(shown, most)


def safe(text: object, most: int = LONGEST) -> str:
    """As `plain`, to stand in rich markup: brackets in it are brackets."""
    return escape(plain(text, most))


def short(text: object) -> str:
    """The name of something from outside, for a table: as `safe`, and short."""
    return safe(text, LONGEST_NAME)


class Terminal(Console):
    """A console that prints no control characters but its own, whatever it is given."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control is None and segment.text != "\n" and HIDDEN.search(segment.text):
                lines = segment.text.split("\n")
                yield segment._replace(text="\n".join(HIDDEN.sub(_shown, line) for line in lines))
            else:
                yield segment

    def on_broken_pipe(self) -> None:
        """Nobody reads it any more, as after `| head -1`: `__main__` ends the command."""
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def console(*, stderr: bool = False, **options: Any) -> Terminal:
    """Where a command prints: what is given to it is printed as it stands, without highlighting or emoji codes."""
    screen = Terminal(stderr=stderr, highlight=False, emoji=False, **options)
    if (
        "width" not in options and screen.width < NARROWEST
    ):  # COLUMNS=0, as some editors and CI systems set it, would print nothing at all
        screen.width = USUAL
    if (
        not options and not screen.file.isatty()
    ):  # FORCE_COLOR, as CI systems set it, asks for colours in a log, and not for bars
        screen.is_interactive = False
    return screen


def line(screen: Console, text: object, style: str = "", mark: str = "") -> None:
    """A line that stays, whatever is in it: wrapped between words on a terminal, whole where the output is kept.

    Args:
        mark: rich markup that goes before it.
    """
    screen.print(f"{mark}{safe(text)}", style=style or None, highlight=False, soft_wrap=not screen.is_terminal)


def say(message: object) -> None:
    """One line on stderr."""
    print(f"collapse: {plain(message)}", file=sys.stderr)


FOLDED = 24  # columns that a cell whose words may be broken, such as a path, has at least
LONGEST_NUMBER = 28  # columns of a number with its interval; what is longer is a sentence, and may be wrapped


class Table(RichTable):
    """A table that cuts no word: too wide for its place, it falls apart into several below each other.

    Columns of text are wrapped between words. Where that does not fit, the columns after the first `keys` are spread over
    several tables, each with the first `keys` again; then columns of numbers (those aligned to the right) are wrapped, too;
    where even one does not fit beside the keys, or wide keys would be said over and over, each row becomes a list.
    """

    def __init__(self, title: str = "", *headers: str, keys: int = 1, **options: Any) -> None:
        defaults = {"title_justify": "left", "title_style": "bold", "caption_justify": "left"}
        super().__init__(*headers, title=title or None, **(defaults | options))
        self.keys = keys

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        for wrapped in (False, True):
            sizes = [self._sizes(console, options, column, wrapped=wrapped) for column in self.columns]
            groups = _groups([least for least, _ in sizes], self.keys, width)
            keys = _total([least for least, _ in sizes[: self.keys]])
            if groups is not None and (len(groups) < 3 or keys <= width / 2):
                break
        else:
            yield from self._stacked()
            return
        for number, group in enumerate(groups):
            widths = _widths([sizes[index] for index in group], width)
            part = RichTable(
                box=self.box, show_header=self.show_header, show_footer=self.show_footer, pad_edge=self.pad_edge
            )
            for index, wide in zip(group, widths, strict=True):
                column = self.columns[index]
                part.add_column(
                    column.header,
                    column.footer,
                    justify=column.justify,
                    style=column.style,
                    width=wide,
                    overflow="fold",
                )
            chosen = [list(self.columns[index].cells) for index in group]
            for row, cells in zip(self.rows, zip(*chosen, strict=True), strict=True):
                part.add_row(*cells, style=row.style, end_section=row.end_section)
            if number == 0 and self.title:  # not rich's own, which it would break to the width of the table
                yield console.render_str(str(self.title), style=self.title_style or "table.title", highlight=False)
            yield part
        if self.caption:
            yield console.render_str(str(self.caption), style=self.caption_style or "table.caption", highlight=False)

    def _sizes(self, console: Console, options: ConsoleOptions, column: Column, *, wrapped: bool) -> tuple[int, int]:
        """The least and the natural width of a column's content; `wrapped`: numbers may be, too."""
        head = [column.header] if self.show_header else []
        head += [column.footer] if self.show_footer else []
        measured = [console.measure(cell, options=options) for cell in column.cells]
        heads = [console.measure(cell, options=options) for cell in head]
        natural = max((width.maximum for width in (*measured, *heads)), default=1)
        numbers = column.justify == "right"
        narrow = numbers and not wrapped and max((width.maximum for width in measured), default=0) <= LONGEST_NUMBER
        least = max((width.maximum if narrow else width.minimum for width in measured), default=1)
        if numbers and not narrow and not wrapped:
            least = max(least, min(natural, FOLDED))
        least = max(least, *(head.minimum for head in heads)) if heads else least
        if column.overflow == "fold" and not numbers:
            least = min(least, FOLDED)
        return max(1, min(least, natural)), max(1, natural)

    def _stacked(self) -> Iterable[RenderableType]:
        """Each row as a list: what a column is called, and what stands there."""
        if self.title:
            yield f"[bold]{self.title}[/]"
        columns = [(column.header, list(column.cells)) for column in self.columns]
        for number in range(len(self.rows)):
            for header, cells in columns:
                if cells[number] not in ("", None):
                    text = ", ".join(str(cells[number]).splitlines())
                    yield f"{header}: {text}" if header else text
            yield ""
        if self.caption:
            yield f"[dim]{self.caption}[/]"


def facts_table(facts: Mapping[str, str], title: str) -> Table:
    """Names and what they are."""
    table = Table(safe(title), show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for what, value in facts.items():
        table.add_row(short(what), safe(value))
    return table


def _groups(least: Sequence[int], keys: int, width: int) -> list[list[int]] | None:
    """Which columns stand in which table; None where one with its keys is wider than `width`."""
    first, rest = list(range(min(keys, len(least)))), range(min(keys, len(least)), len(least))
    if _total([least[index] for index in first]) > width:
        return None
    groups = [list(first)]
    for index in rest:
        if _total([least[column] for column in (*groups[-1], index)]) > width:
            if _total([least[column] for column in (*first, index)]) > width:
                return None
            groups.append([*first, index])
        else:
            groups[-1].append(index)
    return groups


def _widths(sizes: Sequence[tuple[int, int]], width: int) -> list[int]:
    """Columns as wide as their content, the widest made narrower, never below the least, until all fit."""
    widths = [natural for _, natural in sizes]
    while _total(widths) > width:
        able = [index for index, (least, _) in enumerate(sizes) if widths[index] > least]
        if not able:
            break
        widths[max(able, key=lambda index: widths[index])] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    """Of a table: each column with its padding, and lines between and around them."""
    return sum(width + 3 for width in widths) + 1


def _shown(match: "re.Match[str]") -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    gone = len(text) - most
    head = most * 2 // 3
    return f"{text[:head]} … ({gone:,} more characters) … {text[len(text) - (most - head) :]}"
