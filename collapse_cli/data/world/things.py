"""The things of the world, how frequent each is, and the facts: what is true in all real text. Made from a seed."""

import calendar
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from collapse_cli.data.world import names

FIRST_BIRTH, LAST_BIRTH = 1900, 1979
FIRST_FOUNDED, LAST_FOUNDED = 1100, 1299
DOG_EXPONENT, TRADE_EXPONENT, ACTIVITY_EXPONENT = 0.5, 0.5, 1.0
HE, SHE = "he", "she"
HIMSELF, HERSELF = "himself", "herself"

Shares = Mapping[str, float]  # value -> its probability, the most frequent first
RELATIONS = {  # a fact is a value that a thing of the slot named here always has
    "birthplace": "person",
    "birthday": "person",
    "trade": "person",
    "river": "town",
    "founded": "town",
}


@dataclass(frozen=True)
class Things:
    """What there is, and what is true of it.

    Attributes:
        breeds, people, towns, rivers, trades: how many there are of each.
        breed_exponent, people_exponent, town_exponent: the k-th has a share proportional to 1 / k ** exponent.
        association: probability that who practises a trade is of the sex that is usual for it (`usual`).
        seed: of who is born where and when, and of all other facts.
    """

    breeds: int = 80
    breed_exponent: float = 1.3
    people: int = 40
    people_exponent: float = 1.0
    towns: int = 16
    town_exponent: float = 0.8
    rivers: int = 8
    trades: int = 6
    association: float = 0.7
    seed: int = 0

    @cached_property
    def shares(self) -> Mapping[str, Shares]:
        """By slot, how what fills it is distributed where nothing before decides it."""
        return {
            "breed": _zipf(names.BREEDS[: self.breeds], self.breed_exponent),
            "dog": _zipf(names.DOGS, DOG_EXPONENT),
            "person": _zipf(tuple(self._people), self.people_exponent),
            "town": _zipf(self._towns, self.town_exponent),
            "river": _zipf(names.RIVERS[: self.rivers], 0.0),
            "helper": _zipf(names.TRADES[: self.trades], TRADE_EXPONENT),
            "activity": _zipf(names.ACTIVITIES, ACTIVITY_EXPONENT),
            "time": _zipf(names.TIMES, ACTIVITY_EXPONENT),
        }

    @cached_property
    def facts(self) -> Mapping[str, Mapping[str, str]]:
        """By relation, what is true of each thing: `facts["birthplace"]["Anna Archer"]`. Keys are those of `RELATIONS`."""
        draw = _generator(self.seed, 1)
        people, towns = self.shares["person"], self.shares["town"]
        trades, rivers = names.TRADES[: self.trades], names.RIVERS[: self.rivers]
        facts: dict[str, dict[str, str]] = {relation: {} for relation in RELATIONS}
        for person in people:
            facts["birthplace"][person] = list(towns)[int(draw.integers(len(towns)))]
            year, month = int(draw.integers(FIRST_BIRTH, LAST_BIRTH + 1)), int(draw.integers(1, 13))
            day = int(draw.integers(1, calendar.monthrange(year, month)[1] + 1))
            facts["birthday"][person] = f"{day} {names.MONTHS[month - 1]} {year}"
            facts["trade"][person] = trades[int(draw.integers(len(trades)))]
        for town in towns:
            facts["river"][town] = rivers[int(draw.integers(len(rivers)))]
            facts["founded"][town] = str(draw.integers(FIRST_FOUNDED, LAST_FOUNDED + 1))
        return facts

    @cached_property
    def pronouns(self) -> Mapping[str, str]:
        """`he` or `she` for each person."""
        return self._people

    @cached_property
    def usual(self) -> Mapping[str, str]:
        """By trade, `himself` or `herself`: who practises it is of that sex with the probability `association`."""
        trades = names.TRADES[: self.trades]
        order = _generator(self.seed, 2).permutation(len(trades))
        return {trade: (HIMSELF, HERSELF)[int(place) % 2] for trade, place in zip(trades, order, strict=True)}

    @cached_property
    def _people(self) -> dict[str, str]:
        """Names in order of frequency, each with its pronoun; no two people share first and last name."""
        draw = _generator(self.seed, 3)
        first = dict.fromkeys(names.WOMEN, SHE) | dict.fromkeys(names.MEN, HE)
        pairs = [(name, surname) for name in first for surname in names.SURNAMES]
        chosen = draw.permutation(len(pairs))[: self.people]
        return {f"{pairs[i][0]} {pairs[i][1]}": first[pairs[i][0]] for i in chosen}

    @cached_property
    def _towns(self) -> tuple[str, ...]:
        """Names in order of frequency; about half are of two words, as Port Ashford is, which is another town than Ashford."""
        draw = _generator(self.seed, 4)
        bare = [stem + end for stem in names.TOWN_STEMS for end in names.TOWN_ENDS]
        chosen = [bare[i] for i in draw.permutation(len(bare))[: self.towns]]
        before = [
            ("", *names.TOWN_BEFORE)[int(i)] for i in draw.integers(1, 7, self.towns) * draw.integers(0, 2, self.towns)
        ]
        return tuple(f"{first} {name}".strip() for first, name in zip(before, chosen, strict=True))

    def made_from(self) -> dict[str, Any]:
        """The options."""
        return asdict(self)


OPTIONS = tuple(Things.__dataclass_fields__)  # what the world is made from


def article(name: str) -> str:
    """`a` or `an`, as what is named is spoken."""
    return "an" if name[0] in "AEIOaeio" else "a"


def is_date(text: str) -> bool:
    """Whether a text is a day of the calendar, as `3 June 1943` is and `31 June 1943` is not."""
    parts = text.split(" ")
    if len(parts) != 3 or parts[1] not in names.MONTHS or not (parts[0].isdecimal() and is_year(parts[2])):
        return False
    month = names.MONTHS.index(parts[1]) + 1
    return parts[0] == str(int(parts[0])) and 1 <= int(parts[0]) <= calendar.monthrange(int(parts[2]), month)[1]


def is_year(text: str) -> bool:
    """Whether a text is a year of four digits."""
    return len(text) == 4 and text.isascii() and text.isdecimal() and text[0] != "0"


def _zipf(values: tuple[str, ...], exponent: float) -> Shares:
    weights = np.arange(1, len(values) + 1, dtype=np.float64) ** -exponent
    return dict(zip(values, (weights / weights.sum()).tolist(), strict=True))


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))
