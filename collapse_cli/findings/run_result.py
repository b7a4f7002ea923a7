"""What a run came to, as `collapse run` tells it: to people, and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collapse_cli.config import Experiment, not_as_published
from collapse_cli.findings.causes import Causes
from collapse_cli.findings.diagnosis import diagnose_run
from collapse_cli.findings.expectations import Judged, judge
from collapse_cli.findings.known_world import WorldLeft, world_left
from collapse_cli.findings.predictions import Tree
from collapse_cli.findings.selection import SelectionOf, selections
from collapse_cli.findings.several_models import Between, between
from collapse_cli.records.row import Row


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        run: its name.
        folder, report: where it is, and its page; None where that could not be written.
        computed, cached: how many stages were computed, and how many were in the store.
        verdict: in a sentence.
        judged: what was measured beside what was published or proved.
        of_another: what to say where published values are those of another experiment; "" where they are not.
        tree: its configuration.
        world: of a run on the invented world, what its samples still say of it, by policy.
        selected: of a run with a selection, what it kept and threw away, by policy.
        between: of a run of several lineages, how they stand to each other, by policy.
    """

    run: str
    folder: Path
    computed: int
    cached: int
    report: Path | None
    verdict: str
    judged: Sequence[Judged]
    of_another: str
    tree: Tree
    rows: Sequence[Row]
    world: Sequence[WorldLeft] = ()
    selected: Sequence[SelectionOf] = ()
    between: Sequence[Between] = ()

    @classmethod
    def of(
        cls, folder: Path, config: Experiment, rows: Sequence[Row], page: Path | None, *, computed: int, cached: int
    ) -> "RunResult":
        """That of the run in a folder; `page` is its report."""
        tree = config.model_dump(mode="json")
        verdict, judged = diagnose_run(rows, tree).verdict, judge(rows, tree)
        world = world_left(rows, tree)
        published, selected = not_as_published(tree), selections(rows)
        return cls(
            folder.name,
            folder,
            computed,
            cached,
            page,
            verdict,
            judged,
            published,
            tree,
            rows,
            world,
            selected,
            between(rows),
        )

    @property
    def warnings(self) -> list[str]:
        """Those that its rows carry, each with where."""
        return row_warnings(self.rows)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "run": self.run,
            "folder": str(self.folder),
            "computed": self.computed,
            "cached": self.cached,
            "report": None if self.report is None else str(self.report),
            "verdict": self.verdict,
            "world": [left.record() for left in self.world],
            "selected": [one.record() for one in self.selected],
            **({"between": [one.record() for one in self.between]} if self.between else {}),
            "expect": [judged.record() for judged in self.judged],
            "expect_of_another": self.of_another,
            "config": dict(self.tree),
            "rows": [row.record() for row in self.rows],
            "warnings": self.warnings,
        }


@dataclass(frozen=True)
class Results:
    """What an experiment came to: one run, or one for each of its variants.

    Attributes:
        report: of variants the one page on all of them; None where it could not be written.
        causes: of variants how much of the error each cause makes; None where they are not of causes of error.
    """

    runs: Sequence[RunResult]
    report: Path | None = None
    causes: Causes | None = None

    def record(self) -> dict[str, Any]:
        """Those of variants as JSON."""
        return {
            "runs": [run.record() for run in self.runs],
            "report": None if self.report is None else str(self.report),
            "sources": None if self.causes is None else self.causes.record(),
        }


def row_warnings(rows: Sequence[Row]) -> list[str]:
    """The warnings that rows of `metrics.jsonl` carry, each with where."""
    return [f"{row.where.policy_first}: {warning}" for row in rows for warning in row.warnings]
