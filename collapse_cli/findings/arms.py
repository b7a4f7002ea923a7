"""The arms of an experiment: its lineages, named in few words for sentences and notes, and the configuration of each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from collapse_cli.config import merge
from collapse_cli.config.experiment import REPLACED
from collapse_cli.metrics.intervals import logarithmic
from collapse_cli.records.fields import table
from collapse_cli.records.row import Row
from collapse_cli.where import Arm, Where

MOST = 4  # lineages that are named; of more how many there are


def lineages_of(arms: Iterable[Arm]) -> list[str]:
    """The names of the lineages, in their order; none where an experiment has one."""
    return list(dict.fromkeys(arm.lineage for arm in arms if arm.lineage))


def of_policies(arms: Iterable[Arm]) -> dict[str, list[Arm]]:
    """The arms of each policy, a lineage each."""
    of: dict[str, list[Arm]] = {}
    for arm in arms:
        of.setdefault(arm.policy, []).append(arm)
    return of


def few(names: Sequence[str], every: int = 0) -> str:
    """`a, b`; of many `a, b, c, d and 3 more`; `all 12`, where they are all and too many to be named.

    Args:
        every: how many there are in all; 0: not known.
    """
    if len(names) == every > MOST:
        return f"all {every}"
    rest = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {rest} more" if rest > 0 else "")


def said(arms: Sequence[Arm]) -> str:
    """`keep-0, keep-10`; with lineages `keep-0 (a, b), keep-10 (a, b, c, d and 2 more)`."""
    parts = []
    for policy, own in of_policies(arms).items():
        lineages = lineages_of(own)
        parts.append(f"{policy} ({few(lineages)})" if lineages else policy)
    return ", ".join(parts)


def averaged(lineages: Sequence[Sequence[Row]], what: str) -> list[Row]:
    """The mean of a field over lineages, as rows of one: a seed and a generation that all lineages have.

    On the scale of the field: of perplexities the geometric mean. Seeds stay what intervals are over, for lineages of a seed
    that hear of each other are not independent.

    Args:
        lineages: the rows of each, under one policy.
    """
    values: dict[Where, list[float]] = {}
    for rows in lineages:
        for row in rows:
            if (value := row.measure(what)) is not None:
                values.setdefault(Where(row.where.policy, row.where.seed, row.where.generation), []).append(value)
    found = []
    for where, there in values.items():
        if len(there) < len(lineages):
            continue
        logs = logarithmic(what) and min(there) > 0
        mean = sum(math.log(value) if logs else value for value in there) / len(there)
        found.append(Row.at(where, {what: math.exp(mean) if logs else mean}))
    return found


def trees_of(tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The configuration of each lineage by its name, with what its table changes; "" for an experiment of one.

    Args:
        tree: for which nobody vouches.
    """
    base = {name: part for name, part in tree.items() if name != "lineages"}
    return {name: _with(base, table(own)) for name, own in table(tree.get("lineages")).items()} or {"": base}


def _with(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """As `Experiment.lineage`: another model, or other text, takes the place of that of all as a whole."""
    plain = dict(base)
    for section, names in REPLACED.items():
        if any(option in table(own.get(section)) for option in names):
            plain[section] = {name: value for name, value in table(plain.get(section)).items() if name not in names}
    return merge(plain, own)
