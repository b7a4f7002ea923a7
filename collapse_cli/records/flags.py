"""A flag in a run's folder: who works on the run holds a shared lock on it, which dies with its holder, however that ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

fcntl: Any
try:
    fcntl = import_module("fcntl")
except ImportError:  # Windows; nothing is known there
    fcntl = None

FILE = ".at-work"


@contextmanager
def raised(folder: Path) -> Iterator[None]:
    """While this process works on the run of a folder. Several may at the same time."""
    if fcntl is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a") as file:  # closing it gives the lock back
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_raised(folder: Path) -> bool | None:
    """Whether a process works on the run of a folder; None where that is not known, as of runs made before there was the file.

    Nothing is written, and whoever begins to work meanwhile waits for some microseconds at most.
    """
    if fcntl is None:
        return None
    try:
        number = os.open(folder / FILE, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(number)
    return False
