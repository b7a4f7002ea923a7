"""The three causes of collapse that Shumailov et al. (Nature 2024) name, told apart on a language whose truth is known.

They are statistical approximation error (a finite sample), functional expressivity error (a model that cannot be the
truth) and functional approximation error (training that does not find the best model). A run in which none is large is
the baseline; in one run for each cause, that cause alone is turned up; in one more, all are. What a cause adds is the
KL divergence from the truth, at the last generation, above the baseline's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.metrics.intervals import Interval, interval, over_seeds
from collapse_cli.records.row import Row, by_arm
from collapse_cli.where import Arm

BASELINE, TOGETHER = "baseline", "all"  # names of variants; every other is a cause
FIELD = "kl_truth"


@dataclass(frozen=True)
class Cause:
    """What one variant adds. Intervals are t intervals over seeds.

    Attributes:
        error: KL from the truth at the last generation, nats/token.
        growth: of that, what came after generation 0.
        excess: error above that of the baseline with the same seed; None for the baseline.
        share: of the sum of all causes' excess; None for the baseline and for all together, and where the causes of a
            seed add nothing together.
    """

    error: Interval
    growth: Interval
    excess: Interval | None
    share: Interval | None

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {name: value.record() if value else None for name, value in vars(self).items()}


@dataclass(frozen=True)
class Causes:
    """How much of the error each cause makes.

    Attributes:
        generation: the last that every variant and seed has; all numbers are of it.
        seeds: those that every variant has.
        variants: by name; the baseline first, all together last.
        interaction: excess of all together less the sum of the causes'; None without such a variant. Above 0: together
            the causes do more harm than one by one.
    """

    generation: int
    seeds: tuple[int, ...]
    variants: dict[str, Cause]
    interaction: Interval | None

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "generation": self.generation,
            "seeds": list(self.seeds),
            "variants": {name: cause.record() for name, cause in self.variants.items()},
            "interaction": self.interaction.record() if self.interaction else None,
        }


def shares(rows: Mapping[str, Sequence[Row]], arm: Arm | None = None, field: str = FIELD) -> Causes | None:
    """Each cause's share of the error at the last generation.

    Args:
        rows: of each variant's `metrics.jsonl`, by the variant's name; one is `baseline`, one may be `all`.
        arm: the policy and lineage to look at; None: that of the first row.
        field: a measure in nats that is 0 for the truth.

    Returns:
        None where there is nothing to share out yet: no baseline, no cause, no generation above 0 or no seed that all
        variants have, or a source whose truth is not known.
    """
    causes = [name for name in rows if name not in (BASELINE, TOGETHER)]
    if BASELINE not in rows or not causes or not all(rows.values()):
        return None
    arm = arm or rows[BASELINE][0].where.arm
    errors_of = {name: _by_seed(by_arm(some).get(arm, []), field) for name, some in rows.items()}
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in errors_of.values())))
    whole = [set(by_seed[seed]) for by_seed in errors_of.values() for seed in seeds]
    common = set.intersection(*whole) if whole else set()
    if not {0} < common:
        return None
    last = max(common)
    errors = {name: {seed: by_seed[seed][last] for seed in seeds} for name, by_seed in errors_of.items()}
    excess = {name: {seed: errors[name][seed] - errors[BASELINE][seed] for seed in seeds} for name in rows}
    sums = {seed: sum(excess[name][seed] for name in causes) for seed in seeds}

    def over(values: Mapping[int, float]) -> Interval:
        return interval([values[seed] for seed in seeds])

    def cause(name: str) -> Cause:
        growth = {seed: errors[name][seed] - errors_of[name][seed][0] for seed in seeds}
        shared = name in causes and all(total > 0 for total in sums.values())
        return Cause(
            over_seeds(field, [errors[name][seed] for seed in seeds]),
            over(growth),
            None if name == BASELINE else over(excess[name]),
            over({seed: excess[name][seed] / sums[seed] for seed in seeds}) if shared else None,
        )

    together = [TOGETHER] if TOGETHER in rows else []
    interaction = {seed: excess[TOGETHER][seed] - sums[seed] for seed in seeds} if together else None
    return Causes(
        last,
        tuple(seeds),
        {name: cause(name) for name in (BASELINE, *causes, *together)},
        over(interaction) if interaction else None,
    )


def _by_seed(rows: Sequence[Row], field: str) -> dict[int, dict[int, float]]:
    """The measure by seed and generation, of the rows that have it."""
    values: dict[int, dict[int, float]] = {}
    for row in rows:
        if (value := row.measure(field)) is not None:
            values.setdefault(row.where.seed, {})[row.where.generation] = value
    return values
