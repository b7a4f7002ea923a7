"""`collapse list`: the runs of a folder as a table."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from collapse_cli.engine.remote_addresses import shown
from collapse_cli.records.at_work import SAID
from collapse_cli.records.listing import RunFacts, few, seeds_said
from collapse_cli.terminal.text import Table, safe, short


def table(runs: Sequence[RunFacts], folder: Path) -> Table:
    """The runs for the terminal."""
    made = Table(f"runs in {safe(shown(folder))}", "run", "learner", "done", "policies", "seeds", "status", "updated")
    for run in runs:
        if run.status == "damaged":
            made.add_row(short(run.name), "", "", "", "", "damaged", "")
            continue
        made.add_row(
            short(run.name),
            short(run.learner),
            run.progress,
            short(few(run.policies)) if run.kind == "generational" else "",
            short(seeds_said(run.seeds)),
            SAID[run.at_work] if run.status == "started" else short(run.status),
            _local(run.updated),
        )
    return made


def _local(time: str) -> str:
    """A time in this machine's time zone, to the minute."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return short(time)
