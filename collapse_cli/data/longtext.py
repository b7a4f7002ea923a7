"""Rows of long texts, read from the disk each time they are asked for: memory does not grow with the text."""

import codecs
import itertools
import os
import tempfile
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np

from collapse_cli import files
from collapse_cli.errors import InputError
from collapse_cli.process import free_memory

LONG = 1 << 23  # bytes of a text, from which on its rows stay on the disk
OF_A_ROW = 50  # bytes that Python takes for a row in memory, beside its characters
PART = 1 << 20  # bytes that are read at a time
EVERY = 256  # of so many rows the beginning of one is remembered
MARK = b"\xef\xbb\xbf"  # a byte order mark
LARGE = Path("/var/tmp")  # noqa: S108  where the system wants large temporary files; /tmp is often memory

Stamp = tuple[int, int, int]  # which file an open one is: inode, size and time
Starts = Sequence[int] | np.ndarray  # where every 256th row of a file begins


class NotPlain(Exception):  # noqa: N818
    """Rows of a file that are no stretches of it as it is."""


class LongRows(Sequence[str]):
    """A sequence of rows that are not in memory; what is cut out of it is not, either."""

    @abstractmethod
    def cut(self, first: int, last: int) -> "LongRows":
        """The rows from `first` to before `last`, both within the sequence."""

    @abstractmethod
    def whole_lines(self) -> "LongRows":
        """The same rows, each of which ends in a newline."""

    @property
    @abstractmethod
    def size(self) -> int:
        """About how many bytes they have."""

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...

    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            first, last, step = place.indices(len(self))
            return (
                self.cut(first, max(first, last))
                if step == 1
                else [self[number] for number in range(first, last, step)]
            )
        number = place + len(self) if place < 0 else place
        if not 0 <= number < len(self):
            raise IndexError(place)
        return next(iter(self.cut(number, number + 1)))


