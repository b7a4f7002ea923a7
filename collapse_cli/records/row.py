"""A row of `metrics.jsonl`: what was measured of one model. All that reads or writes one does it through this type."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.records import fields
from collapse_cli.records.fields import (
    COORDINATES,
    LARGEST,
    NUMBERS,
    Example,
    ForeignRows,
    GeneratedImages,
    Histogram,
    Phrase,
    Selection,
    finite,
)
from collapse_cli.where import Arm, Where

PLACE = ("policy", "seed", "generation", "lineage")  # the fields that say which model it is of


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one model, and texts of its for people.

    Numbers are asked for by name with `measure`, numbers by part (deciles, quantiles) with `parts`. One rule holds for all:
    what is absent, null, not finite, or no number is None. What is not asked for is kept as it stands: fields of other
    versions too.

    Attributes:
        where: which model.
        fields: the line, in its order, with the fields that say where; without its digest.
    """

    where: Where
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Row | None":
        """A line of the file; None where it does not say of which model it is."""
        policy, seed, generation = record.get("policy"), record.get("seed"), record.get("generation")
        lineage = record.get("lineage", "")
        if not (isinstance(policy, str) and type(seed) is int and type(generation) is int and isinstance(lineage, str)):
            return None
        if "share" in record:  # of a cell; its label stands where a policy would
            return cls(Where("", seed, generation, lineage, policy), record)
        return cls(Where(policy, seed, generation, lineage), record)

    @classmethod
    def at(cls, where: Where, measured: Mapping[str, Any]) -> "Row":
        """A row of what was measured there: the fields that say where come first; an experiment of one lineage names none."""
        place = {"policy": where.name, "seed": where.seed, "generation": where.generation}
        return cls(where, place | ({"lineage": where.lineage} if where.lineage else {}) | dict(measured))

    def record(self) -> dict[str, Any]:
        """As JSON: the line as it stands."""
        return dict(self.fields)

    # --- numbers ------------------------------------------------------------------------------------------------------

    def measure(self, name: str, part: int | None = None) -> float | None:
        """A finite number, or None. The loss of rows older than the field `nll` is the logarithm of their perplexity.

        Args:
            part: which entry of a field that has several.
        """
        if part is not None:
            values = self.parts(name)
            return None if values is None or part >= len(values) else values[part]
        value = self.fields.get(name)
        if type(value) is float and -LARGEST < value < LARGEST:
            return value
        number = finite(value)
        return fields.log_perplexity(self.fields.get("perplexity")) if number is None and name == "nll" else number

    def parts(self, name: str) -> tuple[float | None, ...] | None:
        """A field of several numbers, one for each decile or quantile; None where it is absent, or not what it should be."""
        return fields.parts(name, self.fields.get(name))

    def by_lineage(self, name: str) -> dict[str, float]:
        """A field that has a number for each lineage, by name; empty where it is absent, or not what it should be."""
        return fields.by_lineage(self.fields.get(name)) or {}

    @property
    def nll(self) -> float | None:
        """Loss on real test text, nats per token."""
        return self.measure("nll")

    @property
    def perplexity(self) -> float | None:
        """On real test text, as the row has it: up to the largest float, which stands for one beyond all floats."""
        value = self.fields.get("perplexity")
        if isinstance(value, int | float) and value >= LARGEST:
            return float(min(value, sys.float_info.max))
        return finite(value)

    @property
    def coordinates(self) -> dict[str, float]:
        """Of a cell of a mixture: its place along each axis that its grid has."""
        return {name: value for name in COORDINATES if (value := self.measure(name)) is not None}

    # --- all else -----------------------------------------------------------------------------------------------------

    @property
    def model_key(self) -> str:
        """Of the stage that made the model; "" where the row does not say."""
        key = self.fields.get("model_key")
        return key if isinstance(key, str) else ""

    @property
    def eval_keys(self) -> list[str]:
        """Of the stages that measured it; none in rows of older versions."""
        return fields.strings(self.fields.get("eval_keys"))

    @property
    def warnings(self) -> list[str]:
        """What makes the row doubtful."""
        warnings = self.fields.get("warnings")
        return fields.strings(warnings) if fields.makes_sense("warnings", warnings) else []

    @property
    def protocol(self) -> Mapping[str, Any]:
        """How its perplexity was measured; empty where it has none."""
        return fields.table(self.fields.get("protocol"))

    @property
    def histogram(self) -> Histogram | None:
        """Of its samples' log-perplexity under generation 0."""
        return fields.histogram(self.fields.get("sample_histogram"))

    @property
    def examples(self) -> list[Example]:
        """What it made of the same prompts as every other model."""
        return fields.examples(self.fields.get("examples"))

    @property
    def phrases(self) -> list[Phrase]:
        """What comes again most in its samples, eight tokens each."""
        return fields.phrases(self.fields.get("top_8grams"))

    @property
    def images(self) -> GeneratedImages | None:
        """A few that it generated."""
        return fields.images(self.fields.get("pictures"))

    @property
    def selection(self) -> Selection:
        """How the rows of its corpus were chosen; empty where all entered."""
        return fields.selection(self.fields.get("selection"))

    @property
    def foreign_rows(self) -> list[ForeignRows]:
        """How many rows of its corpus came from which source of someone else's text; none where there is none."""
        return fields.foreign_rows(self.fields.get("foreign_rows"))

    def malformed(self) -> Iterator[str]:
        """Names of fields that hold what they cannot hold; they read as None, or as empty."""
        for name, value in self.fields.items():
            if type(value) is float and name in NUMBERS and -LARGEST < value < LARGEST:
                continue  # nearly all fields of long runs
            if value is not None and name not in PLACE and not fields.makes_sense(name, value):
                yield name


def by_arm(rows: Iterable[Row]) -> dict[Arm, list[Row]]:
    """Rows by policy and lineage (or by cell), in the order of their first rows."""
    arms: dict[Arm, list[Row]] = {}
    for row in rows:
        arms.setdefault(row.where.arm, []).append(row)
    return arms


def planned_arms(tree: Mapping[str, Any]) -> list[Arm]:
    """Those that a configuration asks for, lineages of one policy beside each other; none of a mixture.

    Args:
        tree: for which nobody vouches.
    """
    if tree.get("kind") == "mixture":
        return []
    policies = fields.strings(fields.table(tree.get("loop")).get("policies"))
    lineages = [name for name in fields.table(tree.get("lineages")) if isinstance(name, str)] or [""]
    return list(dict.fromkeys(Arm(policy, lineage) for policy in policies for lineage in lineages))


def in_order(rows: Sequence[Row], planned: Iterable[Arm]) -> list[Row]:
    """By seed, generation, and arm: as planned, then as they come."""
    order = {arm: index for index, arm in enumerate(dict.fromkeys([*planned, *(row.where.arm for row in rows)]))}
    return sorted(rows, key=lambda row: (row.where.seed, row.where.generation, order[row.where.arm]))
