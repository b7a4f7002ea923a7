"""What `collapse check` found out before any training: `check.json` of a run folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collapse_cli import files
from collapse_cli.engine import sealed

FILE, TEXTS = "check.json", "texts"  # TEXTS: the folder of the rows that models are trained and scored on
MOST_BYTES = 1 << 23  # a larger one is damage


def read_checked(folder: Path) -> dict[str, Any] | None:
    """The record; None where the folder has none.

    Raises:
        InputError: when it cannot be read, or is not what was written.
    """
    path = folder / FILE
    return sealed.read(path, MOST_BYTES) if os.path.lexists(path) else None


def write_checked(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record whole, in place of another one."""
    files.write_atomically(folder / FILE, sealed.sealed(record))
