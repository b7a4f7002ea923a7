"""Checkpoints in the middle of a stage: one file of named arrays and a line of JSON, replaced whole."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 60.0  # between two


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
    from safetensors import safe_open

    if not path.exists():
        return None
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["facts"])  # noqa: SIM118
