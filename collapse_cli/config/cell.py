"""One cell of a mixture experiment: how much real and synthetic data, of what quality, for how large a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

AXES = (
    "quality",
    "generator_rows",
    "size",
    "lam",
    "weight",
    "iterations",
)  # besides rows and share, in the order of labels
SHORT = {"generator_rows": "g", "quality": "c2", "size": "m", "lam": "lam", "weight": "a", "iterations": "t"}


@dataclass(frozen=True)
class Cell:
    """A point of the grid. None: not an axis, the configuration's own.

    Attributes:
        real: n1, real rows.
        synthetic: n2, rows whose labels or text a generator made.
        quality: c², risk of the generator.
        generator_rows: real rows that the generator was fitted on; 0: all.
        size: width m, hidden units or layers.
        lam: ridge penalty.
        weight: nominal synthetic mass of weighted mixing.
        iterations: rounds of iterative mixing.
    """

    real: int
    synthetic: int
    quality: float | None = None
    generator_rows: int | None = None
    size: int | None = None
    lam: float | None = None
    weight: float | None = None
    iterations: int | None = None

    @property
    def rows(self) -> int:
        return self.real + self.synthetic

    @property
    def share(self) -> float:
        """p2."""
        return self.synthetic / self.rows if self.rows else 0.0

    @property
    def label(self) -> str:
        """Names the cell in `metrics.jsonl`, where the loop's rows have a policy: `n=500 p2=0.1 c2=1 m=250`."""
        own = [f"{SHORT[name]}={getattr(self, name):g}" for name in AXES if getattr(self, name) is not None]
        return " ".join([f"n={self.rows}", f"p2={self.share:.6g}", *own])

    def record(self) -> dict[str, Any]:
        """Its fields in a row of `metrics.jsonl`; axes that are none are left out."""
        own = {name: getattr(self, name) for name in AXES if getattr(self, name) is not None}
        return {"rows": self.rows, "real_rows": self.real, "synthetic_rows": self.synthetic, "share": self.share, **own}


def cells(mixture: Mapping[str, Any]) -> list[Cell]:
    """The grid of a configuration's section `mixture` (as a plain tree), in order; without rows it has none."""
    if mixture["rows"]:
        sizes = [_split(n, share) for n, share in product(mixture["rows"], mixture["share"])]
    elif mixture["share"]:
        sizes = [(n1, round(n1 * share / (1 - share))) for n1, share in product(mixture["real_rows"], mixture["share"])]
    else:
        sizes = list(product(mixture["real_rows"], mixture["synthetic_rows"]))
    others: Sequence[Sequence[Any]] = [mixture[name] or (None,) for name in AXES]
    found = [Cell(n1, n2, *rest) for n1, n2 in dict.fromkeys(sizes) if n1 + n2 for rest in product(*others)]
    return list(dict.fromkeys(found))


def _split(rows: int, share: float) -> tuple[int, int]:
    synthetic = round(rows * share)
    return rows - synthetic, synthetic
