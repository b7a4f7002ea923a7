"""Texts of the invented world whose comparison has a known answer."""

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from collapse_cli.check.documents import Documents, of_rows
from collapse_cli.config.tree import WorldConfig
from collapse_cli.data.known import KNOWN


@cache
def world(documents: int = 400) -> tuple[str, ...]:
    """Documents of the world, all drawn alike."""
    options = WorldConfig(train_documents=documents).model_dump()
    return tuple(KNOWN["world"].text(options)["train"])


def shuffled(rows: Sequence[str], seed: int = 0) -> list[str]:
    """Each row with its words in random order."""
    order = random.Random(seed)
    made = []
    for row in rows:
        words = row.split()
        order.shuffle(words)
        made.append(" ".join(words) + "\n")
    return made


def a_tenth_often(rows: Sequence[str], times: int = 100) -> list[str]:
    """The rows, a tenth of them so many times."""
    tenth = len(rows) // 10
    return [*rows[tenth:], *(row for row in rows[:tenth] for _ in range(times))]


def text(rows: Sequence[str], name: str) -> Documents:
    return of_rows(rows, f"the {name} text", f"{name}.txt", ())


def write(path: Path, rows: Sequence[str]) -> Path:
    """Rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return path
