"""The runs of a folder, as far as their files tell: the state of each, how far it is, its policies and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collapse_cli.config.cell import cells
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.records.at_work import at_work
from collapse_cli.records.checked import FILE as CHECKED
from collapse_cli.records.checked import read_checked
from collapse_cli.records.remembered import Remembered
from collapse_cli.records.row import planned_arms
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import names_of_runs
from collapse_cli.where import Where

FILES = ("run.json", "metrics.jsonl", CHECKED)  # of a run, what its facts are read from
MOST_NAMED = 4  # policies or seeds of a run that its line names; of more, how many there are


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run; of one whose record cannot be read no more than its name, and why.

    Attributes:
        kind: of the experiment, or `check` for two texts that were compared without a model.
        done, planned: generations, or cells of a mixture.
        status: as its record has it; `damaged` where that cannot be read.
        at_work: of one that has the status `started`, whether it is at work (`records.at_work`); else None.
        created, updated: times as ISO 8601 has them.
        error: why it ended, or why its record cannot be read; "" where there is nothing to say.
    """

    name: str
    kind: str = ""
    learner: str = ""
    done: int = 0
    planned: int = 0
    policies: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    status: str = "damaged"
    at_work: bool | None = None
    created: str = ""
    updated: str = ""
    error: str = ""

    @property
    def progress(self) -> str:
        """How far it is, in words; "" where that is not known."""
        if self.status == "damaged":
            return ""
        unit = "cells" if self.kind == "mixture" else "generations"
        return "two texts" if self.kind == "check" else f"{self.done:,} of {self.planned:,} {unit}"

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "policies": list(self.policies), "seeds": list(self.seeds)}


def runs_in(folder: Path, most: int = 0) -> tuple[list[RunFacts], int]:
    """What is known of each run, the one that changed last at the end; and how many runs there are.

    Args:
        most: of more runs, those that changed last, and those whose record cannot be read; 0: all.
    """
    names = names_of_runs(folder)
    shown = _last(folder, names, most) if 0 < most < len(names) else names

    def read(name: str) -> dict[str, Any]:
        return facts_of(folder, name).record()

    # of some of the runs the file is not written: it would lose the others
    kept = Remembered(folder, FILES, read, name="facts" if shown is names else "", lasting=_is_whole)
    facts = [_again(folder, record) for record in kept.values(shown).values()]
    return sorted(facts, key=lambda run: (run.updated, run.name)), len(names)


def _last(folder: Path, names: Sequence[str], most: int) -> list[str]:
    """The runs that changed last, and before them those whose record cannot be read; at most twice as many as asked for."""

    def read(name: str) -> str:
        try:
            return str(RunFolder(folder, name).record()["updated"])
        except (ConfigError, OSError):
            return ""

    updated = Remembered(folder, ("run.json",), read, name="updated", lasting=bool).values(names)
    whole = sorted((name for name in names if updated[name]), key=lambda name: (updated[name], name))
    return [name for name in names if not updated[name]][:most] + whole[-most:]


def _is_whole(record: dict[str, Any]) -> bool:
    return bool(record["status"] != "damaged")


def _again(folder: Path, record: dict[str, Any]) -> RunFacts:
    """Facts from their record; whether a run is at work is no matter of its files."""
    facts = RunFacts(**{**record, "policies": tuple(record["policies"]), "seeds": tuple(record["seeds"])})
    return replace(facts, at_work=at_work(folder / facts.name) if facts.status == "started" else None)


def facts_of(folder: Path, name: str) -> RunFacts:
    """What is known of one run."""
    try:
        run = RunFolder(folder, name)
        record, config, rows = run.record(), run.config(), run.rows()
        compared = read_checked(run.path)
    except (ConfigError, InputError, OSError) as error:
        return RunFacts(name, error=str(error))
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
    return RunFacts(
        name,
        kind,
        config.learner,
        done,
        max(done, planned),
        tuple(map(str, loop.policies)) if config.kind == "generational" else (),
        tuple(loop.seeds),
        str(record["status"]),
        at_work(run.path) if record["status"] == "started" else None,
        str(record["created"]),
        str(record["updated"]),
        str(record.get("error", "")),
    )


def few(names: Sequence[str]) -> str:
    """`keep-0, keep-10`; of many the first, and how many more there are."""
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def seeds_said(seeds: Sequence[int]) -> str:
    """As `few`; 0-9 for ten in a row."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}"
    return few([str(seed) for seed in seeds])
