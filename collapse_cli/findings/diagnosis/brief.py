"""What became of a run in one short sentence, and the rest in another: what happened, to which policy, how sure that is.

The words are those of the whole verdict, which stands further down: nothing is judged here.
"""

from dataclasses import dataclass

from collapse_cli.findings.diagnosis import COLLAPSED, FORECAST, MOVING, Diagnosis, PolicyDiagnosis
from collapse_cli.metrics.numbers import BEYOND, LARGEST, factors

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
        policy: whom the sentence is about; "" where it is about none, or about all.
    """

    sentence: str
    others: str = ""
    policy: str = ""


def brief(diagnosis: Diagnosis) -> Brief:
    """The short sentence on a run, and what it leaves out."""
    judged = [policy for policy in diagnosis.policies if policy.last and policy.state in WORST_FIRST]
    if not judged:
        first, mark, rest = (
            diagnosis.verdict.partition("; ") if len(diagnosis.verdict) > SHORT else (diagnosis.verdict, "", "")
        )
        return Brief(f"{first}." if mark else first, rest)
    worst = min(judged, key=lambda policy: (WORST_FIRST.index(policy.state), -policy.ratio.mean))
    going = _going(worst)
    sentence = (
        f"{worst.policy} {worst.state}: by generation {worst.last} its perplexity is {_times(worst)} "
        f"({_sure(worst)}){f' and {going}' if going else ''}."
    )
    rest_of = [policy for policy in judged if policy is not worst]
    others = "; ".join(_other(policy, worst) for policy in rest_of[:MOST])
    more = f"; {len(rest_of) - MOST} more in the table" if len(rest_of) > MOST else ""
    return Brief(sentence, f"{others}{more}." if others else "", worst.policy)


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


def _going(policy: PolicyDiagnosis) -> str:
    """Where it is going, of one that is not what it was; what is forecast is said wherever it is not seen yet."""
    if policy.state not in MOVING:
        return ""
    seen = GOING.get(policy.trend, "")
    if not policy.forecast_levels_off:
        return seen
    return f"{seen} but {FORECAST.removeprefix('is ')}" if seen else FORECAST


def _other(policy: PolicyDiagnosis, worst: PolicyDiagnosis) -> str:
    mean, ends = factors(policy.ratio)
    when = f" by generation {policy.last}" if policy.last != worst.last else ""
    going = _going(policy)
    return (
        f"{policy.policy} {policy.state}{when}, {mean}{f' ({ends})' if ends else ''}{f', and {going}' if going else ''}"
    )
