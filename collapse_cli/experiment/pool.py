"""Whose synthetic rows a lineage takes, and how many of whose: what `pool.rule` says, in whole rows. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import seed_for


@dataclass(frozen=True)
class Pool:
    """The lineages of an experiment, by number from 0 on, and the rule by which they take rows.

    Attributes:
        rule: as `pool.rule`.
        lineages: how many there are.
        foreign: how many sources there are of rows that no lineage made; each taker has these behind those of lineages.
        turns: with the rule random, which lineage the model of each generation is of, and that behind the last.
    """

    rule: str
    lineages: int
    foreign: int = 0
    turns: tuple[int, ...] = ()

    def makers(self, taker: int, generation: int = 1) -> tuple[int, ...]:
        """The lineages whose rows the corpus of one takes at a generation, in order."""
        if self.rule == "own":
            return (taker,)
        if self.rule == "random":
            return (self.turns[generation - 1],) if taker == self.turns[generation] else ()
        return tuple(one for one in range(self.lineages) if self.rule != "others" or one != taker)

    def takers(self, maker: int, generation: int = 1) -> tuple[int, ...]:
        """The lineages whose corpora of a generation take rows of one."""
        return tuple(one for one in range(self.lineages) if maker in self.makers(one, generation))

    def members(self, taker: int, generation: int = 1) -> int:
        """How many give rows to the corpus of a lineage: lineages, itself among them, and foreign sources."""
        return len(self.makers(taker, generation)) + self.foreign

    def at_work(self, generation: int) -> tuple[int, ...]:
        """The lineages that have a model of a generation: all, but with the rule random, after generation 0, one."""
        return (self.turns[generation],) if self.turns and generation else tuple(range(self.lineages))

    @property
    def exchanges(self) -> bool:
        """Whether any lineage takes other rows than its own."""
        return self.foreign > 0 or (self.rule != "own" and self.lineages > 1)

    @property
    def cut(self) -> bool:
        """Whether each row goes to one lineage alone, by chance: each makes as many rows as it takes itself."""
        return self.rule == "segments" and self.lineages > 1


def turns(lineages: int, generations: int, seed: int) -> tuple[int, ...]:
    """Which lineage each generation's model is of, drawn evenly, with that behind the last; more generations change none."""
    each = (seed_for(seed, "base of a generation", generation) for generation in range(generations + 2))
    return tuple(int(np.random.Generator(np.random.Philox(one)).integers(lineages)) for one in each)


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


def sharing_of(
    pool: Pool, maker: int, keys: Sequence[str], generation: int = 1
) -> tuple[tuple[tuple[int, int], ...], list[int]]:
    """For whom a lineage makes rows, where several take them: takers that take the same are one.

    Args:
        keys: what tells the original corpora of lineages apart.
        generation: whose corpora they are; it matters with the rule random alone.

    Returns:
        For each taker the place of the maker among the members of its pool, and how many those are; and which lineage it is. None where
        nothing is shared out.
    """
    if not pool.exchanges or pool.cut:
        return (), []
    found = {}
    for taker in pool.takers(maker, generation):
        place = (pool.makers(taker, generation).index(maker), pool.members(taker, generation))
        found[keys[taker], place] = taker
    alone = pool.turns or list(found.values()) == [maker]
    if alone and found.keys() <= {(keys[maker], (0, 1))}:  # as many as for its own corpus
        return (), []
    return tuple(place for _, place in found), list(found.values())
