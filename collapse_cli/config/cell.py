"""One cell of a mixture experiment: how much real and synthetic data, of what quality, for how large a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from collapse_cli import families
from collapse_cli.config.families import MixtureConfig
from collapse_cli.errors import InputError

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


def cells(mixture: MixtureConfig) -> list[Cell]:
    """The grid of a mixture, in order; without rows it has none."""
    others: Sequence[Sequence[Any]] = [getattr(mixture, name) or (None,) for name in AXES]
    grid = [Cell(n1, n2, *rest) for n1, n2 in _sizes(mixture) for rest in product(*others)]
    return list(dict.fromkeys(grid))


def check_grid(learner: str, mixture: MixtureConfig) -> None:
    """Whether a family has such a grid, and all of its cells are what they were asked to be.

    Raises:
        InputError: for an empty grid, an axis that its learner knows nothing of, or a share that comes to no rows.
    """
    family = families.of(learner)
    if family.grid is None:
        mixed = ", ".join(name for name, other in families.FAMILIES.items() if other.grid)
        raise InputError(f"kind = mixture has no learner {learner!r}; it has {mixed}")
    for name in AXES:
        if getattr(mixture, name) and name not in family.grid.axes:
            own = ", ".join(family.grid.axes)
            raise InputError(f"mixture.{name} means nothing to the learner {learner}; it has {own}")
    if mixture.synthetic and (not family.text or family.grid.in_memory):
        mixed = ", ".join(name for name, other in families.FAMILIES.items() if other.text and other.grid)
        raise InputError(
            f"mixture.synthetic names text, and the rows of the learner {learner} are numbers; it belongs to {mixed}"
        )
    for share, n in product(mixture.share, mixture.rows or mixture.real_rows):
        made = round(n * share) if mixture.rows else round(n * share / (1 - share))
        if (share > 0 and made == 0) or (share < 1 and mixture.rows and made == n):
            raise InputError(f"a share of {share:g} of {n:,} rows is {made:,} rows; give more rows or another share")
    if not _sizes(mixture):
        raise InputError(
            "the grid of the mixture is empty: give mixture.rows and mixture.share, real_rows and share, or real_rows and "
            "synthetic_rows"
        )


def _sizes(mixture: MixtureConfig) -> list[tuple[int, int]]:
    """How many real and synthetic rows the cells have."""
    if mixture.rows:
        sizes = [_split(n, share) for n, share in product(mixture.rows, mixture.share)]
    elif mixture.share:
        sizes = [(n1, round(n1 * share / (1 - share))) for n1, share in product(mixture.real_rows, mixture.share)]
    else:
        sizes = list(product(mixture.real_rows, mixture.synthetic_rows))
    if mixture.added_rows:
        base = mixture.added_to or max((n1 for n1, _ in sizes), default=0)
        sizes += [(base, n2) for n2 in (0, *mixture.added_rows)]
    return [(n1, n2) for n1, n2 in dict.fromkeys(sizes) if n1 + n2]


def _split(rows: int, share: float) -> tuple[int, int]:
    synthetic = round(rows * share)
    return rows - synthetic, synthetic
