"""The store that is a folder. A visible folder of a stage is a complete one; what it holds is checked before it is used."""

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from collapse_cli import files
from collapse_cli.engine import sealed
from collapse_cli.engine.record import RECORD, read_record, record_of
from collapse_cli.engine.soundness import Knowing, Known
from collapse_cli.engine.stage import KEY, Finished, Stage
from collapse_cli.errors import InputError

log = logging.getLogger(__name__)

LOCKS = ".locks"
LEFTOVERS = (".attempts", ".scratch", ".damaged")
# of one file, of shards, of an adapter
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
GONE_OR_OPEN = (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST)  # the last three of NFS: files that are open
MOST_AGAIN = 2  # times that one process computes a damaged stage again before it blames the disk


class FolderStore(Knowing[Known]):
    """Stages below one folder: `ab/ab12…/` finished, `.attempts/` being made, `.scratch/` checkpoints, `.locks/`, and
    `.damaged/`, what was set aside because it no longer is what was written. What methods promise: `store.Store`.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self._again: Counter[str] = Counter()

    @property
    def address(self) -> str:
        return str(self.root)

    @property
    def here(self) -> Path:
        return self.root

    def begin(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    def there(self) -> bool:
        return self.root.is_dir()

    def folder(self, key: str) -> Path:
        """Where the files of a finished stage are on this machine."""
        return self.root / key[:2] / key

    def name_of(self, key: str) -> str:
        return self.folder(key).relative_to(self.root.parent).as_posix()

    def place_of(self, key: str) -> str:
        return str(self.folder(key))

    def sound(self, key: str) -> bool:
        if not self.has(key, whole=False):
            self._ask_again(key)
        return super().sound(key)

    def get(self, key: str) -> Finished:
        if not self.has(key, whole=False):
            self._ask_again(key)
        if not self.has(key, whole=False):
            raise FileNotFoundError(errno.ENOENT, "this stage is not in the store", str(self.folder(key)))
        folder = self.folder(key)
        record = json.loads((folder / RECORD).read_bytes())
        return Finished(record["kind"], key, folder, record["facts"], record["seconds"])

    def set_aside(self, stage: Stage) -> None:
        """Into a hidden folder."""
        folder, key = self.folder(stage.key), stage.key
        fault = self.fault(key)
        if not os.path.lexists(folder) or not fault:
            return  # nothing there, or a pruned one
        self._again[key] += 1
        if self._again[key] > MOST_AGAIN:
            raise InputError(
                f"the {stage.kind} stage {folder} was computed again and is damaged again ({fault}); check the disk"
            )
        aside = self.root / ".damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(aside)
        self._known.pop(key, None)
        log.warning(
            "the %s stage %s in the store is damaged (%s); it is moved to %s and computed again",
            stage.kind,
            key[:12],
            fault,
            aside.parent,
        )

    def _look(self, key: str) -> Known | None:
        """A record is told from another one by inode, time and size."""
        if not KEY.fullmatch(key):  # of a plan or a row that somebody changed: it becomes no path
            return None
        path = self.folder(key) / RECORD
        try:
            now = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        which = (now.st_ino, now.st_mtime_ns, now.st_size)
        known = self._known.get(key)
        if known is None or known.which != which:
            known = self._known[key] = Known(which)
            try:
                known.pruned = read_record(path, key).get("pruned", False)
            except InputError as error:
                known.fault = str(error)
        return known

    def _ask_again(self, key: str) -> None:
        """Have NFS ask its server what is there: for up to a minute it takes a folder that was not there for one that still is not, and what
        another node has published would be computed again. It asks when a folder is opened.
        """
        for folder in (self.root, self.folder(key).parent):
            with suppress(OSError):  # it is not there; or Windows, which opens none
                os.close(os.open(folder, os.O_RDONLY))

    def _check(self, key: str, known: Known) -> None:
        known.fault, known.checked = self._fault_of_files(key), True

    def _fault_of_files(self, key: str) -> str:
        """What of a stage's files is not as it was written; empty: nothing."""
        folder = self.folder(key)
        try:
            written: dict[str, str] = read_record(folder / RECORD, key)["files"]
        except InputError as error:
            return str(error)
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
        if missing := sorted(written.keys() - there):
            return f"{missing[0]} is missing"
        if more := sorted(name for name in there - written.keys() - {RECORD} if PurePosixPath(name).name[0] != "."):
            return f"{more[0]!a} does not belong to it"
        for name, value in written.items():
            path = folder / name
            if not os.access(path, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            try:
                now = files.sha256_of(path)
            except InputError:
                return f"{name} cannot be read"
            if now != value:
                return f"{name} is not what was written"
        return ""

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        """The lock is the operating system's own: it is released when its holder dies, however it dies."""
        (self.root / LOCKS).mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / LOCKS / f"{key}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            files.check_locks(self.root / LOCKS / f"{key}.lock")
            yield False
            return
        except OSError:
            files.check_locks(self.root / LOCKS / f"{key}.lock")
            raise
        try:
            yield True
        finally:
            lock.release()

    def is_held(self, key: str) -> bool:
        return files.is_locked(self.root / LOCKS / f"{key}.lock")

    def attempt(self, key: str) -> Path:
        """An empty hidden folder to write a stage into; what a killed attempt left is wiped."""
        folder = self.root / ".attempts" / key
        if folder.exists():
            self._discard(folder)
        folder.mkdir(parents=True)
        return folder

    def scratch(self, key: str) -> Path:
        folder = self.root / ".scratch" / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, stage: Stage, facts: Mapping[str, Any], seconds: float) -> Finished:
        """Make the attempt of `stage` visible: `stage.json` last, then fsync, then one rename. Call under its lock."""
        attempt = self.root / ".attempts" / stage.key
        written = {}
        for path in sorted(attempt.rglob("*")):
            if path.is_file():
                files.let_others_read(path)
                written[path.relative_to(attempt).as_posix()] = _hash_and_sync(path)
        files.write_atomically(attempt / RECORD, sealed.sealed(record_of(stage, facts, seconds, written)))
        for folder in {path.parent for path in attempt.rglob("*")}:
            _sync_folder(folder)
        target = self.folder(stage.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.set_aside(stage)
        if target.exists():  # a pruned one, made again
            self._discard(target)
        attempt.rename(target)
        _sync_folder(target.parent)
        shutil.rmtree(self.root / ".scratch" / stage.key, ignore_errors=True)
        made = self.get(stage.key)
        self._known[stage.key].checked = True  # the hashes are of what this process wrote
        return made

    def prune(self, key: str) -> int:
        """The record says so before the weights go: a kill in between leaves a folder that counts as pruned."""
        folder = self.folder(key)
        weights = [path for name in WEIGHTS for path in folder.rglob(name)]
        record = json.loads((folder / RECORD).read_bytes())
        files.write_atomically(folder / RECORD, sealed.sealed(record | {"pruned": True}))
        freed = sum(path.stat().st_size for path in weights)
        for path in weights:
            path.unlink()
        return freed

    def holds(self, key: str) -> bool:
        return self.folder(key).exists()

    def size(self, key: str) -> int:
        return size_of(self.folder(key))

    def remove(self, key: str) -> int:
        """Remove a finished stage. Returns the bytes freed. Call under its lock."""
        size = self.size(key)
        return size - size_of(self._discard(self.folder(key)))

    def keys(self) -> list[str]:
        begins = {f"{number:02x}" for number in range(256)}
        return sorted(
            key
            for name in _names(self.root)
            if name in begins
            for key in _names(self.root / name)
            if KEY.fullmatch(key)
        )

    def unfinished(self, *, dry_run: bool = False) -> list[str]:
        return sorted({key for name in LEFTOVERS for key in _names(self.root / name)})

    def is_unfinished(self, key: str) -> bool:
        return any((self.root / name / key).exists() for name in LEFTOVERS)

    def leftover_size(self, key: str) -> int:
        return sum(size_of(self.root / name / key) for name in LEFTOVERS)

    def clear(self, key: str) -> int:
        """Remove what an unfinished stage left. Returns the bytes freed. Call under its lock."""
        size = self.leftover_size(key)
        for name in LEFTOVERS:
            _remove(self.root / name / key)
        return size - self.leftover_size(key)

    def tidy(self, keys: Iterable[str]) -> None:
        """Remove what was left of attempts at those of the stages that are finished by now."""
        for key in sorted(set(self.unfinished()).intersection(keys)):
            if self.has(key, whole=False):
                with self.locked(key) as held:
                    if held and self.has(key, whole=False):
                        for name in (".attempts", ".scratch"):
                            shutil.rmtree(self.root / name / key, ignore_errors=True)

    def drop_copies(self, planned: Collection[str], *, dry_run: bool = False) -> tuple[int, int]:
        """There are no copies beside this store."""
        return 0, 0

    def _discard(self, folder: Path) -> Path:
        """Take a folder away whole: rename first, so that no reader sees half of it. Returns where it may still hold something: files that
        another process has open stay on NFS, under other names, and go with the next `gc`.
        """
        gone = self.root / ".attempts" / f"gone-{uuid.uuid4().hex}"
        gone.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(gone)
        _remove(gone)
        return gone


def _remove(folder: Path) -> None:
    """Remove a folder, as far as that can be done; what keeps the rest is said, but for files that somebody still has open."""
    kept: list[tuple[str, OSError]] = []

    def keep(_: object, path: str, error: BaseException) -> None:
        if isinstance(error, OSError) and error.errno not in GONE_OR_OPEN:
            kept.append((path, error))

    if sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=keep)
    else:
        shutil.rmtree(folder, onerror=lambda what, path, info: keep(what, path, info[1]))
    if kept:
        path, error = kept[0]
        log.warning("%s cannot be removed (%s); remove it by hand, or let its owner do that", path, error.strerror)


def _names(folder: Path) -> list[str]:
    """What a folder holds; nothing where there is none. (A glob takes several times as long, and there may be 100,000 stages.)"""
    try:
        return os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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
