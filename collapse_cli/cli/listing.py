"""`collapse list`: the runs of a folder as a table."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from collapse_cli.records.at_work import SAID
from collapse_cli.records.listing import few, seeds_said
from collapse_cli.terminal.text import Table, safe, short


def table(runs: Sequence[Mapping[str, Any]], folder: Path) -> Table:
    """The runs for the terminal."""
    made = Table(f"runs in {safe(folder)}", "run", "learner", "done", "policies", "seeds", "status", "updated")
    for entry in runs:
        if entry["status"] == "damaged":
            made.add_row(short(entry["name"]), "", "", "", "", "damaged", "")
            continue
        unit = "cells" if entry["kind"] == "mixture" else "generations"
        done = "two texts" if entry["kind"] == "check" else f"{entry['done']} of {entry['planned']} {unit}"
        made.add_row(
            short(entry["name"]),
            short(entry["learner"]),
            done,
            short(few(entry["policies"])) if entry["kind"] == "generational" else "",
            short(seeds_said(entry["seeds"])),
            SAID[entry["at_work"]] if entry["status"] == "started" else short(entry["status"]),
            _local(entry["updated"]),
        )
    return made


def _local(time: str) -> str:
    """A time in this machine's time zone, to the minute."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return short(time)
