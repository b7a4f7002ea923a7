"""A folder of runs: what a run in it can be called, which there are, and the store that they share."""

import os
from pathlib import Path

from collapse_cli.config import presets
from collapse_cli.engine.remote_addresses import runs_option
from collapse_cli.engine.store import Store, store_at
from collapse_cli.records import elsewhere
from collapse_cli.records.names import STORE


def names_of_runs(runs: Path) -> list[str]:
    """The names of the runs in a folder, sorted; none where it cannot be read."""
    elsewhere.bring_all(runs)
    try:
        with os.scandir(runs) as entries:  # of ten thousand runs a glob takes several times as long
            names = [entry.name for entry in entries if entry.name != STORE]
    except OSError:
        return []
    return sorted(name for name in names if os.path.lexists(f"{runs}/{name}/run.json"))


def made_by(name: str, runs: Path) -> str:
    """What makes a run that is not there, where it is that of a preset; else nothing."""
    return f" (`collapse run --preset {name}{runs_option(runs)}` makes it)" if name in presets() else ""


def store_of(runs: Path) -> Store:
    """The store that the runs of a folder share."""
    return store_at(runs / STORE)
