"""Leases: locks among machines that share objects and nothing else. A lease that is not renewed ends; who holds it renews it.

A lease of a name is an object `leases/NAME/NUMBER`, created only where there is none. Who takes it looks again afterwards:
another one beside its own, and it steps back. So at most one holds it. Whether a lease is still renewed is told by its content,
which changes at each renewal, and by the clock of whoever waits; or by the time that the other side gives each object, beside that of
one written just now. Clocks of two machines are not compared.

A holder that was paused for longer than that, and does not know yet, does no harm: what is published is created, not replaced, and
who is about to replace something asks `holds` first, which looks again after such a pause.
"""

import atexit
import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from collapse_cli import files
from collapse_cli.engine.objects import ObjectFacts, RemoteObjects
from collapse_cli.errors import UserError

SECONDS = 60.0  # after which a lease that was not renewed has ended
LEAST = 0.5  # seconds
SLACK = 2.0  # times its seconds, after which it has ended by the other side's clock: that may be several, and leave out parts of a second
LONG_AGO = 86_400.0  # seconds, after which nobody is heard of any more, and no write is at work
TOKEN = re.compile(r"[0-9a-f]{32}")
log = logging.getLogger(__name__)


def seconds_of_a_lease() -> float:
    """After how long a lease ends that is not renewed; the environment variable COLLAPSE_LEASE_SECONDS says otherwise."""
    return max(LEAST, float(os.environ.get("COLLAPSE_LEASE_SECONDS", SECONDS)))


