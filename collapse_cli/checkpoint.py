"""Checkpoints in the middle of a stage: one file of named arrays and a line of JSON, replaced whole."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 60.0  # between two


class DamagedError(ValueError):
    """A file of ours cannot be read: which, and what to do."""


def seconds_between() -> float:
    """How often to write one; the environment variable COLLAPSE_CHECKPOINT_SECONDS says otherwise."""
    return float(os.environ.get("COLLAPSE_CHECKPOINT_SECONDS", SECONDS))


def write(path: Path, arrays: Mapping[str, np.ndarray], facts: Any) -> None:
    """Replace the file: a kill leaves the old one or the new one."""
    from safetensors.numpy import save_file

    attempt = path.with_suffix(".attempt")
    save_file({name: np.ascontiguousarray(one) for name, one in arrays.items()}, attempt, {"facts": json.dumps(facts)})
    attempt.replace(path)


def read(path: Path) -> tuple[dict[str, np.ndarray], Any] | None:
    """What `write` wrote; None where there is nothing."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["facts"])  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path} is damaged ({error}); remove its folder, and the run's command makes what was in it again"
        ) from None
