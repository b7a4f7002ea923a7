"""What was read of each run of a folder, for as long as the files it was read from are the same."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

from collapse_cli import files
from collapse_cli.engine import sealed
from collapse_cli.errors import InputError

Value = TypeVar("Value")
Stamp = tuple[tuple[int, int, int] | None, ...]
FOLDER = ".index"  # in a folder of runs; whoever removes it loses time, and nothing else
WORTH = 50  # runs; as long as fewer were read anew, reading them once more takes less than a file is worth


class Remembered(Generic[Value]):
    """Values by the name of a run, each read again when a file that it was read from is another one, or has changed.

    With a `name` they stay in a file of the runs folder, of which nothing depends: where it is missing, damaged, of another version of
    this package, or cannot be written, the runs are read.
    """

    def __init__(
        self,
        runs: Path,
        of: Sequence[str],
        read: Callable[[str], Value],
        *,
        name: str = "",
        lasting: Callable[[Value], bool] = lambda value: True,
    ) -> None:
        """Nothing is read before it is asked for.

        Args:
            of: the files of a run's folder that a value is read from.
            read: the value of a run; with a `name`, what JSON holds.
            name: of the file in which values stay from one command to the next.
            lasting: whether a value is worth keeping; one that says what was wrong with the disk is not.
        """
        self._runs, self._of, self._read, self._lasting = runs, of, read, lasting
        self._file = runs / FOLDER / f"{name}.json" if name else None
        self._kept: dict[str, tuple[Stamp, Value]] | None = None

    def values(self, names: Iterable[str]) -> dict[str, Value]:
        """Those of the runs of these names.

        Raises:
            As `read`.
        """
        kept = self._load() if self._kept is None else self._kept
        now, new = dict[str, tuple[Stamp, Value]](), 0
        for name in names:
            stamp = stamp_of(self._runs / name, self._of)
            if name not in kept or kept[name][0] != stamp:
                now[name] = stamp, self._read(name)
                new += 1
            else:
                now[name] = kept[name]
        self._kept = now
        if self._file is not None and new >= WORTH:
            self._write(self._file, now)
        return {name: value for name, (_, value) in now.items()}

    def _load(self) -> dict[str, tuple[Stamp, Value]]:
        try:
            record = sealed.read(self._file) if self._file is not None else {}
            if record.get("code") != code():
                return {}
            return {
                name: (tuple(place and tuple(place) for place in stamp), value)
                for name, (stamp, value) in record["runs"].items()
            }
        except (InputError, KeyError, TypeError, ValueError, AttributeError):
            return {}

    def _write(self, file: Path, now: Mapping[str, tuple[Stamp, Value]]) -> None:
        lasting = {name: entry for name, entry in now.items() if self._lasting(entry[1])}
        with suppress(OSError):  # a folder that cannot be written, a full disk
            file.parent.mkdir(exist_ok=True)
            files.write_atomically(file, sealed.sealed({"code": code(), "runs": lasting}))


def stamp_of(folder: Path, names: Sequence[str]) -> Stamp:
    """Which files these are: inode, time of the last change of any kind, size; None of one that is not there."""
    return tuple(_stamp(f"{folder}/{name}") for name in names)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        now = os.stat(path)  # noqa: PTH116  ten thousand times, and a Path is slower
    except OSError:
        return None
    return now.st_ino, now.st_ctime_ns, now.st_size


@cache
def code() -> str:
    """Which code this is: of another version, or edited since, it might read something else."""
    import hashlib  # not loaded for the help pages

    root, seen = Path(__file__).parents[1], hashlib.sha256()
    for folder, inner, names in os.walk(root):
        inner.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                now = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118
                seen.update(f"{os.path.relpath(folder, root)}/{name} {now.st_size} {now.st_mtime_ns}\n".encode())
    return seen.hexdigest()
