"""Whether a run is at work: who works on it says so with a flag in its folder, and with a lease where the run is elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collapse_cli.records import elsewhere, flags

# what is said of a run whose record says that it was started and not that it ended
SAID = {True: "at work", False: "killed", None: "at work, or killed"}


@contextmanager
def working(folder: Path) -> Iterator[None]:
    """While this process works on the run of a folder. Several may at the same time, but for a run that is elsewhere.

    Raises:
        ConfigError: when another process works on a run that is elsewhere.
    """
    with flags.raised(folder), elsewhere.working(folder):
        yield


def at_work(folder: Path) -> bool | None:
    """Whether a process works on the run of a folder; None where that is not known."""
    here = flags.is_raised(folder)
    return here if here or not elsewhere.is_copy(folder.parent) else elsewhere.at_work(folder)
