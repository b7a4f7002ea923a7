"""What the first measure of a family came to, by generation, in a sentence; pure functions."""

from collections.abc import Iterable, Mapping, Sequence

from collapse_cli.families import Headline, headline
from collapse_cli.findings.arms import MOST, lineages_of, of_policies
from collapse_cli.findings.expectations import is_mixture, learner_of, mean_of, theory_at
from collapse_cli.findings.predictions import Tree
from collapse_cli.metrics.counting import counted
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import spread, value
from collapse_cli.records.fields import finite
from collapse_cli.records.row import Row, by_arm
from collapse_cli.where import Arm

NOTHING = "No generation is measured yet."


def headline_of(tree: Tree) -> Headline:
    """The measure that stands first, of a configuration that nobody vouches for."""
    data = tree.get("data")
    source = data.get("source") if isinstance(data, Mapping) else ""
    return headline(learner_of(tree), "mixture" if is_mixture(tree) else "generational", str(source))


def means_of(rows: Sequence[Row], what: str) -> tuple[dict[int, Interval], list[int]]:
    """Generation 0 and the last -> mean of one policy's field over the seeds that are counted, and those seeds.

    Of seeds that are not measured equally far the last generation is that of those counted. A single seed with several
    trials has the interval over them; perplexity is a mean of logarithms.
    """
    there: dict[int, dict[int, Row]] = {}
    for row in rows:
        if row.measure(what) is not None:
            there.setdefault(row.where.generation, {})[row.where.seed] = row
    end = counted({g: held.keys() for g, held in there.items()})
    seeds = end[1] if end is not None else sorted({seed for held in there.values() for seed in held})
    means = {}
    steps = sorted(there, reverse=True)
    ends = [next((g for g in steps if set(seeds) <= there[g].keys()), 0), 0]
    for g in sorted(g for g in set(ends) if g in there):
        own = [there[g][seed] for seed in seeds if seed in there[g]]
        if len(own) == len(seeds) and own:
            mean = mean_of(own, what)
            if mean is not None:
                means[g] = mean[0]
    return means, seeds


def family_verdict(rows: Sequence[Row], tree: Tree) -> str:
    """One sentence on a generational run: the headline measure at generation 0 and at the last one, by policy.

    Args:
        rows: of one run.
        tree: its configuration.
    """
    measure = headline_of(tree)
    means_by_arm = {arm: means_of(own, measure.name) for arm, own in by_arm(rows).items()}
    means_by_arm = {arm: (means, seeds) for arm, (means, seeds) in means_by_arm.items() if means}
    if not means_by_arm:
        return NOTHING
    lasts = {arm: max(means) for arm, (means, _) in means_by_arm.items()}
    last, seeds = max(lasts.values()), next(iter(means_by_arm.values()))[1]
    if last == 0:
        first = next(iter(means_by_arm.values()))[0][0]
        return f"Only generation 0 is measured: {measure.title} {spread(first)}, {seeds_said(len(seeds))}{intervals_said([first])}."
    together = len(set(lasts.values())) == 1 and len({tuple(seeds) for _, seeds in means_by_arm.values()}) == 1
    loop = tree.get("loop")
    planned = finite(loop.get("generations")) if isinstance(loop, Mapping) else None
    head = "So far, " if planned is not None and min(lasts.values()) < planned else ""
    head += f"{measure.title}, from generation 0 to {last:,}" if together else measure.title
    kind = intervals_said(means[lasts[arm]] for arm, (means, _) in means_by_arm.items())
    head += f", {seeds_said(len(seeds))}{kind}: " if together else f"{kind}: "
    parts = []
    several = len(lineages_of(means_by_arm)) > 1
    for policy, arms in of_policies(means_by_arm).items() if several else ():
        parts.append(_of_lineages(policy, {arm: means_by_arm[arm][0] for arm in arms}))
    for arm, (means, own) in means_by_arm.items() if not several else ():
        end = lasts[arm]
        when = "" if together else f" at generation {end:,}, {seeds_said(len(own))}"
        clause = f"{arm} {value(means[0].mean) if 0 in means else '–'} → {spread(means[end])}{when}"
        theory = theory_at(tree, measure.name, arm, end) if end else None
        parts.append(clause if theory is None else f"{clause}, theory {value(theory)}")
    return sentence(head + "; ".join(parts))


def _of_lineages(policy: str, means: Mapping[Arm, Mapping[int, Interval]]) -> str:
    """Where each lineage of a policy ended; of many the least and the largest. No mean is taken over them."""
    ends = {arm.lineage: there[max(there)] for arm, there in means.items()}
    if len(ends) <= MOST:
        return f"{policy} → {', '.join(f'{spread(end)} in {name}' for name, end in ends.items())}"
    least, most = (pick(ends, key=lambda name: ends[name].mean) for pick in (min, max))
    return f"{policy} → {spread(ends[least])} in {least} to {spread(ends[most])} in {most}, of {len(ends)} lineages"


def seeds_said(seeds: int) -> str:
    return f"over {seeds} seeds" if seeds > 1 else "one seed"


def intervals_said(shown: Iterable[Interval]) -> str:
    """What the intervals in a sentence are, in brackets; "" where it has none."""
    widths = [interval for interval in shown if interval.low is not None and not interval.exact]
    if not widths:
        return ""
    return " (95% intervals)" if max(width.n for width in widths) > 1 else " (95% intervals over its trials)"


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
