"""Text that someone else's model wrote, in files: read as real text is, known by its content, held against the test text."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from collapse_cli import files
from collapse_cli.data import textfiles
from collapse_cli.data.dataset import TELLING, how_many
from collapse_cli.data.dialogues import Dialogue, as_bytes
from collapse_cli.data.forms import TEXT
from collapse_cli.data.longtext import whole_lines
from collapse_cli.errors import InputError

ADVICE = " (collapse check looks for passages, too)"


@dataclass(frozen=True)
class Written:
    """A text by another model.

    Attributes:
        rows: lines or documents, each of which ends in a newline.
        sha256: of all rows.
        notes: what the user should know of how it was read.
    """

    rows: Sequence[str]
    sha256: str
    notes: tuple[str, ...] = ()


@lru_cache(maxsize=8)
def read(source: str, column: str = TEXT) -> Written:
    """The text of a file, or of all text files of a folder.

    Args:
        column: where formats have columns, the one that holds the text.

    Raises:
        InputError: for what is missing, unreadable or empty.
    """
    path = Path(source)
    if not files.what_is(path):
        raise InputError(
            f"there is no file or folder {source!r} to take text of another model from{files.unread(source)}; a server is named by its address "
            "(http://127.0.0.1:8000/v1#MODEL)"
        )
    try:
        rows, notes = textfiles.read_all(path, column)
    except InputError as error:  # whose advice is of real text
        raise InputError(str(error).replace("data.text=", "foreign.text=")) from None
    rows = whole_lines(rows)
    if not any(row.strip() for row in rows):
        raise InputError(f"{source}: this text of another model is empty")
    spoken = sum(isinstance(row, Dialogue) for row in rows)
    if spoken:
        notes = [
            *notes,
            f"{source}: {how_many(spoken, 'row')} of prompts and answers: both are learned as plain text, one behind the other, as if the "
            "other model had written both; to take one column, say foreign.text=COLUMN",
        ]
    value = hashlib.sha256()
    for row in rows:
        value.update(as_bytes(row) + b"\0")
    return Written(rows, value.hexdigest(), tuple(notes))


def also_in_test(name: str, rows: Sequence[str], test: Sequence[str]) -> list[str]:
    """A note where lines of the test text stand in another text that is trained on. Short ones, such as headings, do not count."""
    lines = [plain for row in test for line in row.splitlines() if len(plain := line.strip()) >= TELLING]
    wanted = set(lines)
    there = {plain for row in rows for line in row.splitlines() if (plain := line.strip()) in wanted}
    count = sum(line in there for line in lines)
    if not count:
        return []
    return [
        f"test lines of {TELLING} characters or more that also stand in {name}: {count:,} of {len(lines):,}; who is trained on "
        f"that text has seen them, and the test loss says less than it seems to{ADVICE}"
    ]
