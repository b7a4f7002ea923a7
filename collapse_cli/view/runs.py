"""Which runs may be looked at, and in which state each is."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from collapse_cli.records import checked, kept_texts
from collapse_cli.records.at_work import SAID, at_work
from collapse_cli.records.listing import RunFacts, facts_of
from collapse_cli.records.names import can_be_named
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import names_of_runs
from collapse_cli.records.underway import underway
from collapse_cli.view.kept import Kept

log = logging.getLogger(__name__)
SHOWN = ("run.json", "metrics.jsonl", kept_texts.FILE, checked.FILE)  # a page is made anew when one of these changes
WRITTEN = (*SHOWN, "events.jsonl")  # by a run at work
MOST_DOING = 4  # stages that are said to be underway
MOST_RUNS = 1000  # whose facts are kept
MOST_LISTED = 500  # lines of the list, which is asked for every few seconds
# status of run.json -> what a reader is told, and how good that is
STATES = {
    "success": ("finished", "good"),
    "error": ("ended with an error", "bad"),
    "interrupted": ("interrupted", "open"),
    "damaged": ("damaged", "bad"),
}


@dataclass(frozen=True)
class State:
    """A run, as its line in the list says it.

    Attributes:
        facts: as `records.listing` has them.
        said: what a reader is told of its state.
        kind: `good`, `open` or `bad`.
        changed: when one of its files was last written, in seconds since 1970; 0: unknown.
        doing: what it is doing at the moment, where that is known.
        linked: whether there is a page about it.
    """

    name: str
    facts: RunFacts
    label: str
    kind: str
    changed: float
    doing: str
    linked: bool

    @property
    def ended(self) -> bool:
        return self.facts.status in ("success", "error", "interrupted")


class Runs:
    """The runs of a folder, whichever there are at the moment; or those that were named, and no others."""

    def __init__(self, folder: Path, named: Sequence[RunFolder] = ()) -> None:
        """Runs of one name from several folders are told apart by `~2`, `~3` after it, which no run's name has."""
        self.folder = folder
        self._named: dict[str, RunFolder] = {}
        for run in named:
            times = sum(other.name == run.name for other in self._named.values())
            if all(other.path != run.path for other in self._named.values()):
                self._named[f"{run.name}~{times + 1}" if times else run.name] = run
        self._facts = Kept(_facts, lambda run: stamp([run], SHOWN), MOST_RUNS, failed=_is_damaged)

    @property
    def chosen(self) -> list[str]:
        """The names of the runs that were named; none where all of the folder are shown."""
        return list(self._named)

    def names(self) -> list[str]:
        """The names of all runs there are now, those that no page can be about too."""
        return list(self._named) or names_of_runs(self.folder)

    def find(self, names: Sequence[str]) -> list[RunFolder] | None:
        """The runs of these names; None unless each is one of `names`, once."""
        there = self.names()
        if len(set(names)) != len(names) or not names or any(name not in there for name in names):
            return None
        if self._named:
            return [self._named[name] for name in names]
        return [RunFolder(self.folder, name) for name in names] if all(map(can_be_named, names)) else None

    def state(self, name: str) -> State:
        """In which state the run of a name is."""
        run = self._named.get(name)
        path = run.path if run else self.folder / name
        _, facts = self._facts.get(path)
        changed = _changed(path)
        working = at_work(path) if facts.status == "started" else None
        label, kind = STATES.get(facts.status, (SAID[working], "bad" if working is False else "open"))
        stages = underway(path, mixture=facts.kind == "mixture") if working else []
        return State(name, facts, label, kind, changed, "; ".join(stages[:MOST_DOING]), bool(run) or can_be_named(name))

    def states(self) -> tuple[list[State], int]:
        """The runs that changed last, the last of all first: at most `MOST_LISTED`, and those that were named; and how many more there are."""
        names = self.names()
        if not self._named and len(names) > MOST_LISTED:
            changed = {name: _changed(self.folder / name) for name in names}
            shown = sorted(names, key=lambda name: (-changed[name], name))[:MOST_LISTED]
        else:
            shown = names
        states = sorted(map(self.state, shown), key=lambda state: (-state.changed, state.name))
        return states, len(names) - len(shown)


def stamp(paths: Sequence[Path], names: Sequence[str]) -> Hashable:
    """What tells whether files of run folders are still the same: for each its inode, size and time; None where there is none."""
    return tuple(_stamp(path / name) for path in paths for name in names)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _changed(run: Path) -> float:
    times = [written[2] for name in WRITTEN if (written := _stamp(run / name)) is not None]
    return max(times, default=0) / 1e9


def _is_damaged(facts: RunFacts) -> bool:
    return facts.status == "damaged"


def _facts(run: Path) -> RunFacts:
    try:
        return facts_of(run.parent, run.name)
    except Exception as error:  # a mistake of ours, which must not take the other runs out of the list
        log.exception("what is known of %s could not be found out", run)
        return RunFacts(run.name, error=f"{type(error).__name__}: {error}")