class _Stretch(LongRows):
    """Rows that stand in a file one behind the other, each with the same byte behind it.

    Attributes:
        end: that byte.
    """

    end: bytes

    def __init__(self, starts: Starts, first: int, last: int) -> None:
        self._starts, self._first, self._last = starts, first, last

    @abstractmethod
    def _opened(self) -> AbstractContextManager[Callable[[int], Iterator[bytes]]]:
        """What gives the content of the file from a place on, in parts."""

    @abstractmethod
    def _row(self, content: str) -> str:
        """A row, of what stands before its end."""

    def __len__(self) -> int:
        return self._last - self._first

    def __iter__(self) -> Iterator[str]:
        if not len(self):
            return
        skipped = self._first % EVERY
        with self._opened() as read:
            found = _parted(read(int(self._starts[self._first // EVERY])), self.end)
            for content in itertools.islice(found, skipped, skipped + len(self)):
                yield self._row(content.decode())


class FileRows(_Stretch):
    r"""The lines of a UTF-8 file, each with its \n, also where the last one has none.

    Each pass opens the file anew, and says when it is not what it was: what was checked and hashed in one pass is what is read in another.
    """

    end = b"\n"
    _stamp: Stamp

    def __init__(self, path: Path, first: int = 0, last: int | None = None, *, of: "FileRows | None" = None) -> None:
        r"""All lines of a file, looked through once; or with `of` those from `first` to before `last` of these.

        Raises:
            NotPlain: for a file that is not UTF-8, has a byte order mark somewhere, zero bytes, or \r at the end of a line.
            InputError: when it cannot be read.
        """
        self.path = path
        found: tuple[Stamp, Starts, int] = _looked_through(path) if of is None else (of._stamp, of._starts, of._last)
        self._stamp, starts, lines = found
        super().__init__(starts, first, lines if last is None else last)

    def cut(self, first: int, last: int) -> "FileRows":
        return FileRows(self.path, self._first + first, self._first + last, of=self)

    def whole_lines(self) -> "FileRows":
        return self

    @property
    def size(self) -> int:
        return self._stamp[1]

    def _row(self, content: str) -> str:
        return content + "\n"

    @contextmanager
    def _opened(self) -> Iterator[Callable[[int], Iterator[bytes]]]:
        with self.path.open("rb", 0) as file:
            check_stamp(self.path, file.fileno(), self._stamp)

            def read(start: int) -> Iterator[bytes]:
                file.seek(start)
                while part := file.read(PART):
                    yield part

            yield read
            check_stamp(self.path, file.fileno(), self._stamp)


class SpooledRows(_Stretch):
    """Rows in a temporary file without a name, which is gone when nothing has its rows any more, however the process ends."""

    end = b"\xff"  # which UTF-8 has nowhere

    def __init__(
        self, file: BinaryIO, starts: Starts, first: int, last: int, size: int, *, whole: bool = False
    ) -> None:
        super().__init__(starts, first, last)
        self._file, self._size, self._whole = file, size, whole

    def cut(self, first: int, last: int) -> "SpooledRows":
        begin = self._first
        return SpooledRows(self._file, self._starts, begin + first, begin + last, self._size, whole=self._whole)

    def whole_lines(self) -> "SpooledRows":
        return SpooledRows(self._file, self._starts, self._first, self._last, self._size, whole=True)

    @property
    def size(self) -> int:
        return self._size

    def _row(self, content: str) -> str:
        return content if not self._whole or content.endswith("\n") else content + "\n"

    @contextmanager
    def _opened(self) -> Iterator[Callable[[int], Iterator[bytes]]]:
        yield self._parts

    def _parts(self, start: int) -> Iterator[bytes]:
        while part := _read_at(self._file, start):
            start += len(part)
            yield part


class Joined(LongRows):
    """Rows of several sequences, one behind the other."""

    def __init__(self, parts: Sequence[Sequence[str]]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self._parts)

    def cut(self, first: int, last: int) -> "Joined":
        kept, begin = [], 0
        for part in self._parts:
            if some := part[max(0, first - begin) : max(0, last - begin)]:
                kept.append(some)
            begin += len(part)
        return Joined(kept)

    def whole_lines(self) -> "Joined":
        return Joined([whole_lines(part) for part in self._parts])

    @property
    def size(self) -> int:
        return sum(part.size if isinstance(part, LongRows) else sum(map(len, part)) for part in self._parts)


class Spool:
    """Rows as they are read, one behind the other: in memory, and where they are many on the disk."""

    def __init__(self) -> None:
        self._here: list[str] = []
        self._size = 0  # bytes that those here take
        self._file: BinaryIO | None = None
        self._starts = array("q")
        self._written, self._rows = 0, 0  # bytes and rows in the file

    def append(self, row: str) -> None:
        """
        Raises:
            InputError: when the disk is full.
        """
        self._here.append(row)
        self._size += len(row) + OF_A_ROW
        if self._size > LONG or (self._file and self._size > PART):
            self._write()

    def rows(self) -> Sequence[str]:
        """All of them. Nothing is appended from then on."""
        if self._file is None:
            return self._here
        self._write()
        return SpooledRows(self._file, self._starts, 0, self._rows, self._written)

    def _write(self) -> None:
        folder = room()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  rows are read from it later
            content = bytearray()
            for row in self._here:
                if self._rows % EVERY == 0:
                    self._starts.append(self._written + len(content))
                content += row.encode() + SpooledRows.end
                self._rows += 1
            left = memoryview(content)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise InputError(
                f"a long text is kept in {folder} while it is read, which cannot take it ({error.strerror}); free some space there, or "
                "name another folder in the environment variable TMPDIR"
            ) from None
        self._written += len(content)
        self._here, self._size = [], 0


def joined(parts: Sequence[Sequence[str]]) -> Sequence[str]:
    """The rows of all parts, one behind the other; in memory where all of them are."""
    if not any(map(is_long, parts)):
        return [row for part in parts for row in part]
    some = [part for part in parts if len(part)]
    return some[0] if len(some) == 1 else Joined(some)


def whole_lines(rows: Sequence[str]) -> Sequence[str]:
    """The same rows, each of which ends in a newline."""
    if isinstance(rows, LongRows):
        return rows.whole_lines()
    return tuple(row if row.endswith("\n") else row + "\n" for row in rows)


def is_long(rows: Sequence[str]) -> bool:
    """Whether rows are on the disk, for there are so many."""
    return isinstance(rows, LongRows)


def check_memory(rows: Sequence[str], what: str) -> None:
    """Whether memory can hold rows, where all of them are needed at once.

    Raises:
        InputError: when it cannot.
    """
    if isinstance(rows, LongRows) and rows.size > (most := free_memory() // 2):
        raise too_large(what, most)


def too_large(what: str | Path, most: int) -> InputError:
    """What to say of a text that memory cannot hold."""
    return InputError(
        f"{what} holds more than {most / 1e9:.1f} GB, half of the memory that is free; give a part of it, or end other programs"
    )


def room() -> str:
    """The folder where rows are kept that memory shall not hold."""
    if any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")) or not os.access(LARGE, os.W_OK):
        return tempfile.gettempdir()
    return str(LARGE)


def file_rows(path: Path) -> FileRows | None:
    """The rows of a large file of plain text; None of one that is small, or whose rows are not stretches of it.

    Raises:
        InputError: when it cannot be read.
    """
    if files.what_is(path) != "file" or path.stat().st_size < LONG:
        return None
    try:
        return FileRows(path)
    except NotPlain:
        return None


def stamp_of(number: int) -> Stamp:
    now = os.fstat(number)
    return now.st_ino, now.st_size, now.st_mtime_ns


def check_stamp(path: Path, number: int, stamp: Stamp) -> None:
    """Whether an open file is what it was.

    Raises:
        InputError: when it is not.
    """
    if stamp_of(number) != stamp:
        raise InputError(f"{path} changed while it was read; give the command again when it is complete")


def _read_at(file: BinaryIO, start: int) -> bytes:
    """A part of a file. Where the system can, without moving a place that forked processes and several passes would share."""
    if hasattr(os, "pread"):
        return os.pread(file.fileno(), PART, start)
    file.seek(start)
    return file.read(PART)


def _parted(parts: Iterable[bytes], end: bytes) -> Iterator[bytes]:
    """What stands before each `end`, and behind the last one, where that is anything."""
    open_: list[bytes] = []  # of a row that is longer than a part
    for part in parts:
        first, *others = part.split(end)
        open_.append(first)
        if others:
            yield b"".join(open_)
            yield from others[:-1]
            open_ = [others[-1]]
    if last := b"".join(open_):
        yield last


def _looked_through(path: Path) -> tuple[Stamp, np.ndarray, int]:
    """The stamp of a file, where each 256th line begins, and how many lines there are."""
    decoder, before, lines = codecs.getincrementaldecoder("utf-8")(), 0, 0
    starts: list[np.ndarray] = [np.zeros(1, np.int64)]
    ended = True  # whether what was read so far ends a line
    with files.opened(path) as file:
        stamp = stamp_of(file.fileno())
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
