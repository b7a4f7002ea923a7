"""A run's models measured again, beside what was logged of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.records.row import Row
from collapse_cli.where import Where

AGREEMENT = 1e-4  # relative; a larger difference from what was logged is one


@dataclass(frozen=True)
class Evaluated:
    """One model of a run, measured again.

    Attributes:
        measure: the field that is compared.
        logged: what the run's row says of it; None on other text, or under another protocol.
        again: what was measured now; None where the model is pruned, or was not made yet.
        made: whether the run has come to this model.
    """

    where: Where
    model_key: str
    measure: str
    logged: float | None
    again: Row | None
    made: bool = True

    @property
    def value(self) -> float | None:
        """The measure, as it is now."""
        return None if self.again is None else value_of(self.again, self.measure)

    @property
    def difference(self) -> float | None:
        """Between logged and measured now, relative to what was logged; None where one of them is not known."""
        if self.value is None or self.logged is None:
            return None
        return abs(self.value - self.logged) / (abs(self.logged) or 1.0)

    @property
    def agrees(self) -> bool:
        """Whether nothing shows that it is not what was logged."""
        return self.difference is None or self.difference <= AGREEMENT

    def record(self) -> dict[str, Any]:
        """As JSON."""
        place = {
            "model_key": self.model_key,
            "measure": self.measure,
            "logged": self.logged,
            "pruned": self.again is None and self.made,
        }
        measured = Row.at(self.where, place).record() | (self.again.record() if self.again else {})
        return measured | {"difference": self.difference}


def value_of(row: Row, measure: str) -> float | None:
    """What models are compared by; a perplexity beyond all floats is the largest float in both."""
    return row.perplexity if measure == "perplexity" else row.measure(measure)


def disagreements(evaluated: Sequence[Evaluated]) -> list[Evaluated]:
    """Models whose perplexity (or loss) is not what was logged."""
    return [model for model in evaluated if not model.agrees]
