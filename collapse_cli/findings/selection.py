"""What a selection (`select`) kept and what it threw away: figures by policy, and sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.metrics.intervals import Interval, interval
from collapse_cli.metrics.numbers import percent
from collapse_cli.records.row import Row, by_arm
from collapse_cli.where import Arm

MOST = 6  # policies that are named
LONGEST = 60  # characters of a name


@dataclass(frozen=True)
class SelectionOf:
    """What a selection did for the corpus of one arm's last generation: means over its seeds.

    Attributes:
        steps: each step in words, in order.
        candidates, kept: rows that were chosen among, and rows that stay, those that were drawn twice counted twice.
        kept_real: of those that stay, how many are real (where the whole pool was chosen from).
        filled: real rows that stand where too few stayed.
        false_rejects: the share of held-out real rows that the same rules would throw away; None where it is not known.
        held_out: how many there were.
        real_share: of the corpus.
    """

    arm: Arm
    generation: int
    seeds: int
    steps: Sequence[str]
    candidates: float
    kept: float
    kept_real: float
    filled: float
    false_rejects: Interval | None
    held_out: float
    real_share: float

    def record(self) -> dict[str, Any]:
        """As JSON."""
        rejects = None if self.false_rejects is None else self.false_rejects.record()
        own = {name: value for name, value in vars(self).items() if name != "arm"}
        return {**self.arm.record(), **own, "steps": list(self.steps), "false_rejects": rejects}


def selections(rows: Sequence[Row]) -> list[SelectionOf]:
    """Those of a run, by policy and lineage, at the last generation that has one; none where nothing was chosen."""
    found = []
    for arm, every in by_arm(rows).items():
        own = [row for row in every if row.measure("select_candidates") is not None]
        if own:
            last = max(row.where.generation for row in own)
            found.append(_selection(arm, [row for row in own if row.where.generation == last]))
    return found


def _selection(arm: Arm, rows: Sequence[Row]) -> SelectionOf:
    def mean(name: str) -> float:
        values = [value for row in rows if (value := row.measure(name)) is not None]
        return sum(values) / len(values) if values else 0.0

    rejects = [value for row in rows if (value := row.measure("select_false_rejects")) is not None]
    steps = next((row.selection.steps for row in rows if row.selection.steps), ())
    return SelectionOf(
        arm,
        rows[0].where.generation,
        len(rows),
        [step.words for step in steps],
        mean("select_candidates"),
        mean("select_kept"),
        mean("select_kept_real"),
        mean("select_filled"),
        interval(rejects) if rejects else None,
        mean("select_held_out"),
        mean("real_share"),
    )


def selection_said(chosen: Sequence[SelectionOf]) -> list[str]:
    """A sentence for each policy."""
    said = []
    for one in chosen[:MOST]:
        over = f", mean of {one.seeds} seeds" if one.seeds > 1 else ""
        how = f" ({', then '.join(one.steps)})" if one.steps else ""
        real = f", {one.kept_real:,.0f} of them real" if one.kept_real else ""
        filled = f", and {one.filled:,.0f} real rows stand in for what was missing" if one.filled else ""
        rejects = (
            "no real rows were there to try it on"
            if one.false_rejects is None
            else f"of {one.held_out:,.0f} real rows that no model was fitted on, it would throw away {percent(one.false_rejects.mean)}"
        )
        said.append(
            f"Selection{how} for generation {one.generation} of {str(one.arm)[:LONGEST]}{over}: {one.kept:,.0f} of {one.candidates:,.0f} "
            f"rows stay{real}{filled}; {rejects}; the corpus is {percent(one.real_share)} real."
        )
    return said
