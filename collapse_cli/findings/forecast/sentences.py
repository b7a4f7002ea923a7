"""What it comes to, in sentences made from the record of a forecast."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from collapse_cli.findings.arms import said
from collapse_cli.metrics.intervals import NOISE
from collapse_cli.where import Arm

Record = Mapping[str, Any]
FAR = 10  # times the last generation: a time later than that is no figure that so few generations give
LATEST = 1000  # and this is the last one that is worked out
ONE_SEED = (
    "a forecast from one seed is of that seed's own models, trained on; how far another seed would lie from it is not in its "
    "intervals"
)
UNSEEN = (
    "what the generations measured do not yet show is not forecast: a late step, a sudden breakaway, the late half of an "
    "S-curve; on such curves the 90% intervals held 0 to 72% of what came; growth that slows down without ever levelling off is "
    "taken for a plateau far ahead (docs/forecast.md)"
)


def sentences(record: Record) -> list[str]:
    """What it comes to, in plain text (not markup)."""
    lines = [f"note: {note}" for note in record["notes"]]
    without: dict[str, list[Arm]] = {}
    for policy in record["policies"]:
        if policy["status"] != "ok":
            without.setdefault(policy["why"], []).append(Arm.of(policy))
            if "lineage" not in policy:
                lines.append(f"{Arm.of(policy)}: not enough data: {policy['why']}")
            continue
        lines.append(f"{Arm.of(policy)}: {_heading(policy)}")
        lines += [f"{Arm.of(policy)}: note: {note}" for note in policy["notes"]]
    lineages = [(why, arms) for why, arms in without.items() if any(arm.lineage for arm in arms)]
    lines += [f"{said(arms)}: not enough data: {why}" for why, arms in lineages]  # of many lineages one line
    known = [policy for policy in record["policies"] if policy["status"] == "ok"]
    if any(len(policy["farthest_seeds"]) == 1 for policy in known):
        lines.append(f"note: {ONE_SEED}")
    if known:
        lines.append(f"note: {UNSEEN}")
    for share in shares_of(record):
        lineage = f"{share['lineage']}: " if "lineage" in share else ""
        first, *others = _share_said(share)
        lines += [f"{lineage}{first}", *others]
    return lines


def shares_of(record: Record) -> list[Record]:
    """What is said of the share of real data: once, or of several lineages of each, which `lineage` names."""
    return record["shares"] if "shares" in record else [record["share"]]


def _heading(policy: Record) -> str:
    law = max(policy["laws"], key=lambda law: law["weight"])
    if policy["best"] == "constant":  # a random walk as well: whatever it does, no growth is shown
        law_said = "level within noise: no law of growth fits better than a constant"
    elif policy["best"] == "jump" and law["shape"] is None:
        law_said = "a jump at generation 1, then level within noise"
    else:
        words = "jump at generation 1 and then relaxing" if policy["best"] == "jump" else policy["best"]
        law_said = f"the {words} law fits best (weight {law['weight']:.2f} by AICc)"
    leading = max(policy["laws"], key=lambda law: law["forecast_weight"])
    if leading["law"] != policy["best"]:
        law_said += f"; most of the forecast is from the {leading['law']} law (weight {leading['forecast_weight']:.2f})"
    double = next(time for time in policy["times"] if time["factor"] == 2.0)
    return f"{law_said}; twice the perplexity of generation 0: {when(double, policy['generations'][-1])}"


def when(time: Record, last: int) -> str:
    """The time to a factor in words: a figure only where its interval is finite and not far beyond what was measured.

    Nor is anything denied of generations farther than that: a slow rise looks level in few generations.

    Args:
        last: the last generation measured.
    """
    if time["measured"]:
        return f"measured at generation {time['generation']}"
    if time.get("beyond"):
        return "above guessing evenly: not forecast"
    middle, low, high = (time[name] for name in ("generation", "low90", "high90"))
    far = min(FAR * last, LATEST)
    if low is None or low > far:
        return f"not by generation {far:,} (chance below 5%)"
    if middle is None:
        return f"not known whether (chance 5% from generation {low:,} on)"
    if high is None or high > far:
        return f"not known when (chance 5% from generation {low:,} on)"
    return f"about generation {middle:,} (90% interval: {low:,} to {high:,})"


def _share_said(share: Record) -> list[str]:
    if share["status"] != "ok":
        return [f"smallest share of real data: not enough data: {share['why']}"]
    lines = [_needed(share)]
    if len(share.get("seeds", (0, 1))) < 2:
        lines.append(
            "the share of real data is from one seed, which cannot show how far seeds differ: its interval allows for "
            f"{NOISE:g} nats between seeds (standard deviation)"
        )
    if not share["next"]:
        return lines
    first = share["next"][0]
    if first["width"] == 0:
        return [*lines, "no further run would narrow the share of real data that is needed"]
    end = ":" if "command" in first else ""
    what = first.get("policy") or f"{first['more_seeds']} more seeds"
    wish = f"what would narrow the share of real data most: {what}"
    if first["width"] is None:
        lines.append(f"{wish}, since no share that was run is near{end}")
    else:
        lines.append(
            f"{wish}, to an expected {first['expected_width']:.2g} percentage points, from {first['width']:.2g}{end}"
        )
    return [*lines, first["command"]] if "command" in first else lines


def _needed(share: Record) -> str:
    """How much real data it takes: the best guess, and what else may be true of it (90% interval)."""
    within = f"generation {share['generation']} within {share['factor']:g}× of generation 0"
    low, guess, high = share["low90"], share["share"], share["high90"]
    if guess["bound"] == "":
        return (
            f"about {guess['value']:g}% of real data keeps {within} (90% interval: {_percent(low)} to {_percent(high)})"
        )
    end = f"{guess['value']:g}%"
    if guess["bound"] == "below":
        none = guess["value"] == 0
        needed = f"no real data is needed to keep {within}" if none else f"{end} of real data or less keeps {within}"
        if high["bound"] == "below":
            return (
                f"{needed} (90% interval)"
                if none
                else f"{needed} (90% interval; {end} is the smallest share that was run)"
            )
        return f"at the best guess {needed}; it may take {'' if high['bound'] else 'up to '}{_percent(high)} (90% interval)"
    all_of_it = guess["value"] == 100
    needed = f"even 100% of real data does not keep {within}"
    needed = needed if all_of_it else f"more than {end} of real data is needed to keep {within}"
    if low["bound"] == "above":
        return (
            f"{needed} (90% interval)"
            if all_of_it
            else f"{needed} (90% interval; {end} is the largest share that was run)"
        )
    least = f"{low['value']:g}%" + (" or less" if low["bound"] and low["value"] > 0 else "")
    may = f"it may be as little as {least}" if not all_of_it else f"it may be that {least} does"
    return f"at the best guess {needed}; {may}, or {'not even' if all_of_it else 'more than'} {end} (90% interval)"


def _percent(end: Record) -> str:
    if end["bound"] == "above":
        return f"more than {end['value']:g}%"
    return f"{end['value']:g}%" + (" or less" if end["bound"] and end["value"] > 0 else "")


def limit(ceiling: float | None) -> float:
    """The perplexity from which on a forecast is no figure any more."""
    return math.inf if ceiling is None else ceiling * (1 - 1e-9)  # paths end there, but for rounding


def to_come(entry: Record, ceiling: float | None, say: Callable[[float], str], dash: str = "–") -> tuple[str, str]:
    """A perplexity that is expected, and its 90% interval (empty where there is nothing to say).

    A model worse than one that guesses evenly is simply broken: how much worse is no forecast, so no figure is given.

    Args:
        ceiling: the perplexity of guessing evenly; None where that is not known.
        say: a perplexity in digits.
    """
    most = limit(ceiling)
    middle, low, high = (
        say(number) if number < most else f"above {say(float(ceiling or 0))}"
        for number in (entry[f"perplexity{end}"] for end in ("", "_low90", "_high90"))
    )
    if entry["perplexity_low90"] >= most:
        return f"{low} (guessing evenly)", ""
    return middle, f"({low} {dash} {high})"
