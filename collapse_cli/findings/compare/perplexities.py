"""Runs of models of text compared: perplexities, what was called early and late collapse, and instruments."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.config.names import leaves
from collapse_cli.config.published import LOOKED_UP
from collapse_cli.findings.arms import MOST, lineages_of, trees_of
from collapse_cli.findings.compare.base import Compared, Comparison, RunLineage, Side, pairs_of
from collapse_cli.findings.diagnosis import ArmDiagnosis, Diagnosis, diagnose
from collapse_cli.findings.several_models import more_than_one
from collapse_cli.metrics import perplexity
from collapse_cli.metrics.intervals import LEVEL, NOISE, Interval, log_ratio, over_seeds, takes_noise_for_granted
from collapse_cli.records.row import Row, by_arm, planned_arms
from collapse_cli.where import Arm

BY_LINEAGE = "by lineage"  # in place of the value of an option in which the lineages of a run differ
INSTRUMENTS = {  # field -> heading, format
    "unigram_entropy": ("entropy", "{:.2f}"),
    "distinct_2": ("distinct-2", "{:.3f}"),
    "mauve": ("MAUVE", "{:.2f}"),
    "exact_duplicate_rate": ("duplicates", "{:.1%}"),
    "tail_change": ("tail nats", "{:+.2f}"),
}


@dataclass(frozen=True)
class PolicyPerplexity:
    """A policy of a lineage of a run at the generation compared.

    Attributes:
        seeds: those with generation 0 and the generation compared.
        start, now: perplexity at generation 0 and at the generation compared, geometric mean over seeds.
        ratio: perplexity as a multiple of generation 0's, geometric mean over seeds.
        instruments: field -> its values at generation 0 and now; absent where not measured.
    """

    run: str
    arm: Arm
    seeds: tuple[int, ...]
    start: Interval
    now: Interval
    ratio: Interval
    instruments: Mapping[str, tuple[Interval | None, Interval]]
    diagnosis: ArmDiagnosis

    def record(self) -> dict[str, Any]:
        measured = {
            name: {"generation_0": None if first is None else first.record(), "now": now.record()}
            for name, (first, now) in self.instruments.items()
        }
        return {
            "run": self.run,
            **self.arm.record(),
            "seeds": list(self.seeds),
            "perplexity_0": self.start.record(),
            "perplexity": self.now.record(),
            "ratio": self.ratio.record(),
            "instruments": measured,
            "state": self.diagnosis.state,
            "calls": {kind: call.record() for kind, call in self.diagnosis.calls.items()},
        }


@dataclass(frozen=True)
class PerplexityRatio:
    """Two policies, or one policy in two runs, on the seeds they share.

    Attributes:
        first, second: run, and policy with lineage.
        ratio: perplexity of the first over that of the second: the exponential of the mean difference of
            log-perplexities, with the 95% interval of that difference.
        apart: the ratio with the interval by which the two are told apart. It allows for the number of pairs of the
            comparison (Bonferroni), so that in all of them together fewer than 1 in 20 comparisons say something false.
        granted: whether an interval rests on prior knowledge of the noise between seeds (`intervals.log_ratio`).
    """

    first: Side
    second: Side
    seeds: tuple[int, ...]
    ratio: Interval
    apart: Interval
    granted: bool

    @property
    def told_apart(self) -> bool | None:
        """Whether `apart` leaves out 1; None where there is no interval."""
        if self.apart.low is None or self.apart.high is None:
            return None
        return not self.apart.low <= 1 <= self.apart.high

    def record(self) -> dict[str, Any]:
        ends = {
            name: {"run": run, **arm.record()} for name, (run, arm) in (("first", self.first), ("second", self.second))
        }
        return ends | {"seeds": list(self.seeds), "ratio": self.ratio.record(), "told_apart": self.told_apart}


def generations(run: Compared) -> set[int]:
    return {row.where.generation for row in run.rows}


def compared(runs: list[Compared], generation: int) -> Comparison[PolicyPerplexity, PerplexityRatio]:
    """Each policy's perplexity against generation 0's, and ratios between policies that are comparable."""
    names, rows = [run.name for run in runs], [run.rows for run in runs]
    entries, diagnoses, behind = [], [], []
    for run in runs:
        loop = run.config.loop
        diagnosis = diagnose(
            run.rows,
            generations=loop.generations,
            planned=planned_arms(run.config.model_dump(mode="json")),
            seeds=loop.seeds,
        )
        diagnoses.append(diagnosis)
        own = by_arm(run.rows)
        for policy in diagnosis.arms:
            if (entry := _entry(run.name, policy, own[policy.arm], generation)) is None:
                behind.append(f"{run.name}: {policy.arm} has no generation {generation} and is left out")
            else:
                entries.append(entry)
    mixed = _incomparable(names, rows, [run.config.model_dump(mode="json") for run in runs])
    apart = [
        f"{_both(first, second)} differ in {', '.join(why)}: their perplexities are not comparable, and no differences "
        "between them are given (of one text under two tokenizers, bits_per_byte is comparable)"
        for (first, second), why in mixed.items()
    ]
    pairs = _pairs(names, rows, generation, mixed)
    return Comparison(
        tuple(names),
        generation,
        tuple(entries),
        tuple(pairs),
        {name: diagnosis.verdict for name, diagnosis in zip(names, diagnoses, strict=True)},
        (*behind, *_notes(names, diagnoses, entries, pairs)),
        more=more_than_one({run.name: run.rows for run in runs}),
        differences=_differences([_told(run.config) for run in runs]),
        warnings=(*apart, *_guard_rails(names, rows)),
    )


def _both(first: RunLineage, second: RunLineage) -> str:
    """Two runs, or lineages of them, in words."""
    return " and ".join(f"{run}, lineage {lineage}," if lineage else run for run, lineage in (first, second))


def _at(rows: Sequence[Row], generation: int) -> dict[int, Row]:
    """The rows of an arm's generation that have a loss, by seed."""
    there = [row for row in rows if row.where.generation == generation]
    return {row.where.seed: row for row in there if row.nll is not None}


