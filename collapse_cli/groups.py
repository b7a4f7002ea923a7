"""What control groups of Linux leave to this process: containers and batch systems limit time and memory by them.

A limit holds for a group and all below it, so this process's own group counts and each one above it. Version 2 has one tree of groups,
version 1 one a controller (`man 7 cgroups`). Loads nothing that takes time: `collapse_cli` asks for the cores before anything else.
"""

from collections.abc import Iterator

ROOT = "/sys/fs/cgroup"
OWN = "/proc/self/cgroup"  # a line a tree: its number, its controllers (none: version 2), this process's group


def cores() -> float | None:
    """Of how many cores the time may be used; None where there is no quota."""
    found = [
        time / period
        for group in _groups("cpu")
        for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        for time, period in _pairs([word for file in files for word in words(f"{group}/{file}")])
        if time > 0 and period > 0  # -1: no quota
    ]
    return min(found, default=None)


def memory() -> int | None:
    """How many bytes may be held at most, whoever holds them now; None where there is no limit."""
    return min((most for most, _ in _memory()), default=None)


def free_memory() -> int | None:
    """How many bytes may still be taken; None where there is no limit. What the system keeps of files it gives back when it is asked to."""
    return min((max(0, most - used) for most, used in _memory()), default=None)


def _memory() -> Iterator[tuple[int, int]]:
    """Of each group that has a limit, in bytes: this, and what is held by processes."""
    names = (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for group in _groups("memory"):
        for most, used, of_files in names:
            for limit, held in _pairs(words(f"{group}/{most}") + words(f"{group}/{used}")):
                about = words(f"{group}/memory.stat")
                kept = dict(zip(about[::2], about[1::2], strict=False)).get(of_files, "0")
                yield int(limit), int(held) - int(kept)


def _groups(controller: str) -> Iterator[str]:
    """The folders of this process's groups, and of those that they are in. Of a container the uppermost may be all that is there."""
    for line in _lines(OWN):
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        trees = {f"{ROOT}/{controllers}", f"{ROOT}/{controller}"} if controllers else {ROOT, f"{ROOT}/unified"}
        parts = [part for part in group.split("/") if part]
        for depth in range(len(parts) + 1):
            yield from ("/".join([tree, *parts[:depth]]) for tree in trees)


def _pairs(said: list[str]) -> list[tuple[float, float]]:
    """Two numbers, where there are two: no limit is a word (max)."""
    try:
        first, second = map(float, said)
    except ValueError:
        return []
    return [(first, second)]


def words(path: str) -> list[str]:
    """Those of a small file; none of one that cannot be read."""
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes time to load
            return file.read().splitlines()
    except (OSError, ValueError):
        return []
