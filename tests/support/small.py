"""Small experiments of each kind, and the rows that they gave."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import e2e

NUMBERS = """
learner = "gaussian"
loop = { generations = 5, policies = ["keep-0", "accumulate"], block = 2 }
data = { source = "blobs", rows = 50, blobs = { dimensions = 1 } }
gaussian = { trials = 5 }
"""


CELLS = """
kind = "mixture"
learner = "ridge"
loop.seeds = [0, 1, 2]
data = { source = "regression", regression = { dimensions = 10 } }
mixture = { rows = [20, 40, 80], share = [0.0, 0.5], quality = [0.5] }
"""
NGRAM = """
learner = "ngram"
[loop]
generations = 1
policies = ["keep-10"]
[data]
source = "{source}"
block_size = 16
rows = 40
eval_rows = 12
[sample]
prompts = "none"
new_tokens = 16
decode = {{ beams = 1, temperature = 1.0 }}
"""


def rows_of(runs: Path, name: str) -> list[dict[str, Any]]:
    rows = e2e.read_lines(runs / name / "metrics.jsonl")
    without = [
        {key: value for key, value in row.items() if key not in ("seconds", "speed", "peak_memory_mb")} for row in rows
    ]
    return sorted(without, key=lambda row: json.dumps([row["policy"], row["seed"], row["generation"]]))


def write(home: Path, name: str, text: str) -> Path:
    path = home / f"{name}.toml"
    path.write_text(text)
    return path


def write_ngram(home: Path) -> Path:
    """The smallest model of text that needs no torch."""
    return write(home, "ngram", NGRAM.format(source=e2e.write_text(home / "text").as_posix()))


def write_tiny(home: Path) -> Path:
    """The smallest language model that has all kinds of stages: 16 rows, one generation after the first."""
    path = e2e.write_experiment(home)
    text = path.read_text().replace("\nrows = 40\neval_rows = 12", "\nrows = 16\neval_rows = 6")
    path.write_text(text.replace('"keep-0", "keep-10"', '"keep-10"'))
    return path


def write_mixture(home: Path) -> Path:
    """The same on mixtures of real and generated rows."""
    text = write_tiny(home).read_text().replace('generations = 1\npolicies = ["keep-10"]\n', "")
    head = 'kind = "mixture"\n[mixture]\nreal_rows = [8, 16]\nshare = [0.5]\n[loop]'
    return write(home, "mixed", text.replace("[loop]", head))


EXPERIMENTS: dict[str, Callable[[Path], Path]] = {
    "numbers": lambda home: write(home, "numbers", NUMBERS),
    "cells": lambda home: write(home, "cells", CELLS),
    "tiny": write_tiny,
    "mixed": write_mixture,
}
