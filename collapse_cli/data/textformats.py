"""The rows of one text file, in each of the formats that are read.

Files are read as bytes and cells as strings: no cache, and no guessing of types. A format is a class of `Records`.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import psutil

from collapse_cli import files
from collapse_cli.data.dialogues import SURROGATE
from collapse_cli.data.forms import listed, shown
from collapse_cli.data.longtext import FileRows, file_rows
from collapse_cli.errors import InputError, first_line

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
SIGNS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
BEGINNING = 1 << 10  # characters that tell what a file is
PART = 1 << 24  # bytes that are unpacked at a time
LARGE = 1 << 20  # bytes of a file, from which on free memory is looked at
MANY = 0.1  # of all bytes; UTF-16 of English holds 0.5 of zero bytes, text none


class Records(Protocol):
    """The rows of a source with their columns.

    `names` are those of the columns, where all rows have the same, else of the first row; none where there are no columns.
    """

    @property
    def names(self) -> Sequence[str]: ...

    def texts(self, column: str) -> Sequence[str | None]:
        """The text of each row; None where there is none.

        Raises:
            InputError: when there is no such column, or it holds something else.
        """

    def cells(self, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
        """Of each row, where it stands, and what is in these columns, whatever that is.

        Raises:
            InputError: when there is no such column.
        """


def format_of(path: Path) -> str | None:
    """The ending that says how a file is written, in lower case and without `.gz` or `.zst`; None for one that is not known."""
    name = path.name.lower()
    name = name.removesuffix(next((ending for ending in PACKED if name.endswith(ending)), ""))
    return next((ending for ending in FORMATS if name.endswith(ending)), None)


def records(path: Path) -> Records:
    """What a file holds.

    Raises:
        InputError: when its format is not known, or it cannot be read.
    """
    ending = format_of(path)
    if ending is None:
        raise InputError(
            f"{path}: the format is not known; known: {' '.join(FORMATS)}, also with {' or '.join(PACKED)}"
        )
    if ending in PLAIN and path.name.lower().endswith(ending) and (rows := file_rows(path)) is not None:
        return LongLines(path, rows)
    return FORMATS[ending](path, unpacked(path))


def unpacked(path: Path) -> bytes:
    """What a file holds, unpacked.

    Raises:
        InputError: when it cannot be read or unpacked, is empty, or holds more than this machine can read.
    """
    most = LARGE
    if path.name.lower().endswith(tuple(PACKED)) or (files.what_is(path) == "file" and path.stat().st_size > LARGE):
        most = psutil.virtual_memory().available // 2  # the other half is for the text in it
        if files.what_is(path) == "file" and path.stat().st_size > most:
            raise _too_large(path, most)
    content = files.read_bytes(path)
    for ending, (kind, start) in PACKED.items():
        if not path.name.lower().endswith(ending):
            continue
        if content and not content.startswith(start) and not (kind == "zstd" and SKIPPABLE.match(content)):
            raise InputError(
                f"{path} is not compressed with {kind}, whatever its name says; take {ending} off its name"
            )
        try:
            parts, size = [], 0
            for part in _from_gzip(content) if kind == "gzip" else _from_zstd(content):
                size += len(part)
                if size > most:
                    raise _too_large(path, most)
                parts.append(part)
            content = b"".join(parts)
        except (OSError, EOFError, zlib.error) as error:
            why = first_line(error) if str(error) else "it ends too early"
            raise InputError(f"{path} cannot be unpacked: {why}; is it complete?") from None
    if not content:
        raise InputError(f"{path} is empty")
    return content


def _too_large(path: Path, most: int) -> InputError:
    return InputError(
        f"{path} holds more than {most / 1e9:.1f} GB, half of the memory that is free; give a part of it, or end other programs"
    )


def _from_gzip(content: bytes) -> Iterator[bytes]:
    """Unpacked, in parts.

    Raises:
        OSError, EOFError, zlib.error: when it is damaged or cut.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
        while part := stream.read(PART):
            yield part


def _from_zstd(content: bytes) -> Iterator[bytes]:
    """Unpacked by Arrow, which every installation has, in parts.

    Raises:
        OSError: when it is damaged or cut; EOFError when nothing is in it.
    """
    import pyarrow as pa

    with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
        while part := stream.read(PART):
            yield bytes(part)


