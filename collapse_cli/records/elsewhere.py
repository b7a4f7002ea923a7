"""Runs that are elsewhere, as in S3: their folders on this machine are copies, brought before they are read.

Who works on a run holds its lease, works in the copy, and sends its files whole: when it begins, every some seconds, and at the
end. What a kill left unsent is dropped when the run is looked at again, for everything in it can be made again from the store.
"""

import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from collapse_cli import files
from collapse_cli.engine.disk import disk_errors
from collapse_cli.engine.remote_addresses import address_of, copy_of, shown
from collapse_cli.errors import ConfigError, InputError, UnreachableError, UserError
from collapse_cli.records import flags
from collapse_cli.records.names import can_be_named

if TYPE_CHECKING:
    from collapse_cli.engine.leases import Leases
    from collapse_cli.engine.objects import ObjectFacts, RemoteObjects

log = logging.getLogger(__name__)
SEND_SECONDS = 10.0  # between two looks at what has changed in a run at work
SHARE = 0.05  # of the time that following runs may take
RECORDS = re.compile(r"[A-Za-z0-9][\w.-]{0,99}\.jsonl?|texts/[A-Za-z0-9][\w.-]{0,99}")  # of a run, brought and sent
PAGES = ("report.html", "report.md")  # which are sent only: they are made of the records
STATE = ".brought.json"  # of a copy: which version of each file it is, and time and size that the file had then


def folder_of(address: str) -> Path:
    """The folder in which runs at an address are worked on. Nobody is asked yet.

    Raises:
        ConfigError: for an address that cannot be one of runs.
    """
    if address.lower().startswith("memory:"):
        raise ConfigError(
            f"{address}: what is in memory is gone when the command ends; name s3://BUCKET/PREFIX or a folder"
        )
    if address.lower().startswith(("http:", "https:")):
        raise ConfigError(
            f"{address[:200]!r}: runs cannot be kept behind http; for S3 name s3://BUCKET/PREFIX, and the server, where it is not Amazon's, "
            "in the environment (AWS_ENDPOINT_URL)"
        )
    return copy_of(address)


def is_copy(runs: Path) -> bool:
    """Whether a folder of runs is a copy of what is elsewhere."""
    return bool(address_of(runs))


def place_of(runs: Path) -> str:
    """Where a folder of runs is, for people."""
    return address_of(runs) or str(runs.absolute())


def said(folder: Path) -> str:
    """Where a run is, for people."""
    if not is_copy(folder.parent):
        return str(folder)
    return f"{shown(folder.parent)}/runs/{folder.name} (a copy: {folder})"


def bring(runs: Path, name: str) -> None:
    """Make the copy of a run what the run is now; nothing of folders that are no copies, and of runs at work here.

    Raises:
        InputError: when it cannot be reached.
    """
    if is_copy(runs) and can_be_named(name):
        _place(runs).bring(name)


def bring_all(runs: Path) -> None:
    """The same of every run."""
    if is_copy(runs):
        _place(runs).bring_all()


def send(folder: Path) -> None:
    """Send what changed in the copy of a run that this process works on."""
    if is_copy(folder.parent):
        _place(folder.parent).send(folder.name)


def drop_gone(runs: Path) -> None:
    """Remove the copies of runs that are not there any more, and that nobody works on."""
    if is_copy(runs):
        _place(runs).drop_gone()


@contextmanager
def following(runs: Path, names: Collection[str] = ()) -> Iterator[None]:
    """Bring what changes in runs that are elsewhere, every some seconds, as long as they are looked at.

    Args:
        names: these alone; none: all.

    Raises:
        InputError: when they cannot be reached at first. A connection that is lost later is said, and tried again.
    """
    if not is_copy(runs):
        yield
        return
    with _place(runs).following(names):
        yield


@contextmanager
def working(folder: Path) -> Iterator[None]:
    """Hold the lease of a run that is elsewhere, with the run as it is now, and send what changes.

    Raises:
        ConfigError: when another process holds it.
    """
    if not is_copy(folder.parent) or folder.name in _place(folder.parent).leased:
        yield
        return
    with _place(folder.parent).working(folder.name):
        yield


def at_work(folder: Path) -> bool | None:
    """Whether a process somewhere works on the run of a copy; None where that is not known."""
    return _place(folder.parent).at_work(folder.name)


