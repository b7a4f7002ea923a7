"""How much rows count in the loss of a fit: real and synthetic ones (`mix.weights`), private, public and pooled ones (`pool.weights`)."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

from collapse_cli.config.names import nearest
from collapse_cli.errors import InputError
from collapse_cli.families.section import Parsed

EQUAL, GOLDEN = "equal", "golden"
LARGEST = 1e6  # times that a row may count more than another
FORMS = '"equal", "golden", or weights of a real and of a synthetic row, as in "2:1"'


def golden(real: int, synthetic: int) -> float:
    """The share of the loss that real rows get with the golden weight: (sqrt(k² + 4k) - k) / 2, k = real / synthetic.

    It makes the error of an estimated mean the smallest in a loop with as many new real rows in each generation. Source:
    arXiv 2502.18049.
    """
    k = real / synthetic
    return 2 / (math.sqrt(1 + 4 / k) + 1)  # the same, without the difference of two large numbers


@dataclass(frozen=True)
class Weights(Parsed):
    """The weights of rows in a fit, written as text.

    Attributes:
        ratio: how many times as much as a synthetic row a real one counts; None: the golden weight, which follows from
            how many of each a corpus has.
        name: as the user wrote it. 2:1 and 4:2 are the same weights.
    """

    ratio: float | None = 1.0
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.name:
            written = GOLDEN if self.ratio is None else EQUAL if self.ratio == 1 else f"{self.ratio!r}:1"
            object.__setattr__(self, "name", written)

    def __str__(self) -> str:
        return self.name

    @property
    def equal(self) -> bool:
        """Whether all rows count alike, whatever the corpus."""
        return self.ratio == 1

    def of_rows(self, real: int, synthetic: int) -> tuple[float, float] | None:
        """The weight of a real and of a synthetic row of a corpus with so many of each, 1 on average; None: all are alike."""
        if self.equal or real == 0 or synthetic == 0:
            return None
        # with k the golden share w has w² = k (1 - w), so that a real row counts 1 / w times as much
        ratio = 1 / golden(real, synthetic) if self.ratio is None else self.ratio
        one = (real + synthetic) / (ratio * real + synthetic)
        return ratio * one, one

    @classmethod
    def parse(cls, text: str) -> "Weights":
        """The weights of a text such as `golden` or `2:1`.

        Raises:
            InputError: for another text, and for weights that are not above 0 or too far apart.
        """
        if text in (EQUAL, GOLDEN):
            return cls(1.0 if text == EQUAL else None)
        first, colon, second = text.partition(":")
        try:
            real, synthetic = float(first), float(second)
        except ValueError:
            meant = "" if colon else nearest(text, (EQUAL, GOLDEN))
            raise InputError(f"must be {FORMS}; it is {text[:80]!r}{meant}") from None
        if not (colon and math.isfinite(real) and math.isfinite(synthetic) and real > 0 and synthetic > 0):
            none = (
                "; to leave rows out, choose the policy: keep-0 has no real rows, keep-100 no synthetic ones"
                if 0 in (real, synthetic)
                else ", as in 2:1"
            )
            raise InputError(f"must be two numbers above 0, it is {text[:80]!r}{none}")
        if not 1 / LARGEST <= real / synthetic <= LARGEST:
            raise InputError(f"may differ by a factor of {LARGEST:,.0f} at most; it is {text[:80]!r}")
        return cls(real / synthetic, text)

    def params(self) -> float | str:
        """What the key of a stage has of it."""
        return GOLDEN if self.ratio is None else self.ratio

    @classmethod
    def of(cls, params: float | str | None) -> "Weights":
        """The weights that a stage has in its parameters; None: it was made without any."""
        return cls(1.0 if params is None else None if params == GOLDEN else float(params))


# of rows: of a lineage's own real text, of the text that all share, and synthetic ones
KINDS = ("private", "public", "pooled")


@dataclass(frozen=True)
class Shares(Parsed):
    """The shares of the loss that private, public and pooled rows have, each as a whole, written as text: `1:1:2`.

    So it is weighted by Vu, Reeves and Wenger (arXiv 2505.21677): (1-a)b : (1-a)(1-b) : a. However many rows a kind has, its
    share is the same; within a kind all rows count alike.

    Attributes:
        parts: the three numbers; None: every row counts alike, whatever it is.
        name: as the user wrote it.
    """

    parts: tuple[Fraction, Fraction, Fraction] | None = None
    name: str = field(default=EQUAL, compare=False)

    def __str__(self) -> str:
        return self.name

    @property
    def equal(self) -> bool:
        return self.parts is None

    @classmethod
    def parse(cls, text: str) -> "Shares":
        """The shares of a text such as `1:1:2`; `equal`: none.

        Raises:
            InputError: for another text.
        """
        if text == EQUAL:
            return cls()
        forms = 'must be "equal", or shares of the loss of private, public and pooled rows, as in "1:1:2"'
        pieces = text.split(":")
        try:
            numbers = [Fraction(piece.strip()) for piece in pieces] if len(text) <= 120 else []
        except (ValueError, ZeroDivisionError):
            numbers = []
        if len(numbers) != 3:
            raise InputError(f"{forms}; it is {text[:80]!r}")
        if any(number < 0 for number in numbers) or not any(numbers):
            raise InputError(f"{forms}: numbers from 0 on, not all 0; it is {text[:80]!r}")
        if any(number and number / max(numbers) < 1 / LARGEST for number in numbers):
            raise InputError(f"shares may differ by a factor of {LARGEST:,.0f} at most; it is {text[:80]!r}")
        private, public, pooled = numbers
        return cls((private, public, pooled), text)

    def at(self, generation: int, *, public: bool) -> "Shares":
        """Those of a generation: 0 has no pooled rows, so that it is one model for all that share the other two alike.

        Args:
            public: whether there are public rows; without, all rows of generation 0 count alike.
        """
        if self.parts is None or generation:
            return self
        private, shared, _ = self.parts
        alone = not public or not (private or shared)
        return Shares() if alone else Shares((private, shared, Fraction(0)), self.name)

    def params(self) -> list[float]:
        """What the key of a stage has of it: the shares, 1 together."""
        assert self.parts is not None
        return [float(part / sum(self.parts)) for part in self.parts]
