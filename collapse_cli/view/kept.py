"""What is made of files and kept until they change: at most one is made at a time, and no more often than its making allows."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")
REST = 10.0  # times as long as the last making took, until the next one of the same thing may begin
LONGEST_REST = 30.0  # seconds
FAILED_REST = 5.0  # seconds that what could not be made rests at least


@dataclass(frozen=True)
class _Entry(Generic[Made]):
    stamp: Hashable
    made: Made
    rests_until: float
    failed: bool


class Kept(Generic[Key, Made]):
    """Values by key, each made anew when the stamp of its files is another one; threads may share it."""

    def __init__(
        self,
        make: Callable[[Key], Made],
        stamp: Callable[[Key], Hashable],
        most: int,
        clock: Callable[[], float] = time.monotonic,
        failed: Callable[[Made], bool] = lambda made: False,
    ) -> None:
        """Nothing is made before it is asked for.

        Args:
            make: what makes a value; it must not raise.
            stamp: what says whether the files of a value are still those it was made of.
            most: how many values are kept; of more, those asked for last.
            failed: whether a value only says that there is none. It is made anew after a rest, though its files are the same:
                the disk was full, a file of another stamp was damaged.
        """
        self._make, self._stamp, self._most, self._clock, self._failed = make, stamp, most, clock, failed
        self._entries: OrderedDict[Key, _Entry[Made]] = OrderedDict()
        self._making, self._changing = threading.Lock(), threading.Lock()

    def version(self, key: Key) -> str:
        """A name for the value that `get` would return now; another value has another one."""
        stamp = self._stamp(key)
        entry = self._entries.get(key)
        return _name(entry.stamp if entry and self._will_do(entry, stamp) else stamp)

    def get(self, key: Key) -> tuple[str, Made]:
        """The value with its `version`. Whoever asks for one while it is made waits for it."""
        entry = self._there(key)
        if entry is None:
            with self._making:
                entry = self._there(key) or self._make_anew(key)
        return _name(entry.stamp), entry.made

    def _there(self, key: Key) -> _Entry[Made] | None:
        """What is kept and will do."""
        stamp = self._stamp(key)
        with self._changing:
            entry = self._entries.get(key)
            if entry is None or not self._will_do(entry, stamp):
                return None
            self._entries.move_to_end(key)
            return entry

    def _make_anew(self, key: Key) -> _Entry[Made]:
        stamp, began = self._stamp(key), self._clock()  # before it is made: what is written meanwhile makes it old
        made = self._make(key)
        now = self._clock()
        failed = self._failed(made)
        rest = max(REST * (now - began), FAILED_REST if failed else 0.0)
        entry = _Entry(stamp, made, now + min(LONGEST_REST, rest), failed)
        with self._changing:
            self._entries[key] = entry
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
        return entry

    def _will_do(self, entry: _Entry[Made], stamp: Hashable) -> bool:
        return (entry.stamp == stamp and not entry.failed) or self._clock() < entry.rests_until


def _name(stamp: Hashable) -> str:
    return hashlib.sha256(repr(stamp).encode()).hexdigest()[:16]
