"""What stopped collapse, and at what price: remedies beside the same loop without any, paired by seed.

A remedy is a policy that keeps something real, a selection, weights, a loss or an anchor. Here each policy of each run is one, beside a
baseline: `keep-0` of a run without any other remedy; of several such runs, the one whose other options most runs have. Of models of text, whose headline is the perplexity on real text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.config.names import leaves
from collapse_cli.config.selection import SelectConfig, Step
from collapse_cli.config.tree import MixConfig, TrainConfig
from collapse_cli.errors import UserError
from collapse_cli.families.section import Parsed, Section, neutral
from collapse_cli.findings.diagnosis import ArmDiagnosis, arms_of
from collapse_cli.metrics import perplexity
from collapse_cli.metrics.intervals import LEVEL, Interval, log_ratio, over_seeds, takes_noise_for_granted
from collapse_cli.records.fields import finite, table
from collapse_cli.records.row import Row, by_arm
from collapse_cli.where import Arm

BASELINE = "keep-0"
ADDED: Mapping[str, type[Section]] = {
    "select": SelectConfig,
    "mix": MixConfig,
    "train": TrainConfig,
}  # sections in which remedies stand
EXPERIMENT = (
    "model",
    "data",
    "sample",
    "train",
    "mix",
    "select",
    "pool",
)  # sections of a configuration that it shares with the baseline
MOST_STEPS = 4  # steps of a selection, and options besides the remedy, that are named
DIVERSITY = "distinct_2"
KNOWN = {
    "facts_left": "facts stated rightly",
    "sentences_accepted": "sentences of the grammar",
}  # where the truth is known
TAIL = ("recall_by_decile", 9)  # the rarest types that together are a tenth of all occurrences


@dataclass(frozen=True)
class OneRun:
    """One run, as it is compared: `tree` is its configuration, for which nobody vouches."""

    run: str
    tree: Mapping[str, Any]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Price:
    """What one seed of a policy took, all generations but the first, mean over seeds; None where that was not written down.

    Attributes:
        real: rows of the original corpus a generation, in its corpus and replayed in one pass over it.
        thrown: candidates of a generation that did not enter a corpus.
        sampled, trained: tokens.
        seconds: of work, on whatever machine that was.
    """

    real: float | None
    thrown: float
    sampled: float | None
    trained: float | None
    seconds: float | None

    def record(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Remedy:
    """One policy of one lineage of one run at the last generation that all have.

    Attributes:
        what: its options that are not neutral, in words; "" for none.
        baseline: whether the others are held against it.
        seeds: with generation 0 and the last one.
        end: perplexity on real text; ratio: as a multiple of generation 0's.
        against: as a multiple of the baseline's of the same lineage, over the seeds that both have; None of the baseline itself, and where they share none.
        told_apart: whether the interval that allows for the number of remedies (Bonferroni) leaves out 1; None where there is no interval.
        granted: whether an interval rests on prior knowledge of the noise between seeds (`intervals.log_ratio`).
        early: the generation from which early collapse is called; None where it is not.
        diversity: distinct pairs of tokens; tail: recall of the rarest tenth of the text.
        known: what is right in the samples, of a source whose truth is known (`KNOWN`).
    """

    run: str
    arm: Arm
    what: str
    baseline: bool
    seeds: tuple[int, ...]
    end: Interval
    ratio: Interval
    against: Interval | None
    told_apart: bool | None
    granted: bool
    state: str
    early: int | None
    diversity: Interval | None
    tail: Interval | None
    known: Mapping[str, Interval]
    price: Price

    def record(self) -> dict[str, Any]:
        """As JSON."""
        kept = {
            name: value for name, value in vars(self).items() if not isinstance(value, Interval | Price | Mapping | Arm)
        }
        spans = ("end", "ratio", "against", "diversity", "tail")
        measured = {name: None if (over := getattr(self, name)) is None else over.record() for name in spans}
        known = {name: over.record() for name, over in self.known.items()}
        return (
            {"run": self.run, **self.arm.record()}
            | kept
            | measured
            | {"seeds": list(self.seeds), "known": known, "price": self.price.record()}
        )


@dataclass(frozen=True)
class Remedies:
    """Remedies beside each other, at `generation`.

    Attributes:
        baseline: run and policy of what they are held against; None where no run kept nothing real and did nothing else.
        notes: what limits the numbers.
    """

    generation: int
    baseline: tuple[str, str] | None
    remedies: tuple[Remedy, ...]
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "generation": self.generation,
            "baseline": None if self.baseline is None else {"run": self.baseline[0], "policy": self.baseline[1]},
            "remedies": [remedy.record() for remedy in self.remedies],
            "notes": list(self.notes),
        }


def remedy_of(tree: Mapping[str, Any]) -> str:
    """The options of a configuration that make it a remedy, in words: those added to the loop that are not neutral; "" for none."""
    parts = []
    for name, section in ADDED.items():
        own, plain = table(tree.get(name)), neutral(section)
        changed = {key: own[key] for key in plain if key in own and not _is(own[key], plain[key])}
        parts += [f"{name}.{key} = {_word(value)}" for key, value in changed.items()]
    return ", ".join(parts)


def remedies(runs: Sequence[OneRun]) -> Remedies | None:
    """All policies of all lineages of all runs beside the one without a remedy; None where there are not two to compare.

    The generation is the last that each has in at least one seed.
    """
    found = [(run, there) for run in runs for there in arms_of(run.rows) if there.last > 0]
    if len(found) < 2:
        return None
    generation = min(there.last for _, there in found)
    plain = {run.run: remedy_of(run.tree) for run in runs}
    rows = {(run.run, arm): own for run in runs for arm, own in by_arm(run.rows).items()}
    ends = {(run.run, there.arm): _losses(rows[run.run, there.arm], generation) for run, there in found}
    trees = {run.run: _experiment(run.tree) for run in runs}
    without = [run.run for run, there in found if there.arm.policy == BASELINE and not plain[run.run]]
    alone = {
        run.run: table(run.tree.get("pool")).get("rule", "own") == "own" for run in runs
    }  # hears of no other model
    best = max(without, key=lambda run: (alone[run], _alike(trees[run], trees))) if without else None
    baseline = None if best is None else (best, BASELINE)
    words = plain if baseline is None else {run: _said(plain[run], trees[run], trees[baseline[0]]) for run in plain}
    others = max(1, len(found) - 1)
    level = 1 - (1 - LEVEL) / others
    made = tuple(
        _remedy(run, there, rows[run.run, there.arm], words[run.run], generation, ends, baseline, level)
        for run, there in found
        if ends[run.run, there.arm]
    )
    return Remedies(generation, baseline, made, tuple(_notes(made, baseline, others)))


def _experiment(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What makes an experiment the one it is, but for its policies, generations and seeds."""
    parts = {"loop": {"init": table(tree.get("loop")).get("init")}}
    parts |= {name: dict(table(tree.get(name))) for name in EXPERIMENT}
    return dict(leaves(parts))


