"""Checkpoints in the middle of a stage: one file of named arrays and a line of JSON, replaced whole.

Each carries the SHA-256 of its place and of itself, with zeros in the place of that `digest` of its metadata. A damaged one
is dropped, and what it held is done again.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from collapse_cli import files
from collapse_cli.errors import InputError, UserError

SECONDS = 60.0  # between two
UNSEALED = {"digest": "0" * 64}  # metadata that a file must have to be sealed
MOST_HEADER = 100 << 20  # bytes, as safetensors has it
_DIGEST = re.compile(rb'"digest":\s*"([0-9a-f]{64})"')
log = logging.getLogger(__name__)


class DamagedError(UserError):
    """A file of ours cannot be read: which, and what to do."""


def seconds_between() -> float:
    """How often to write one; the environment variable COLLAPSE_CHECKPOINT_SECONDS says otherwise."""
    return float(os.environ.get("COLLAPSE_CHECKPOINT_SECONDS", SECONDS))


def put(attempt: Path, path: Path) -> None:
    """Seal a safetensors file, saved with the metadata `UNSEALED`, bring it to the disk, and put it in the place of `path`."""
    with attempt.open("r+b") as file:
        header = _header(file)
        own = _DIGEST.search(header)
        if own is None:
            raise ValueError(f"{attempt} has no place for a digest")
        value = _digest(path, header, file)
        file.seek(own.start(1))
        file.write(value.encode())
        file.flush()
        os.fsync(file.fileno())
    files.let_others_read(attempt)
    attempt.replace(path)


def put_tensors(path: Path, tensors: Mapping[str, Any], state: Any = None) -> None:
    """Put torch's tensors in the place of `path`, whole or not at all; with them, as metadata, a state of JSON types where there is one."""
    from safetensors.torch import save_file  # which loads torch: not all that have checkpoints need it

    attempt = path.with_suffix(".tmp")
    about = {} if state is None else {"state": json.dumps(state)}
    save_file({name: value.contiguous() for name, value in tensors.items()}, attempt, {**about, **UNSEALED})
    put(attempt, path)


def is_sound(path: Path) -> bool:
    """Whether a sealed file is there, and is what was written there. A damaged one is said and removed."""
    if not os.path.lexists(path):
        return False
    try:
        with files.opened(path) as file:
            header = _header(file)
            own = _DIGEST.search(header)
            if own is not None:
                header = header[: own.start(1)] + b"0" * 64 + header[own.end(1) :]
                if _digest(path, header, file) == own[1].decode():
                    return True
    except InputError:  # a folder, say
        pass
    log.warning(
        "%s is not used: this checkpoint is damaged, or an earlier version of collapse wrote it; its stage starts anew",
        path,
    )
    remove(path)
    return False


def _digest(path: Path, header: bytes, file: BinaryIO) -> str:
    """Of a file that `_header` has read from. Where it belongs is a part of it: another stage's is no better than none."""
    value = hashlib.sha256(f"{path.parent.name}/{path.name}:".encode() + header)
    while more := file.read(1 << 20):
        value.update(more)
    return value.hexdigest()


def remove(path: Path) -> None:
    """Remove what stands in a checkpoint's place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _header(file: BinaryIO) -> bytes:
    """The first bytes of a safetensors file: the length of its header, and that."""
    length = file.read(8)
    return length + file.read(min(int.from_bytes(length, "little"), MOST_HEADER))


def keep(path: Path, arrays: Mapping[str, np.ndarray], facts: Any) -> None:
    """Replace a checkpoint, sealed: a kill leaves the old one or the new one."""
    attempt = path.with_suffix(".attempt")
    _save(attempt, arrays, {"facts": json.dumps(facts), **UNSEALED})
    put(attempt, path)


def take_up(path: Path) -> tuple[dict[str, np.ndarray], Any] | None:
    """What `keep` wrote; None where there is nothing, or it is damaged."""
    return read(path) if is_sound(path) else None


def _save(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, metadata)


def write(path: Path, arrays: Mapping[str, np.ndarray], facts: Any) -> None:
    """Write a file of a stage, which the store keeps and checks."""
    _save(path, arrays, {"facts": json.dumps(facts)})


def read(path: Path) -> tuple[dict[str, np.ndarray], Any] | None:
    """What `write` wrote; None where there is nothing."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["facts"])  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path} is damaged ({error}); remove its folder, and the run's command makes what was in it again"
        ) from None
