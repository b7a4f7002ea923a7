"""Sections of the configuration for data that are drawn, for the kind `mixture`, and for each model family its own."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model, field_validator, model_validator

from collapse_cli.config.foreign import Source, one_or_many
from collapse_cli.families import FAMILIES
from collapse_cli.families.section import Section, added

MOST_ROUNDS, MOST_CELL_ROWS, LARGEST = 10_000, 100_000_000, 1e9  # of a mixture: beyond, a slip of the finger
DRAWN = ("blobs", "regression")  # sources that are distributions: each seed draws its own real rows


class BlobsConfig(Section):
    """The source `blobs`: points drawn from Gaussians, as scikit-learn's `make_blobs`; the truth is known."""

    dimensions: int = Field(default=2, ge=1, le=1000)
    """Coordinates of a point."""
    centers: int = Field(default=1, ge=1, le=100)
    """Gaussians of equal weight; one stands at the origin, several on a circle (in the first two dimensions)."""
    separation: float = Field(default=4.0, ge=0, le=1e6)
    """Radius of the circle that several Gaussians stand on."""
    spread: float = Field(default=1.0, ge=1e-6, le=1e6)
    """Standard deviation of each in each dimension."""
    shift: float = added(0.0, ge=-1e6, le=1e6)
    """How far all of them are moved along the first dimension: so that lineages can have truths of their own."""


class RegressionConfig(Section):
    """The source `regression`: x ~ N(0, Sigma), y = x·w + noise, as in "Strong Model Collapse" (arXiv 2410.04840)."""

    dimensions: int = Field(default=100, ge=1)
    """d, the inputs of a row."""
    spectrum: Literal["iso", "pow"] = "iso"
    """Eigenvalues of Sigma: all 1, or k ** -beta."""
    beta: float = Field(default=1.5, ge=0)
    """How fast the eigenvalues of the spectrum `pow` fall."""
    noise: float = Field(default=0.5, ge=0, le=1e6)
    """s1, standard deviation of the noise on real labels."""
    noise_synthetic: float = Field(default=-1.0, ge=-1, le=1e6)
    """s2, standard deviation of the noise on synthetic labels. -1: as on real ones."""
    inputs: Literal["same", "fresh"] = "fresh"
    """The inputs that a generation labels: those of the original corpus again, or newly drawn ones."""
    flipped: float = added(0.0, ge=0, lt=1)
    """Share of synthetic labels that get the wrong sign, as of a labeller that errs so often: what a verifier is for."""
    shift: float = added(0.0, ge=-1e6, le=1e6)
    """How far the true weights are moved, |shift|_Sigma, all along one direction: so that lineages can have truths of their own."""


