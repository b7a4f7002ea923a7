"""What a file of text holds: its bytes, unpacked, and the text in them, of a large file a part at a time.

Nothing is guessed: files are UTF-8, and are unpacked where their names say so.
"""

import codecs
import gzip
import io
import re
import shutil
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from collapse_cli import files
from collapse_cli.data.longtext import Stamp, check_stamp, room, stamp_of, too_large
from collapse_cli.errors import InputError, first_line
from collapse_cli.process import free_memory

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
PACKED = {
    ".gz": ("gzip", GZIP),
    ".zst": ("zstd", ZSTD),
}  # by ending, what files are compressed with, and how they begin
SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a frame of zstd that holds no content, as pzstd writes them first
BINARY = {  # how files begin that are no text, whatever they are called
    GZIP: "compressed with gzip (name it .gz)",
    b"PK\x03\x04": "a zip archive",
    ZSTD: "compressed with zstd (name it .zst)",
    b"\xfd7zXZ": "compressed with xz",
    b"BZh": "compressed with bzip2",
    b"PAR1": "a Parquet file (name it .parquet)",
    b"ARROW1": "an Arrow file",
    b"%PDF": "a PDF",
    b"version https://git-lfs": "a git-lfs pointer, not the file itself (run `git lfs pull`)",
}
WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # byte order marks of UTF-16 and, for the first, UTF-32
BEGINNING = max(map(len, BINARY))  # bytes that tell what a file is
PART = 1 << 20  # bytes that are unpacked at a time
BUFFER = 1 << 16  # bytes that are decoded at a time
SMALL = 1 << 20  # bytes of a file that is read once; a larger one is read anew in each pass
MANY = 0.1  # of all bytes; UTF-16 of English holds 0.5 of zero bytes, text none


