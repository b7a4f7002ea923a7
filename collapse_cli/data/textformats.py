"""The rows of one text file, in each of the formats that are read.

Files are read as bytes and cells as strings: no cache, and no guessing of types.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collapse_cli import files
from collapse_cli.errors import InputError

PACKED = ".gz"
GZIP = b"\x1f\x8b"
BINARY = {  # how files begin that are no text, whatever they are called
    GZIP: "compressed with gzip (name it .gz)",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\xfd7zXZ": "compressed with xz",
    b"BZh": "compressed with bzip2",
    b"PAR1": "a Parquet file (name it .parquet)",
    b"ARROW1": "an Arrow file",
    b"%PDF": "a PDF",
    b"version https://git-lfs": "a git-lfs pointer, not the file itself (run `git lfs pull`)",
}
WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # byte order marks of UTF-16 and, for the first, UTF-32
OTHER_SIGNS = {"\t": "tabs", ";": "semicolons", "|": "vertical bars"}
SURROGATE = re.compile("[\\ud800-\\udfff]")
MANY = 0.1  # of all bytes; UTF-16 of English holds 0.5 of zero bytes, text none


def format_of(path: Path) -> str | None:
    """The ending that says how a file is written, in lower case and without `.gz`; None for one that is not known."""
    name = path.name.lower().removesuffix(PACKED)
    return next((ending for ending in FORMATS if name.endswith(ending)), None)


def unpacked(path: Path) -> bytes:
    """What a file holds, unpacked."""
    content = files.read_bytes(path)
    if path.name.lower().endswith(PACKED):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            if not content.startswith(GZIP):
                raise InputError(
                    f"{path} is not compressed with gzip, whatever its name says; take {PACKED} off its name"
                ) from None
            raise InputError(f"{path} cannot be unpacked: {error}; is it complete?") from None
    if not content:
        raise InputError(f"{path} is empty")
    return content


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


def _lines(path: Path, content: bytes, column: str) -> list[str]:
    r"""A row a line. Lines end in \n, \r\n or \r, and are kept with \n."""
    text = _decoded(path, content).replace("\r\n", "\n").replace("\r", "\n")
    return [line + "\n" for line in text.removesuffix("\n").split("\n")]


def _json_lines(path: Path, content: bytes, column: str) -> list[str | None]:
    """A row an object: one a line, or all in one list."""
    text = _decoded(path, content)
    if text.lstrip()[:1] == "[":
        items = _parsed(path, text, 1)
        return [_cell(path, item, column, f"item {number}") for number, item in enumerate(items, 1)]
    return [
        _cell(path, _parsed(path, line, number), column, f"line {number}")
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


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


def _cell(path: Path, item: Any, column: str, where: str) -> str | None:
    """The text of one object."""
    if not isinstance(item, dict):
        raise InputError(
            f'{path}, {where}: this is no object; each row should be one, such as {{"{column}": "some text"}}'
        )
    if column not in item:
        raise InputError(_no_column(f"{path}, {where}", column, list(item)))
    if isinstance(item, _Object) and column in item.twice:
        raise InputError(f"{path}, {where}: {column!r} stands in this object more than once; which is the text?")
    value = item[column]
    if isinstance(value, str) and not value.isascii() and SURROGATE.search(value):
        raise InputError(
            f"{path}, {where}: {column!r} holds half a character (such as \\ud83d without its other half), which is no text; "
            "the file was cut or escaped wrongly"
        )
    if value is not None and not isinstance(value, str):
        kind = next((name for kind, name in _KINDS.items() if isinstance(value, kind)), "a number")
        raise InputError(f"{path}, {where}: {column!r} is {kind}, not text; write it as a string")
    return value


_KINDS = {bool: "true or false", list: "a list", dict: "an object"}


def _no_column(where: str, column: str, there: Sequence[str]) -> str:
    names = ", ".join(_shown(str(name)) for name in there[:12])
    chats = {"messages", "conversations"} & set(map(str, there))
    return f"{where} has no column {column!r} (there: {names}); say --set data.text=COLUMN" + (
        f"; a column of chats ({', '.join(chats)}) is not text: write each chat out as one string" if chats else ""
    )


def _shown(name: str) -> str:
    """A column's name as it is; in quotes where blanks or signs would hide what it is."""
    return name[:40] if re.fullmatch(r"\S+( \S+)*", name) and "," not in name else repr(name[:40])


def _parted(names: Sequence[str]) -> str:
    """The signs, in words, that part the cells of a first line where commas do not; "" where there are none."""
    return next((word for sign, word in OTHER_SIGNS.items() if any(sign in name for name in names)), "")


def _no_csv_column(path: Path, column: str, there: Sequence[str]) -> str:
    """As `_no_column`, for files whose cells another sign parts, and for those whose first line is no line of names."""
    if parted := _parted(there):
        return (
            f"{path}: the first line has {parted} in it ({', '.join(map(_shown, there[:3]))}); cells must be parted by commas: "
            "write the file again with those"
        )
    return f"{_no_column(str(path), column, there)}; the first line must be the names of the columns"


def _csv(path: Path, content: bytes, column: str) -> list[str | None]:
    """A row a record; cells are the strings that stand there. Text is never cut at a comma that should have been quoted."""
    cells: list[str | None] = []
    with _cells_of_any_length():
        records = csv.reader(io.StringIO(_decoded(path, content), newline=""), strict=True)
        try:
            names = next((record for record in records if record), [])
            if names.count(column) > 1:
                raise InputError(
                    f"{path} has {names.count(column)} columns called {column!r}; give each a name of its own"
                )
            if column not in names or (len(names) == 1 and _parted(names)):
                raise InputError(_no_csv_column(path, column, names))
            place = names.index(column)
            for record in records:
                if len(record) != len(names) and record:
                    raise InputError(
                        f"{path}, line {records.line_num}: {len(record)} cells, where the first line names {len(names)} columns; "
                        'put text with commas or line ends between quotes, and write a quote inside it twice: "a ""b"", c"'
                    )
                if record or len(names) == 1:  # where there is one column, an empty line is an empty cell
                    cells.append(record[place] if record else "")
        except csv.Error as error:
            raise InputError(
                f"{path} cannot be read as csv: line {records.line_num}: {str(error)[:200]}; put text with commas or line ends "
                'between quotes, and write a quote inside it twice: "a ""b"", c"'
            ) from None
    return cells


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """The limit on cells that `csv` has for the whole process, lifted for a while."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path, content: bytes, column: str) -> list[str | None]:
    """A row a row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = file.schema_arrow.names
        if names.count(column) > 1:
            raise InputError(f"{path} has {names.count(column)} columns called {column!r}; give each a name of its own")
        if column not in names:
            raise InputError(_no_column(str(path), column, names))
        values = file.read(columns=[column]).column(column)
    except InputError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as parquet: {str(error).splitlines()[0][:200]}") from None
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(test(kind) for test in tests):
        raise InputError(f"{path}: the column {column!r} holds {values.type}, not text; write it as strings")
    try:
        cells: list[str | None] = values.to_pylist()
    except UnicodeDecodeError:
        raise InputError(f"{path}: the column {column!r} holds bytes that are not UTF-8; write it as strings") from None
    return cells


FORMATS: dict[str, Callable[[Path, bytes, str], Sequence[str | None]]] = {
    ".txt": _lines,
    ".text": _lines,
    ".tokens": _lines,
    ".raw": _lines,
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
