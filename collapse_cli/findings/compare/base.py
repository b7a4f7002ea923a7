"""What every comparison of runs is, and which pairs of it say something."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Generic, Protocol, TypeVar

from collapse_cli.config import Experiment
from collapse_cli.families import Headline
from collapse_cli.findings.arms import MOST, lineages_of
from collapse_cli.findings.several_models import MoreThanOne
from collapse_cli.records.row import Row
from collapse_cli.where import Arm

Side = tuple[str, Arm]  # run, and policy with lineage, or cell
RunLineage = tuple[str, str]  # run, and lineage


class HasRecord(Protocol):
    """A part of a comparison that can be written as JSON."""

    def record(self) -> dict[str, Any]: ...


Entries = TypeVar("Entries", bound=HasRecord)
Pairs = TypeVar("Pairs", bound=HasRecord)


@dataclass(frozen=True)
class Compared:
    """A run that is compared: `name` is its label, the folder where two have one name."""

    name: str
    config: Experiment
    rows: list[Row]


@dataclass(frozen=True)
class Comparison(Generic[Entries, Pairs]):
    """Runs compared at `generation`, the last that every run has (0 for mixtures).

    Attributes:
        entries: one for each policy of each lineage, or cell, of each run.
        pairs: two policies of a lineage, two lineages under a policy, or a policy or cell in two runs, on the seeds that they share.
        verdicts: by run.
        notes: what limits the numbers.
        measure: what is compared; None: perplexity, beside what was called early and late collapse.
        more: whether more than one lineage holds longer; None where runs do not differ in how many they have.
        differences: options in which the runs' configurations differ, with each run's value; None where not looked for.
        warnings: what is not comparable; None where not looked for.
    """

    runs: tuple[str, ...]
    generation: int
    entries: tuple[Entries, ...]
    pairs: tuple[Pairs, ...]
    verdicts: Mapping[str, str]
    notes: tuple[str, ...]
    measure: Headline | None = None
    more: MoreThanOne | None = None
    differences: Mapping[str, tuple[Any, ...]] | None = None
    warnings: tuple[str, ...] | None = None

    def record(self) -> dict[str, Any]:
        """As JSON, for `--json`; what was not looked for is left out."""
        changed = self.differences
        record = {
            "runs": list(self.runs),
            "measure": None if self.measure is None else self.measure.name,
            "generation": self.generation,
            "policies": [entry.record() for entry in self.entries],
            "pairs": [pair.record() for pair in self.pairs],
            "verdicts": dict(self.verdicts),
            "more_than_one": None if self.more is None else self.more.record(),
            "differences": None if changed is None else {key: list(values) for key, values in changed.items()},
            "warnings": None if self.warnings is None else list(self.warnings),
            "notes": list(self.notes),
        }
        return {name: value for name, value in record.items() if value is not None}


class Comparer(Protocol):
    """How some kinds of runs are compared; a module each."""

    def generations(self, run: Compared) -> set[int]:
        """Those in which a run has measured what is compared."""

    def compared(self, runs: list[Compared], generation: int) -> Comparison[Any, Any]: ...


def pairs_of(
    series: Mapping[Side, Mapping[int, float]],
    *,
    within: bool,
    apart: Container[tuple[RunLineage, RunLineage]] = (),
) -> Iterator[tuple[Side, Side, list[int]]]:
    """Policies of one lineage, and lineages under one policy, where `within`; a policy or cell in two runs; with the seeds that both have.

    Of more than `MOST` lineages of a run only policies are compared: each with each, they would be hundreds of pairs, in which
    nothing could be told apart.

    Args:
        series: a value by seed of each side.
        apart: two lineages, of a run each, that are not comparable.
    """
    many = {run for run, _ in series if len(lineages_of(arm for there, arm in series if there == run)) > MOST}
    for first, second in combinations(series, 2):
        one, other = first[1], second[1]
        alike = one.lineage == other.lineage or (one.policy == other.policy and first[0] not in many)
        wanted = within and alike if first[0] == second[0] else one == other
        if ((first[0], one.lineage), (second[0], other.lineage)) in apart:
            continue
        if wanted and (seeds := sorted(series[first].keys() & series[second].keys())):
            yield first, second, seeds
