"""From rows of `metrics.jsonl` to what laws are fitted to: log-perplexity by seed and generation under each policy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from collapse_cli.findings.forecast.laws import Array
from collapse_cli.records.row import Row
from collapse_cli.where import Arm

HORIZON = 1000  # generations; later than that is "not"
LEAST_GENERATIONS, LEAST_STEPS = 5, 5  # that a law can be asked of


@dataclass(frozen=True)
class History:
    """What was measured of one arm.

    Attributes:
        values: seed -> generation -> log-perplexity in nats; each seed has generation 0 and at least one more.
        errors: seed -> generation -> (10,) standard errors over test rows of the change from generation 0, by
            independent parts of the test text; missing where they were not measured.
    """

    values: Mapping[int, Mapping[int, float]]
    errors: Mapping[int, Mapping[int, Array]] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return max(max(by) for by in self.values.values())

    @property
    def farthest(self) -> list[int]:
        """The seeds that reached the last generation; the forecast goes on from their mean."""
        return [seed for seed, by in self.values.items() if self.last in by]

    def mean(self, generation: int) -> float:
        """Mean log-perplexity of the farthest seeds; NaN where one of them has a gap."""
        return float(np.mean([self.values[seed].get(generation, math.nan) for seed in self.farthest]))

    def first(self) -> float:
        return self.mean(0)

    def since(self, origin: int) -> "History | None":
        """The series from a generation on, counted from there; None where a seed lacks that generation."""
        if origin == 0:
            return self
        if not all(origin in by and max(by) > origin for by in self.values.values()):
            return None
        values = {seed: {g - origin: y for g, y in by.items() if g >= origin} for seed, by in self.values.items()}
        errors = {seed: {g - origin: e for g, e in by.items() if g >= origin} for seed, by in self.errors.items()}
        return History(values, errors)

    def generations(self) -> list[int]:
        return sorted({generation for by in self.values.values() for generation in by})

    @property
    def steps(self) -> int:
        """From one measured generation to the next, of all seeds."""
        return sum(len(by) - 1 for by in self.values.values())

    @property
    def enough(self) -> bool:
        """Whether there is enough for a law of growth."""
        return len(self.generations()) >= LEAST_GENERATIONS and self.steps >= LEAST_STEPS


def collect(rows: Sequence[Row]) -> tuple[dict[Arm, History], list[str]]:
    """The series of each policy of each lineage, and notes about rows that cannot be used."""
    values: dict[Arm, dict[int, dict[int, float]]] = {}
    errors: dict[Arm, dict[int, dict[int, Array]]] = {}
    bad: dict[Arm, list[str]] = {}
    late: dict[Arm, int] = {}
    for row in rows:
        arm, seed, generation = row.where.arm, row.where.seed, row.where.generation
        if not 0 <= generation <= HORIZON:
            late[arm] = late.get(arm, 0) + 1
            continue
        value = row.nll
        if value is None:
            bad.setdefault(arm, []).append(f"{generation} (seed {seed})")
            continue
        values.setdefault(arm, {}).setdefault(seed, {})[generation] = value
        if (error := _text_errors(row)) is not None:
            errors.setdefault(arm, {}).setdefault(seed, {})[generation] = error
    notes = [f"{name}: no finite perplexity at generation {', '.join(at)}; left out" for name, at in bad.items()]
    for name, n in late.items():
        notes.append(f"{name}: generations outside 0..{HORIZON} left out ({n} row{'s' if n > 1 else ''})")
    series = {}
    for arm, by in values.items():
        if lost := sorted(seed for seed, course in by.items() if 0 not in course):
            notes.append(f"{arm}: no generation 0 of seed {', '.join(map(str, lost))}; left out")
        kept = {
            seed: dict(sorted(course.items())) for seed, course in sorted(by.items()) if 0 in course and len(course) > 1
        }
        if kept:
            series[arm] = History(kept, errors.get(arm, {}))
    return series, notes


def _text_errors(row: Row) -> Array | None:
    """Standard errors over test rows of parts of the change from generation 0: by decile, weighted by its tokens."""
    errors, tokens = row.parts("nll_change_by_decile_se"), row.parts("tokens_by_decile")
    if errors is None or tokens is None:
        return None
    counts = [count or 0.0 for count in tokens]
    total = sum(counts) + (row.measure("unseen_tokens") or 0.0)
    return np.array([(error or 0.0) * count / max(total, 1) for error, count in zip(errors, counts, strict=True)])
