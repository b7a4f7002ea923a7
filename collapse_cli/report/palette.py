"""How a line is drawn: the colour of a policy, the same on every page, in figures for papers, and in pictures of the README;
with several lineages their shades and dashes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from collapse_cli.where import Arm

COUNT = 6
USUAL = {  # policies that are run most have a colour of their own, whatever they are run beside
    "keep-0": 0,
    "keep-10": 1,
    "keep-20": 2,
    "accumulate": 3,
    "accumulate-subsample": 4,
    "keep-100": 5,
    "fresh-10": 1,
    "fresh-20": 2,
}


DASHES = 6
SHADES = (0.0, 0.45, -0.45, 0.7, -0.25, 0.25)  # of lineages after one another, so that neighbours are far apart


@dataclass(frozen=True)
class Look:
    """How a line is drawn.

    Attributes:
        colour: the number of its hue.
        dash: the number of its pattern.
        shade: how far the hue is mixed with the paper (above 0) or with the ink (below 0).
        of: whose the hue is: `policy`, `run` or `lineage`.
    """

    colour: int
    dash: int = 0
    shade: float = 0.0
    of: str = "policy"


Named = tuple[int, Arm]  # a line: the number of its run, its policy and lineage


def looks(planned: Sequence[Named], there: Sequence[Named]) -> dict[Named, Look]:
    """A look for every line that is `planned`.

    Hues are policies'. Where all lines have one policy they would all be alike, so hues are runs', or of one run lineages'.
    Dashes are runs', or of one run lineages'. Lineages of one policy have shades of its hue.

    Args:
        there: lines that are drawn; what is planned and not there yet decides nothing but the colours of policies.
    """
    runs, policies = {run for run, _ in there}, {arm.policy for _, arm in there}
    colours = assigned(list(dict.fromkeys(arm.policy for _, arm in planned)))
    names = list(dict.fromkeys(arm.lineage for _, arm in planned))
    several, single = len({arm.lineage for _, arm in there}) > 1, len(policies) == 1
    given: dict[Named, Look] = {}
    for run, arm in dict.fromkeys([*planned, *there]):
        place = names.index(arm.lineage) if arm.lineage in names else 0
        colour, of, shade = colours.get(arm.policy, 0), "policy", SHADES[place % len(SHADES)] if several else 0.0
        if single and several and len(runs) == 1:
            colour, of, shade = place, "lineage", 0.0
        elif single and len(runs) > 1:
            colour, of = run, "run"
        given[run, arm] = Look(colour, _dash(place if several and len(runs) == 1 else run), shade, of)
    return given


def _dash(at: int) -> int:
    """A pattern; shifted from the seventh on, so that not both colour and pattern come again together."""
    return (at + at // COUNT) % DASHES


def assigned(policies: Sequence[str]) -> dict[str, int]:
    """The number of each policy's colour: its usual one, of any other the first that is free.

    From `COUNT` policies on colours come again.
    """
    given: dict[str, int] = {}
    for policy in policies:
        if USUAL.get(policy, -1) not in (-1, *given.values()):
            given[policy] = USUAL[policy]
    for policy in policies:
        free = [index for index in range(COUNT) if index not in given.values()]
        given.setdefault(policy, free[0] if free else len(given) % COUNT)
    return given


@cache
def colours() -> tuple[str, ...]:
    """The colours as `#rrggbb`, those of the page in the light: the style sheet is the one place that has them."""
    style = resources.files("collapse_cli.report").joinpath("style.css").read_text(encoding="utf-8")
    return tuple(re.findall(r"--s\d: (#[0-9a-f]{6})", style)[:COUNT])
