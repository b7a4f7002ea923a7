"""The store that is objects, as in S3. What methods promise: `store.Store`.

A stage is `records/KEY.json`, its `stage.json`, and its files, `files/KEY/HASH/NAME`. Files go first and never change, for their
hash is in their name; the record goes last and is created only where there is none: with it the stage is there, whole.
`leases/KEY/…` are its locks.

Each machine has a `FolderStore` beside it, in which stages are made and brought when they are asked for. What lies there is used
only as long as its record is that of the other side, and each file what the record says.
"""

import errno
import hashlib
import logging
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from collapse_cli import files
from collapse_cli.engine import sealed
from collapse_cli.engine.disk import disk_errors
from collapse_cli.engine.folder_store import LOCKS, MOST_AGAIN, WEIGHTS, FolderStore
from collapse_cli.engine.leases import Leases
from collapse_cli.engine.objects import ObjectFacts, RemoteObjects
from collapse_cli.engine.record import RECORD, read_record
from collapse_cli.engine.remote_addresses import copy_of
from collapse_cli.engine.soundness import Knowing, Known
from collapse_cli.engine.stage import KEY, Finished, NotYetHere, Stage
from collapse_cli.errors import InputError, UnreachableError, UserError

log = logging.getLogger(__name__)
HASH = re.compile(r"[0-9a-f]{64}")  # of a file
FRESH = 3.0  # seconds for which a listing is at least believed where it lacks a stage; whoever holds its lock asks anew
RECORDS, BROUGHT = ".records", ".brought"  # on this machine: records that were read, files that are on their way
ABANDONED = 86_400.0  # seconds after which the latter are taken for those of a killed process
SHARE = 0.05  # of the time that listing may take


@dataclass
class _Known(Known):
    """What is checked is on this machine, too.

    Attributes:
        content: the record, as it stands.
        record: the same, read; empty where it is damaged.
    """

    content: bytes = b""
    record: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(version: str, content: bytes, record: Mapping[str, Any], **more: Any) -> "_Known":
        """Of a record that is whole."""
        return _Known(version, bool(record.get("pruned", False)), content=content, record=record, **more)


