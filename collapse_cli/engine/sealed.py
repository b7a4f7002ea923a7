"""JSON on the disk that carries a digest of itself: records, and lines of a file that grows. Earlier ones have none.

The digest is the SHA-256 of all that stands before it, the last field: what a disk or an editor changed is not taken for
what was written.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from collapse_cli import files
from collapse_cli.errors import InputError

READABLE = 20_000  # characters of a record that are laid out for people
SHORT = 16  # hex digits of a line's digest
LONGEST = (
    1 << 26
)  # bytes of a line of a file; a longer one is damage, as a disk leaves it, and is never held in memory whole
_OF_RECORD = re.compile(rb',\s*"digest": "([0-9a-f]{64})"\s*}\s*\Z')
_OF_LINE = re.compile(rb', "digest": "([0-9a-f]{16})"}\s*\Z')


def sealed(record: Mapping[str, Any], *, allow_nan: bool = False) -> str:
    """A record as text, with its digest."""
    whole = {name: value for name, value in record.items() if name != "digest"}
    text = json.dumps(whole, allow_nan=allow_nan)
    if len(text) < READABLE:  # of a block of generations nobody reads it, and indenting takes longer than many of them
        text = json.dumps(whole, indent=1)
    text = text.removesuffix("}").rstrip()
    return f'{text},\n "digest": "{hashlib.sha256(text.encode()).hexdigest()}"\n}}'


def is_whole(record: Mapping[str, Any], content: bytes) -> bool:
    """Whether a record is what `sealed` wrote, or has no digest."""
    if "digest" not in record:
        return True
    own = _OF_RECORD.search(content, max(0, len(content) - 200))
    return own is not None and hashlib.sha256(content[: own.start()]).hexdigest() == own[1].decode()


def read(path: Path, most: int | None = None) -> dict[str, Any]:
    """A record without its digest.

    Args:
        most: how many bytes are still reasonable; None: any number.

    Raises:
        InputError: when it cannot be read, is larger, or is not what was written; the message ends with why.
    """
    content = files.read_bytes(path, most)
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"{path} is damaged (it is no JSON object)")
    if not is_whole(record, content):
        raise InputError(f"{path} is damaged (it is not what was written)")
    record.pop("digest", None)
    return record


def line(record: Mapping[str, Any]) -> str:
    """A record as a line of a file, with its digest."""
    text = json.dumps(record).removesuffix("}")
    return f'{text}, "digest": "{hashlib.sha256(text.encode()).hexdigest()[:SHORT]}"}}\n'


def in_lines(content: bytes) -> tuple[list[dict[str, Any]], int]:
    """The records in lines, without their digests, and how many lines hold none: torn by a kill, or changed since."""
    return _records(content.split(b"\n"))  # not splitlines: U+2028 and others end no line of JSON


def of_file(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records in the lines of a file, as `in_lines` gives them; none where there is no file.

    Raises:
        InputError: when it cannot be read, or is something else than a file.
    """
    if not files.what_is(path):
        return [], 0
    with files.opened(path, growing=True) as file:
        return _records(_lines(file))


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is longer than `LONGEST` its beginning."""
    while text := file.readline(LONGEST):
        yield text
        while len(text) == LONGEST and not text.endswith(b"\n"):
            text = file.readline(LONGEST)


def _records(lines: Iterable[bytes]) -> tuple[list[dict[str, Any]], int]:
    records, damaged = [], 0
    for text in lines:
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and "digest" in record:
            own = _OF_LINE.search(text, max(0, len(text) - 100))
            whole = own is not None and hashlib.sha256(text[: own.start()]).hexdigest()[:SHORT] == own[1].decode()
            record = record if whole else None
        if isinstance(record, dict):
            record.pop("digest", None)
            records.append(record)
        else:
            damaged += 1
    return records, damaged


def append(path: Path, *added: Mapping[str, Any]) -> None:
    """Add records to a file as lines; after a line that a kill tore, on lines of their own."""
    append_lines(path, map(line, added))


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """The same, of lines that `line` made."""
    with files.naming(path), path.open("a+", encoding="utf-8") as out:
        if out.tell() > 0:
            out.seek(out.tell() - 1)
            torn = out.read(1) != "\n"
            out.write("\n" if torn else "")
        out.writelines(lines)
        out.flush()