class _Place:
    """A folder of copies."""

    def __init__(self, runs: Path, objects: "RemoteObjects", leases: "Leases") -> None:
        self.runs, self.objects, self.leases = runs, objects, leases
        self.leased: set[str] = set()
        self._brought: set[str] = set()  # once by each command
        self._sending = threading.Lock()
        self._followed = False  # a thread brings what changes
        self._heard: dict[
            str, tuple[float, bool | None]
        ] = {}  # whether a run is at work, and until when that is believed

    # --- to here

    def bring(self, name: str) -> None:
        if not (self._followed or name in self.leased or name in self._brought):
            self._bring(name, self.objects.find(f"runs/{name}"))

    def bring_all(self) -> None:
        if not self._followed:
            self._bring_all()

    @contextmanager
    def following(self, names: Collection[str]) -> Iterator[None]:
        self._bring_all(names)
        self._followed, end = True, threading.Event()
        threading.Thread(target=self._keep_bringing, args=(names, end), daemon=True).start()
        try:
            yield
        finally:
            self._followed = False
            end.set()

    def _keep_bringing(self, names: Collection[str], end: threading.Event) -> None:
        complaints, took = _Complaints("what is shown stays as it is"), 0.0
        while not end.wait(max(min(SEND_SECONDS, self.leases.seconds / 6), took / SHARE)):
            begin = time.monotonic()
            with complaints.said_once(), self.objects.hurried():
                self._bring_all(names)
            took = time.monotonic() - begin

    def at_work(self, name: str) -> bool | None:
        until, known = self._heard.get(name, (0.0, None))
        now = time.monotonic()
        if self._followed and now < until:
            return known
        try:
            with self.objects.hurried() if self._followed else nullcontext():
                heard = self.leases.heard_of(_lease(name))
        except UnreachableError:
            if not self._followed:
                raise
            known = None
        else:  # its clock, or ours, may be wrong
            known = False if heard is None else True if heard < 2 * self.leases.seconds else None
        self._heard[name] = now + SEND_SECONDS / 2, known
        return known

    def drop_gone(self) -> None:
        there = set(self.objects.folders("runs"))
        for folder in self.runs.glob("*"):
            if folder.name in there or not can_be_named(folder.name) or not (folder / STATE).is_file():
                continue
            if not flags.is_raised(folder) and self.leases.take(_lease(folder.name)):
                try:
                    if not self.objects.find(f"runs/{folder.name}"):
                        shutil.rmtree(folder, ignore_errors=True)
                finally:
                    self.leases.release(_lease(folder.name))
        self.objects.remove(self.leases.abandoned())
        for left in self.leases.left():
            if left.startswith(_lease("")) and self.leases.take(left):
                self.leases.release(left)

    def _bring_all(self, names: Collection[str] = ()) -> None:
        if names:
            for name in names:
                if can_be_named(name) and name not in self.leased:
                    self._bring(name, self.objects.find(f"runs/{name}"))
            return
        there: dict[str, dict[str, ObjectFacts]] = {path.parent.name: {} for path in self.runs.glob("*/run.json")}
        for place, about in self.objects.find("runs").items():
            there.setdefault((*place.split("/", 2), "")[1], {})[place] = about
        wanted = {name: found for name, found in there.items() if can_be_named(name) and name not in self.leased}
        self._brought.update(wanted)
        old = [name for name, found in wanted.items() if not _is_current(self.runs / name, _of_records(name, found))]
        if old:
            self.objects.at_once(lambda name: self._bring(name, wanted[name]), old)

    def _bring(self, name: str, found: "Mapping[str, ObjectFacts]") -> None:
        folder = self.runs / name
        there = _of_records(name, found)
        self._brought.add(name)
        if _is_current(folder, there):
            return
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder / ".lock"):
            if not (flags.is_raised(folder) and name not in self.leased):  # who works on it here knows it best
                self._replace(folder, there)

    def _replace(self, folder: Path, there: "Mapping[str, ObjectFacts]") -> None:
        state = _state(folder)
        for file in _records_in(folder) - there.keys():
            (folder / file).unlink()
        for page in PAGES if not there else ():
            (folder / page).unlink(missing_ok=True)
        now = {}
        for file, about in there.items():
            path = folder / file
            if state.get(file) != [about.version, *_stamp(path)]:
                content = self.objects.read(f"runs/{folder.name}/{file}")
                if content is None:
                    continue
                _put(path, content)
            now[file] = [about.version, *_stamp(path)]
        _put(folder / STATE, json.dumps(now).encode())

    # --- from here

    @contextmanager
    def working(self, name: str) -> Iterator[None]:
        lease = _lease(name)
        if not self.leases.take(lease):
            holder = self.leases.holder(lease) or "another process"
            log.warning(
                "%s has the run %r; whether it still works on it shows within %.0f s", holder, name, self.leases.seconds
            )
            if not self.leases.take_over(lease):
                raise ConfigError(
                    f"{holder} works on the run {name!r} in {shown(self.runs)}; wait for it, or give this one a --name of its own"
                )
        self.leased.add(name)
        end = threading.Event()
        thread = threading.Thread(target=self._keep_sending, args=(name, end), daemon=True)
        try:
            self._bring(name, self.objects.find(f"runs/{name}"))
            thread.start()
            yield
        except BaseException as error:
            self._leave(name, end, thread, error)
            raise
        self._leave(name, end, thread)

    def _leave(
        self, name: str, end: threading.Event, thread: threading.Thread, error: BaseException | None = None
    ) -> None:
        """Send the end of a run, and give its lease back; where it failed, as far as that goes."""
        end.set()
        if isinstance(error, UnreachableError):  # nobody waits for what will not come
            self.leased.discard(name)
            return
        if thread.ident is not None:
            thread.join()
        try:
            with self.objects.hurried() if error is not None else nullcontext():
                try:
                    self.send(name)
                finally:  # where the disk of copies is full, too
                    self.leases.release(_lease(name))
        except (UserError, OSError) as other:
            if error is None:
                raise
            log.debug("%s", other)
        finally:
            self.leased.discard(name)
            self._brought.discard(name)

    def _keep_sending(self, name: str, end: threading.Event) -> None:
        complaints = _Complaints("the run goes on, and is sent later")
        while not end.wait(min(SEND_SECONDS, self.leases.seconds / 6)):
            with complaints.said_once(), self.objects.hurried():
                self.send(name)

    def send(self, name: str) -> None:
        if name not in self.leased:
            return
        if not self.leases.holds(_lease(name)):
            raise InputError(
                f"the lease of the run {name!r} in {shown(self.runs)} ended before it was renewed, and another process may have taken "
                "it; what is finished is kept: give the same command again"
            )
        folder = self.runs / name
        with self._sending:
            state = _state(folder)
            for file in sorted(_records_in(folder) | {page for page in PAGES if (folder / page).is_file()}, key=_rank):
                with files.locked(folder / ".lock"):  # whole lines, and time and size of what is read
                    stamp = _stamp(folder / file)
                    if state.get(file, [""])[1:] == stamp:
                        continue
                    content = (folder / file).read_bytes()
                place = f"runs/{name}/{file}"
                self.objects.write(place, content)
                about = self.objects.about(place)
                state[file] = [about.version if about else "", *stamp]
                _put(folder / STATE, json.dumps(state).encode())


