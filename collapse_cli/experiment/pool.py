"""Whose synthetic rows a lineage takes, and how many of whose: what `pool.rule` says, in whole rows. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collapse_cli.data.dataset import Dataset


@dataclass(frozen=True)
class Pool:
    """The lineages of an experiment, by number from 0 on, and the rule by which they take rows.

    Attributes:
        rule: as `pool.rule`.
        lineages: how many there are.
        foreign: how many sources there are of rows that no lineage made; each taker has these behind those of lineages.
    """

    rule: str
    lineages: int
    foreign: int = 0

    def makers(self, taker: int) -> tuple[int, ...]:
        """The lineages whose rows one takes, in order."""
        if self.rule == "own":
            return (taker,)
        return tuple(one for one in range(self.lineages) if self.rule != "others" or one != taker)

    def takers(self, maker: int) -> tuple[int, ...]:
        """The lineages that take the rows of one."""
        return tuple(one for one in range(self.lineages) if maker in self.makers(one))

    def members(self, taker: int) -> int:
        """How many give rows to a lineage: lineages, itself among them, and foreign sources."""
        return len(self.makers(taker)) + self.foreign

    @property
    def exchanges(self) -> bool:
        """Whether any lineage takes other rows than its own."""
        return self.foreign > 0 or (self.rule != "own" and self.lineages > 1)

    @property
    def cut(self) -> bool:
        """Whether each row goes to one lineage alone, by chance: each makes as many rows as it takes itself."""
        return self.rule == "segments" and self.lineages > 1


def quota(needed: int, members: int, place: int) -> int:
    """How many of `needed` rows the member at a place gives, of so many: all alike, what is left over by the first ones."""
    return needed // members + (place < needed % members)


def starting_at(places: np.ndarray, part: int, of: int) -> np.ndarray:
    """Prompts in the order in which one of several makers continues them: every `of`-th from the `part`-th on, then the next ones.

    So makers of one corpus that each continue their part continue different prompts.
    """
    return np.concatenate([places[(part + shift) % of :: of] for shift in range(of)])


def taken(members: Sequence[Dataset], needed: int, more: Sequence[int]) -> Dataset:
    """As many rows of each member: the first ones that it made, and behind them its further candidates.

    Args:
        needed: rows of a corpus.
        more: how many candidates each member has, of the rows that it gives, these included.
    """
    first = [rows.take(np.arange(quota(needed, len(members), place))) for place, rows in enumerate(members)]
    rest = [rows.take(np.arange(len(few), most)) for rows, few, most in zip(members, first, more, strict=True)]
    return Dataset.concat([*first, *rest])


def segment(members: Sequence[Dataset], place: int, seed: int, trials: int = 1) -> Dataset:
    """A lineage's part of all rows, shuffled: parts are disjoint, and each has as many rows as the lineage at its place made.

    Args:
        trials: independent experiments that lie beside each other in every row: each is shuffled apart, or the error of their mean would
            leave out what all have alike.
    """
    rows = Dataset.concat(members)
    before = sum(map(len, members[:place]))
    part = slice(before, before + len(members[place]))
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(rows))[part]
    if trials == 1:
        return rows.take(order)
    random = np.random.Generator(np.random.Philox(seed).jumped())
    others = [random.permutation(len(rows))[part] for _ in range(trials - 1)]
    return rows.take_by_trial(np.stack([order, *others], axis=1))


def sharing_of(pool: Pool, maker: int, keys: Sequence[str]) -> tuple[tuple[tuple[int, int], ...], list[int]]:
    """For whom a lineage makes rows, where several take them: takers that take the same are one.

    Args:
        keys: what tells the original corpora of lineages apart.

    Returns:
        For each taker the place of the maker among the members of its pool, and how many those are; and which lineage it is. None where
        nothing is shared out.
    """
    if not pool.exchanges or pool.cut:
        return (), []
    found = {}
    for taker in pool.takers(maker):
        place = (pool.makers(taker).index(maker), pool.members(taker))
        found[keys[taker], place] = taker
    return tuple(place for _, place in found), list(found.values())