def _entry(run: str, policy: ArmDiagnosis, rows: Sequence[Row], generation: int) -> PolicyPerplexity | None:
    first, now = _at(rows, 0), _at(rows, generation)
    before, after = _losses(first), _losses(now)
    seeds = sorted(first.keys() & now.keys())
    if not seeds:
        return None
    instruments = {
        name: (_over(first, seeds, name), over) for name in INSTRUMENTS if (over := _over(now, seeds, name)) is not None
    }
    return PolicyPerplexity(
        run,
        policy.arm,
        tuple(seeds),
        over_seeds("perplexity", [first[seed].perplexity or perplexity(before[seed]) for seed in seeds]),
        over_seeds("perplexity", [now[seed].perplexity or perplexity(after[seed]) for seed in seeds]),
        log_ratio([after[seed] - before[seed] for seed in seeds]).within(perplexity),
        instruments,
        policy,
    )


def _over(rows: Mapping[int, Row], seeds: Sequence[int], name: str) -> Interval | None:
    values = [value for seed in seeds if (value := rows[seed].measure(name)) is not None]
    return over_seeds(name, values) if values else None


def _losses(rows: Mapping[int, Row]) -> dict[int, float]:
    return {seed: loss for seed, row in rows.items() if (loss := row.nll) is not None}


def _pairs(
    names: Sequence[str],
    rows: Sequence[Sequence[Row]],
    generation: int,
    mixed: Container[tuple[RunLineage, RunLineage]],
) -> list[PerplexityRatio]:
    """Policies of one lineage, lineages under one policy, and the same policy in two runs that are comparable."""
    series: dict[Side, dict[int, float]] = {}
    for name, every in zip(names, rows, strict=True):
        for arm, own in by_arm(every).items():
            series[name, arm] = _losses(_at(own, generation))
    sides = list(pairs_of(series, within=generation > 0, apart=mixed))
    level = 1 - (1 - LEVEL) / max(1, sum(len(seeds) > 1 for _, _, seeds in sides))
    pairs = []
    for first, second, seeds in sides:
        logs = [series[first][seed] - series[second][seed] for seed in seeds]
        ratio, apart = (log_ratio(logs, wanted).within(perplexity) for wanted in (LEVEL, level))
        granted = any(takes_noise_for_granted(logs, wanted) for wanted in (LEVEL, level))
        pairs.append(PerplexityRatio(first, second, tuple(seeds), ratio, apart, granted))
    return pairs