class MixtureConfig(Section):
    """The kind `mixture`: one generation, a grid. Lists are axes; the grid is their product. An empty one is no axis.

    Of `rows`, `real_rows`, `synthetic_rows` and `share` give two: rows or real rows with a share, or real with synthetic rows.
    """

    rows: tuple[int, ...] = ()
    """n = n1 + n2: rows of a cell, real and synthetic."""
    real_rows: tuple[int, ...] = ()
    """n1: real rows of a cell."""
    synthetic_rows: tuple[int, ...] = ()
    """n2: synthetic rows of a cell."""
    share: tuple[float, ...] = ()
    """p2 = n2 / n, the synthetic share."""
    quality: tuple[float, ...] = ()
    """c², the risk of the synthetic labeller itself (ridge, projections): 0 is perfect."""
    generator_rows: tuple[int, ...] = ()
    """Real rows that the generator is fitted on (mlp, lm), which decides its quality. 0: all."""
    size: tuple[int, ...] = ()
    """Model size: m of projections, width of mlp, layers of lm. Empty: that of the configuration."""
    lam: tuple[float, ...] = ()
    """Ridge penalties (ridge, projections). Empty: that of the configuration."""
    weight: tuple[float, ...] = ()
    """Nominal mass of synthetic rows in the loss (ridge): 0 real rows only, p2 unweighted. Empty: unweighted."""
    iterations: tuple[int, ...] = ()
    """Rounds of iterative mixing (ridge). Empty: one round, a fixed generator."""
    real_data: Literal["fresh", "fixed"] = "fresh"
    """Of iterative mixing: real rows newly drawn in each round, or drawn once."""
    added_rows: tuple[int, ...] = added(())
    """Synthetic rows that are added to `added_to` real ones, in cells beside those of the grid (lm)."""
    added_to: int = added(0, ge=0)
    """Real rows that `added_rows` are added to; these alone are a cell as well. 0: as many as the grid has at most."""
    synthetic: tuple[Source, ...] = added(())
    """Where synthetic rows come from in place of a generator that is fitted (lm): files or folders of text that someone else's
    model wrote, and OpenAI-style servers, `http://127.0.0.1:8000/v1#MODEL`; of several, evenly. Empty: from a generator."""

    @field_validator("synthetic", mode="before")
    @classmethod
    def _one_alone(cls, value: object) -> object:
        return one_or_many(value)

    @model_validator(mode="after")
    def _two_of_four(self) -> "MixtureConfig":
        given = tuple(name for name in ("rows", "real_rows", "synthetic_rows", "share") if getattr(self, name))
        if given and given not in (("rows", "share"), ("real_rows", "share"), ("real_rows", "synthetic_rows")):
            raise ValueError(
                f"a mixture is given by rows and share, real_rows and share, or real_rows and synthetic_rows, "
                f"not by {' and '.join(given)}"
            )
        if any(not 0 <= share <= 1 for share in self.share):
            raise ValueError(f"share must be in 0..1, it is {list(self.share)}")
        if self.real_rows and any(share == 1 for share in self.share):
            raise ValueError("a share of 1 leaves no real rows: give rows in place of real_rows")
        for name, least in (
            ("rows", 1),
            ("real_rows", 0),
            ("synthetic_rows", 0),
            ("generator_rows", 0),
            ("added_rows", 1),
            ("size", 1),
        ):
            if any(value < least for value in getattr(self, name)):
                raise ValueError(f"{name} must be at least {least}, it is {list(getattr(self, name))}")
        for name in ("quality", "lam"):
            if any(value < 0 for value in getattr(self, name)):
                raise ValueError(f"{name} must be at least 0, it is {list(getattr(self, name))}")
        if any(not 0 <= weight < 1 for weight in self.weight):
            raise ValueError(f"weight must be at least 0 and below 1, it is {list(self.weight)}")
        if any(not 1 <= rounds <= MOST_ROUNDS for rounds in self.iterations):
            raise ValueError(
                f"iterations must be at least 1 and at most {MOST_ROUNDS:,}, it is {list(self.iterations)}"
            )
        if not given and (self.added_rows or self.added_to):
            raise ValueError("added_rows and added_to stand beside a grid: give rows and share, or real_rows, too")
        if self.added_to and not self.added_rows:
            raise ValueError(f"added_to = {self.added_to} has no effect without added_rows")
        for name in ("rows", "real_rows", "synthetic_rows", "added_rows"):
            if any(value > MOST_CELL_ROWS for value in getattr(self, name)):
                raise ValueError(f"{name} must be at most {MOST_CELL_ROWS:,}, it is {list(getattr(self, name))}")
        if any(value > LARGEST for value in (*self.quality, *self.lam)):
            raise ValueError(f"quality and lam must be at most {LARGEST:g}")
        for name in type(self).model_fields:
            values: Any = getattr(self, name)
            if isinstance(values, tuple) and len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice: {list(values)}")
        return self


if TYPE_CHECKING:

    class Families(Section):
        """A section for each family of `families.FAMILIES` that has one, of its name; and `mixture`."""

        mixture: MixtureConfig = MixtureConfig()

        def __getattr__(self, name: str) -> Any: ...

else:
    OWN = {
        family.name: (family.settings, family.settings()) for family in FAMILIES.values() if family.settings is not None
    }
    Families = create_model("Families", __base__=Section, **OWN, mixture=(MixtureConfig, MixtureConfig()))
