"""`collapse list`: the runs of a folder as a table."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from collapse_cli.terminal.text import Table, safe, short

MOST_NAMED = 4  # policies or seeds of a run that the table names; of more, how many there are


def table(found: Sequence[Mapping[str, Any]], folder: Path) -> Table:
    """The runs for the terminal."""
    made = Table(f"runs in {safe(folder)}", "run", "learner", "done", "policies", "seeds", "status", "updated")
    for one in found:
        if one["status"] == "damaged":
            made.add_row(short(one["name"]), "", "", "", "", "damaged", "")
            continue
        unit = "cells" if one["kind"] == "mixture" else "generations"
        made.add_row(
            short(one["name"]),
            short(one["learner"]),
            f"{one['done']} of {one['planned']} {unit}",
            _named(one["policies"]) if one["kind"] == "generational" else "",
            _seeds(one["seeds"]),
            short(one["status"]),
            _local(one["updated"]),
        )
    return made


def _named(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMED
    return short(", ".join(names[:MOST_NAMED])) + (f" and {rest} more" if rest > 0 else "")


def _seeds(seeds: Sequence[int]) -> str:
    """0-9 for ten in a row."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}"
    return _named([str(seed) for seed in seeds])


def _local(time: str) -> str:
    """A time in this machine's time zone, to the minute."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return short(time)