def _incomparable(
    names: Sequence[str], rows: Sequence[Sequence[Row]], configs: Sequence[Mapping[str, Any]]
) -> dict[tuple[RunLineage, RunLineage], list[str]]:
    """Pairs of runs, or of lineages, whose perplexities are not of the same tokens, and why."""
    facts: dict[RunLineage, dict[str, Any]] = {}
    for name, own, config in zip(names, rows, configs, strict=True):
        trees = trees_of(config)
        first: dict[str, Row] = {}
        for row in own:
            first.setdefault(row.where.lineage, row)
        for lineage, row in first.items():
            tree = trees.get(lineage, config)
            model = tree["model"]
            facts[name, lineage] = {
                "the evaluation protocol": row.protocol,
                "the number of predicted tokens": row.measure("predicted_tokens"),
                "the text (data.sha256)": tree["data"]["sha256"] or None,  # None: not known, as before a first stage
                "the tokenizer": model["tokenizer_sha256"]
                or (model["tokenizer"], model["vocab_size"], model["source"]),
            }
    apart = {}
    for first_of, second_of in combinations(facts, 2):
        here, there = facts[first_of], facts[second_of]
        why = [what for what in here if None not in (here[what], there[what]) and here[what] != there[what]]
        if why:
            apart[first_of, second_of] = why
    return apart


def _guard_rails(names: Sequence[str], rows: Sequence[Sequence[Row]]) -> list[str]:
    """How many rows of each run are doubtful, with the first reason."""
    warnings = []
    for name, own in zip(names, rows, strict=True):
        doubtful = [row for row in own if row.warnings]
        if doubtful:
            row = doubtful[0]
            many = f"{len(doubtful)} of {len(own)}"
            warnings.append(f"{name}: rows with warnings: {many}; {row.where.policy_first}: {row.warnings[0]}")
    return warnings


def _notes(
    names: Sequence[str],
    diagnoses: Sequence[Diagnosis],
    entries: Sequence[PolicyPerplexity],
    pairs: Sequence[PerplexityRatio],
) -> list[str]:
    """What limits the numbers."""
    notes = []
    if any(len(entry.seeds) == 1 for entry in entries):
        notes.append("where there is one seed there is no interval")
    if any(len(entry.seeds) > 1 for entry in entries):
        notes.append(
            "perplexities are geometric means over seeds with the 95% interval of the mean logarithm; seeds share the text, so "
            'that its chance is not in it; "not told apart" allows for the number of pairs'
        )
    for name in names:
        count = len(lineages_of(entry.arm for entry in entries if entry.run == name))
        if count > MOST:
            notes.append(
                f"{name}: policies are compared within each of the {count} lineages; lineages are not compared pair by pair"
            )
    if any(pair.granted for pair in pairs):
        notes.append(
            f"where few seeds differ much, the intervals between policies take for granted that noise between seeds is no larger "
            f"than {NOISE:g} nats (standard deviation); the seeds alone would make them wider"
        )
    return notes + [
        f"{name}: {note}" for name, diagnosis in zip(names, diagnoses, strict=True) for note in diagnosis.notes
    ]


def _told(config: Experiment) -> dict[str, Any]:
    """What two experiments can differ in, as people say it: of several lineages what is the same in all, and what each has otherwise."""
    pool = {"pool": config.pool.model_dump(mode="json")}
    lineages = config.of_lineages()
    if "" in lineages:
        return config.identity() | pool
    whole = config.identity()
    each = [dict(leaves(own)) for own in whole["lineages"].values()]
    shared = {
        key: value if all(key in own and own[key] == value for own in each) else BY_LINEAGE
        for key, value in (leaf for own in each for leaf in own.items())
        if not key.startswith(("pool.", "foreign."))
    }
    values = [dict(leaves(own.model_dump(mode="json"))) for own in lineages.values()]
    own = {
        name: {
            key: value
            for key, value in leaves(table)
            if key not in LOOKED_UP and any(there.get(key) != value for there in values)
        }
        for name, table in config.lineages.items()
    }
    there = {name: table for name, table in own.items() if table}
    return shared | pool | {"foreign": whole["foreign"]} | ({"lineages": there} if there else {})


def _differences(trees: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Leaves of the configurations that are not the same in all, but hashes of what has a name."""
    flat = [dict(leaves(tree)) for tree in trees]
    keys = dict.fromkeys(key for values in flat for key in values)
    values_of = {key: tuple(values.get(key) for values in flat) for key in keys}
    return {key: values for key, values in values_of.items() if any(value != values[0] for value in values)}
