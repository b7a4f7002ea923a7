"""Text of other models for tests, and the rows of it that runs took."""

import json
import random
from pathlib import Path
from typing import Any

from support import e2e

from collapse_cli.data.dataset import Dataset


def write_other(path: Path, lines: int, seed: int = 7) -> Path:
    """Text of another model: like the real one, of other sentences."""
    draw = random.Random(seed)
    rows = (" ".join(draw.choices(e2e.WORDS, k=12)).capitalize() + "!" for _ in range(lines))
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


def settings(**values: Any) -> list[str]:
    """Options as the command line has them."""
    return [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def every_row(runs: Path, name: str) -> set[tuple[int, ...]]:
    """All rows of the first text of another model, in the run's tokens; each is there once."""
    plan = e2e.plan(runs, name)
    data = {stage["key"] for stage in plan if stage["kind"] == "data"}
    written = next(stage for stage in plan if stage["kind"] == "foreign" and set(stage["inputs"].values()) <= data)
    rows = Dataset.load(e2e.folder_of(runs, written["key"]) / "rows.safetensors").arrays["tokens"]
    known: set[tuple[int, ...]] = e2e.as_set(rows)
    assert len(known) == len(rows), "rows must be told apart"
    return known
