"""`collapse list`: the runs of a folder as a table."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from collapse_cli.records.at_work import SAID
from collapse_cli.records.listing import few, seeds_said
from collapse_cli.terminal.text import Table, safe, short


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
            short(few(one["policies"])) if one["kind"] == "generational" else "",
            short(seeds_said(one["seeds"])),
            SAID[one["at_work"]] if one["status"] == "started" else short(one["status"]),
            _local(one["updated"]),
        )
    return made


def _local(time: str) -> str:
    """A time in this machine's time zone, to the minute."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return short(time)
