"""Waiting for what other processes and threads do: as long as any machine may need, and no longer than it takes."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
PATIENCE = 240.0  # seconds; pytest ends a test after 300


def until(there: Callable[[], Found], pause: float = 0.02) -> Found:
    """What `there` gives as soon as that is something; it is asked again every `pause` seconds."""
    end = time.monotonic() + PATIENCE
    while not (found := there()):
        assert time.monotonic() < end, f"it did not come within {PATIENCE:.0f} s"
        time.sleep(pause)
    return found
