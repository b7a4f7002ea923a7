"""Text from local files: which files of a folder are which split, and the rows that they hold.

Files are read as bytes and cells as strings: no cache, no guessing of types, and a name is a name, never a pattern or an
address.
"""

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from collapse_cli import files
from collapse_cli.errors import InputError

SPLITS = ("train", "valid", "test")
SPLIT_WORDS = {
    "train": {"train", "training"},
    "valid": {"valid", "validation", "val", "dev"},
    "test": {"test", "testing"},
}
WORDS = {"train": "training", "valid": "validation", "test": "test"}
PACKED = ".gz"
BINARY = {  # how files begin that are no text, whatever they are called
    b"\x1f\x8b": "compressed with gzip (name it .gz)",
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
NAMED = 3  # files or columns that a message names of many


def read_source(path: Path, column: str, chosen: Mapping[str, str]) -> tuple[dict[str, Sequence[str]], list[str]]:
    """The rows of a file or of the files of a folder, by split, and notes on what was passed over.

    Args:
        column: where formats have columns, the one that holds the text.
        chosen: by split, the file of the folder to use; empty: found by name.

    Raises:
        InputError: for anything that is missing, unreadable or ambiguous.
    """
    if files.what_is(path) == "folder":
        groups, notes = _groups(path, chosen)
    elif any(chosen.values()):
        raise InputError(f"data.source = {str(path)!r} is a file; to name files by split, give their folder")
    else:
        groups, notes = {"train": [path]}, []
    return {split: _read(group, column, notes) for split, group in groups.items()}, notes


def format_of(path: Path) -> str | None:
    """The ending that says how a file is written, in lower case and without `.gz`; None for one that is not known."""
    name = path.name.lower().removesuffix(PACKED)
    return next((ending for ending in FORMATS if name.endswith(ending)), None)


def in_natural_order(names: Iterable[Path]) -> list[Path]:
    """By name, with numbers in names as numbers: 2 before 10."""
    return sorted(names, key=lambda path: [(part.isdigit(), int(part) if part.isdigit() else 0, part)
                                           for part in re.split(r"([0-9]+)", path.name)])  # fmt: skip


def _groups(folder: Path, chosen: Mapping[str, str]) -> tuple[dict[str, list[Path]], list[str]]:
    """Which files of a folder are which split, and notes on those that are none."""
    inside = in_natural_order(files.in_folder(folder))
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise InputError(
            f"{folder} was written by datasets' save_to_disk, which collapse does not read; write each split as Parquet: "
            "dataset['train'].to_parquet('train.parquet')"
        )
    there = [file for file in inside if file.is_file() and format_of(file) and not file.name.startswith(".")]
    listed = _names(there) or "no text files"
    groups: dict[str, list[Path]] = {}
    outside: list[str] = []
    for split, name in chosen.items():
        if name:
            if not files.what_is(folder / name):
                raise InputError(f"data.{split} = {name!r}: there is no such file in {folder} (there: {listed})")
            groups[split] = [folder / name]
            if os.path.relpath(folder / name, folder).startswith(os.pardir):
                outside.append(f"the {WORDS[split]} text is {folder / name}, which is outside the folder {folder}")
    taken = {file for group in groups.values() for file in group}
    for split in SPLITS:
        found = [file for file in there if file not in taken and _split_of(file) == split]
        if split not in groups and found:
            shards = {re.sub(r"\d+", "", file.name) for file in found}
            if len(shards) > 1:
                raise InputError(
                    f"{folder}: which file is the {split} text? ({_names(found)}) Say --set data.{split}=FILE"
                )
            groups[split] = found
    if "train" not in groups:
        if len(there) == 1 and not groups:
            groups["train"] = there
        else:
            also = "".join(f"; {note}" for note in _passed_over(folder, inside, True))
            raise InputError(f"{folder}: which file is the training text? ({listed}) Say --set data.train=FILE{also}")
    shared = _shared(groups)
    used = {file for group in groups.values() for file in group}
    rest = [path for path in inside if path not in used]
    return groups, [*shared, *outside, *_passed_over(folder, rest, bool(any(chosen.values())))]


def _shared(groups: Mapping[str, Sequence[Path]]) -> list[str]:
    """Notes on files that serve two splits, be it under another name: by a link, or by a path that leads back.

    Raises:
        InputError: when they are the training and the test text.
    """
    real = {split: {os.path.realpath(path): path for path in group} for split, group in groups.items()}
    notes = []
    for one, other in (("train", "test"), ("train", "valid"), ("valid", "test")):
        for place in real.get(one, {}).keys() & real.get(other, {}).keys():
            path, again = real[one][place], real[other][place]
            also = "" if path == again else f" (as {again})"
            said = f"{path} is named as {WORDS[one]} and as {WORDS[other]} text{also}"
            if {one, other} == {"train", "test"}:
                raise InputError(f"{said}; test text must be other text")
            notes.append(said)
    return notes


def _passed_over(folder: Path, rest: Sequence[Path], named: bool) -> list[str]:
    """Notes on what of a folder is not read though it looks like text.

    Args:
        named: whether the user named files; then the folder's other texts were left out on purpose.
    """
    links = [path for path in rest if path.is_symlink() and not path.exists()]
    nested = [path for path in rest if path.is_dir() and any(format_of(file) for file in _inside(path))]
    texts = [
        path for path in rest if path.is_file() and format_of(path) and not path.name.startswith(".") and not named
    ]
    pipes = [path for path in rest if format_of(path) and files.is_special(path)]
    odd = [path for path in rest if path.is_file() and not format_of(path) and _split_of(path)
           and not path.name.startswith(".")]  # fmt: skip
    said = {
        "links to files that are not there": links,
        "named pipes, sockets or devices": pipes,
        "folders with text in them (only the folder itself is read)": nested,
        "files whose names say no split": texts,
        f"files of formats that are not read ({' '.join(FORMATS)} are)": odd,
    }
    return [f"not read in {folder}: {what}: {_names(paths)}" for what, paths in said.items() if paths]


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _names(paths: Sequence[Path]) -> str:
    rest = len(paths) - NAMED
    return ", ".join(path.name for path in paths[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _split_of(file: Path) -> str | None:
    words = set(re.split(r"[^a-z]+", file.name.lower()))
    return next((split for split in SPLITS if words & SPLIT_WORDS[split]), None)


def _read(group: Sequence[Path], column: str, notes: list[str]) -> Sequence[str]:
    rows: list[str] = []
    missing = 0
    for path in group:
        ending = format_of(path)
        if ending is None:
            raise InputError(f"{path}: the format is not known; known: {' '.join(FORMATS)}, also with {PACKED}")
        for row in FORMATS[ending](path, _content(path), column):
            missing += row is None
            rows.append(row or "")
    if missing:
        notes.append(
            f"{_names(group)}: {missing:,} of {len(rows):,} rows have no text (null); they are read as blank lines"
        )
    return rows


def _content(path: Path) -> bytes:
    """What a file holds, unpacked."""
    content = files.read_bytes(path)
    if path.name.lower().endswith(PACKED):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
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
        found = _parsed(path, text, 1)
        return [_cell(path, item, column, f"item {number}") for number, item in enumerate(found, 1)]
    return [
        _cell(path, _parsed(path, line, number), column, f"line {number}")
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def _parsed(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = line + getattr(error, "lineno", 1) - 1
        raise InputError(
            f"{path} cannot be read as json: line {where}: {getattr(error, 'msg', 'nested too deeply')}; it should be one object "
            "a line, or a list of objects"
        ) from None


def _cell(path: Path, item: Any, column: str, where: str) -> str | None:
    """The text of one object."""
    if not isinstance(item, dict):
        raise InputError(
            f'{path}, {where}: this is no object; each row should be one, such as {{"{column}": "some text"}}'
        )
    if column not in item:
        raise InputError(_no_column(f"{path}, {where}", column, list(item)))
    value = item[column]
    if value is not None and not isinstance(value, str):
        raise InputError(
            f"{path}, {where}: {column!r} is {_KINDS.get(type(value), 'a number')}, not text; write it as a string"
        )
    return value


_KINDS = {bool: "true or false", list: "a list", dict: "an object"}


def _no_column(where: str, column: str, there: Sequence[str]) -> str:
    names = ", ".join(str(name)[:40] for name in there[:12])
    chats = {"messages", "conversations"} & set(map(str, there))
    return f"{where} has no column {column!r} (there: {names}); say --set data.text=COLUMN" + (
        f"; a column of chats ({', '.join(chats)}) is not text: write each chat out as one string" if chats else ""
    )


def _csv(path: Path, content: bytes, column: str) -> list[str | None]:
    """A row a record; cells are the strings that stand there."""
    import pandas as pd

    text = _decoded(path, content)
    try:
        names = [str(name) for name in pd.read_csv(io.StringIO(text), header=None, nrows=1, dtype=str,
                                                   na_filter=False).iloc[0]]  # fmt: skip
        if names.count(column) > 1:
            raise InputError(f"{path} has {names.count(column)} columns called {column!r}; give each a name of its own")
        if column not in names:
            raise InputError(_no_column(str(path), column, names))
        table = pd.read_csv(
            io.StringIO(text), usecols=[names.index(column)], dtype=str, na_filter=False, index_col=False
        )
    except InputError:
        raise
    except (ValueError, OverflowError, MemoryError, IndexError) as error:
        raise InputError(f"{path} cannot be read as csv: {' '.join(str(error).split())[:200]}") from None
    return [str(cell) for cell in table.iloc[:, 0]]


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
        found = file.read(columns=[column]).column(column)
    except InputError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as parquet: {str(error).splitlines()[0][:200]}") from None
    kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise InputError(f"{path}: the column {column!r} holds {found.type}, not text; write it as strings")
    cells: list[str | None] = found.to_pylist()
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
