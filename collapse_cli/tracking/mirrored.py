"""What is mirrored of a run: the numbers of its rows by name, its settings, and names that every tracker takes."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.records.row import Row

NO_METRICS = {
    "policy",
    "lineage",
    "seed",
    "generation",
    "model_key",
    "model_dir",
    "protocol",
    "warnings",
    "sample_histogram",
}
LONGEST = 100  # entries of a list that is mirrored; a longer one is no set of curves that someone looks at
MUTABLE = ("loop.generations", "loop.policies", "loop.seeds")  # what the same run may be given more of later


class About:
    """What a tracker is told of a run besides its rows."""

    def __init__(
        self,
        config: Experiment,
        folder: Path,
        name: str,
        identity: str,
        record: Mapping[str, Any],
        rows: Callable[[], Iterable[Row]],
    ) -> None:
        self.config, self.folder, self.name, self.identity, self.rows = config, folder, name, identity, rows
        flat = flattened(config.model_dump(mode="json", exclude={"store", "tracking", "expect"}))
        self.params = {key: value for key, value in flat.items() if key not in MUTABLE}
        self.tags = {key: flat[key] for key in MUTABLE}
        self.tags |= flattened({"versions": record.get("versions") or {}, "git": record.get("git") or {}})


def metrics_of(row: Row) -> dict[str, float]:
    """The numbers of a row by name: a list's as `name/01`, `name/02` …, a mapping's as `name/key`; null is left out."""
    numbers: dict[str, float] = {}
    for name, value in row.fields.items():
        if name in NO_METRICS:
            continue
        parts: Iterable[tuple[str, Any]] = [(clean(name), value)]
        if isinstance(value, Mapping):
            parts = [(f"{clean(name)}/{clean(key)}", number) for key, number in value.items()]
        elif isinstance(value, list | tuple):
            if len(value) > LONGEST:
                continue
            parts = [(f"{clean(name)}/{place:02d}", number) for place, number in enumerate(value, start=1)]
        numbers |= {key: float(number) for key, number in parts if isinstance(number, int | float)}
    return numbers


def histogram_of(row: Row) -> tuple[list[float], list[int]] | None:
    """Edges [bins + 1] and counts [bins] of a row's `sample_histogram`; None when it has none, or an empty one."""
    histogram = row.histogram
    if histogram is None:
        return None
    counts = [int(count) for count in histogram.counts]
    return [histogram.low + histogram.width * place for place in range(len(counts) + 1)], counts


def clean(name: object) -> str:
    """A name as a plain file name that trackers take; one that had to be changed gets a mark of what it was."""
    text = str(name)
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", text).lstrip(".")[:100] or "_"
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:6]}"


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A tree's leaves as text by dotted path; a list is one leaf."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        path = prefix + clean(key)
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{path}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[path] = text if len(text) <= 500 else text[:499] + "…"
    return flat


def digest(values: Mapping[str, float]) -> str:
    """A short hash of a row's numbers."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
