"""`collapse list`: the runs of a folder, as far as their files tell."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from collapse_cli.config.cell import cells
from collapse_cli.errors import ConfigError
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import names_of_runs
from collapse_cli.terminal.text import Table, safe, short

MOST_NAMED = 4  # policies or seeds of a run that the table names; of more, how many there are


def runs_in(folder: Path) -> list[dict[str, Any]]:
    """What is known of each run, the one that changed last at the end.

    A run whose record cannot be read has the status `damaged`, and `error` says why.
    """
    found = [_facts(folder, name) for name in names_of_runs(folder)]
    return sorted(found, key=lambda one: (one["updated"] or "", one["name"]))


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


def _facts(folder: Path, name: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": name, "kind": "", "learner": "", "done": 0, "planned": 0, "policies": [], "seeds": [],
        "status": "damaged", "created": "", "updated": "", "error": "",
    }  # fmt: skip
    try:
        run = RunFolder(folder, name)
        record, config, rows = run.record(), run.config(), run.rows()
    except (ConfigError, OSError) as error:
        return facts | {"error": str(error)}
    loop = config.loop
    if config.kind == "mixture":
        done = len({(row["policy"], row["seed"]) for row in rows})
        planned = len(cells(config.mixture.model_dump(mode="json"))) * len(loop.seeds)
    else:
        there = {(row["policy"], row["seed"], row["generation"]) for row in rows}
        wanted = [(policy, seed) for policy in loop.policies for seed in loop.seeds]
        generations = range(loop.generations + 1)
        done = sum(all((*one, generation) in there for one in wanted) for generation in generations)
        planned = loop.generations + 1
    return facts | {
        "kind": config.kind,
        "learner": config.learner,
        "done": done,
        "planned": max(done, planned),
        "policies": list(loop.policies) if config.kind == "generational" else [],
        "seeds": list(loop.seeds),
        "status": str(record["status"]),
        "created": str(record["created"]),
        "updated": str(record["updated"]),
        "error": str(record.get("error", "")),
    }


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
