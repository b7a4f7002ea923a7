"""What the benchmarks print: tables that can be pasted into docs/benchmarks.md, and one JSON document."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from collapse_cli.records.made_with import git_state, hardware, versions

WIDE = 150
console = Console(width=None if sys.stdout.isatty() else WIDE)


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def load_average() -> list[float]:
    """Of the last 1, 5 and 15 minutes; nothing on systems without one."""
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else []


def about_machine() -> dict[str, Any]:
    """What figures were measured on and with."""
    return {
        "command": sys.argv,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware() | {"processor": processor()},
        "versions": versions(),
        "git": git_state(),
        "load_average": {"start": load_average()},
    }


class Report:
    """Tables at once, and the JSON document so far after each part, so that a killed run leaves what it measured."""

    def __init__(self, file: Path | None, about: dict[str, Any]) -> None:
        """`file`: where the JSON goes; None: to stdout at the end."""
        self.file, self.document = file, about

    def table(self, title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
        """Print one table; the first column is text, the others figures."""
        table = Table(box=box.MARKDOWN, show_edge=True)
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index else "left", overflow="fold")
        for line in lines:
            table.add_row(*line)
        with console.capture() as printed:
            console.print(table)
        print(f"\n## {title}\n", *filter(None, map(str.rstrip, printed.get().splitlines())), sep="\n", flush=True)

    def keep(self, found: dict[str, Any]) -> None:
        """Add to the document, and write it if it has a file."""
        self.document |= found
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")

    def finish(self, found: dict[str, Any]) -> None:
        """Add the last, and print the document if it has no file."""
        self.document["load_average"]["end"] = load_average()
        self.keep(found)
        if self.file is None:
            print(json.dumps(self.document, indent=1))
