"""What became of a run in one short sentence, and the rest in another: what happened, to which policy, how sure that is.

The words are those of the whole verdict, which stands further down: nothing is judged here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.findings.diagnosis import COLLAPSED, Diagnosis, PolicyDiagnosis
from collapse_cli.findings.forecast.laws import LAWS
from collapse_cli.metrics.numbers import BEYOND, LARGEST, factors

WORST_FIRST = ("collapses", "loses quality", "is undecided", "cannot be judged from one seed", "holds")
GOING = {"rises": "is still rising", "level": "has levelled off", "falls": "is falling again"}
LEVELS_OFF = frozenset(law.name for law in LAWS if law.levels_off and law.sloped)
MOST = 4  # other policies that are named
SHORT = 110  # characters of a sentence that stays whole


@dataclass(frozen=True)
class Brief:
    """The first thing to read.

    Attributes:
        sentence: about the policy to which most happened, where policies are diagnosed.
        others: what else there is to say; "" where that is nothing.
        policy: whom the sentence is about; "" where it is about none, or about all.
    """

    sentence: str
    others: str = ""
    policy: str = ""


def brief(diagnosis: Diagnosis, ahead: Mapping[str, str]) -> Brief:
    """The short sentence on a run, and what it leaves out.

    Args:
        ahead: by policy, what its forecast says beside the word (`levelling`).
    """
    judged = [policy for policy in diagnosis.policies if policy.last and policy.state in WORST_FIRST]
    if not judged:
        first, mark, rest = (
            diagnosis.verdict.partition("; ") if len(diagnosis.verdict) > SHORT else (diagnosis.verdict, "", "")
        )
        return Brief(f"{first}." if mark else first, f"{rest[:1].upper()}{rest[1:]}")
    worst = min(judged, key=lambda policy: (WORST_FIRST.index(policy.state), -policy.ratio.mean))
    going = _going(worst, ahead)
    sentence = (
        f"{worst.policy} {worst.state}: by generation {worst.last} its perplexity is {_times(worst)} "
        f"({_sure(worst)}){f' and {going}' if going else ''}."
    )
    rest_of = [policy for policy in judged if policy is not worst]
    others = "; ".join(_other(policy, worst, ahead) for policy in rest_of[:MOST])
    more = f"; {len(rest_of) - MOST} more in the table" if len(rest_of) > MOST else ""
    return Brief(sentence, f"{others}{more}." if others else "", worst.policy)


def levelling(policies: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By policy, that laws with most of its forecast level off; of the policies in the record of a forecast."""
    weights = {
        str(policy["policy"]): sum(law["forecast_weight"] for law in policy["laws"] if law["law"] in LEVELS_OFF)
        for policy in policies
        if policy.get("status") == "ok"
    }
    return {policy: "expected to level off" for policy, weight in weights.items() if weight > 0.5}


def _times(policy: PolicyDiagnosis) -> str:
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


def _sure(policy: PolicyDiagnosis) -> str:
    """How sure the number is."""
    ends = factors(policy.ratio)[1]
    if not ends:
        return "one seed, so without an interval"
    return f"{'' if policy.ratio.exact else '95% interval '}{ends}; {len(policy.seeds)} seeds"


def _going(policy: PolicyDiagnosis, ahead: Mapping[str, str]) -> str:
    """Where it is going, of one that is not what it was; what is expected is said wherever it is not seen yet."""
    if policy.state not in ("collapses", "loses quality"):
        return ""
    expected = ahead.get(policy.policy, "") if policy.trend != "level" else ""
    if not expected:
        return GOING.get(policy.trend, "")
    return f"{GOING[policy.trend]} but {expected}" if policy.trend else f"is {expected}"


def _other(policy: PolicyDiagnosis, worst: PolicyDiagnosis, ahead: Mapping[str, str]) -> str:
    mean, ends = factors(policy.ratio)
    when = f" by generation {policy.last}" if policy.last != worst.last else ""
    going = _going(policy, ahead)
    return (
        f"{policy.policy} {policy.state}{when}, {mean}{f' ({ends})' if ends else ''}{f', and {going}' if going else ''}"
    )
