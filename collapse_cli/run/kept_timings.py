"""What a dry run timed, kept on this machine, so that the bars of the run begin with it.

A file of the user's cache, of which nothing depends: where it is missing, damaged, of other code, or cannot be written, the bars begin
with what is known of finished stages. As stages of a kind finish, these take its place.
"""

import os
import platform
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from collapse_cli import files
from collapse_cli.engine import remote_addresses, sealed
from collapse_cli.engine.stage import digest
from collapse_cli.errors import InputError
from collapse_cli.records.remembered import code
from collapse_cli.run.execution import Execution
from collapse_cli.run.rates import RECENT, TimeTaken, Timings

FOLDER = "timings"
MOST = 1000  # groups of stages that are kept of one machine, the newest


def keep(timings: Timings, execution: Execution) -> None:
    """Keep what was timed in short versions, of each group in the place of what was kept before."""
    new = {
        group: {"work": work, "taken": [list(one) for one in timings.tried[group][-RECENT:]]}
        for work, groups in timings.works.items()
        for group in groups & timings.tried.keys()
    }
    if not new:
        return
    with suppress(OSError, RuntimeError):
        file = _file(execution)
        before = {group: kept for group, kept in _read(file).items() if group not in new}
        file.parent.mkdir(parents=True, exist_ok=True)
        groups = dict([*before.items(), *new.items()][-MOST:])
        files.write_atomically(file, sealed.sealed({"code": code(), "groups": groups}))


def take(timings: Timings, execution: Execution, groups: Collection[str]) -> None:
    """Add what is kept of these groups."""
    with suppress(OSError, RuntimeError):
        for group, found in _read(_file(execution)).items():
            if group in groups:
                timings.tried[group] = [TimeTaken(work, parts, seconds) for work, parts, seconds in found["taken"]]
                timings.works.setdefault(found["work"], set()).add(group)


def _file(execution: Execution) -> Path:
    """Stages that are computed otherwise, or on another machine that shares the user's folder, take another time.

    Raises:
        RuntimeError: where the user has no folder.
    """
    devices = [os.environ.get(name, "") for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
    how = digest([platform.node(), execution.executor, execution.jobs, execution.devices, devices])
    return remote_addresses.cache() / FOLDER / f"{how[:16]}.json"


def _read(file: Path) -> dict[str, Any]:
    try:
        record = sealed.read(file)
    except InputError:
        return {}
    groups: dict[str, Any] = record["groups"] if record.get("code") == code() else {}
    return groups
