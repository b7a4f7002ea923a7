"""The store: finished stages by key. A visible folder is a complete folder; there is nothing else to check."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from collapse_cli.stage import Finished, Stage

RECORD = "stage.json"
READABLE = 20_000  # characters of a record that are laid out for people
WEIGHTS = "model.safetensors"


class Store:
    """Stages below one folder: `ab/ab12…/` finished, `.attempts/` being made, `.scratch/` checkpoints, `.locks/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        return self.root / key[:2] / key

    def has(self, key: str, *, whole: bool = True) -> bool:
        """Whether the stage is finished; a pruned one counts only with `whole=False`."""
        try:
            record = json.loads((self.folder(key) / RECORD).read_bytes())
        except FileNotFoundError:
            return False
        return not (whole and record.get("pruned", False))

    def get(self, key: str) -> Finished:
        """The finished stage.

        Raises:
            FileNotFoundError: when the stage is not in the store.
        """
        folder = self.folder(key)
        record = json.loads((folder / RECORD).read_bytes())
        return Finished(record["kind"], key, folder, record["facts"], record["seconds"])

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        """Try to take the lock of a key at once. Yields False when another process holds it.

        The lock is the operating system's own: it is released when its holder dies, however it dies.
        """
        (self.root / ".locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / ".locks" / f"{key}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def attempt(self, key: str) -> Path:
        """An empty hidden folder to write a stage into; what a killed attempt left is wiped."""
        folder = self.root / ".attempts" / key
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        return folder

    def scratch(self, key: str) -> Path:
        """The folder for the stage's mid-stage checkpoints: it survives a kill and goes when the stage is published."""
        folder = self.root / ".scratch" / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, stage: Stage, facts: Mapping[str, Any], seconds: float) -> Finished:
        """Make the attempt of `stage` visible: `stage.json` last, then fsync, then one rename. Call under its lock."""
        attempt = self.root / ".attempts" / stage.key
        files = {}
        for path in sorted(attempt.rglob("*")):
            if path.is_file():
                files[path.relative_to(attempt).as_posix()] = _hash_and_sync(path)
        record = {
            "kind": stage.kind,
            "version": stage.version,
            "params": stage.params,
            "inputs": {name: made.key for name, made in stage.inputs.items()},
            "seed": stage.seed,
            "seconds": round(seconds, 3),
            "facts": facts,
            "files": files,
        }
        text = json.dumps(record, allow_nan=False)
        if (
            len(text) < READABLE
        ):  # of a block of generations nobody reads it, and indenting takes longer than many of them
            text = json.dumps(record, indent=1)
        write_atomically(attempt / RECORD, text)
        for folder in {path.parent for path in attempt.rglob("*")}:
            _sync_folder(folder)
        target = self.folder(stage.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # only ever a pruned one, made again
            self._discard(target)
        attempt.rename(target)
        _sync_folder(target.parent)
        shutil.rmtree(self.root / ".scratch" / stage.key, ignore_errors=True)
        return self.get(stage.key)

    def prune(self, key: str) -> int:
        """Drop the weights of a finished model, keep its record. Returns the bytes freed. Call under its lock.

        The record says so before the weights go: a kill in between leaves a folder that counts as pruned.
        """
        folder = self.folder(key)
        weights = list(folder.rglob(WEIGHTS))
        record = json.loads((folder / RECORD).read_bytes())
        write_atomically(folder / RECORD, json.dumps(record | {"pruned": True}, indent=1))
        freed = sum(path.stat().st_size for path in weights)
        for path in weights:
            path.unlink()
        return freed

    def remove(self, key: str) -> int:
        """Remove a finished stage. Returns the bytes freed. Call under its lock."""
        folder = self.folder(key)
        freed = size_of(folder)
        self._discard(folder)
        return freed

    def keys(self) -> list[str]:
        """The keys of all finished stages."""
        return sorted(path.parent.name for path in self.root.glob(f"[0-9a-f][0-9a-f]/*/{RECORD}"))

    def unfinished(self) -> list[str]:
        """The keys that have an attempt or a checkpoint left over, from a kill or from a stage at work right now."""
        return sorted({path.name for name in (".attempts", ".scratch") for path in self.root.glob(f"{name}/*")})

    def leftover_size(self, key: str) -> int:
        """Bytes of the attempt and the checkpoints of an unfinished stage."""
        return sum(size_of(self.root / name / key) for name in (".attempts", ".scratch"))

    def clear(self, key: str) -> int:
        """Remove what an unfinished stage left. Returns the bytes freed. Call under its lock."""
        freed = self.leftover_size(key)
        for name in (".attempts", ".scratch"):
            shutil.rmtree(self.root / name / key, ignore_errors=True)
        return freed

    def _discard(self, folder: Path) -> None:
        """Take a visible folder away whole: rename first, so that no reader sees half of it."""
        gone = self.root / ".attempts" / f"gone-{uuid.uuid4().hex}"
        gone.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(gone)
        shutil.rmtree(gone)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_atomically(path: Path, text: str) -> None:
    """Replace a file whole: a reader, or a kill, meets the old text or the new one."""
    attempt = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with attempt.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        attempt.replace(path)
    finally:
        attempt.unlink(missing_ok=True)


def _hash_and_sync(path: Path) -> str:
    with path.open("rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return value


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