class ObjectStore(Knowing[_Known]):
    """Finished stages as objects below an address, and a folder of this machine to work in."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address.rstrip("/")
        self._objects = RemoteObjects(self._address)
        self._here = FolderStore(copy_of(self._address))
        self._leases = Leases(self._objects, self._here.root)
        self._listing: dict[str, ObjectFacts] = {}
        self._listed_until = 0.0  # by the monotonic clock
        self._again: Counter[str] = Counter()

    @property
    def address(self) -> str:
        return self._address

    @property
    def here(self) -> Path:
        return self._here.root

    def begin(self) -> None:
        self._objects.check()
        self._here.begin()

    def there(self) -> bool:
        """Whether it can be read: where nothing is yet, there is nothing to be made before either."""
        self._objects.folders("")
        return True

    # --- finished stages

    def get(self, key: str) -> Finished:
        """The finished stage; its files are brought when its folder is asked for."""
        known = self._look(key) or self._look(key, now=True)
        if known is None or known.fault:
            raise FileNotFoundError(errno.ENOENT, "this stage is not in the store", self.place_of(key))
        record = known.record
        if self._is_here(key, known):
            return Finished(record["kind"], key, self._here.folder(key), record["facts"], record["seconds"])
        return NotYetHere.of(record["kind"], key, record["facts"], record["seconds"], lambda: self._folder_of(key))

    def holds(self, key: str) -> bool:
        return self._ask(key) is not None

    def keys(self) -> list[str]:
        self._list()
        return sorted(self._listing)

    def size(self, key: str) -> int:
        return sum(about.size for about in self._objects.find(f"files/{key}").values())

    def name_of(self, key: str) -> str:
        return self._here.name_of(key)

    def place_of(self, key: str) -> str:
        return f"{self._address}/files/{key}"

    # --- stages at work

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        """Two locks: that of this machine's folder, and the lease. What a kill left unsent is sent once both are held."""
        with self._here.locked(key) as mine:
            if not (mine and self._leases.take(key)):
                yield False
                return
            try:
                if self._look(key, now=True) is None and KEY.fullmatch(key) and self._here.sound(key):
                    self._send(key)
                yield True
            except BaseException as error:
                if not isinstance(error, UnreachableError):
                    self._release(key, log.debug)
                raise
            self._release(key, log.warning)

    def is_held(self, key: str) -> bool:
        return self._here.is_held(key) or self._leases.is_held(key)

    def _release(self, key: str, say: Callable[..., None]) -> None:
        """Give the lease back. Where that cannot be done, it ends by itself."""
        try:
            self._leases.release(key)
        except UserError as error:
            say("%s", error)

    def attempt(self, key: str) -> Path:
        return self._here.attempt(key)

    def scratch(self, key: str) -> Path:
        """On this machine: a stage that another one goes on with begins anew there."""
        return self._here.scratch(key)

    def publish(self, stage: Stage, facts: Mapping[str, Any], seconds: float) -> Finished:
        """Make the attempt whole on this machine, send its files, then create its record. Call under its lock."""
        self._here.publish(stage, facts, seconds)
        self._send(stage.key)
        return self.get(stage.key)

    def _send(self, key: str) -> None:
        """Put a stage that is whole on this machine on the other side; files that are there are not sent again."""
        folder = self._here.folder(key)
        content = (folder / RECORD).read_bytes()
        record = read_record(folder / RECORD, key)
        there = self._objects.find(f"files/{key}")

        def send(name: str) -> None:
            path, place = folder / name, _file(key, name, record["files"][name])
            if place not in there or there[place].size != path.stat().st_size:
                self._objects.upload(path, place)

        self._objects.at_once(send, record["files"])
        if not self._objects.create(_record(key), content):
            other = self._look(key, now=True)
            if other is None or not other.pruned:
                log.warning(
                    "the %s stage %s was published by another process meanwhile; that one counts",
                    record["kind"],
                    key[:12],
                )
                return
            self._objects.write(_record(key), content)
        if (about := self._ask(key)) is not None:  # the hashes are of what this process wrote, or has compared just now
            self._known[key] = _Known.of(about.version, content, record, checked=True)

    def set_aside(self, stage: Stage) -> None:
        """Remove it: objects that are no longer what was written are of no use to anybody."""
        key = stage.key
        known = self._look(key)
        if known is None or not known.fault:
            return  # nothing there, or a pruned one
        self._again[key] += 1
        if self._again[key] > MOST_AGAIN:
            raise InputError(
                f"the {stage.kind} stage {self.place_of(key)} was computed again and is damaged again ({known.fault}); check that store"
            )
        self.remove(key)
        log.warning(
            "the %s stage %s in the store is damaged (%s); it is removed and computed again",
            stage.kind,
            key[:12],
            known.fault,
        )

    # --- what leaves it

    def prune(self, key: str) -> int:
        known = self._look(key, now=True)
        if known is None or known.fault:
            return 0
        self._objects.write(_record(key), sealed.sealed({**known.record, "pruned": True}).encode())
        there = self._objects.find(f"files/{key}")
        weights = [name for name in there if any(PurePosixPath(name).match(pattern) for pattern in WEIGHTS)]
        self._objects.remove(weights)
        self._look(key, now=True)
        self._drop_here(key)
        return sum(there[name].size for name in weights)

    def remove(self, key: str) -> int:
        there = self._objects.find(f"files/{key}")
        self._objects.remove([_record(key)])  # first: what has none is no stage
        self._objects.remove(there)
        self._forget(key)
        self._drop_here(key)
        return sum(about.size for about in there.values())

    def unfinished(self, *, dry_run: bool = False) -> list[str]:
        """Here what attempts left, and there files that no record came after, and leases that nobody renews."""
        sent = {key for name in self._objects.find("files") if KEY.fullmatch(key := (*name.split("/", 2), "")[1])}
        left = {key for key in self._leases.left(dry_run=dry_run) if KEY.fullmatch(key)}
        return sorted({*self._here.unfinished(), *sent.difference(self.keys()), *left})

    def is_unfinished(self, key: str) -> bool:
        return self._here.is_unfinished(key) or bool(not self.holds(key) and self._objects.find(f"files/{key}"))

    def leftover_size(self, key: str) -> int:
        return self._here.leftover_size(key) + (0 if self.holds(key) else self.size(key))

    def clear(self, key: str) -> int:
        freed = self._here.clear(key)
        if not self.holds(key):
            freed += self.size(key)
            self._objects.remove(self._objects.find(f"files/{key}"))
        return freed

    def tidy(self, keys: Iterable[str]) -> None:
        """Leftovers are of this machine alone: its own lock is enough."""
        for key in sorted(set(self._here.unfinished()).intersection(keys)):
            if self.has(key, whole=False):
                with self._here.locked(key) as held:
                    if held:
                        self._here.clear(key)

    def drop_copies(self, planned: Collection[str], *, dry_run: bool = False) -> tuple[int, int]:
        """Of this machine, so that its own locks are enough. What is planned and was not sent yet is sent by the next run. And what writes
        that were killed left on the other side, where no stage is known by it.
        """
        dropped, freed = 0, 0
        self._list()
        for key in list(self._here.keys()):
            if self._is_wanted(key, planned):
                continue
            with nullcontext(not self._here.is_held(key)) if dry_run else self._here.locked(key) as mine:
                if mine and self._here.holds(key) and not self._is_wanted(key, planned, now=True):
                    dropped += 1
                    freed += self._here.size(key) if dry_run else self._here.remove(key)
        left = self._leases.abandoned(dry_run=dry_run)
        dropped, freed = dropped + len(left), freed + sum(about.size for about in left.values())
        if not dry_run:
            self._objects.remove(left)
            for path in (self._here.root / RECORDS).glob("*.json"):
                if path.name.partition("-")[0] not in self._listing:
                    path.unlink(missing_ok=True)
            for path in (*(self._here.root / BROUGHT).glob("*"), *self._leases.of_dead_holders()):
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > ABANDONED:
                        _remove(path) if path.is_dir() else path.unlink()
        return dropped, freed

    def _is_wanted(self, key: str, planned: Collection[str], *, now: bool = False) -> bool:
        """Whether a copy is that of a stage there, or one that a run has yet to send."""
        known = self._look(key, now=now)
        return key in planned if known is None else bool(known.fault) or self._is_here(key, known)

    # --- records

    def _look(self, key: str, *, now: bool = False) -> _Known | None:
        """What is known of a stage, its record read where it is a new one; None where there is no record.

        Args:
            now: ask the other side, whatever was known before.
        """
        if not KEY.fullmatch(key):  # of a plan or a row that somebody changed: it is no name of an object
            return None
        if now:
            about = self._ask(key)
        else:
            if key not in self._listing and time.monotonic() > self._listed_until:
                self._list()
            about = self._listing.get(key)
        if about is None:
            self._known.pop(key, None)
            return None
        known = self._known.get(key)
        if known is None or known.which != about.version or (now and not known.record):
            known = self._read(key, about.version)
            if known is None:
                self._forget(key)
                return None
            self._known[key] = known
        return known

    def _list(self) -> None:
        """Which records there are."""
        begin = time.monotonic()
        found = self._objects.find("records")
        keys = {name.rpartition("/")[2].removesuffix(".json"): about for name, about in found.items()}
        self._listing = {key: about for key, about in keys.items() if KEY.fullmatch(key)}
        now = time.monotonic()
        self._listed_until = now + max(FRESH, (now - begin) / SHARE)

    def _ask(self, key: str) -> ObjectFacts | None:
        about = self._objects.about(_record(key)) if KEY.fullmatch(key) else None
        if about is None:
            self._forget(key)
        else:
            self._listing[key] = about
        return about

    def _forget(self, key: str) -> None:
        self._listing.pop(key, None)
        self._known.pop(key, None)

    def _read(self, key: str, version: str) -> _Known | None:
        """A record of the other side; this machine keeps what it has read. What is damaged is fetched once more: it may be this machine's
        disk, or the line, and whoever finds a stage damaged removes it.
        """
        kept = self._here.root / RECORDS / f"{key}-{hashlib.sha256(version.encode()).hexdigest()[:16]}.json"
        damaged = None
        for _ in range(2):
            if not kept.is_file():
                content = self._objects.read(_record(key))
                if content is None:
                    return None
                with disk_errors(str(self.here)):
                    files.put(kept, content)
            try:
                record = read_record(kept, key)
                if not all(HASH.fullmatch(value) for value in record["files"].values()):
                    raise InputError(f"{RECORD} is no record of a stage")
                return _Known.of(version, kept.read_bytes(), record)
            except InputError as error:
                damaged = _Known(version, fault=str(error), content=kept.read_bytes())
                kept.unlink(missing_ok=True)
        return damaged

    # --- files on this machine

    def _is_here(self, key: str, known: _Known) -> bool:
        """Whether this machine has the stage of that very record."""
        try:
            return (self._here.folder(key) / RECORD).read_bytes() == known.content
        except OSError:
            return False

    def _folder_of(self, key: str) -> Path:
        known = self._look(key)
        if known is not None and not known.checked and not known.fault:
            self._check(key, known)
        if known is None or known.fault:
            fault = known.fault if known else "it was removed meanwhile"
            raise InputError(f"{self.place_of(key)} cannot be used ({fault}); give the run's command again")
        return self._here.folder(key)

    def _check(self, key: str, known: _Known) -> None:
        """Have a stage's files on this machine, each as its record says; what is wrong with them is its `fault`.

        Of several processes of this machine one brings them, and the others wait for it.
        """
        with disk_errors(str(self.here)):
            locks = self._here.root / LOCKS
            locks.mkdir(parents=True, exist_ok=True)
            with FileLock(locks / f"{key}-brought.lock"):
                self._bring(key, known)

    def _bring(self, key: str, known: _Known) -> None:
        folder = self._here.folder(key)
        if self._is_here(key, known):
            if known.pruned or self._here.sound(key):
                known.checked = True
                return
            log.warning("the copy %s of a stage is damaged (%s); it is fetched again", folder, self._here.fault(key))
        self._drop_here(key)
        fetched = self._here.root / BROUGHT / uuid.uuid4().hex
        written: Mapping[str, str] = known.record["files"]
        faults: list[str] = []

        def fetch(name: str) -> None:
            path = fetched / name
            path.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(2):  # a line that was cut may have brought a part of it
                if not self._objects.download(_file(key, name, written[name]), path):
                    faults.append(f"{name} is missing")
                    return
                if files.sha256_of(path) == written[name]:
                    return
            faults.append(f"{name} is not what was written")

        try:
            fetched.mkdir(parents=True)
            self._objects.at_once(fetch, [name for name in written if not (known.pruned and _is_weights(name))])
            if not faults:
                (fetched / RECORD).write_bytes(known.content)
                folder.parent.mkdir(parents=True, exist_ok=True)
                self._put_here(fetched, folder, key, known)
        finally:
            _remove(fetched)
        known.fault, known.checked = min(faults, default=""), not faults

    def _put_here(self, fetched: Path, folder: Path, key: str, known: _Known) -> None:
        try:
            fetched.rename(folder)
        except OSError:
            if not self._is_here(key, known):  # another process of this machine was faster
                raise

    def _drop_here(self, key: str) -> None:
        if self._here.holds(key):
            self._here.remove(key)


def _record(key: str) -> str:
    return f"records/{key}.json"


def _file(key: str, name: str, value: str) -> str:
    """Where a file of a stage is; its hash is in its name, so that no object of another content ever has it."""
    return f"files/{key}/{value[:16]}/{name}"


def _is_weights(name: str) -> bool:
    return any(PurePosixPath(name).match(pattern) for pattern in WEIGHTS)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
