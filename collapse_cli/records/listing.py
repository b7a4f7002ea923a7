"""The runs of a folder, as far as their files tell: the state of each, how far it is, its policies and seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collapse_cli.config.cell import cells
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.records.at_work import at_work
from collapse_cli.records.checked import read_checked
from collapse_cli.records.row import planned_arms
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import names_of_runs
from collapse_cli.where import Where

MOST_NAMED = 4  # policies or seeds of a run that its line names; of more, how many there are


def runs_in(folder: Path) -> list[dict[str, Any]]:
    """What is known of each run, the one that changed last at the end.

    A run whose record cannot be read has the status `damaged`, and `error` says why. Of one that has the status `started`,
    `at_work` says whether it is, as `records.at_work` does; else it is None.
    """
    runs = [facts_of(folder, name) for name in names_of_runs(folder)]
    return sorted(runs, key=lambda run: (run["updated"] or "", run["name"]))


def facts_of(folder: Path, name: str) -> dict[str, Any]:
    """What is known of one run, as in `runs_in`."""
    facts = nothing_of(name)
    try:
        run = RunFolder(folder, name)
        record, config, rows = run.record(), run.config(), run.rows()
        compared = read_checked(run.path)
    except (ConfigError, InputError, OSError) as error:
        return facts | {"error": str(error)}
    loop, kind = config.loop, str(config.kind)
    if compared is not None and compared.get("trained") is False:
        kind, done, planned = "check", 0, 0  # two texts, and no model
    elif kind == "mixture":
        done = len({row.where for row in rows})
        planned = len(cells(config.mixture)) * len(loop.seeds)
    else:
        there = {row.where for row in rows}
        arms = planned_arms(run.tree())
        begun = {row.where.generation for row in rows if 0 <= row.where.generation <= loop.generations}
        done = sum(
            all(Where(arm.policy, seed, generation, arm.lineage) in there for arm in arms for seed in loop.seeds)
            for generation in begun
        )
        planned = loop.generations + 1
    return facts | {
        "kind": kind,
        "learner": config.learner,
        "done": done,
        "planned": max(done, planned),
        "policies": list(map(str, loop.policies)) if config.kind == "generational" else [],
        "seeds": list(loop.seeds),
        "status": str(record["status"]),
        "at_work": at_work(run.path) if record["status"] == "started" else None,
        "created": str(record["created"]),
        "updated": str(record["updated"]),
        "error": str(record.get("error", "")),
    }


def nothing_of(name: str) -> dict[str, Any]:
    """What is said of a run that cannot be read, but for its `error`."""
    return {
        "name": name, "kind": "", "learner": "", "done": 0, "planned": 0, "policies": [], "seeds": [],
        "status": "damaged", "at_work": None, "created": "", "updated": "", "error": "",
    }  # fmt: skip


def few(names: Sequence[str]) -> str:
    """`keep-0, keep-10`; of many the first, and how many more there are."""
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def seeds_said(seeds: Sequence[int]) -> str:
    """As `few`; 0-9 for ten in a row."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}"
    return few([str(seed) for seed in seeds])
