"""The colour of a policy: the same on every page, in figures for papers, and in pictures of the README."""

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

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
