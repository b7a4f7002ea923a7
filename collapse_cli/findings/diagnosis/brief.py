"""What became of a run in one short sentence, and the rest in another: what happened, to which policy, how sure that is.

The words are those of the whole verdict, which stands further down: nothing is judged here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from collapse_cli.findings.arms import lineages_of, of_policies
from collapse_cli.findings.diagnosis import COLLAPSED, FORECAST, Diagnosis
from collapse_cli.findings.diagnosis.arm import MOVING, ArmDiagnosis
from collapse_cli.findings.diagnosis.by_lineage import states_of, where_said
from collapse_cli.metrics.numbers import BEYOND, LARGEST, factors
from collapse_cli.where import Arm

WORST_FIRST = ("collapses", "loses quality", "is undecided", "cannot be judged from one seed", "holds")
GOING = {"rises": "is still rising", "level": "has levelled off", "falls": "is falling again"}
MOST = 4  # other policies that are named
SHORT = 110  # characters of a sentence that stays whole


@dataclass(frozen=True)
class Brief:
    """The first thing to read.

    Attributes:
        sentence: about the policy to which most happened, where policies are diagnosed.
        others: what else there is to say; "" where that is nothing.
        arm: whom the sentence is about, of several lineages the one to which most happened; None where it is about none, or all.
    """

    sentence: str
    others: str = ""
    arm: Arm | None = None


def brief(diagnosis: Diagnosis) -> Brief:
    """The short sentence on a run, and what it leaves out."""
    judged = [policy for policy in diagnosis.arms if policy.last and policy.state in WORST_FIRST]
    if not judged:
        first, mark, rest = (
            diagnosis.verdict.partition("; ") if len(diagnosis.verdict) > SHORT else (diagnosis.verdict, "", "")
        )
        return Brief(f"{first}." if mark else first, rest)
    worst = min(judged, key=lambda policy: (WORST_FIRST.index(policy.state), -policy.ratio.mean))
    if len(lineages_of(policy.arm for policy in judged)) > 1:
        return _of_lineages(judged, worst)
    going = _going(worst)
    sentence = (
        f"{worst.arm} {worst.state}: by generation {worst.last} its perplexity is {_times(worst)} "
        f"({_sure(worst)}){f' and {going}' if going else ''}."
    )
    rest_of = [policy for policy in judged if policy is not worst]
    others = "; ".join(_other(policy, worst) for policy in rest_of[:MOST])
    more = f"; {len(rest_of) - MOST} more in the table" if len(rest_of) > MOST else ""
    return Brief(sentence, f"{others}{more}." if others else "", worst.arm)


def _times(policy: ArmDiagnosis) -> str:
    """A multiple of generation 0's perplexity in words."""
    mean = policy.ratio.mean
    factor = factors(policy.ratio)[0]
    if mean >= LARGEST:
        return f"{BEYOND.replace('×', '')} times that of generation 0"
    if mean >= COLLAPSED:
        return f"{factor.removeprefix('×')} times that of generation 0"
    if not factor.strip("+0.%"):
        return "that of generation 0"
    return f"{factor.lstrip('+-')} {'below' if factor.startswith('-') else 'above'} that of generation 0"


def _sure(policy: ArmDiagnosis) -> str:
    """How sure the number is."""
    ends = factors(policy.ratio)[1]
    if not ends:
        return "one seed, so without an interval"
    return f"{'' if policy.ratio.exact else '95% interval '}{ends}; {len(policy.seeds)} seeds"


def _going(policy: ArmDiagnosis) -> str:
    """Where it is going, of one that is not what it was; what is forecast is said wherever it is not seen yet."""
    if policy.state not in MOVING:
        return ""
    seen = GOING.get(policy.trend, "")
    if not policy.forecast_levels_off:
        return seen
    return f"{seen} but {FORECAST.removeprefix('is ')}" if seen else FORECAST


def _other(policy: ArmDiagnosis, worst: ArmDiagnosis) -> str:
    mean, ends = factors(policy.ratio)
    when = f" by generation {policy.last}" if policy.last != worst.last else ""
    going = _going(policy)
    return f"{policy.arm} {policy.state}{when}, {mean}{f' ({ends})' if ends else ''}{f', and {going}' if going else ''}"


def _of_lineages(judged: Sequence[ArmDiagnosis], worst: ArmDiagnosis) -> Brief:
    """About the policy to which most happened, in how many of the lineages; then the others, the same way."""
    found = {policy.arm: policy for policy in judged}
    policies = {name: [found[arm] for arm in arms] for name, arms in of_policies(found).items()}
    seeds = sorted({len(policy.seeds) for policy in judged})
    over = f"{seeds[0] if len(seeds) == 1 else f'{seeds[0]} to {seeds[-1]}'} seeds; each lineage has its own interval"
    sure = "one seed, so without intervals" if seeds[-1] == 1 else over
    own = policies.pop(worst.arm.policy)
    sentence = (
        f"{worst.arm.policy} {worst.state} {where_said(states_of(own)[worst.state], len(own))}: perplexity by generation "
        f"{worst.last} against the same lineage's generation 0 ({sure})."
    )
    rest = {state: there for state, there in states_of(own).items() if state != worst.state}
    others = [f"{worst.arm.policy} {state} {where_said(there, len(own))}" for state, there in rest.items()]
    for name, arms in list(policies.items())[:MOST]:
        states = [f"{state} {where_said(there, len(arms))}" for state, there in states_of(arms).items()]
        others.append(f"{name} {', '.join(states)}")
    if len(policies) > MOST:
        others.append(f"{len(policies) - MOST} more policies in the table")
    return Brief(sentence, f"{'; '.join(others)}." if others else "", worst.arm)
