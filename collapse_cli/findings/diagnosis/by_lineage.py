"""The verdict on a run of several lineages: by policy, in words that stay short; each lineage's own numbers stand in tables.

Nothing is judged here and nothing is averaged over lineages: the words are those of each lineage's own diagnosis.
"""

from collections.abc import Sequence

from collapse_cli.errors import enumerated
from collapse_cli.findings.arms import MOST, few, lineages_of, of_policies
from collapse_cli.findings.diagnosis.arm import ArmDiagnosis
from collapse_cli.metrics.numbers import factors

KINDS = {"early": "early collapse", "general": "general loss", "late": "late collapse"}
OWN = "Perplexity is against generation 0 of the same lineage; each lineage has its own interval in the tables."


def lineages_verdict(arms: Sequence[ArmDiagnosis], generations: int | None) -> str:
    """A sentence for each policy.

    Args:
        arms: of several lineages, at least one of them measured after generation 0.
        generations: the last that is planned; None where that is not known.
    """
    count = len(lineages_of(there.arm for there in arms))
    lasts, seeds = {there.last for there in arms}, {len(there.seeds) for there in arms}
    unfinished = generations is not None and min(lasts) < generations
    when = f"by generation {_span(lasts)}{f' of {generations}' if unfinished else ''}"
    over = "one seed and so without intervals" if max(seeds) == 1 else f"over {_span(seeds)} seeds"
    head = f"{'So far, ' if unfinished else ''}{when}, {over}, {count} lineages"
    sentences = [f"{head[0].upper()}{head[1:]}."]
    found = {there.arm: there for there in arms}
    for policy, own in of_policies(found).items():
        sentences.append(f"{policy} {_states([found[arm] for arm in own])}; {_calls([found[arm] for arm in own])}.")
    return " ".join([*sentences, OWN])


def states_of(arms: Sequence[ArmDiagnosis]) -> dict[str, list[ArmDiagnosis]]:
    """The arms by their state, in the order in which the states come."""
    states: dict[str, list[ArmDiagnosis]] = {}
    for there in arms:
        states.setdefault(there.state, []).append(there)
    return states


def where_said(arms: Sequence[ArmDiagnosis], every: int) -> str:
    """`in a (×3.1) and b (×3.4)`; of many `in 12 of 16 lineages (×2.1 in d to ×3.4 in a)`: of each its own mean."""
    if len(arms) <= MOST:
        parts = [f"{there.arm.lineage} ({factors(there.ratio)[0]})" for there in arms]
        return f"in {enumerated(parts)}"
    least, most = (pick(arms, key=lambda there: there.ratio.mean) for pick in (min, max))
    low, high = (factors(there.ratio)[0] for there in (least, most))
    ends = low if low == high else f"{low} in {least.arm.lineage} to {high} in {most.arm.lineage}"
    return f"in {'all' if len(arms) == every else f'{len(arms)} of'} {every} lineages ({ends})"


def _states(arms: Sequence[ArmDiagnosis]) -> str:
    """What became of one policy."""
    return enumerated([f"{state} {where_said(there, len(arms))}" for state, there in states_of(arms).items()])


def _calls(arms: Sequence[ArmDiagnosis]) -> str:
    """From which generation what is called, in which lineages, and in which it is not."""
    measured = [there for there in arms if any(call.evidence for call in there.calls.values())]
    if not measured:
        return "early and late collapse were not measured"
    parts = []
    for kind, name in KINDS.items():
        called: dict[int, list[str]] = {}
        for there in measured:
            if kind in there.calls and (generation := there.calls[kind].generation) is not None:
                called.setdefault(generation, []).append(there.arm.lineage)
        if not called:
            continue
        count = sum(map(len, called.values()))
        if len(measured) > MOST:
            where = f"{'all' if count == len(measured) else f'{count} of'} {len(measured)} lineages"
            parts.append(f"{name} in {where}, beginning at generation {_span(set(called))}")
            continue
        since = [f"{generation} ({few(called[generation], len(measured))})" for generation in sorted(called)]
        known = {name for names in called.values() for name in names}
        without = [there.arm.lineage for there in measured if there.arm.lineage not in known]
        missing = f", not called ({few(without)})" if without else ""
        parts.append(f"{name} from generation {', '.join(since)}{missing}")
    return "; ".join(parts) or "no collapse is called"


def _span(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"
