"""Runs of one family compared by the measure that stands first: other families than those of perplexities, and mixtures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli import families
from collapse_cli.findings import expectations
from collapse_cli.findings.compare.base import Compared, Comparison, Side, pairs_of
from collapse_cli.findings.diagnosis import diagnose_run
from collapse_cli.findings.diagnosis.headline import headline_of
from collapse_cli.findings.several_models import more_than_one
from collapse_cli.metrics.intervals import Interval, over_seeds, paired
from collapse_cli.records.row import Row
from collapse_cli.where import Arm

Values = dict[Arm, dict[int, dict[int, float]]]  # policy and lineage (or cell) -> generation -> seed -> value


@dataclass(frozen=True)
class MeasuredPolicy:
    """One policy, or one cell, of one run: `first` at generation 0 (None for cells), `now` at the compared one."""

    run: str
    arm: Arm
    seeds: tuple[int, ...]
    first: Interval | None
    now: Interval
    theory: float | None

    def record(self) -> dict[str, Any]:
        return {
            "run": self.run,
            **self.arm.record(),
            "seeds": list(self.seeds),
            "first": self.first.record() if self.first else None,
            "now": self.now.record(),
            "theory": self.theory,
        }


@dataclass(frozen=True)
class MeasureDifference:
    """Two policies of a run, or the same policy or cell in two runs; `difference` is the first less the second, by seed."""

    first: Side
    second: Side
    seeds: tuple[int, ...]
    difference: Interval

    def record(self) -> dict[str, Any]:
        sides = {
            name: (side[0], *side[1].record().values())
            for name, side in (("first", self.first), ("second", self.second))
        }
        return {**sides, "seeds": list(self.seeds), "difference": self.difference.record()}


def generations(run: Compared) -> set[int]:
    values = _values(run.rows, headline_of(run.config.model_dump(mode="json")).name)
    return {generation for by in values.values() for generation in by}


def compared(runs: list[Compared], generation: int) -> Comparison[MeasuredPolicy, MeasureDifference]:
    """Each policy's or cell's measure beside generation 0's and what theory says, and differences paired over seeds."""
    trees = {run.name: run.config.model_dump(mode="json") for run in runs}
    tree = trees[runs[0].name]
    measure, mixture = headline_of(tree), expectations.is_mixture(tree)
    entries: list[MeasuredPolicy] = []
    series: dict[Side, dict[int, float]] = {}
    for run in runs:
        cells = {row.where.arm: row.coordinates for row in run.rows} if mixture else {}
        for arm, by in _values(run.rows, measure.name).items():
            if generation not in by:
                continue
            now = series[run.name, arm] = by[generation]
            theory = (
                expectations.theory_of(trees[run.name], cells[arm])
                if mixture
                else expectations.theory_at(trees[run.name], measure.name, arm, generation)
            )
            first = [by[0][seed] for seed in now if seed in by.get(0, {})]  # of the seeds that are there now
            start = over_seeds(measure.name, first) if first and not mixture else None
            end = over_seeds(measure.name, list(now.values()))
            entries.append(MeasuredPolicy(run.name, arm, tuple(sorted(now)), start, end, theory))
    pairs = [
        MeasureDifference(first_side, second_side, tuple(seeds), difference)
        for first_side, second_side, seeds in pairs_of(series, within=generation > 0 and not mixture)
        if (difference := paired(series[first_side], series[second_side]))
    ]
    return Comparison(
        tuple(run.name for run in runs),
        generation,
        tuple(entries),
        tuple(pairs),
        {run.name: diagnose_run(run.rows, trees[run.name]).verdict for run in runs},
        tuple(_notes(entries)),
        measure=measure,
        more=more_than_one({run.name: run.rows for run in runs})
        if families.of(runs[0].config.learner).text and not mixture
        else None,
    )


def _values(rows: Sequence[Row], name: str) -> Values:
    values: Values = {}
    for row in rows:
        if (value := row.measure(name)) is not None:
            values.setdefault(row.where.arm, {}).setdefault(row.where.generation, {})[row.where.seed] = value
    return values


def _notes(entries: Sequence[MeasuredPolicy]) -> list[str]:
    counts = sorted({len(entry.seeds) for entry in entries})
    notes = ["where there is one seed there is no interval"] if counts[:1] == [1] else []
    if several := [count for count in counts if count > 1]:
        counts_said = " or ".join(map(str, several))
        notes.append(
            f"intervals are 95% t intervals over {counts_said} seeds, not corrected for the number of comparisons"
        )
    return notes
