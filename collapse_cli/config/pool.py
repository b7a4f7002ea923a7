"""Several lineages in one experiment: how they are named, whose rows each takes, and which part of the real text is its own."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import field_validator

from collapse_cli.config.foreign import Source, one_or_many
from collapse_cli.config.weights import Shares
from collapse_cli.errors import InputError, written
from collapse_cli.families.section import Parsed, Section, UserPath, added

MOST_LINEAGES = 64
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")  # it stands beside a policy's name, in rows and tables
OWN_SECTIONS = (
    "model",
    "data",
    "train",
    "sample",
)  # that a lineage may have otherwise than the others; and its learner's
COMMON_DATA = ("valid", "test", "eval_rows")  # options of `data` that all share: they are measured on the same text


@dataclass(frozen=True)
class Segment(Parsed):
    """A part of the original corpus, as `2/4`: the second of four. Parts are disjoint, and together the whole.

    Attributes:
        part: which, from 1 on.
        of: how many there are; 1: the whole corpus.
    """

    part: int = 1
    of: int = 1

    def __str__(self) -> str:
        return "" if self.whole else f"{self.part}/{self.of}"

    @property
    def whole(self) -> bool:
        return self.of == 1

    @classmethod
    def parse(cls, text: str) -> "Segment":
        """The part that a text names; "" is the whole.

        Raises:
            InputError: for anything else.
        """
        if text in ("", "1/1"):
            return cls()
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise InputError(
                f'must be a part of the training text such as "2/4", the second of four; it is {text[:80]!r}'
            )
        return cls(int(found[1]), int(found[2]))

    def rows(self, there: int) -> slice:
        """Which of so many rows it has: parts are next to each other, and none has more than one row more than another."""
        return slice((self.part - 1) * there // self.of, self.part * there // self.of)


class PoolConfig(Section):
    """Several lineages, and whose synthetic rows each of them takes."""

    lineages: int = added(0, ge=0, le=MOST_LINEAGES)
    """Short for so many lineages that are alike, `model-1`, `model-2` and so on. 0: those of the tables `lineages.NAME`, or one alone."""
    rule: Literal["own", "all", "others", "segments", "random"] = added("own")
    """Whose synthetic rows a lineage takes; own: those that its own model made, all: as many from each lineage, others: from each but
    itself, segments: all rows are put together, shuffled and cut into disjoint parts, anew in each generation; random: there is one
    chain of models, and which lineage the next one is of is drawn: the lineages are the list. Nothing is measured between them then."""
    real: Literal["common", "segments"] = added("common")
    """The real rows of lineages; common: all of the training text for each, segments: it is cut into as many parts, one for each."""
    public: UserPath = added("")
    """Text that all lineages train on besides, in every generation: a file, a folder, or what else `data.source` may be. Empty: none."""
    public_sha256: str = added("")
    """Hash of that text. Filled in when loaded; if given, it must match."""
    public_rows: int = added(0, ge=0)
    """Of the public text so many rows, evenly spaced; 0: all. Of sources that are drawn (`blobs`, `regression`): so many real rows that
    all lineages train on besides, in every generation, the same ones; of the truth that no lineage has moved."""
    weights: Shares = added(Shares())
    """Shares of the loss: private real rows, public and pooled (synthetic) ones, as in "1:1:2". `equal`: every row counts alike."""
    foreign: tuple[Source, ...] = added(())
    """Text of models that do not take part: files, folders, or OpenAI-style servers, `http://127.0.0.1:8000/v1#MODEL`. Each gives as
    many synthetic rows as a lineage does; with `rule = "others"` and one lineage all of them are foreign."""

    @field_validator("foreign", mode="before")
    @classmethod
    def _one_alone(cls, value: object) -> object:
        return one_or_many(value)

    @property
    def more_than_pooled(self) -> bool:
        """Whether a fit is of public rows besides, or of kinds of rows that have shares of the loss."""
        return bool(self.public or self.public_rows) or not self.weights.equal


CHAIN = (
    "pool.rule = random: after generation 0 each generation has one model, of a lineage that is drawn, so that nothing is measured "
    "between lineages"
)


def notes(pool: PoolConfig, tables: Mapping[str, Any]) -> list[str]:
    """What whoever gives lineages so should know: what has no effect, and what is not measured."""
    if pool.lineages == 1:
        idle = {"pool.rule": pool.rule} if pool.rule != "own" and not pool.foreign else {}
        idle |= {"pool.real": pool.real} if pool.real != "common" else {}
        options = " and ".join(f"{name} = {value}" for name, value in idle.items())
        without = f", and {options} {'has' if len(idle) == 1 else 'have'} no effect" if idle else ""
        return [f"pool.lineages = 1: there is one lineage alone, as without it{without}"]
    return [CHAIN] if pool.rule == "random" and names(pool, tables) else []


def names(pool: PoolConfig, tables: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the lineages, in order; none where there is one alone."""
    if pool.lineages:
        return tuple(f"model-{number}" for number in range(1, pool.lineages + 1)) if pool.lineages > 1 else ()
    return tuple(tables)