def _decoded(path: Path, content: bytes) -> str:
    """Text of a file, without a byte order mark.

    Raises:
        InputError: when it is not UTF-8.
    """
    for start, kind in BINARY.items():
        if content.startswith(start):
            raise InputError(f"{path} is no text: it is {kind}; unpack or convert it first")
    if content.startswith(WIDE_MARKS):
        raise InputError(f"{path} is UTF-16 or UTF-32; convert it to UTF-8, for example with iconv")
    if content.count(0) > MANY * len(content):
        raise InputError(
            f"{path} is no UTF-8 text: many of its bytes are 0, as in UTF-16 or in data; convert it to UTF-8"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise InputError(
            f"{path} is not UTF-8 (line {line}, byte 0x{byte:02x}); convert it, for example with iconv"
        ) from None


class Lines:
    r"""A row a line. Lines end in \n, \r\n or \r, and are kept with \n."""

    names: Sequence[str] = ()

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content = path, content

    def texts(self, column: str) -> Sequence[str | None]:
        text = _decoded(self.path, self.content).replace("\r\n", "\n").replace("\r", "\n")
        return [line + "\n" for line in text.removesuffix("\n").split("\n")]

    def cells(self, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
        raise NotImplementedError("plain text has no columns")


class LongLines(Lines):
    """The same of a large file, whose rows stay on the disk."""

    def __init__(self, path: Path, rows: FileRows) -> None:
        super().__init__(path, b"")
        self.rows = rows
        _decoded(path, rows[0][:BEGINNING].encode())  # says so where it is no text

    def texts(self, column: str) -> Sequence[str | None]:
        return self.rows


class Objects:
    """JSON: a row an object, one a line, or all in one list."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.text = path, _decoded(path, content)
        first = next(self._items(), None)
        self.names = list(first[1]) if first and isinstance(first[1], dict) else []

    def _items(self) -> Iterator[tuple[str, Any]]:
        if self.text.lstrip()[:1] == "[":
            items = enumerate(_parsed(self.path, self.text, 1), 1)
            yield from ((f"{self.path}, item {number}", item) for number, item in items)
            return
        for number, line in enumerate(self.text.split("\n"), 1):
            if line.strip():
                yield f"{self.path}, line {number}", _parsed(self.path, line, number)

    def texts(self, column: str) -> list[str | None]:
        return [_cell(where, item, column) for where, item in self._items()]

    def cells(self, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
        for where, item in self._items():
            _check_object(where, item, columns[0])
            for column in columns[:2]:  # a third one need not be there
                if column not in item:
                    raise InputError(no_column(where, column, list(item)))
            if isinstance(item, _Object) and (twice := [column for column in columns if column in item.twice]):
                raise InputError(f"{where}: {twice[0]!r} stands in this object more than once; which is meant?")
            cells = [item.get(column) for column in columns]
            messages = [message for cell in cells if isinstance(cell, list) for message in cell]
            doubled = [name for each in messages if isinstance(each, _Object) for name in each.twice]
            if doubled:
                raise InputError(f"{where}: {min(doubled)!r} stands in a message more than once; which is meant?")
            yield where, cells


def _parsed(path: Path, text: str, line: int) -> Any:
    try:
        return _JSON.decode(text)
    except (ValueError, RecursionError) as error:
        where = line + getattr(error, "lineno", 1) - 1
        why = (
            "nested too deeply"
            if isinstance(error, RecursionError)
            else getattr(error, "msg", "a number of too many digits")
        )
        raise InputError(
            f"{path} cannot be read as json: line {where}: {why}; it should be one object a line, or a list of objects"
        ) from None


class _Object(dict[str, Any]):
    """An object of JSON, and whether a name stands in it more than once: of these `json` keeps only the last."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = (
            {name for name, _ in pairs if [key for key, _ in pairs].count(name) > 1} if len(self) < len(pairs) else ()
        )


_JSON = json.JSONDecoder(object_pairs_hook=_Object)


def _check_object(where: str, item: Any, column: str) -> None:
    if not isinstance(item, dict):
        raise InputError(f'{where}: this is no object; each row should be one, such as {{"{column}": "some text"}}')


def _cell(where: str, item: Any, column: str) -> str | None:
    """The text of one object."""
    _check_object(where, item, column)
    if column not in item:
        raise InputError(no_column(where, column, list(item)) + PAIRED)
    if isinstance(item, _Object) and column in item.twice:
        raise InputError(f"{where}: {column!r} stands in this object more than once; which is the text?")
    value = item[column]
    if isinstance(value, str) and not value.isascii() and SURROGATE.search(value):
        raise InputError(
            f"{where}: {column!r} holds half a character (such as \\ud83d without its other half), which is no text; "
            "the file was cut or escaped wrongly"
        )
    if value is not None and not isinstance(value, str):
        kind = next((name for kind, name in _KINDS.items() if isinstance(value, kind)), "a number")
        chats = "; for a list of messages, say --set data.format=chat" if isinstance(value, list) else ""
        raise InputError(f"{where}: {column!r} is {kind}, not text; write it as a string{chats}")
    return value


_KINDS = {bool: "true or false", list: "a list", dict: "an object"}


PAIRED = "; of prompts and their answers, say data.prompt and data.completion"


def no_column(where: str, column: str, there: Sequence[str]) -> str:
    """What to say where a column is missing, of those that are there."""
    return f"{where} has no column {column!r} (there: {listed(list(map(str, there)))}); say --set data.text=COLUMN"


def _parted(names: Sequence[str], sign: str) -> str:
    """The signs, in words, that part the cells of a first line where `sign` does not; "" where there are none."""
    others = (words for other, words in SIGNS.items() if other != sign and any(other in name for name in names))
    return next(others, "")


class Cells:
    """CSV or TSV: a row a record; cells are the strings that stand there. Text is never cut at a sign that should have been quoted."""

    def __init__(self, path: Path, content: bytes, sign: str = ",") -> None:
        self.path, self.sign, self.text = path, sign, _decoded(path, content)
        self.names = next(self._records())[1]

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The records with the numbers of their last lines, the first that is not empty first of all."""
        kind = "tsv" if self.sign == "\t" else "csv"
        with _cells_of_any_length():
            read = csv.reader(io.StringIO(self.text, newline=""), strict=True, delimiter=self.sign)
            try:
                names = next((record for record in read if record), [])
                yield read.line_num, names
                for record in read:
                    if len(record) != len(names) and record:
                        raise InputError(
                            f"{self.path}, line {read.line_num}: {len(record)} cells, where the first line names {len(names)} "
                            f"columns; {self._advice()}"
                        )
                    if record or len(names) == 1:  # where there is one column, an empty line is an empty cell
                        yield read.line_num, record or [""]
            except csv.Error as error:
                raise InputError(
                    f"{self.path} cannot be read as {kind}: line {read.line_num}: {str(error)[:200]}; {self._advice()}"
                ) from None

    def _advice(self) -> str:
        signs = SIGNS[self.sign]
        return f'put text with {signs} or line ends between quotes, and write a quote inside it twice: "a ""b""{self.sign} c"'

    def _place(self, column: str) -> int:
        if self.names.count(column) > 1:
            raise InputError(
                f"{self.path} has {self.names.count(column)} columns called {column!r}; give each a name of its own"
            )
        if column not in self.names or (len(self.names) == 1 and _parted(self.names, self.sign)):
            raise InputError(self._no_column(column))
        return self.names.index(column)

    def _no_column(self, column: str) -> str:
        """As `no_column`, for files whose cells another sign parts, and for those whose first line is no line of names."""
        if parted := _parted(self.names, self.sign):
            also = " (or call the file .tsv)" if parted == "tabs" else ""
            return (
                f"{self.path}: the first line has {parted} in it ({', '.join(map(shown, self.names[:3]))}); cells must be parted by "
                f"{SIGNS[self.sign]}: write the file again with those{also}"
            )
        return (
            f"{no_column(str(self.path), column, self.names)}; the first line must be the names of the columns{PAIRED}"
        )

    def texts(self, column: str) -> list[str | None]:
        place = self._place(column)
        rows = self._records()
        next(rows)
        return [record[place] for _, record in rows]

    def cells(self, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
        places = [self._place(column) for column in columns]
        rows = self._records()
        next(rows)
        for line, record in rows:
            yield f"{self.path}, line {line}", [record[place] for place in places]


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """The limit on cells that `csv` has for the whole process, lifted for a while."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


class Parquet:
    """A row a row."""

    def __init__(self, path: Path, content: bytes) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        with self._read_as_parquet():
            self.file = pq.ParquetFile(pa.BufferReader(content))
            self.names: list[str] = self.file.schema_arrow.names

    @contextmanager
    def _read_as_parquet(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.path} cannot be read as parquet: {first_line(error)}") from None

    def _column(self, column: str) -> Any:
        if self.names.count(column) > 1:
            raise InputError(
                f"{self.path} has {self.names.count(column)} columns called {column!r}; give each a name of its own"
            )
        if column not in self.names:
            raise InputError(no_column(str(self.path), column, self.names) + PAIRED)
        with self._read_as_parquet():
            return self.file.read(columns=[column]).column(column)

    def texts(self, column: str) -> list[str | None]:
        return texts_of(self._column(column), column, str(self.path))

    def cells(self, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
        parts = [self._column(column) for column in columns]
        return cells_of(parts, columns, str(self.path))


def texts_of(values: Any, column: str, where: str) -> list[str | None]:
    """A column of Arrow's as texts.

    Raises:
        InputError: when it holds something else.
    """
    import pyarrow as pa

    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(test(kind) for test in tests):
        raise InputError(f"{where}: the column {column!r} holds {str(values.type)[:80]}, not text; write it as strings")
    made: list[str | None] = _python(values, column, where)
    return made


def cells_of(parts: Sequence[Any], columns: Sequence[str], where: str) -> Iterator[tuple[str, list[Any]]]:
    """`Records.cells` of columns of Arrow's."""
    made = [_python(values, column, where) for values, column in zip(parts, columns, strict=True)]
    for number, row in enumerate(zip(*made, strict=True), 1):
        yield f"{where}, row {number}", list(row)


def _python(values: Any, column: str, where: str) -> list[Any]:
    try:
        made: list[Any] = values.to_pylist()
    except UnicodeDecodeError:
        raise InputError(
            f"{where}: the column {column!r} holds bytes that are not UTF-8; write it as strings"
        ) from None
    return made


PLAIN = (".txt", ".text", ".tokens", ".raw", ".md", ".markdown")  # a row a line
FORMATS: dict[str, Callable[[Path, bytes], Records]] = {
    **dict.fromkeys(PLAIN, Lines),
    ".jsonl": Objects,
    ".ndjson": Objects,
    ".json": Objects,
    ".csv": Cells,
    ".tsv": partial(Cells, sign="\t"),
    ".parquet": Parquet,
}
WITH_COLUMNS = tuple(ending for ending in FORMATS if ending not in PLAIN)
