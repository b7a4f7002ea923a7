"""A server's answers, kept line by line as they come: known by what was asked, so that nothing is asked twice."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from collapse_cli import files
from collapse_cli.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a server wrote.

    Attributes:
        text: as it came; nothing in it is ever read as anything but text.
        model: what the server says that it answered with; "" where it does not say.
        tokens: how many it counts; None where it does not say.
        ended: whether the model ended by itself, and was not cut at the most tokens that were asked for.
    """

    text: str
    model: str = ""
    tokens: int | None = None
    ended: bool = False


def digest_of(request: Mapping[str, Any]) -> str:
    """By which a request is known: SHA-256 of all that determines what is asked, in hex."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class KeptAnswers:
    """Answers by the digest of their request, in a file that only grows. A line that a kill tore, or that is damaged, is asked for again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers: dict[str, Answer] = {}
        damaged = 0
        for line in files.read_bytes(path).splitlines() if path.exists() else ():
            if (found := _read(line)) is None:
                damaged += bool(line)
            else:
                self._answers[found[0]] = found[1]
        if damaged:
            log.warning("%d of the answers that were kept are damaged, and are asked for again", damaged)
        self._file = path.open("ab")
        self._file.write(b"\n")  # behind a torn line

    def __getitem__(self, request: str) -> Answer:
        return self._answers[request]

    def __contains__(self, request: str) -> bool:
        return request in self._answers

    def __len__(self) -> int:
        return len(self._answers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._answers)

    def add(self, request: str, answer: Answer) -> None:
        """Keep an answer; it is written before this returns."""
        self._answers[request] = answer
        self._file.write(line_of(request, answer) + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def written_down(path: Path, answers: Sequence[Answer]) -> None:
    """Answers in order, a line each."""
    path.write_bytes(b"".join(line_of("", answer) + b"\n" for answer in answers))


def all_of(path: Path) -> list[Answer]:
    """What `written_down` wrote.

    Raises:
        InputError: when a line is damaged.
    """
    found = [_read(line) for line in files.read_bytes(path).splitlines()]
    whole = [one[1] for one in found if one is not None]
    if len(whole) < len(found):
        raise InputError(f"{path} is damaged; remove its folder, and the run's command asks for what was in it again")
    return whole


def line_of(request: str, answer: Answer) -> bytes:
    """An answer as a line of JSON, sealed by its own digest."""
    record = {"request": request, **asdict(answer)}
    return json.dumps({**record, "digest": _seal(record)}).encode()


def _read(line: bytes) -> tuple[str, Answer] | None:
    """The request and the answer of a line; None for one that is not what was written."""
    try:
        record = json.loads(line)
        seal = record.pop("digest")
        if seal != _seal(record):
            return None
        return record.pop("request"), Answer(**record)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _seal(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