class Content:
    """What a file holds, unpacked. It is looked through once; a large file is opened anew in each pass, and must be what it was then."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            InputError: when the file cannot be read or unpacked, is empty, or holds more than the disk can take. What is wrong with the
                text in it is said where that is asked for.
        """
        self.path = path
        self._stamp: Stamp | None = None
        self._here: bytes | None = None
        self._fault = self._looked_through()

    def parts(self) -> Generator[bytes, None, None]:
        """The bytes, in order."""
        if self._here is not None:
            yield self._here
            return
        with files.opened(self.path) as file:
            if self._stamp is None:
                self._stamp = stamp_of(file.fileno())
            check_stamp(self.path, file.fileno(), self._stamp)
            yield from unpacked_parts(self.path, file)

    @contextmanager
    def lines(self, newline: str | None) -> Iterator[TextIO]:
        r"""The text, without a byte order mark, to be read line by line.

        Args:
            newline: what ends a line, as `open` has it: None is \n, \r or \r\n, all read as \n; "" is the same as they stand.

        Raises:
            InputError: when it is no text, or not UTF-8.
        """
        if self._fault is not None:
            raise self._fault
        with closing(self.parts()) as parts, io.BufferedReader(_Stream(parts), BUFFER) as buffered:
            try:
                yield io.TextIOWrapper(buffered, "utf-8-sig", newline=newline)
            except UnicodeDecodeError:  # it was UTF-8 when it was looked through
                raise InputError(
                    f"{self.path} changed while it was read; give the command again when it is complete"
                ) from None

    def text(self) -> str:
        """All of the text at once.

        Raises:
            InputError: as `lines` does, and when memory cannot hold it.
        """
        self.check_memory()
        with self.lines("") as text:
            return text.read()

    def check_memory(self) -> None:
        """Whether memory can hold all of it.

        Raises:
            InputError: when it cannot.
        """
        if self.size > SMALL and self.size > (most := free_memory() // 2):
            raise too_large(self.path, most)

    def _looked_through(self) -> InputError | None:
        """What is wrong with the text; how many bytes there are, and these themselves where they are few."""
        most = _room_for(self.path)
        decoder, beginning, fault = codecs.getincrementaldecoder("utf-8")(), b"", None
        kept: list[bytes] | None = []
        self.size = zeros = lines = 0

        def decode(part: bytes, *, last: bool = False) -> str | None:
            """Why it is not UTF-8."""
            try:
                decoder.decode(part, last)
            except UnicodeDecodeError as error:
                line = lines + error.object.count(b"\n", 0, error.start) + 1
                return f"line {line}, byte 0x{error.object[error.start]:02x}"
            return None

        for part in self.parts():
            self.size += len(part)
            if self.size > most:
                raise _too_large_for_disk(self.path, most)
            if kept is not None:
                kept.append(part)
            if self.size > SMALL:
                kept = None
            beginning += part[: BEGINNING - len(beginning)]
            zeros += part.count(0)
            fault = fault or decode(part)
            lines += part.count(b"\n")
        fault = fault or decode(b"", last=True)
        if not self.size:
            raise InputError(f"{self.path} is empty")
        if kept is not None:
            self._here = b"".join(kept)
        if (odd := not_text(self.path, beginning)) is not None:
            return odd
        if zeros > MANY * self.size:
            return InputError(
                f"{self.path} is no UTF-8 text: many of its bytes are 0, as in UTF-16 or in data; convert it to UTF-8"
            )
        return InputError(f"{self.path} is not UTF-8 ({fault}); convert it, for example with iconv") if fault else None


class _Stream(io.RawIOBase):
    """Parts of bytes as a file."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._left = parts, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: "memoryview") -> int:  # type: ignore[override]
        while not self._left:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._left = memoryview(part)
        count = min(len(into), len(self._left))
        into[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def not_text(path: Path, beginning: bytes) -> InputError | None:
    """What to say of a file that begins as no text does; None of another one."""
    for start, kind in BINARY.items():
        if beginning.startswith(start):
            return InputError(f"{path} is no text: it is {kind}; unpack or convert it first")
    if beginning.startswith(WIDE_MARKS):
        return InputError(f"{path} is UTF-16 or UTF-32; convert it to UTF-8, for example with iconv")
    return None


def unpacked(path: Path) -> bytes:
    """All that a file holds, unpacked.

    Raises:
        InputError: when it cannot be read or unpacked, is empty, or memory cannot hold it.
    """
    most = free_memory() // 2  # the other half is for the text in it
    if files.what_is(path) == "file" and path.stat().st_size > most:
        raise too_large(path, most)
    parts, size = list[bytes](), 0
    with files.opened(path) as file:
        for part in unpacked_parts(path, file):
            parts.append(part)
            size += len(part)
            if size > most:
                raise too_large(path, most)
    if not size:
        raise InputError(f"{path} is empty")
    return b"".join(parts)


def is_packed(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.name.lower().endswith(tuple(PACKED))


def unpacked_parts(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """What an open file holds, unpacked as its name says.

    Raises:
        InputError: when it is not packed so, damaged or cut.
    """
    ending = next((ending for ending in PACKED if path.name.lower().endswith(ending)), None)
    if ending is None:
        while part := file.read(PART):
            yield part
        return
    kind, start = PACKED[ending]
    beginning = file.read(max(len(start), 4))
    file.seek(0)
    if beginning and not beginning.startswith(start) and not (kind == "zstd" and SKIPPABLE.match(beginning)):
        raise InputError(f"{path} is not compressed with {kind}, whatever its name says; take {ending} off its name")
    try:
        yield from _from_gzip(file) if kind == "gzip" else _from_zstd(file)
    except (OSError, EOFError, zlib.error) as error:
        why = first_line(error) if str(error) else "it ends too early"
        raise InputError(f"{path} cannot be unpacked: {why}; is it complete?") from None


def _from_gzip(file: BinaryIO) -> Iterator[bytes]:
    """
    Raises:
        OSError, EOFError, zlib.error: when it is damaged or cut.
    """
    with gzip.GzipFile(fileobj=file) as stream:
        while part := stream.read(PART):
            yield part


def _from_zstd(file: BinaryIO) -> Iterator[bytes]:
    """By Arrow, which every installation has.

    Raises:
        OSError: when it is damaged or cut; EOFError when nothing is in it.
    """
    import pyarrow as pa

    parts = iter(lambda: file.read(PART), b"")  # as a file that can be closed, while the other one stays open
    with pa.CompressedInputStream(pa.PythonFile(_Stream(parts), "r"), "zstd") as stream:
        while part := stream.read(PART):
            yield bytes(part)


def _room_for(path: Path) -> int:
    """How many bytes a file may hold: a small packed one may hold more than any disk.

    Raises:
        InputError: when it is larger itself.
    """
    size = path.stat().st_size if files.what_is(path) == "file" else 0
    most = shutil.disk_usage(room()).free // 2
    if size > SMALL and size > most:
        raise _too_large_for_disk(path, most)
    return max(most, SMALL)


def _too_large_for_disk(path: Path, most: int) -> InputError:
    return InputError(
        f"{path} holds more than {most / 1e9:.1f} GB, half of what is free in {room()}, where a long text is kept while it is read; give a "
        "part of it, or name a folder with more room in the environment variable TMPDIR"
    )
