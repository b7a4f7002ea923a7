"""A score of a user's (`meeting:met`), which the driver of forks and the workers of its jobs can import: it holds stages while they are at work.

Where the variable MEETING names a folder, each process that comes to it waits there until MEETING_OF processes have come.
"""

import os
import time
from pathlib import Path

import numpy as np


def met(rows: np.ndarray) -> np.ndarray:
    """The first number of each row."""
    if place := os.environ.get("MEETING"):
        Path(place, f"{os.getpid()}.here").touch()
        while len(who_came(Path(place))) < int(os.environ["MEETING_OF"]):
            time.sleep(0.02)
    first: np.ndarray = rows.reshape(len(rows), -1)[:, 0]
    return first


def who_came(place: Path) -> list[Path]:
    return list(place.glob("*.here"))
