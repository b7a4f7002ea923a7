"""The rows of the texts that are compared, as people gave them, and which of them are the same."""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from collapse_cli import files
from collapse_cli.data import textfiles
from collapse_cli.data.dialogues import Dialogue, answers
from collapse_cli.data.forms import TEXT
from collapse_cli.data.longtext import check_memory
from collapse_cli.errors import InputError, how_many

LEAST = 40  # rows of each text that are not the same; fewer can be judged by eye
HELD_OUT = 0.1  # share of the real rows that differ, to test on
LEAST_HELD, MOST_HELD = 20, 1_000


@dataclass(frozen=True)
class Documents:
    """A text.

    Attributes:
        name: what it is called in messages.
        source: where it was read from.
        rows: those that hold more than white space, in the order of the files: what is trained on, and what tells rows apart.
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

    @cached_property
    def measured(self) -> Sequence[str]:
        """(rows,) what is measured of each: of chats and of prompts with answers the last answer alone."""
        return answers(self.rows)

    @property
    def dialogues(self) -> bool:
        """Whether rows are chats, or prompts with answers."""
        return bool(self.rows) and isinstance(self.rows[0], Dialogue)

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


@dataclass(frozen=True)
class ReadingOptions:
    """How given files are read, as the section `data` of a configuration has it.

    Attributes:
        text, format, prompt, completion: as there; they hold for all texts.
        synthetic: the column of the synthetic text (`foreign.text`); empty: as `text`.
        train, valid, test: of the real text, where it is a folder, which file is which split.
    """

    text: str = TEXT
    format: str = "auto"
    prompt: str = ""
    completion: str = ""
    synthetic: str = ""
    train: str = ""
    valid: str = ""
    test: str = ""

    def all_of(self, path: Path) -> tuple[Sequence[str], list[str]]:
        """The rows of a file, or of all text files of a folder, and notes."""
        rows, notes = textfiles.read_all(
            path, self.text, form=self.format, prompt=self.prompt, completion=self.completion
        )
        return rows, [*notes]

    def by_split(self, path: Path) -> tuple[Mapping[str, Sequence[str]], list[str]]:
        """The rows of a file, or of a folder's files by split, and notes."""
        chosen = {"train": self.train, "valid": self.valid, "test": self.test}
        return textfiles.read_source(
            path, self.text, chosen, form=self.format, prompt=self.prompt, completion=self.completion
        )


def read_real(path: Path, how: ReadingOptions) -> tuple[Documents, Documents | None]:
    """The real text, and that of its test split where it is a folder that has one.

    Raises:
        InputError: for what is not there, is no text, or has too few rows that differ.
    """
    if not files.what_is(path):
        raise _not_there("the real text", path)
    splits, notes = how.by_split(path)
    if "valid" in splits:
        notes = [
            *notes,
            f"{path}: {how_many(len(splits['valid']), 'row')} of validation text are neither compared nor trained on",
        ]
    made = _enough(of_rows(splits["train"], "the real text", str(path), notes))
    test = of_rows(splits["test"], "the test text", str(path), ()) if "test" in splits else None
    return made, test if test is not None and test.rows else None


def read_synthetic(path: Path, how: ReadingOptions) -> Documents:
    """The synthetic text: all of a folder.

    Raises:
        InputError: as `read_real`.
    """
    if not files.what_is(path):
        raise _not_there("the synthetic text", path)
    try:
        rows, notes = (replace(how, text=how.synthetic) if how.synthetic else how).all_of(path)
    except InputError as error:  # whose advice is of both texts
        raise InputError(str(error).replace("data.text=", "foreign.text=")) from None
    return _enough(of_rows(rows, "the synthetic text", str(path), notes))


def read_test(path: Path, how: ReadingOptions) -> Documents:
    """The test text that is given: all of a folder, however few its rows are.

    Raises:
        InputError: for what is not there, is no text, or is empty.
    """
    if not files.what_is(path):
        raise _not_there("the test text (--test)", path)
    rows, notes = how.all_of(path)
    made = of_rows(rows, "the test text", str(path), notes)
    if not made.rows:
        raise InputError(f"the test text (--test {path}) is empty")
    return made


def _not_there(name: str, path: Path) -> InputError:
    beside = [one.name for one in files.in_folder(path.parent)] if files.what_is(path.parent) == "folder" else []
    near = difflib.get_close_matches(path.name[:200], beside, n=1)
    said = f" (did you mean {str(path.parent / near[0])!r}?)" if near else ""
    return InputError(f"{name}: there is no file or folder {str(path)!r}{said}")


def _enough(made: Documents) -> Documents:
    if len(made.distinct) < LEAST:
        twice = "" if len(made.distinct) == len(made.rows) else f" ({len(made.rows):,} in all)"
        raise InputError(
            f"{made.name} ({made.source}) has {how_many(len(made.distinct), 'distinct row')}{twice}, and at least {LEAST} are needed to say "
            "anything; a row is a line of plain text, or a record of a format with columns: give more of it"
        )
    return made


def of_rows(rows: Sequence[str], name: str, source: str, notes: Sequence[str]) -> Documents:
    """A text of rows, of which those without a sign are left out.

    Raises:
        InputError: when memory cannot hold all of them.
    """
    check_memory(rows, source)
    kept = [row for row in rows if row.strip()]
    return Documents(name, source, kept, len(rows) - len(kept), tuple(notes))


def held_out(real: Documents, seed: int = 0) -> np.ndarray:
    """(held,) int64: rows of the real text that are put aside to test on, ascending.

    A tenth of the rows that differ, at least 20 and at most 1,000. All rows of one content are put aside or none.
    """
    count = min(MOST_HELD, max(LEAST_HELD, round(HELD_OUT * len(real.distinct))), len(real.distinct) // 2)
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
            "answers": text.dialogues,
            "notes": list(text.notes),
        }
        for name, text in texts.items()
    }
