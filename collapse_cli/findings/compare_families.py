"""`collapse compare` for runs whose first measure is no perplexity: other families, and mixtures.

Reads run folders only; imports neither torch nor learners.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from collapse_cli.errors import ConfigError
from collapse_cli.families import Headline
from collapse_cli.findings import expectations
from collapse_cli.findings.diagnosis.headline import family_verdict, headline_of
from collapse_cli.findings.diagnosis.mixtures import mixture_verdict
from collapse_cli.metrics.intervals import Interval, over_seeds, paired
from collapse_cli.records.rundir import RunFolder

Values = dict[str, dict[int, dict[int, float]]]  # policy (or cell) -> generation -> seed -> value


@dataclass(frozen=True)
class FamilyEntry:
    """One policy, or one cell, of one run: `first` at generation 0 (None for cells), `now` at the compared one."""

    run: str
    policy: str
    seeds: tuple[int, ...]
    first: Interval | None
    now: Interval
    theory: float | None

    def record(self) -> dict[str, Any]:
        return {
            **vars(self),
            "seeds": list(self.seeds),
            "first": self.first.record() if self.first else None,
            "now": self.now.record(),
        }


@dataclass(frozen=True)
class FamilyPair:
    """Two policies of a run, or the same policy or cell in two runs; `difference` is the first less the second, by seed."""

    first: tuple[str, str]
    second: tuple[str, str]
    seeds: tuple[int, ...]
    difference: Interval

    def record(self) -> dict[str, Any]:
        return {**vars(self), "seeds": list(self.seeds), "difference": self.difference.record()}


@dataclass(frozen=True)
class FamilyComparison:
    """Runs of one learner side by side at `generation`, the last that every run has (0 for mixtures)."""

    runs: tuple[str, ...]
    measure: Headline
    generation: int
    entries: tuple[FamilyEntry, ...]
    pairs: tuple[FamilyPair, ...]
    verdicts: Mapping[str, str]
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """As JSON, for `--json`."""
        return {
            "runs": list(self.runs),
            "measure": self.measure.name,
            "generation": self.generation,
            "policies": [entry.record() for entry in self.entries],
            "pairs": [pair.record() for pair in self.pairs],
            "verdicts": dict(self.verdicts),
            "notes": list(self.notes),
        }


def of_text(trees: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all runs are generational ones of language models, which `compare.py` lays side by side."""
    return all(expectations.family_of(tree).diagnosed and not expectations.is_mixture(tree) for tree in trees)


def compare_families(runs: Sequence[RunFolder]) -> FamilyComparison:
    """Lay runs of one learner and kind side by side.

    Raises:
        ConfigError: for a run named twice, without rows, or of another learner or kind than the first.
    """
    trees = {run.name: run.config().model_dump(mode="json") for run in runs}
    if len(trees) < len(runs):
        raise ConfigError("a run is named twice; name each run once")
    kinds = {name: f"{tree['learner']} ({tree['kind']})" for name, tree in trees.items()}
    if len(set(kinds.values())) > 1:
        said = ", ".join(f"{name} is of {kind}" for name, kind in kinds.items())
        raise ConfigError(f"runs of different learners have no measure in common: {said}")
    tree = next(iter(trees.values()))
    measure, mixture = headline_of(tree), expectations.is_mixture(tree)
    rows = {run.name: run.rows() for run in runs}
    found = {name: _values(own, measure.name) for name, own in rows.items()}
    for run in runs:
        if not found[run.name]:
            raise ConfigError(f"the run {run.name!r} in {run.runs} has measured nothing yet; give its command again")
    common = set.intersection(*({g for by in one.values() for g in by} for one in found.values()))
    if not common:
        raise ConfigError(f"the runs {', '.join(found)} have no generation in common; nothing can be compared")
    last = max(common)
    entries, series = [], {}
    for name, policies in found.items():
        records = {row["policy"]: row for row in rows[name]}
        for policy, by in policies.items():
            if last not in by:
                continue
            series[name, policy] = by[last]
            theory = (
                expectations.theory_of(trees[name], records[policy])
                if mixture
                else expectations.theory_at(trees[name], measure.name, policy, last)
            )
            first = [by[0][seed] for seed in by[last] if seed in by.get(0, {})]  # of the seeds that are there now
            start = over_seeds(measure.name, first) if first and not mixture else None
            entries.append(
                FamilyEntry(
                    name,
                    policy,
                    tuple(sorted(by[last])),
                    start,
                    over_seeds(measure.name, list(by[last].values())),
                    theory,
                )
            )
    pairs = []
    for one, other in combinations(series, 2):
        within, between = one[0] == other[0], one[1] == other[1]
        if (between or (within and not mixture and last)) and (found_pair := paired(series[one], series[other])):
            pairs.append(FamilyPair(one, other, tuple(sorted(series[one].keys() & series[other].keys())), found_pair))
    say = mixture_verdict if mixture else family_verdict
    return FamilyComparison(
        tuple(found),
        measure,
        last,
        tuple(entries),
        tuple(pairs),
        {name: say(own, trees[name]) for name, own in rows.items()},
        tuple(_notes(entries)),
    )


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> Values:
    found: Values = {}
    for row in rows:
        if (number := expectations.number(row.get(name))) is not None:
            found.setdefault(row["policy"], {}).setdefault(row["generation"], {})[row["seed"]] = number
    return found


def _notes(entries: Sequence[FamilyEntry]) -> list[str]:
    counts = sorted({len(entry.seeds) for entry in entries})
    notes = ["where there is one seed there is no interval"] if counts[:1] == [1] else []
    if several := [count for count in counts if count > 1]:
        said = " or ".join(map(str, several))
        notes.append(f"intervals are 95% t intervals over {said} seeds, not corrected for the number of comparisons")
    return notes
