"""Several models in one world: whether they become alike, what they hold together, and whether more than one holds longer.

Figures and sentences. All intervals are over seeds: lineages of one seed that hear of each other are not independent, so a
mean over lineages is taken within a seed first, and it is said wherever it is taken. They are plain t intervals: differences of
growth have the noise of four models, which the prior knowledge of `intervals.log_ratio` is not about (docs/metrics.md, "Several models").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from collapse_cli.findings.arms import averaged, lineages_of, of_policies
from collapse_cli.metrics import perplexity
from collapse_cli.metrics.counting import counted
from collapse_cli.metrics.intervals import (
    LEVEL,
    Interval,
    interval,
    over_seeds,
)
from collapse_cli.metrics.numbers import factors, spread
from collapse_cli.records.row import Row, by_arm

DISTANCES = ("js_distance", "distance_to_others")  # of models of text, and of numbers: the first that rows have
MATRICES = ("bits_per_byte_on", "cross_bits_per_byte", "js_distance_to")  # fields with a number for each lineage
TOGETHER = ("mixture_perplexity", "others_perplexity", "mixture_gain", "mixture_variance")
NOT_TOLD = "is not told apart"
GROWTH = {-1: "grows more slowly", 1: "grows faster", 0: NOT_TOLD}
PERPLEXITY = {-1: "is lower", 1: "is higher", 0: NOT_TOLD}
HEADS = {  # of courses, in tables
    "distance": "distance between models",
    "single": "perplexity of one",
    "mixture_perplexity": "of all together",
    "others_perplexity": "of the others' samples",
    "mixture_gain": "gained by all together, nats/token",
    "mixture_variance": "variance of all together",
}
HELD = 1.2  # times generation 0's perplexity, up to which it is said that it is held
Course = Mapping[int, Interval]  # generation -> mean over lineages and seeds
Cells = Mapping[tuple[str, str], Interval]  # whose model, and whose text, samples or model


@dataclass(frozen=True)
class Between:
    """How the lineages of one policy stand to each other.

    Attributes:
        lineages: their names, in order.
        seeds: that all figures are over: those that every lineage has at generation 0 and at the last one.
        measure: the distance between models that rows have; "" where they have none.
        distance: its mean over lineages.
        change: of the distance, last less first, paired by seed; None for one generation. alike: whether it falls (True) or
            grows (False), by the interval that allows for the number of policies (Bonferroni); None where that does not say.
        single: perplexity of a lineage on the common test text: geometric mean over lineages; empty where their tokens differ.
        together: field (of `TOGETHER`) -> its course.
        matrices: field (of `MATRICES`) -> generation -> mean over seeds of each cell.
    """

    policy: str
    lineages: tuple[str, ...]
    seeds: tuple[int, ...]
    measure: str
    distance: Course
    change: Interval | None
    alike: bool | None
    single: Course
    together: Mapping[str, Course]
    matrices: Mapping[str, Mapping[int, Cells]]

    @property
    def generations(self) -> list[int]:
        there = [self.distance, self.single, *self.together.values(), *self.matrices.values()]
        return sorted({generation for course in there for generation in course})

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "policy": self.policy,
            "lineages": list(self.lineages),
            "seeds": list(self.seeds),
            "measure": self.measure,
            "distance": _course_record(self.distance),
            "change": None if self.change is None else self.change.record(),
            "become_alike": self.alike,
            "single_perplexity": _course_record(self.single),
            "together": {name: _course_record(course) for name, course in self.together.items()},
            "matrices": {
                name: [
                    {"generation": step, "model": own, "of": other, **cell.record()}
                    for step, cells in by.items()
                    for (own, other), cell in cells.items()
                ]
                for name, by in self.matrices.items()
            },
        }


@dataclass(frozen=True)
class Ecosystem:
    """One policy of one run, with as many lineages as it has; means over lineages within a seed.

    Attributes:
        lineages: how many; 1 where the run has one.
        seeds: those that every lineage has at generation 0 and at the generation compared.
        growth: perplexity as a multiple of generation 0's; perplexity, together: on the common test text, of a single
            lineage and of their mixture.
        until: the last generation up to which mean growth stays within `HELD`: a mean without its interval, no finding.
        longer: growth over that of the run with fewest lineages, paired by seed, at the generation compared; None of that
            run itself, and where nothing is comparable. level: perplexity over that run's, of the same tokens.
        told: what is shown of `longer`, allowing for all comparisons of growth and of perplexity (`_shown`): `grows more
            slowly`, `grows faster`, `is not told apart`; "" where there is no interval. told_level: of `level` likewise: `is lower`,
            `is higher`, `is not told apart`.
    """

    run: str
    policy: str
    lineages: int
    seeds: tuple[int, ...]
    growth: Course
    perplexity: Course
    together: Course
    until: int
    longer: Interval | None = None
    level: Interval | None = None
    told: str = ""
    told_level: str = ""

    @property
    def verdict(self) -> str:
        """What is shown of growth and of perplexity, for a cell of a table; empty where there is nothing to say."""
        level = f"perplexity {self.told_level}" if self.told_level else ""
        if self.told == NOT_TOLD and self.told_level in ("", NOT_TOLD):
            return NOT_TOLD
        return "; ".join(filter(None, [f"growth {self.told}" if self.told == NOT_TOLD else self.told, level]))

    def record(self) -> dict[str, Any]:
        """As JSON."""
        plain = {name: getattr(self, name) for name in ("run", "policy", "lineages", "until", "told", "told_level")}
        courses = {name: _course_record(getattr(self, name)) for name in ("growth", "perplexity", "together")}
        paired = {
            name: None if (over := getattr(self, name)) is None else over.record() for name in ("longer", "level")
        }
        return plain | {"seeds": list(self.seeds)} | courses | paired


@dataclass(frozen=True)
class MoreThanOne:
    """Runs with other numbers of lineages beside each other, at `generation`.

    Attributes:
        runs: the fewest lineages first; by policy.
        notes: what limits the numbers.
    """

    generation: int
    runs: tuple[Ecosystem, ...]
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "generation": self.generation,
            "runs": [run.record() for run in self.runs],
            "notes": list(self.notes),
        }


def between(rows: Sequence[Row]) -> list[Between]:
    """What is known of the lineages of a run, by policy; none of a run that has one."""
    arms = by_arm(rows)
    several = {policy: own for policy, own in of_policies(arms).items() if len(lineages_of(own)) > 1}
    level = 1 - (1 - LEVEL) / max(1, len(several))
    found = [_between(policy, lineages_of(own), [arms[arm] for arm in own], level) for policy, own in several.items()]
    return [there for there in found if there is not None]


def between_said(found: Sequence[Between]) -> list[str]:
    """A sentence for each policy: whether its models become alike, and what they hold together. No verdict without an interval."""
    return [sentence for one in found if (sentence := _alike(one) + _together(one))]


def more_than_one(runs: Mapping[str, Sequence[Row]]) -> MoreThanOne | None:
    """Whether more than one lineage holds longer; None where no two runs of a policy differ in how many they have.

    Args:
        runs: rows of each run by its name.
    """
    there = [one for name, rows in runs.items() for one in _courses(name, rows)]
    policies = {one.policy: {other.lineages for other in there if other.policy == one.policy} for one in there}
    there = [one for one in there if len(policies[one.policy]) > 1]
    steps = [one.last for one in there if one.last > 0]
    if len(there) < 2 or not steps:
        return None
    generation = min(steps)
    there = [one for one in there if one.last >= generation]
    others = 0
    pairs: list[tuple[_RunLosses, _RunLosses | None]] = []
    for one in sorted(there, key=lambda one: (one.policy, one.lineages)):
        few = min((other for other in there if other.policy == one.policy), key=lambda other: other.lineages)
        pairs.append((one, few if few.lineages < one.lineages else None))
        others += few.lineages < one.lineages
    if others == 0:
        return None
    notes: list[str] = []
    differences: list[tuple[list[float], list[float]]] = []
    made: list[Ecosystem] = []
    for one, fewest in pairs:
        differences.append(([], []) if fewest is None else _differences(one, fewest, generation, notes))
        made.append(_ecosystem(one, generation, *differences[-1]))
    shown = _shown([values for pair in differences for values in pair])
    judged = tuple(
        replace(
            one,
            told="" if growth is None else GROWTH[growth],
            told_level="" if level is None else PERPLEXITY[level],
        )
        for one, growth, level in zip(made, shown[::2], shown[1::2], strict=True)
    )
    notes += _notes(judged)
    return MoreThanOne(generation, judged, tuple(dict.fromkeys(notes)))


def more_than_one_said(found: MoreThanOne) -> list[str]:
    """A sentence for each run that is held against one with fewer lineages."""
    said = []
    for one in found.runs:
        if one.longer is None or found.generation not in one.growth:
            continue
        few = next(other for other in found.runs if other.policy == one.policy)
        growth, base = (factors(each.growth[found.generation])[0] for each in (one, few))
        mean, ends = factors(one.longer)
        sure = (
            f" ({'' if one.longer.exact else '95% interval '}{ends})" if ends else " (one seed, so without an interval)"
        )
        # whoever begins worse has less to lose: growth alone would call that holding
        level, at = ("", "") if one.level is None else factors(one.level)
        itself = (
            f" Perplexity itself: {level}{f' ({at})' if at else ''} against that with {few.lineages}." if level else ""
        )
        said.append(
            f"{one.policy}: {_verdict(one, few, found.generation)}. By generation {found.generation} perplexity is {base} against "
            f"generation 0 with {few.lineages}, and {growth} with {one.lineages} (mean over lineages): {mean} against each other"
            f"{sure}.{itself}"
        )
    return said


def _verdict(one: Ecosystem, few: Ecosystem, generation: int) -> str:
    """What is shown of several lineages beside fewer: growth and perplexity are two questions, and each has its answer."""
    if not one.told:
        return f"{one.lineages} lineages beside {few.lineages}: nothing is shown"
    if one.verdict == NOT_TOLD:
        return f"{one.lineages} lineages are not told apart from {few.lineages}"
    at = f"at generation {generation}"
    if one.told == NOT_TOLD:
        growth = f"growth of perplexity with {one.lineages} lineages {NOT_TOLD} from that with {few.lineages}"
        return f"{growth}, but {at} perplexity {one.told_level}" if one.told_level else growth
    growth = f"perplexity with {one.lineages} lineages {one.told} than with {few.lineages}"
    if one.told_level in ("", NOT_TOLD):
        return f"{growth}; {at} it {NOT_TOLD}" if one.told_level else growth
    agree = (one.told == GROWTH[1]) == (one.told_level == PERPLEXITY[1])
    return f"{growth}, {'and' if agree else 'but'} {at} it {one.told_level}"


# --- between the lineages of a run -------------------------------------------------------------------------------------


def _between(policy: str, names: Sequence[str], arms: Sequence[Sequence[Row]], level: float) -> Between | None:
    having: dict[int, set[int]] = {}
    for step in {row.where.generation for rows in arms for row in rows}:
        each = [{row.where.seed for row in rows if row.where.generation == step} for rows in arms]
        having[step] = set.intersection(*each)
    end = counted(having)
    if end is None:
        return None
    seeds = end[1]
    arms = [[row for row in rows if row.where.seed in seeds] for rows in arms]
    measure = next((name for name in DISTANCES if any(row.measure(name) is not None for row in arms[0])), "")
    distances = _by_seed(averaged(arms, measure), measure) if measure else {}
    last = max(distances, default=0)
    change, alike = None, None
    if last and 0 in distances and distances[0].keys() == distances[last].keys():
        steps = [distances[last][seed] - distances[0][seed] for seed in sorted(distances[0])]
        change, sure = interval(steps), interval(steps, level)
        if sure.low is not None and sure.high is not None:
            alike = True if sure.high < 0 else False if sure.low > 0 else None
    tokens = {row.measure("predicted_tokens") for rows in arms for row in rows}
    single = _course(arms, "nll", seeds) if len(tokens) == 1 else {}
    together = {name: course for name in TOGETHER if (course := _course(arms, name, seeds))}
    matrices = {name: cells for name in MATRICES if (cells := _matrix(names, arms, name, seeds))}
    if not measure and not together and not matrices:
        return None
    return Between(
        policy,
        tuple(names),
        tuple(seeds),
        measure,
        _over(distances, measure, seeds),
        change,
        alike,
        {step: over.within(perplexity) for step, over in single.items()},
        together,
        matrices,
    )


def _course(arms: Sequence[Sequence[Row]], name: str, seeds: Sequence[int]) -> dict[int, Interval]:
    """The mean of a field over lineages within a seed, then over seeds, of the generations that all seeds have."""
    return _over(_by_seed(averaged(arms, name), name), name, seeds)


def _by_seed(rows: Sequence[Row], name: str) -> dict[int, dict[int, float]]:
    values: dict[int, dict[int, float]] = {}
    for row in rows:
        if (value := row.measure(name)) is not None:
            values.setdefault(row.where.generation, {})[row.where.seed] = value
    return values


def _over(values: Mapping[int, Mapping[int, float]], name: str, seeds: Sequence[int]) -> dict[int, Interval]:
    whole = {step: by for step, by in sorted(values.items()) if by.keys() == set(seeds)}
    return {step: over_seeds(name, list(by.values())) for step, by in whole.items()}


def _matrix(
    names: Sequence[str], arms: Sequence[Sequence[Row]], field: str, seeds: Sequence[int]
) -> dict[int, dict[tuple[str, str], Interval]]:
    values: dict[int, dict[tuple[str, str], dict[int, float]]] = {}
    for name, rows in zip(names, arms, strict=True):
        for row in rows:
            for other, value in row.by_lineage(field).items():
                if other in names:
                    values.setdefault(row.where.generation, {}).setdefault((name, other), {})[row.where.seed] = value
    whole = {
        step: {cell: over_seeds(field, list(by.values())) for cell, by in cells.items() if by.keys() == set(seeds)}
        for step, cells in sorted(values.items())
    }
    return {step: cells for step, cells in whole.items() if cells}


def _alike(one: Between) -> str:
    """Whether the models of a policy become alike."""
    if not one.distance or one.change is None:
        return ""
    last = max(one.distance)
    words = {True: "become alike", False: "grow apart", None: "are not shown to become alike or to grow apart"}[
        one.alike
    ]
    change = one.change.low is not None
    sure = (
        f"a change of {spread(one.change)} over {len(one.seeds)} seeds"
        if change
        else "of one seed, so nothing is shown"
    )
    return (
        f"{one.policy}: the {len(one.lineages)} lineages' models {words}. From generation 0 to {last} their distance (mean over "
        f"lineages) goes from {spread(one.distance[0])} to {spread(one.distance[last])}, {sure}."
    )


def _together(one: Between) -> str:
    """What the mixture of all holds beside a single one."""
    mixture = one.together.get("mixture_perplexity", {})
    steps = sorted(mixture.keys() & one.single.keys())
    if not steps:
        return ""
    first, last = steps[0], steps[-1]
    return (
        f" Together (the mean of their probabilities) they have perplexity {spread(mixture[last])} at generation {last}, one alone "
        f"{spread(one.single[last])}; at generation {first} it was {spread(mixture[first])} and {spread(one.single[first])}."
    )


# --- one beside several -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _RunLosses:
    """Mean loss over the lineages of a run, by generation and seed; `tokens` are those it is over, None where they differ."""

    run: str
    policy: str
    lineages: int
    losses: Mapping[int, Mapping[int, float]]
    together: Mapping[int, Mapping[int, float]]
    tokens: float | None

    @property
    def last(self) -> int:
        """The last generation that a seed has beside generation 0."""
        first = self.losses.get(0, {}).keys()
        return max((step for step, by in self.losses.items() if first & by.keys()), default=0)


def _courses(run: str, rows: Sequence[Row]) -> list[_RunLosses]:
    arms, found = by_arm(rows), []
    for policy, own in of_policies(arms).items():
        lineages = [arms[arm] for arm in own]
        tokens = {row.measure("predicted_tokens") for every in lineages for row in every if row.nll is not None}
        losses, together = (_by_seed(averaged(lineages, name), name) for name in ("nll", "mixture_nll"))
        if 0 in losses:
            same = next(iter(tokens)) if len(tokens) == 1 else None
            found.append(_RunLosses(run, policy, len(own), losses, together, same))
    return found


def _differences(
    one: _RunLosses, few: _RunLosses, generation: int, notes: list[str]
) -> tuple[list[float], list[float]]:
    """By seed that both have, how much further the loss of one has grown, and how much higher it is (of the same tokens)."""
    common = sorted(
        set.intersection(*({*by} for each in (one, few) for by in (each.losses[0], each.losses[generation])))
    )
    if not common:
        notes.append(f"{one.run} and {few.run} share no seed; they are not held against each other")
        return [], []
    at, base = one.losses[generation], few.losses[generation]
    growth = [at[seed] - one.losses[0][seed] - (base[seed] - few.losses[0][seed]) for seed in common]
    if one.tokens is None or one.tokens != few.tokens:
        notes.append(
            f"the perplexities of {one.run} and {few.run} are of different tokens: only their growth is held against each other"
        )
        return growth, []
    return growth, [at[seed] - base[seed] for seed in common]


def _ecosystem(
    one: _RunLosses, generation: int, growth_apart: Sequence[float], level_apart: Sequence[float]
) -> Ecosystem:
    seeds = sorted(one.losses[0].keys() & one.losses[generation].keys())
    whole = {step: by for step, by in sorted(one.losses.items()) if by.keys() >= set(seeds) and step <= generation}
    growth = {
        step: interval([by[seed] - one.losses[0][seed] for seed in seeds]).within(perplexity)
        for step, by in whole.items()
    }
    own = {step: over_seeds("nll", [by[seed] for seed in seeds]).within(perplexity) for step, by in whole.items()}
    mixture = {
        step: over_seeds("mixture_nll", [by[seed] for seed in seeds]).within(perplexity)
        for step, by in sorted(one.together.items())
        if by.keys() >= set(seeds) and step <= generation
    }
    until = 0
    for step in whole:
        if growth[step].mean > HELD:
            break
        until = step
    return Ecosystem(
        one.run,
        one.policy,
        one.lineages,
        tuple(seeds),
        growth,
        own,
        mixture,
        until,
        longer=interval(growth_apart).within(perplexity) if growth_apart else None,
        level=interval(level_apart).within(perplexity) if level_apart else None,
    )


def _shown(differences: Sequence[Sequence[float]]) -> list[int | None]:
    """Which means of differences are shown to be below (-1) or above (1) 0, or not (0); None where there is no interval.

    In all of them together at most 1 in 20 says something false (Holm 1979, Scand. J. Statist. 6:65): the clearest by an interval
    that allows for all, then the next by one that allows for all that are left.
    """
    told: list[int | None] = [0 if values and interval(values).low is not None else None for values in differences]
    left = [place for place, sign in enumerate(told) if sign is not None]
    while left:
        level = 1 - (1 - LEVEL) / len(left)
        found = {place: _sign(interval(differences[place], level)) for place in left}
        left = [place for place in left if not found[place]]
        for place, sign in found.items():
            told[place] = sign
        if len(left) == len(found):
            break
    return told


def _sign(over: Interval) -> int:
    if over.low is None or over.high is None:
        return 0
    return -1 if over.high < 0 else 1 if over.low > 0 else 0


def _notes(made: Sequence[Ecosystem]) -> list[str]:
    comparisons = sum(told != "" for one in made for told in (one.told, one.told_level))
    notes = [
        "means over lineages are taken within a seed; intervals are over seeds, for lineages of a seed are not independent"
    ]
    if any(one.longer is not None and one.longer.low is None for one in made):
        notes.append("one seed has no interval, so nothing is shown to differ")
    elif comparisons > 1:
        notes.append(
            f"what is said to differ allows for {comparisons} comparisons, of growth and of perplexity itself (Holm): in all of them "
            "together at most 1 in 20 says something false"
        )
    notes.append(
        "runs that differ in more than how many lineages there are differ by that as well: see the options in which they differ"
    )
    return notes


def _course_record(course: Course) -> list[dict[str, Any]]:
    return [{"generation": step, **over.record()} for step, over in course.items()]
