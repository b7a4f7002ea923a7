"""Rows of large text files, read from the disk each time they are asked for: memory does not grow with the text."""

import codecs
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from collapse_cli import files
from collapse_cli.errors import InputError

LONG = 1 << 23  # bytes of a file, from which on its rows stay on the disk
PART = 1 << 20  # bytes that are read at a time
EVERY = 256  # of so many lines the beginning of one is remembered
MARK = b"\xef\xbb\xbf"  # a byte order mark


class NotPlain(Exception):  # noqa: N818
    """Rows of a file that are no stretches of it as it is: the file is to be read whole."""


class FileRows(Sequence[str]):
    r"""The lines of a UTF-8 file, each with its \n, also where the last one has none.

    Each pass opens the file anew, and says when it is not what it was: what was checked and hashed in one pass is what is read in another.
    """

    def __init__(self, path: Path, first: int = 0, last: int | None = None, *, of: "FileRows | None" = None) -> None:
        r"""All lines of a file, looked through once; or with `of` those from `first` to before `last` of these.

        Raises:
            NotPlain: for a file that is not UTF-8, has a byte order mark somewhere, zero bytes, or \r at the end of a line.
            InputError: when it cannot be read.
        """
        self.path = path
        self._last: int
        if of is None:
            self._stamp, self._starts, lines = _looked_through(path)
        else:
            self._stamp, self._starts, lines = of._stamp, of._starts, of._last
        self._first, self._last = first, lines if last is None else last

    def __len__(self) -> int:
        return self._last - self._first

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...

    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            first, last, step = place.indices(len(self))
            if step != 1:
                return [self[number] for number in range(first, last, step)]
            return FileRows(self.path, self._first + first, self._first + max(first, last), of=self)
        number = place + len(self) if place < 0 else place
        if not 0 <= number < len(self):
            raise IndexError(place)
        return next(self._lines(self._first + number, self._first + number + 1))

    def __iter__(self) -> Iterator[str]:
        return self._lines(self._first, self._last)

    def _lines(self, first: int, last: int) -> Iterator[str]:
        """Line by line, from `first` to before `last` of the file."""
        with self.path.open("rb", PART) as file:
            self._check(file.fileno())
            file.seek(int(self._starts[first // EVERY]) if first < last else 0)
            for line in itertools.islice(file, first % EVERY, first % EVERY + last - first):
                yield (line if line.endswith(b"\n") else line + b"\n").decode()
            self._check(file.fileno())

    def _check(self, number: int) -> None:
        if _stamp(number) != self._stamp:
            raise InputError(f"{self.path} changed while it was read; give the command again when it is complete")


class Joined(Sequence[str]):
    """Rows of several sequences, one behind the other."""

    def __init__(self, parts: Sequence[Sequence[str]]) -> None:
        self._parts = parts
        self._ends = list(itertools.accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...

    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            first, last, step = place.indices(len(self))
            if step != 1:
                return [self[number] for number in range(first, last, step)]
            cut = []
            for part, end in zip(self._parts, self._ends, strict=True):
                begin = end - len(part)
                if some := part[max(0, first - begin) : max(0, last - begin)]:
                    cut.append(some)
            return Joined(cut)
        number = place + len(self) if place < 0 else place
        if not 0 <= number < len(self):
            raise IndexError(place)
        for part, end in zip(self._parts, self._ends, strict=True):
            if number < end:
                return part[number - (end - len(part))]
        raise IndexError(place)

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self._parts)


def is_long(rows: Sequence[str]) -> bool:
    """Whether rows are on the disk, for there are so many."""
    return isinstance(rows, FileRows | Joined)


def file_rows(path: Path) -> FileRows | None:
    """The rows of a large file of plain text; None of one that is small, or that is to be read whole.

    Raises:
        InputError: when it cannot be read.
    """
    if files.what_is(path) != "file" or path.stat().st_size < LONG:
        return None
    try:
        return FileRows(path)
    except NotPlain:
        return None


def _stamp(number: int) -> tuple[int, int, int]:
    """Which file it is: inode, size and time."""
    now = os.fstat(number)
    return now.st_ino, now.st_size, now.st_mtime_ns


def _looked_through(path: Path) -> tuple[tuple[int, int, int], np.ndarray, int]:
    """The stamp of a file, where each 256th line begins, and how many lines there are."""
    decoder, before, lines = codecs.getincrementaldecoder("utf-8")(), 0, 0
    starts: list[np.ndarray] = [np.zeros(1, np.int64)]
    ended = True  # whether what was read so far ends a line
    with files.opened(path) as file:
        stamp = _stamp(file.fileno())
        tail = b""
        while part := file.read(PART):
            if b"\r" in part or b"\0" in part or MARK in tail + part:
                raise NotPlain
            try:
                decoder.decode(part)
            except UnicodeDecodeError:
                raise NotPlain from None
            ends = np.flatnonzero(np.frombuffer(part, np.uint8) == ord("\n"))
            numbers = np.arange(lines + 1, lines + len(ends) + 1)  # of the lines that begin behind them
            starts.append(before + ends[numbers % EVERY == 0].astype(np.int64) + 1)
            before, lines, ended, tail = before + len(part), lines + len(ends), part.endswith(b"\n"), part[-2:]
        try:
            decoder.decode(b"", True)
        except UnicodeDecodeError:
            raise NotPlain from None
    return stamp, np.concatenate(starts), lines + (not ended)
