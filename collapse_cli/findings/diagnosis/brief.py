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


def brief(found: Diagnosis, ahead: Mapping[str, str]) -> Brief:
    """The short sentence on a run, and what it leaves out.

    Args:
        ahead: by policy, what its forecast says beside the word (`levelling`).
    """
    judged = [one for one in found.policies if one.last and one.state in WORST_FIRST]
    if not judged:
        first, mark, rest = found.verdict.partition("; ") if len(found.verdict) > SHORT else (found.verdict, "", "")
        return Brief(f"{first}." if mark else first, f"{rest[:1].upper()}{rest[1:]}")
    worst = min(judged, key=lambda one: (WORST_FIRST.index(one.state), -one.ratio.mean))
    going = _going(worst, ahead)
    sentence = (
        f"{worst.policy} {worst.state}: by generation {worst.last} its perplexity is {_times(worst)} "
        f"({_sure(worst)}){f' and {going}' if going else ''}."
    )
    rest_of = [one for one in judged if one is not worst]
    others = "; ".join(_other(one, worst, ahead) for one in rest_of[:MOST])
    more = f"; {len(rest_of) - MOST} more in the table" if len(rest_of) > MOST else ""
    return Brief(sentence, f"{others}{more}." if others else "", worst.policy)


def levelling(policies: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By policy, that laws with most of its forecast level off; of the policies in the record of a forecast."""
    weights = {
        str(one["policy"]): sum(law["forecast_weight"] for law in one["laws"] if law["law"] in LEVELS_OFF)
        for one in policies
        if one.get("status") == "ok"
    }
    return {policy: "expected to level off" for policy, weight in weights.items() if weight > 0.5}


def _times(one: PolicyDiagnosis) -> str:
    """A multiple of generation 0's perplexity in words."""
    mean = one.ratio.mean
    said = factors(one.ratio)[0]
    if mean >= LARGEST:
        return f"{BEYOND.replace('×', '')} times that of generation 0"
    if mean >= COLLAPSED:
        return f"{said.removeprefix('×')} times that of generation 0"
    if not said.strip("+0.%"):
        return "that of generation 0"
    return f"{said.lstrip('+-')} {'below' if said.startswith('-') else 'above'} that of generation 0"


def _sure(one: PolicyDiagnosis) -> str:
    """How sure the number is."""
    ends = factors(one.ratio)[1]
    if not ends:
        return "one seed, so without an interval"
    return f"{'' if one.ratio.exact else '95% interval '}{ends}; {len(one.seeds)} seeds"


def _going(one: PolicyDiagnosis, ahead: Mapping[str, str]) -> str:
    """Where it is going, of one that is not what it was; what is expected is said wherever it is not seen yet."""
    if one.state not in ("collapses", "loses quality"):
        return ""
    expected = ahead.get(one.policy, "") if one.trend != "level" else ""
    if not expected:
        return GOING.get(one.trend, "")
    return f"{GOING[one.trend]} but {expected}" if one.trend else f"is {expected}"


def _other(one: PolicyDiagnosis, worst: PolicyDiagnosis, ahead: Mapping[str, str]) -> str:
    mean, ends = factors(one.ratio)
    when = f" by generation {one.last}" if one.last != worst.last else ""
    going = _going(one, ahead)
    return f"{one.policy} {one.state}{when}, {mean}{f' ({ends})' if ends else ''}{f', and {going}' if going else ''}"