def check(pool: PoolConfig, tables: Mapping[str, Mapping[str, Any]], sections: tuple[str, ...]) -> None:
    """Whether lineages, as they are given, can be.

    Args:
        sections: those that a lineage may have otherwise than others.

    Raises:
        ValueError: for the first thing that is wrong, in a sentence.
    """
    known = names(pool, tables)
    for name, table in tables.items():
        if not NAME.fullmatch(name):
            raise ValueError(
                f"lineages.{name[:60]}: a lineage's name is lower-case letters, digits and '-', at most 40 of them"
            )
        if pool.lineages and name not in known:
            raise ValueError(
                f"lineages.{name}: pool.lineages = {pool.lineages} has {', '.join(known) or 'one lineage, which needs no table'}"
                "; name one of these, or leave pool.lineages out and give a table for each"
            )
        if not isinstance(table, Mapping):
            raise ValueError(f"lineages.{name} must be a table")
        for section, options in table.items():
            if section == "learner":
                raise ValueError(
                    f"lineages.{name}.learner: all lineages have one learner, for they take each other's rows; set learner for all of them"
                )
            if section not in sections:
                raise ValueError(
                    f"lineages.{name}.{section}: lineages differ in {', '.join(sections)}; all else they share"
                )
            if not isinstance(options, Mapping):
                raise ValueError(f"lineages.{name}.{section} must be a table of options, it is {written(options)}")
            for option in COMMON_DATA if section == "data" else ():
                if option in options:
                    raise ValueError(
                        f"lineages.{name}.data.{option}: all lineages are measured on the same text; set data.{option} for all"
                    )
    if len(known) == 1:
        raise ValueError(
            f"lineages.{known[0]} is the only lineage; name at least two, or set its options without a table"
        )
    if len(known) > MOST_LINEAGES:
        raise ValueError(f"there are {len(known)} lineages, and a run has at most {MOST_LINEAGES}")
    alone = not known and pool.lineages != 1
    if alone and pool.rule != "own" and not pool.foreign:
        raise ValueError(
            f"pool.rule = {pool.rule} says whose rows a lineage takes, and there is one alone; name some (lineages.NAME), or say how "
            "many (pool.lineages)"
        )
    if alone and pool.real != "common":
        raise ValueError("pool.real = segments cuts the training text for several lineages, and there is one alone")
    if pool.foreign and pool.rule in ("segments", "random"):
        raise ValueError(
            f"pool.rule = {pool.rule} deals out rows that lineages made, and pool.foreign names rows that none of them made; take "
            "pool.rule = all"
        )
    if not known and pool.rule == "others" and not pool.foreign:
        raise ValueError("pool.rule = others takes rows of other lineages, and there are none (pool.lineages = 1)")
    if pool.real == "segments":
        for name, table in tables.items():
            if table.get("data", {}).keys() - {"sha256"}:  # which is filled in when it is looked up
                raise ValueError(
                    f"lineages.{name}.data: with pool.real = segments each lineage has a part of the common training text; give "
                    "lineages text of their own, or parts, not both"
                )


def overrides(pool: PoolConfig, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What each lineage has otherwise than the base configuration, by name in order; of one alone by the name ""."""
    known = names(pool, tables)
    if not known:
        return {"": {}}
    chosen = {name: dict(tables.get(name, {})) for name in known}
    if pool.real == "segments":
        for number, (name, table) in enumerate(chosen.items(), 1):
            chosen[name] = {**table, "data": {**table.get("data", {}), "segment": str(Segment(number, len(known)))}}
    return chosen
