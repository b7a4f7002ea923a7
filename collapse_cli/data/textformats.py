"""The rows of one text file, in each of the formats that are read.

Files are read as bytes and cells as strings: no cache, and no guessing of types. A format is a class of `Records`.
"""

import csv
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from collapse_cli import files
from collapse_cli.data.content import BEGINNING, PACKED, SMALL, Content, is_packed, not_text, unpacked
from collapse_cli.data.dialogues import SURROGATE
from collapse_cli.data.forms import listed, shown
from collapse_cli.data.longtext import FileRows, Stamp, check_stamp, file_rows, stamp_of, too_large
from collapse_cli.errors import InputError, first_line
from collapse_cli.process import free_memory

SIGNS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
AT_ONCE = 1 << 8  # rows of a table that are brought into memory together
BUFFER = 1 << 20  # bytes of a table that are read at a time


class Records(Protocol):
    """The rows of a source with their columns.

    `names` are those of the columns, where all rows have the same, else of the first row; none where there are no columns.
    """

    @property
    def names(self) -> Sequence[str]: ...

    def texts(self, column: str) -> Iterable[str | None]:
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
    return FORMATS[ending](path)


class Lines:
    r"""A row a line. Lines end in \n, \r\n or \r, and are kept with \n."""

    names: Sequence[str] = ()

    def __init__(self, path: Path) -> None:
        self._content = Content(path)

    def texts(self, column: str) -> Iterable[str | None]:
        there = False
        with self._content.lines(None) as lines:
            for line in lines:
                there = True
                yield line if line.endswith("\n") else line + "\n"
        if not there:  # but a byte order mark
            yield "\n"

    def cells(self, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
        raise NotImplementedError("plain text has no columns")


class LongLines(Lines):
    """The same of a large file, whose rows stay where they are."""

    def __init__(self, path: Path, rows: FileRows) -> None:
        self.rows = rows
        with files.opened(path) as file:
            if (odd := not_text(path, file.read(BEGINNING))) is not None:
                raise odd

    def texts(self, column: str) -> Iterable[str | None]:
        return self.rows


class Objects:
    """JSON: a row an object, one a line, or all in one list."""

    def __init__(self, path: Path) -> None:
        self.path, self._content = path, Content(path)
        with self._content.lines("\n") as text:
            while (first_sign := text.read(1)).isspace():
                pass
        self._in_a_list = first_sign == "["
        with closing(self._items()) as items:
            first = next(items, None)
        self.names = list(first[1]) if first and isinstance(first[1], dict) else []

    def _items(self) -> Generator[tuple[str, Any], None, None]:
        if self._in_a_list:
            items = enumerate(_parsed(self.path, self._content.text(), 1), 1)
            yield from ((f"{self.path}, item {number}", item) for number, item in items)
            return
        with self._content.lines(None) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{self.path}, line {number}", _parsed(self.path, line.removesuffix("\n"), number)

    def texts(self, column: str) -> Iterable[str | None]:
        return (_cell(where, item, column) for where, item in self._items())

    def cells(self, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
        self._content.check_memory()  # which dialogues are kept in
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

    def __init__(self, path: Path, sign: str = ",") -> None:
        self.path, self.sign, self._content = path, sign, Content(path)
        with closing(self._records()) as records:
            self.names = next(records)[1]

    def _records(self) -> Generator[tuple[int, list[str]], None, None]:
        """The records with the numbers of their last lines, the first that is not empty first of all."""
        kind = "tsv" if self.sign == "\t" else "csv"
        with _cells_of_any_length(), self._content.lines("") as text:
            read = csv.reader(text, strict=True, delimiter=self.sign)
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

    def texts(self, column: str) -> Iterable[str | None]:
        place = self._place(column)
        rows = self._records()
        next(rows)
        return (record[place] for _, record in rows)

    def cells(self, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
        self._content.check_memory()  # which dialogues are kept in
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

    def __init__(self, path: Path) -> None:
        self.path = path
        small = is_packed(path) or files.what_is(path) != "file" or path.stat().st_size <= SMALL
        self._here = unpacked(path) if small else None
        self._stamp: Stamp | None = None
        with self._opened() as file:
            self.schema = file.schema_arrow
        self.names: list[str] = self.schema.names

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file, to be read in batches; a large one is opened anew each time, and must be what it was."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with ExitStack() as stack:
            if self._here is not None:
                source: Any = pa.BufferReader(self._here)
            else:
                source = stack.enter_context(files.opened(self.path))
                self._stamp = self._stamp or stamp_of(source.fileno())
                check_stamp(self.path, source.fileno(), self._stamp)
            try:
                yield pq.ParquetFile(source, buffer_size=BUFFER)
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{self.path} cannot be read as parquet: {first_line(error)}") from None

    def _check_column(self, column: str) -> None:
        if self.names.count(column) > 1:
            raise InputError(
                f"{self.path} has {self.names.count(column)} columns called {column!r}; give each a name of its own"
            )
        if column not in self.names:
            raise InputError(no_column(str(self.path), column, self.names) + PAIRED)

    def _batches(self, columns: Sequence[str]) -> Iterator[Any]:
        with self._opened() as file:
            yield from file.iter_batches(AT_ONCE, columns=list(dict.fromkeys(columns)))

    def texts(self, column: str) -> Iterable[str | None]:
        self._check_column(column)
        check_text(self.schema.field(column).type, column, str(self.path))
        return texts_of(self._batches([column]), column, str(self.path))

    def cells(self, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
        if self._stamp and self._stamp[1] > (most := free_memory() // 2):
            raise too_large(self.path, most)  # dialogues are kept in memory
        for column in columns:
            self._check_column(column)
        return cells_of(self._batches(columns), columns, str(self.path))


def check_text(kind: Any, column: str, where: str) -> None:
    """Whether a column of this type of Arrow's holds text.

    Raises:
        InputError: when it holds something else.
    """
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(test(inner) for test in tests):
        raise InputError(f"{where}: the column {column!r} holds {str(kind)[:80]}, not text; write it as strings")


def texts_of(batches: Iterable[Any], column: str, where: str) -> Iterator[str | None]:
    """`Records.texts` of batches or tables of Arrow's."""
    for batch in batches:
        yield from _python(batch.column(column), column, where)


def cells_of(batches: Iterable[Any], columns: Sequence[str], where: str) -> Iterator[tuple[str, list[Any]]]:
    """`Records.cells` of batches or tables of Arrow's."""
    number = 0
    for batch in batches:
        for row in zip(*(_python(batch.column(column), column, where) for column in columns), strict=True):
            number += 1
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
FORMATS: dict[str, Callable[[Path], Records]] = {
    **dict.fromkeys(PLAIN, Lines),
    ".jsonl": Objects,
    ".ndjson": Objects,
    ".json": Objects,
    ".csv": Cells,
    ".tsv": partial(Cells, sign="\t"),
    ".parquet": Parquet,
}
WITH_COLUMNS = tuple(ending for ending in FORMATS if ending not in PLAIN)