class Leases:
    """The leases of one process. A thread renews those that it holds."""

    def __init__(self, objects: RemoteObjects, here: Path) -> None:
        """`here`: a folder of this machine, where a holder is known to be dead without any wait."""
        self.objects, self.here, self.seconds = objects, here, seconds_of_a_lease()
        self._token = uuid.uuid4().hex
        self._held: dict[str, str] = {}  # name -> object
        self._renewed: dict[str, float] = {}  # name -> when it was surely ours, by `_awake_or_not`
        self._seen: dict[str, tuple[bytes, float]] = {}  # object -> its content, and since when it is that
        self._asked: dict[str, float] = {}  # name -> when somebody else was seen to hold it
        self._guard, self._end = threading.Lock(), threading.Event()
        self._alive: Any = None  # the lock that says that this process lives
        self._beats = 0
        self._left = 0  # that could not be removed
        self._ahead: float | None = None  # the other side's clock of our monotonic one, at least

    def take(self, name: str) -> bool:
        """Try to take a lease at once; false when another process holds it."""
        now = time.monotonic()
        if now - self._asked.get(name, -self.seconds) < self.seconds / 20:
            return False
        ended, others = self._among(name, now)
        if others and self._ahead is None:
            self._ask_the_time()
            ended, others = self._among(name, now)
        if others:
            self._asked[name] = now
            return False
        mine = f"leases/{name}/{1 + max(map(_number, ended), default=0):06d}"
        self._begin_renewing()
        began = _awake_or_not()
        self._left += 1  # until it is known to be ours, or gone: whoever is interrupted here leaves it
        if not self.objects.create(mine, self._content(name)):
            self._left -= 1
            return False
        now = time.monotonic()
        there = self.objects.find(f"leases/{name}")
        if there.keys() - {mine, *ended}:  # somebody else at the same moment
            self.objects.remove([mine])
            self._left -= 1
            return False
        self._hear_the_time(there.get(mine), now)
        self.objects.remove(ended)
        with self._guard:
            self._held[name], self._renewed[name] = mine, began
        self._left -= 1
        return True

    def holds(self, name: str) -> bool:
        """Whether this process has it. Where it was not renewed in time, as after a pause of this process or a sleep of this machine, it is
        looked for.

        Raises:
            InputError: when that cannot be found out.
        """
        mine = self._held.get(name)
        if mine is not None and _awake_or_not() - self._renewed[name] > self.seconds:
            self._renew_one(name, mine)
        return name in self._held

    def release(self, name: str) -> None:
        with self._guard:
            mine = self._held.pop(name, None)
        if mine is not None:
            self._left += 1
            with self.objects.hurried():  # it ends by itself
                self.objects.remove([mine])
            self._left -= 1

    def is_held(self, name: str) -> bool:
        """Whether somebody seems to hold a lease, by its clock and ours. Nothing is written."""
        heard = self.heard_of(name)
        return heard is not None and heard < SLACK * self.seconds

    def left(self, *, dry_run: bool = False) -> list[str]:
        """The names whose leases have all ended: they are of processes that were killed, on whichever machine."""
        there = self.objects.find("leases")
        if there:
            self._ask_the_time(dry_run=dry_run)
        over: dict[str, bool] = {}
        for each, about in there.items():
            name = (*each.split("/"), "")[1]
            ended = self._is_over(about) or (
                (content := self.objects.read(each)) is not None and self._is_dead(_facts(content))
            )
            over[name] = over.get(name, True) and ended
        return sorted(name for name, ended in over.items() if ended)

    def abandoned(self, *, dry_run: bool = False) -> dict[str, ObjectFacts]:
        """What writes that were killed left at the address, long ago by the other side's clock."""
        there = self.objects.attempts()
        if there:
            self._ask_the_time(dry_run=dry_run)
        now = time.monotonic() + (self._ahead if self._ahead is not None else float("-inf"))
        return {name: about for name, about in there.items() if now - about.written > LONG_AGO}

    def holder(self, name: str) -> str:
        """Who holds a lease at the moment, in words; "" where nobody seems to. Of one that ended just now that is not known."""
        alive = [about for content in self._contents(name).values() if not self._is_dead(about := _facts(content))]
        return f"process {alive[0]['pid']} on {alive[0]['host']}" if alive else ""

    def heard_of(self, name: str) -> float | None:
        """Seconds since its holder was last heard of, by its clock and ours; None where nobody has it, or its holder is dead."""
        alive = [about for content in self._contents(name).values() if not self._is_dead(about := _facts(content))]
        ago = [max(0.0, time.time() - about["time"]) for about in alive]
        return min((seconds for seconds in ago if seconds < LONG_AGO), default=None)

    def take_over(self, name: str) -> bool:
        """Take a lease as soon as it ends; false when it is seen to be renewed."""
        before = self._contents(name)
        while not self.take(name):
            if any(before.get(each) not in (None, content) for each, content in self._contents(name).items()):
                return False
            time.sleep(self.seconds / 20)
        return True

    def _contents(self, name: str) -> dict[str, bytes]:
        found = {each: self.objects.read(each) for each in self.objects.find(f"leases/{name}")}
        return {each: content for each, content in found.items() if content is not None}

    # --- others

    def _among(self, name: str, now: float) -> tuple[list[str], list[str]]:
        """The leases of a name: those that have ended, and those of somebody at work."""
        ended, others = list[str](), list[str]()
        for each, about in self.objects.find(f"leases/{name}").items():
            if (content := self.objects.read(each)) is None:
                continue
            seen, since = self._seen.get(each, (b"", now))
            if seen != content:
                self._seen[each] = content, now
                since = now
            over = now - since > self.seconds or self._is_over(about) or self._is_dead(_facts(content))
            (ended if over else others).append(each)
        return ended, others

    def _is_over(self, about: ObjectFacts) -> bool:
        """Whether it was not renewed for long enough, by the other side's clock; that of an object that has no time is not known."""
        return self._ahead is not None and time.monotonic() + self._ahead - about.written > SLACK * self.seconds

    def _ask_the_time(self, *, dry_run: bool = False) -> None:
        """By an object that is written now; where nothing may be written, our clock is taken for the other side's."""
        if dry_run:
            self._ahead = time.time() - time.monotonic()
            return
        name = f".clock-{uuid.uuid4().hex}"
        self.objects.write(name, b"1")
        now = time.monotonic()
        try:
            self._hear_the_time(self.objects.about(name), now)
        finally:
            self.objects.remove([name])

    def _hear_the_time(self, about: ObjectFacts | None, now: float) -> None:
        """Of an object that was written when our clock said no more than `now`."""
        if about is not None:
            self._ahead = about.written - now

    def _is_dead(self, about: dict[str, Any]) -> bool:
        """Whether a holder is known to be gone: one of this machine, whose lock is free."""
        if about["host"] != socket.gethostname() or about["token"] == self._token:
            return False
        path = self._lock_of(about["token"])
        return path.is_file() and not files.is_locked(path)  # there is none where it is of another user, or container

    def _lock_of(self, token: str) -> Path:
        return self.here / ".holders" / f"{token}.lock"

    def of_dead_holders(self) -> list[Path]:
        """The locks of holders of this machine that are gone."""
        return [path for path in self.here.glob(".holders/*.lock") if not files.is_locked(path)]

    # --- ours

    def _content(self, name: str) -> bytes:
        self._beats += 1
        about = {"host": socket.gethostname(), "pid": os.getpid(), "token": self._token, "beat": self._beats}
        return json.dumps({"for": name, **about, "time": round(time.time(), 1)}).encode()

    def _begin_renewing(self) -> None:
        if self._alive is not None:
            return
        from filelock import FileLock

        self._lock_of(self._token).parent.mkdir(parents=True, exist_ok=True)
        self._alive = FileLock(self._lock_of(self._token), thread_local=False)
        self._alive.acquire()
        atexit.register(self.close)
        threading.Thread(target=self._renew, daemon=True).start()

    def _renew(self) -> None:
        while not self._end.wait(self.seconds / 4):
            for name, mine in list(self._held.items()):
                # it is tried again, as long as the lease may still be ours
                with suppress(UserError, OSError), self.objects.hurried():
                    self._renew_one(name, mine)

    def _renew_one(self, name: str, mine: str) -> None:
        """Write it anew, or find it lost."""
        began, there = _awake_or_not(), self.objects.find(f"leases/{name}")
        if mine not in there or max(there, key=_number) != mine:
            with self._guard:
                lost = self._held.pop(name, None)
            if lost is not None:
                log.warning(
                    "the lease of %s ended before it was renewed; another process may work on it, too", name[:40]
                )
            return
        with self._guard:  # not one that is released at this moment
            if name in self._held:
                self.objects.write(mine, self._content(name))
                self._renewed[name] = began

    def close(self) -> None:
        """Renew nothing any more, and leave no trace on this machine, but of leases that are left: their holder is known to be dead."""
        self._end.set()
        if self._alive is not None:
            self._alive.release()
            if not (self._held or self._left):
                self._lock_of(self._token).unlink(missing_ok=True)
            self._alive = None


def _awake_or_not() -> float:
    """Seconds by a clock that goes on while the machine sleeps, where the system has one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _number(name: str) -> int:
    last = name.rpartition("/")[2]
    return int(last) if last.isdecimal() else 0


def _facts(content: bytes) -> dict[str, Any]:
    """Of a lease; what cannot be read is somebody's who is at work now."""
    try:
        about = json.loads(content)
        host, token = str(about["host"])[:100], str(about["token"])
        if host.isprintable() and TOKEN.fullmatch(token):  # the one is shown, the other becomes the name of a file
            return {"host": host, "pid": int(about["pid"]), "token": token, "time": float(about["time"])}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        pass
    return {"host": "", "pid": 0, "token": "", "time": time.time()}
