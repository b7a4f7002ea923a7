"""The rows of the texts that are compared, as people gave them, and which of them are the same."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from collapse_cli import files
from collapse_cli.data import textfiles
from collapse_cli.data.textfiles import SPLIT_WORDS
from collapse_cli.errors import InputError, how_many

LEAST = 40  # rows of each text that are not the same; fewer can be judged by eye
PER_GROUP = 20  # of a text held out of the real one: the share is 1 / 10, at least so many rows
HELD_OUT = 0.1
MOST_HELD = 1_000


@dataclass(frozen=True)
class Documents:
    """A text.

    Attributes:
        name: what it is called in messages.
        source: where it was read from.
        rows: those that hold more than white space, in the order of the files.
        blank: how many held nothing else.
        notes: what was passed over while it was read.
    """

    name: str
    source: str
    rows: Sequence[str]
    blank: int = 0
    notes: Sequence[str] = ()

    @cached_property
    def contents(self) -> np.ndarray:
        """(rows,) uint64: equal for rows that are the same but for white space, else different but for chance (2^-64 a pair)."""
        digests = (
            hashlib.blake2b(" ".join(row.split()).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            for row in self.rows
        )
        return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)

    @cached_property
    def distinct(self) -> np.ndarray:
        """(rows that differ,) int64: the first row of each content, ascending."""
        return np.sort(np.unique(self.contents, return_index=True)[1])

    @property
    def sha256(self) -> str:
        """Of the rows, in order."""
        whole = hashlib.sha256()
        for row in self.rows:
            whole.update(row.encode("utf-8", "surrogatepass") + b"\0")
        return whole.hexdigest()

    def take(self, rows: np.ndarray) -> "Documents":
        """The rows with these indices, in this order."""
        return Documents(self.name, self.source, [self.rows[row] for row in rows.tolist()])


def read(path: Path, name: str, column: str) -> tuple[Documents, Documents | None]:
    """A text, and that of its test split where it is a folder that has one.

    Args:
        name: what to call it in messages: `the real text`.
        column: where formats have columns, the one that holds the text.

    Raises:
        InputError: for what is not there, is no text, or has too few rows that differ.
    """
    if not files.what_is(path):
        raise InputError(f"{name}: there is no file or folder {str(path)!r}")
    splits, notes = textfiles.read_source(path, column, dict.fromkeys(SPLIT_WORDS, ""))
    made = of_rows(splits["train"], name, str(path), notes)
    if len(made.distinct) < LEAST:
        twice = "" if len(made.distinct) == len(made.rows) else f" ({len(made.rows):,} in all)"
        raise InputError(
            f"{name} ({path}) has {how_many(len(made.distinct), 'row')} that differ{twice}, and at least {LEAST} are needed to say anything; a row is "
            "a line of plain text, or a record of a format with columns: give more of it"
        )
    test = of_rows(splits["test"], "the test text", str(path), ()) if "test" in splits else None
    return made, test if test is not None and test.rows else None


def read_test(path: Path, column: str) -> Documents:
    """The test text that is given; all of it, whatever its splits are called.

    Raises:
        InputError: as `read`, but however few its rows are, and when there is none.
    """
    if not files.what_is(path):
        raise InputError(f"the test text (--test): there is no file or folder {str(path)!r}")
    splits, notes = textfiles.read_source(path, column, dict.fromkeys(SPLIT_WORDS, ""))
    made = of_rows(splits.get("test", splits["train"]), "the test text", str(path), notes)
    if not made.rows:
        raise InputError(f"the test text (--test {path}) is empty")
    return made


def of_rows(rows: Sequence[str], name: str, source: str, notes: Sequence[str]) -> Documents:
    """A text of rows, of which those without a sign are left out."""
    kept = [row for row in rows if row.strip()]
    return Documents(name, source, kept, len(rows) - len(kept), tuple(notes))


def held_out(real: Documents, seed: int = 0) -> np.ndarray:
    """(held,) int64: rows of the real text that are put aside to test on, ascending.

    A tenth of the rows that differ, 1,000 at most. All rows of one content are put aside or none.
    """
    count = min(MOST_HELD, max(PER_GROUP, round(HELD_OUT * len(real.distinct))), len(real.distinct) // 2)
    chosen = np.random.Generator(np.random.Philox(seed)).choice(len(real.distinct), count, replace=False)
    return np.flatnonzero(np.isin(real.contents, real.contents[real.distinct[chosen]]))


def sources(texts: Mapping[str, Documents]) -> dict[str, dict[str, object]]:
    """What is recorded of texts: where from, how much, and the hash by which they are known again."""
    return {
        name: {
            "source": text.source,
            "rows": len(text.rows),
            "distinct_rows": len(text.distinct),
            "blank_rows": text.blank,
            "characters": sum(map(len, text.rows)),
            "sha256": text.sha256,
            "notes": list(text.notes),
        }
        for name, text in texts.items()
    }
