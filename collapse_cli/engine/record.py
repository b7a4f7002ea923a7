"""`stage.json`: what a finished stage is and was made from, what it found out, and the hash of each of its files."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from collapse_cli import files
from collapse_cli.engine import sealed
from collapse_cli.engine.stage import Stage, digest
from collapse_cli.errors import InputError

RECORD = "stage.json"
FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("params", "inputs", "facts", "files"), dict),
    **dict.fromkeys(("version", "seed"), int),
    "kind": str,
    "seconds": (int, float),
}
LATER: dict[str, type] = {"pruned": bool, "digest": str}  # records may lack them


def record_of(stage: Stage, facts: Mapping[str, Any], seconds: float, files: Mapping[str, str]) -> dict[str, Any]:
    """What is written of a finished stage; `files`: the SHA-256 of each by name."""
    return {
        "kind": stage.kind,
        "version": stage.version,
        "params": stage.params,
        "inputs": {name: made.key for name, made in stage.inputs.items()},
        "seed": stage.seed,
        "seconds": round(seconds, 3),
        "facts": facts,
        "files": files,
    }


def read_record(path: Path, key: str) -> dict[str, Any]:
    """A stage's `stage.json`. Records made before they had a digest of their own are checked against the key alone.

    Raises:
        InputError: when it is not the whole record of that stage; the message is a part of a sentence.
    """
    try:
        content = files.read_bytes(path)
    except InputError:
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from None
        raise InputError(f"{RECORD} cannot be read") from None
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{RECORD} is no JSON") from None
    known = FIELDS | LATER
    if not isinstance(record, dict) or not FIELDS.keys() <= record.keys() <= known.keys():
        raise InputError(f"{RECORD} is no record of a stage")
    if not all(isinstance(value, known[name]) for name, value in record.items()):
        raise InputError(f"{RECORD} is no record of a stage")
    if not sealed.is_whole(record, content):
        raise InputError(f"{RECORD} is not what was written")
    try:
        made_for = digest({name: record[name] for name in ("kind", "version", "params", "inputs", "seed")})
    except (TypeError, RecursionError):
        made_for = ""
    if made_for != key:
        raise InputError(f"{RECORD} is that of another stage")
    for name, value in record["files"].items():
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or not name.isprintable() or not isinstance(value, str):
            raise InputError(f"{RECORD} is no record of a stage")
    return record