_PLACES: dict[Path, _Place] = {}


def _place(runs: Path) -> _Place:
    if runs not in _PLACES:
        from collapse_cli.engine.leases import Leases
        from collapse_cli.engine.objects import RemoteObjects

        objects = RemoteObjects(address_of(runs))
        _PLACES[runs] = _Place(runs, objects, Leases(objects, runs))
    return _PLACES[runs]


def _of_records(name: str, found: "Mapping[str, ObjectFacts]") -> "dict[str, ObjectFacts]":
    """The files of a run that are brought, among its objects."""
    files_of = {path.removeprefix(f"runs/{name}/"): about for path, about in found.items()}
    return {file: about for file, about in files_of.items() if RECORDS.fullmatch(file)}


def _lease(name: str) -> str:
    return f"run-{name}"


def _rank(file: str) -> tuple[bool, str]:
    """The plan goes first: by it is known what a run needs."""
    return file != "plan.json", file


def _records_in(folder: Path) -> set[str]:
    paths = (path for pattern in ("*", "texts/*") for path in folder.glob(pattern) if path.is_file())
    return {name for path in paths if RECORDS.fullmatch(name := path.relative_to(folder).as_posix())}


def _stamp(path: Path) -> list[int]:
    """Time and size of a file."""
    try:
        now = path.stat()
    except OSError:
        return [0, 0]
    return [now.st_mtime_ns, now.st_size]


def _state(folder: Path) -> dict[str, list[object]]:
    try:
        state = json.loads((folder / STATE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) and all(isinstance(value, list) for value in state.values()) else {}


def _is_current(folder: Path, there: "Mapping[str, ObjectFacts]") -> bool:
    """Whether a copy is what the run is now."""
    state = _state(folder)
    return _records_in(folder) == there.keys() and all(
        state.get(file) == [about.version, *_stamp(folder / file)] for file, about in there.items()
    )


def _put(path: Path, content: bytes) -> None:
    with disk_errors(str(path.parent)):
        files.put(path, content)


class _Complaints:
    """Of work that is done again and again: why it fails is said the first time, and again once it went well in between."""

    def __init__(self, meanwhile: str) -> None:
        """`meanwhile`: what becomes of what could not be done, in words."""
        self._meanwhile, self._said = meanwhile, False

    @contextmanager
    def said_once(self) -> Iterator[None]:
        try:
            yield
            self._said = False
        except (UserError, OSError) as error:
            if not self._said:
                log.warning("%s; %s", str(error).partition("; what is finished")[0], self._meanwhile)
            self._said = True
