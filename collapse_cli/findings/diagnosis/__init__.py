"""What a run's numbers mean: a verdict in one sentence, founded on the rules of `rules.py`.

Each word has a stated rate at which it is wrong by chance, simulated for the words (docs/metrics.md, "How often the words
are wrong"; `benchmarks/words.py`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from collapse_cli.config.pool import CHAIN
from collapse_cli.findings.arms import lineages_of, said
from collapse_cli.findings.diagnosis.arm import MOVING, ArmDiagnosis
from collapse_cli.findings.diagnosis.by_lineage import lineages_verdict
from collapse_cli.findings.diagnosis.headline import family_verdict
from collapse_cli.findings.diagnosis.mixtures import mixture_verdict
from collapse_cli.findings.diagnosis.rules import Call, Evidence, Generations, early, late
from collapse_cli.findings.expectations import family_of, is_mixture
from collapse_cli.findings.forecast.history import collect
from collapse_cli.metrics import perplexity
from collapse_cli.metrics.counting import counted
from collapse_cli.metrics.intervals import NOISE, Interval, allowed, interval, log_ratio, takes_noise_for_granted
from collapse_cli.metrics.numbers import factors
from collapse_cli.records.fields import finite
from collapse_cli.records.row import Row, by_arm, planned_arms
from collapse_cli.where import Arm

__all__ = [
    "ArmDiagnosis",
    "Call",
    "Diagnosis",
    "Evidence",
    "arms_of",
    "counted",
    "diagnose",
    "diagnose_run",
    "said_of",
]

COLLAPSED = 2.0  # times generation 0's perplexity
HELD = 1.2
LEVEL_WITHIN = 1.1  # a curve that changes by less than this factor over the later half of the generations is level
LEAST_STEPS = 3  # steps between generations that a trend needs
ONE_SEED = (
    f"one seed: no interval for perplexity, since one seed cannot tell noise from change; words allow for noise of {NOISE:g} nats "
    "between seeds (a factor of 1.8 either way), calls are over rows and the scatter between generations, and "
    "take for granted that generation 0 is off by chance no more than the others"
)
GRANTED = (
    f"the interval of the change is narrower than the seeds alone would make it: it takes for granted that noise between seeds "
    f"is no larger than {NOISE:g} nats (standard deviation)"
)
TRENDS = {"rises": "still rises", "level": "has levelled off", "falls": "falls again"}
FORECAST = "is forecast to level off"


@dataclass(frozen=True)
class Diagnosis:
    """What became of a run: its policies by lineage, a verdict in one sentence, and notes on what limits it."""

    arms: tuple[ArmDiagnosis, ...]
    verdict: str
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        policies = [policy.record() for policy in self.arms]
        return {"verdict": self.verdict, "notes": list(self.notes), "policies": policies}


def diagnose(
    rows: Sequence[Row],
    *,
    generations: int | None = None,
    planned: Sequence[Arm] = (),
    seeds: Sequence[int] = (),
) -> Diagnosis:
    """Calls and verdict from rows of `metrics.jsonl`.

    Args:
        rows: of one run; those of an old run may lack the instruments.
        generations, planned, seeds: what the run was to have (`records.row.planned_arms`), to say what is still missing.
    """
    diagnosed = arms_of(rows)
    return Diagnosis(
        tuple(diagnosed), _verdict(diagnosed, generations), tuple(_notes(diagnosed, generations, planned, seeds))
    )


def arms_of(rows: Sequence[Row]) -> list[ArmDiagnosis]:
    """What became of each policy of each lineage with a generation 0, without sentences; simulations ask for nothing else."""
    return [there for there in (_arm(arm, own) for arm, own in by_arm(rows).items()) if there is not None]


def diagnose_run(
    rows: Sequence[Row], tree: Mapping[str, Any], named: Callable[[str], str] = str, *, plain: bool = False
) -> Diagnosis:
    """What became of a run of any family and kind: calls by policy where there are such rules, and the verdict.

    Args:
        rows: of one run.
        tree: its configuration, for which nobody vouches.
        named: how the rows name a policy of the configuration, where they do not name it as it does.
        plain: whether the verdict on a mixture is in words, as the page has it, not in the papers' symbols.
    """
    family = family_of(tree)
    if is_mixture(tree):
        return Diagnosis((), mixture_verdict(rows, tree, plain=plain), ())
    if not family.text:
        return Diagnosis((), family_verdict(rows, tree), ())
    section = tree.get("loop")
    loop: Mapping[str, Any] = section if isinstance(section, Mapping) else {}
    seeds = there if isinstance(there := loop.get("seeds"), list | tuple) else ()
    generations = finite(loop.get("generations"))
    diagnosis = diagnose(
        rows,
        generations=None if generations is None else int(generations),
        planned=[Arm(named(arm.policy), named(arm.lineage)) for arm in planned_arms(tree)],
        seeds=[seed for seed in seeds if isinstance(seed, int)],
    )
    pool = tree.get("pool")
    if isinstance(pool, Mapping) and pool.get("rule") == "random" and len(lineages_of(by_arm(rows))) > 1:
        diagnosis = replace(diagnosis, notes=(*diagnosis.notes, CHAIN))
    return diagnosis if family.diagnosed else replace(diagnosis, verdict=family_verdict(rows, tree))


def _arm(arm: Arm, rows: Sequence[Row]) -> ArmDiagnosis | None:
    series: dict[int, dict[int, Row]] = {}
    losses: dict[tuple[int, int], float] = {}
    for row in rows:
        if (nll := row.nll) is not None:
            series.setdefault(row.where.generation, {})[row.where.seed] = row
            losses[row.where.generation, row.where.seed] = nll
    end = counted(series)
    if end is None:
        return None
    last, seeds = end
    kept: Generations = {
        generation: {seed: series[generation][seed] for seed in seeds if seed in series[generation]}
        for generation in sorted(series)
        if generation <= last
    }
    changes = {
        generation: [losses[generation, seed] - losses[0, seed] for seed in there]
        for generation, there in kept.items()
        if there
    }
    logs = {generation: log_ratio(values) for generation, values in changes.items()}
    calls = {"early": early(kept, "early"), "general": early(kept, "general"), "late": late(kept)}
    state, trend = _state(logs[last], last, calls), _trend({generation: log.mean for generation, log in logs.items()})
    ratios = {generation: log.within(perplexity) for generation, log in logs.items()}
    granted = takes_noise_for_granted(changes[last])
    history = collect(rows)[0].get(arm)
    return ArmDiagnosis(arm, tuple(seeds), last, state, trend, ratios, calls, granted, history)


def _state(log: Interval, last: int, calls: Mapping[str, Call]) -> str:
    """The word for a policy, from the interval of its log-ratio and what was called.

    A loss that is called rules out "holds", and a perplexity shown to be lower than generation 0's rules out "loses
    quality", so that no sentence says both. Of one seed the interval is that of noise as prior knowledge has it.
    """
    if last == 0:
        return "has generation 0 only"
    over = allowed(log)
    low, high = (over.mean if end is None else end for end in (over.low, over.high))
    lost = calls["early"].called or calls["general"].called
    if calls["late"].called or low >= math.log(COLLAPSED):
        return "collapses"
    if lost:
        return "is undecided" if high < 0 else "loses quality"
    if high <= math.log(HELD):
        return "holds"
    if low > 0:
        return "loses quality"
    return "is undecided" if log.n > 1 else "cannot be judged from one seed"


def _trend(logs: Mapping[int, float]) -> str:
    """Where the later half of a curve is going: the t interval of its mean step, times the generations of that half.

    Steps are independent where a departure is inherited (a random walk), and follow one another less than by chance where
    each generation is off by itself; the interval is then rather too wide. Without enough steps, or where the interval holds
    both standing still and a change that counts: "".
    """
    steps = sorted(logs)
    later = [generation for generation in steps if generation >= _half(steps[-1])]
    if len(later) <= LEAST_STEPS:
        return ""
    paces = [(logs[b] - logs[a]) / (b - a) for a, b in pairwise(later)]
    over = interval(paces)
    if over.low is None or over.high is None:
        return ""
    span, room = later[-1] - later[0], math.log(LEVEL_WITHIN)
    low, high = over.low * span, over.high * span
    if -room <= low and high <= room:
        return "level"
    return "rises" if low > 0 else "falls" if high < 0 else ""


def _over_seeds(policy: ArmDiagnosis) -> str:
    return f"over {len(policy.seeds)} seeds" if len(policy.seeds) > 1 else "one seed and so without an interval"


def _verdict(policies: Sequence[ArmDiagnosis], generations: int | None) -> str:
    """One sentence on a run."""
    if not policies:
        return "No generation is measured yet."
    if all(policy.last == 0 for policy in policies):
        return "Only generation 0 is measured, so nothing can be said about collapse yet."
    if len(lineages_of(policy.arm for policy in policies)) > 1:
        return lineages_verdict(policies, generations)
    last, seeds = policies[0].last, policies[0].seeds
    together = all((policy.last, policy.seeds) == (last, seeds) for policy in policies)
    unfinished = generations is not None and min(policy.last for policy in policies) < generations
    head = "So far, " if unfinished else ""
    if together:
        head += f"by generation {last}{f' of {generations}' if unfinished else ''}, {_over_seeds(policies[0])}: "
    sentence = head + "; ".join(_policy_verdict(policy, together) for policy in policies)
    measured = [policy for policy in policies if policy.last and any(call.evidence for call in policy.calls.values())]
    if not measured:
        sentence += "; early and late collapse were not measured"
    return sentence[0].upper() + sentence[1:] + "." if head else sentence + "."


def _going(policy: ArmDiagnosis) -> str:
    """Where a policy that loses is going, as it stands behind its state; what is called level is said with it.

    Where the curve shows that it rises, or nothing, that its forecast levels off is said as well.
    """
    if policy.trend != "level":
        seen = TRENDS.get(policy.trend, "")
        if policy.forecast_levels_off:
            return f" and {f'{seen} but ' if seen else ''}{FORECAST}"
        if seen:
            return f" and {seen}"
        return " (whether it still rises is not shown)" if policy.state == "collapses" else ""
    since = min(generation for generation in policy.ratios if generation >= _half(policy.last))
    return f" and {TRENDS[policy.trend]} (within ×{LEVEL_WITHIN:g} since generation {since})"


def _half(last: int) -> int:
    """The first generation of the later half."""
    return max(1, last // 2)


def said_of(policy: ArmDiagnosis) -> str:
    """The words for a policy without its numbers: its state, where it is going, what was called."""
    going = _going(policy).partition(" (")[0] if policy.state in MOVING else ""
    calls = _called(policy)
    return f"{policy.state}{going}{f', with {calls}' if calls else ''}"


def _policy_verdict(policy: ArmDiagnosis, together: bool) -> str:
    if policy.last == 0:
        return f"{policy.arm} {policy.state}"
    when = "" if together else f" by generation {policy.last}, {_over_seeds(policy)}"
    mean, ends = factors(policy.ratio)
    state = f"{policy.arm} {policy.state}{_going(policy) if policy.state in MOVING else ''}"
    kind = "" if policy.ratio.exact else "95% interval "
    summary = f"{state}{when}, perplexity {mean}{f' ({kind}{ends})' if ends else ''}"
    calls = _called(policy)
    return f"{summary}, with {calls}" if calls else summary


def _called(policy: ArmDiagnosis) -> str:
    """The losses that the rules call, each with its first generation; "" where there is none."""
    names = {"early": "early collapse", "general": "general loss", "late": "late collapse"}
    calls = [call for call in policy.calls.values() if call.generation is not None]
    calls.sort(key=lambda call: call.generation or 0)
    if not calls:
        return ""
    *others, final = (f"{names[call.kind]} from generation {call.generation}" for call in calls)
    return f"{', '.join(others)}{' and ' if others else ''}{final}"


def _notes(
    policies_diagnosed: Sequence[ArmDiagnosis],
    generations: int | None,
    planned: Sequence[Arm],
    seeds: Sequence[int],
) -> list[str]:
    """What limits a diagnosis, a line each, with the policies and lineages it is true of."""
    notes: dict[str, list[Arm]] = {}
    for arm in planned:
        if arm not in {policy.arm for policy in policies_diagnosed}:
            notes.setdefault("not measured yet", []).append(arm)
    for policy in policies_diagnosed:
        limits = []
        if generations is not None and policy.last < generations:
            limits.append(f"generation {policy.last} of {generations} is the last looked at")
        if left := sorted(set(seeds) - set(policy.seeds)):
            limits.append(f"not counted, for not measured as far: {_seeds(left)}")
        if policy.last and len(policy.seeds) == 1:
            limits.append(ONE_SEED)
        if policy.last and policy.granted:
            limits.append(GRANTED)
        limits += [call.text for call in policy.calls.values() if call.suspected is not None]
        for text in limits:
            notes.setdefault(text, []).append(policy.arm)
    return [f"{said(arms)}: {text}" for text, arms in notes.items()]


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