def _alike(own: Mapping[str, Any], trees: Mapping[str, Mapping[str, Any]]) -> int:
    """How many options the others have as this one has them."""
    return sum(other.get(name) == value for other in trees.values() for name, value in own.items())


def _said(remedy: str, own: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """The remedy in words, and what else differs from the baseline's experiment."""
    others = [
        f"{name} = {_word(value)}"
        for name, value in own.items()
        if value != baseline.get(name) and name.partition(".")[0] not in ADDED and "sha256" not in name
    ]
    return ", ".join([*others[:MOST_STEPS], *([remedy] if remedy else [])])


def _remedy(
    run: OneRun,
    policy: ArmDiagnosis,
    own: Sequence[Row],
    what: str,
    generation: int,
    ends: Mapping[tuple[str, Arm], Mapping[int, float]],
    baseline: tuple[str, str] | None,
    level: float,
) -> Remedy:
    arm = policy.arm
    last, first = ends[run.run, arm], _losses(own, 0)
    seeds = sorted(first.keys() & last.keys()) or sorted(last)
    there = {row.where.seed: row for row in own if row.where.generation == generation}
    itself = (run.run, arm.policy) == baseline
    without: Mapping[int, float] = {}
    if baseline is not None and not itself:  # of the same lineage, else of the one that the baseline has
        of_same, of_one = ((baseline[0], Arm(baseline[1], lineage)) for lineage in (arm.lineage, ""))
        without = ends.get(of_same) or ends.get(of_one) or {}
    logs = [last[seed] - without[seed] for seed in seeds if seed in without]
    apart = log_ratio(logs, level) if logs else None
    call = policy.calls.get("early")
    return Remedy(
        run.run,
        arm,
        what,
        itself,
        tuple(seeds),
        over_seeds("perplexity", [perplexity(last[seed]) for seed in seeds]),
        log_ratio([last[seed] - first.get(seed, last[seed]) for seed in seeds]).within(perplexity),
        log_ratio(logs).within(perplexity) if logs else None,
        None if apart is None or apart.low is None or apart.high is None else not apart.low <= 0 <= apart.high,
        bool(logs) and (takes_noise_for_granted(logs) or takes_noise_for_granted(logs, level)),
        policy.state,
        None if call is None else call.generation,
        _over([there[seed] for seed in seeds], DIVERSITY),
        _over([there[seed] for seed in seeds], *TAIL),
        {name: over for name in KNOWN if (over := _over([there[seed] for seed in seeds], name)) is not None},
        _price(own, seeds, generation, finite(table(run.tree.get("train")).get("epochs")) or 1.0),
    )


def _losses(rows: Sequence[Row], generation: int) -> dict[int, float]:
    """Nats per token on real text by seed, of one arm."""
    there = [row for row in rows if row.where.generation == generation]
    return {row.where.seed: loss for row in there if (loss := row.nll) is not None}


def _over(rows: Sequence[Row], name: str, part: int | None = None) -> Interval | None:
    values = [value for row in rows if (value := row.measure(name, part)) is not None]
    return over_seeds(name, values) if values else None


def _price(rows: Sequence[Row], seeds: Sequence[int], generation: int, epochs: float) -> Price:
    """Of the generations 1 to `generation`, each of so many passes."""
    own = [row for row in rows if row.where.seed in seeds and 0 < row.where.generation <= generation]
    models = max(1, len(seeds) * generation)

    def summed(*names: str) -> float | None:
        values = [value for row in own for name in names if (value := row.measure(name)) is not None]
        return sum(values) if values else None

    def a_seed(total: float | None) -> float | None:
        return None if total is None else total / len(seeds)

    real, replayed, thrown = summed("real_rows"), summed("replay_rows"), summed("select_candidates")
    kept = summed("select_distinct")
    spent = [
        value
        for row in own
        for taken in table(row.fields.get("seconds")).values()
        if (value := finite(taken)) is not None and value >= 0
    ]
    return Price(
        None if real is None else (real + (replayed or 0) / max(1.0, epochs)) / models,
        (thrown - kept) / models if thrown is not None and kept is not None else 0.0,
        a_seed(summed("sample_tokens")),
        a_seed(summed("train_tokens")),
        sum(spent) / len(seeds) if spent else None,
    )


def _notes(made: Sequence[Remedy], baseline: tuple[str, str] | None, others: int) -> list[str]:
    notes = []
    if baseline is None:
        notes.append(
            f"no run has the policy {BASELINE} and no other remedy, so there is nothing to hold these against; run that, too"
        )
    if any(remedy.granted for remedy in made):
        notes.append(
            "an interval is narrower than these seeds alone show: it takes for granted what is known of the noise between seeds (docs/metrics.md)"
        )
    if any(len(remedy.seeds) == 1 for remedy in made):
        notes.append("one seed: no interval, and no difference is shown to be one")
    elif baseline is not None and others > 1:
        notes.append(f"a difference counts as shown where its interval for {others} comparisons at once leaves out 1")
    return notes


def _is(recorded: object, neutral: object) -> bool:
    """Whether what the record of a run has, in JSON, is the neutral value of an option."""
    if isinstance(neutral, Parsed):
        try:
            return type(neutral).parse(str(recorded)) == neutral  # 1:1 is equal, too
        except UserError:
            return False
    return recorded == (list(neutral) if isinstance(neutral, tuple) else neutral)


def _word(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(_step(each) if isinstance(each, dict) else str(each) for each in value[:MOST_STEPS])[:120]
    return f"{value:g}" if isinstance(value, float) else str(value)[:60]


def _step(given: Mapping[str, Any]) -> str:
    """A step of a selection, without what is neutral."""
    plain = neutral(Step)
    return " ".join(f"{name} {_word(inside)}" for name, inside in given.items() if not _is(inside, plain.get(name)))
