"""Linear regression on a mixture of real and synthetic rows, a cell of a grid each, computed from sums over rows.

All of a cell's random numbers come from the seed of its repeat alone, so that the cells of a repeat are paired: cells with
more real rows have the same first ones, a larger quality c² moves the same delta further, a wider projection has the same
first rows. Rows are never kept: X'X, X'e and e'e (e the noise of the labels) hold all that a fit and its error need, for
every quality, penalty and labeller.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import numpy as np

from collapse_cli.learners.regression import Array, Setting, Solver, generator, labeller, solver, true_weights

CHUNK = 4096  # rows drawn by one generator; what is summed in which order does not depend on what was asked before
ROOM = 32 * 2**20  # bytes of sums that a stream keeps, so that cells need not draw the rows of smaller ones again
REMEMBERED = 96 * 2**20  # bytes of decompositions kept for the cells to come, and of projections as many
REAL, SYNTHETIC, PROJECTION = 4, 5, 6  # streams of a seed; those below are the truth's and the generational loop's


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def remembered(size: Callable[[Result], int]) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """A function of hashable arguments that keeps its latest results: the last one, and up to 64 that fit into `REMEMBERED`.

    Grids come in an order of their own, so that what a cell shares with others may be wanted again many cells later.

    Args:
        size: bytes of a result.
    """

    def wrap(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        kept: OrderedDict[Hashable, Result] = OrderedDict()

        @wraps(function)
        def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            key = (args, tuple(sorted(kwargs.items())))
            if key not in kept:
                kept[key] = function(*args, **kwargs)
            kept.move_to_end(key)
            while len(kept) > 64 or (len(kept) > 1 and sum(map(size, kept.values())) > REMEMBERED):
                kept.popitem(last=False)
            return kept[key]

        return wrapped

    return wrap


@dataclass(frozen=True)
class Mix:
    """Rows of a cell.

    Attributes:
        real, synthetic: n1, n2.
        weight: nominal mass of the synthetic rows in the loss, p1 a1 = 1 - weight and p2 a2 = weight; None: unweighted.
    """

    real: int
    synthetic: int
    weight: float | None = None

    @property
    def factors(self) -> tuple[float, float]:
        """a1/n and a2/n, what a real and a synthetic row count for in the mean."""
        if self.weight is None:
            return 1 / (self.real + self.synthetic), 1 / (self.real + self.synthetic)
        return (1 - self.weight) / self.real, (self.weight / self.synthetic if self.weight else 0.0)


@dataclass(frozen=True)
class Sums:
    """Over rows with inputs X and standard normal label noise e: X'X (d, d), X'e (d,), e'e."""

    gram: Array
    noise: Array
    square: float

    def moment(self, w: Array, noise: float) -> Array:
        """X'y of labels y = Xw + noise·e."""
        moment: Array = self.gram @ w + noise * self.noise
        return moment

    def loss(self, w: Array, noise: float, fitted: Array) -> float:
        """|y - X fitted|² of labels y = Xw + noise·e."""
        apart = w - fitted
        return float(apart @ self.gram @ apart + 2 * noise * (apart @ self.noise) + noise**2 * self.square)


class Stream:
    """Standard normal rows of `width` numbers, and sums of their outer products over the first ones."""

    def __init__(self, width: int, seed: int, stream: Sequence[int]) -> None:
        self.width, self.seed, self.stream = width, seed, tuple(stream)
        self._kept: dict[int, Array] = {0: np.zeros((width, width))}  # by whole chunks
        self._most = ROOM // (8 * width * width)

    def rows(self, count: int) -> Array:
        """The first rows, (count, width)."""
        parts = [self._chunk(at // CHUNK, min(CHUNK, count - at)) for at in range(0, count, CHUNK)]
        return np.concatenate(parts) if parts else np.empty((0, self.width))

    def products(self, count: int) -> Array:
        """Z'Z of the first rows Z, (width, width)."""
        whole, rest = divmod(count, CHUNK)
        at = max(known for known in self._kept if known <= whole)
        total = self._kept[at]
        for chunk in range(at, whole):
            drawn = self._chunk(chunk, CHUNK)
            total = total + drawn.T @ drawn
            if len(self._kept) <= self._most:
                self._kept[chunk + 1] = total
        if rest:
            drawn = self._chunk(whole, rest)
            total = total + drawn.T @ drawn
        return total

    def _chunk(self, chunk: int, rows: int) -> Array:
        return generator(self.seed, *self.stream, chunk).standard_normal((rows, self.width))


@lru_cache(maxsize=3)
def _stream(width: int, seed: int, stream: tuple[int, ...]) -> Stream:
    return Stream(width, seed, stream)


@lru_cache(maxsize=4)
def sums(setting: Setting, seed: int, stream: tuple[int, ...], rows: int) -> Sums:
    """Of the first rows of a stream."""
    products = _stream(setting.d + 1, seed, stream).products(rows)
    root = np.sqrt(setting.eigenvalues)
    return Sums(root[:, None] * products[:-1, :-1] * root, root * products[:-1, -1], float(products[-1, -1]))


def _bytes_of_array(kept: Array) -> int:
    return kept.nbytes


def _bytes_of_solver(kept: Solver) -> int:
    return kept.factor.nbytes


@remembered(_bytes_of_array)
def features(d: int, seed: int, width: int) -> Array:
    """L (d, min(m, d)) with LL' = S'S, S (m, d) ~ N(0, 1/d) iid: ridge on Sx is ridge on L'x, and w_hat = Lv.

    A wider S has the rows of a narrower one. Beyond d features only S'S matters, whatever m.
    """
    stream = _stream(d, seed, (PROJECTION,))
    if width <= d:
        rows: Array = stream.rows(width) / np.sqrt(d)
        return np.ascontiguousarray(rows.T)
    factor: Array = np.linalg.cholesky(stream.products(width) / d)
    return factor


@remembered(_bytes_of_solver)
def _solver(setting: Setting, seed: int, mix: Mix, streams: tuple[tuple[int, ...], ...], width: int) -> Solver:
    first, second = mix.factors
    gram = first * sums(setting, seed, streams[0], mix.real).gram
    rows = mix.real
    if second:
        gram = gram + second * sums(setting, seed, streams[1], mix.synthetic).gram
        rows += mix.synthetic
    return solver(gram, rows, features(setting.d, seed, width) if width else None)


@dataclass(frozen=True)
class Fitted:
    """A model after some rounds, and what it was fitted to.

    Attributes:
        w: its weights, (d,).
        train_loss: mean squared error on the rows of its fit, each counted once.
    """

    w: Array
    train_loss: float


class Rounds:
    """Rounds of fitting to n1 real rows and n2 that the model before labelled; the first labeller has risk c².

    One round is a static mixture. Inputs of synthetic rows are new in each round, and so are real rows unless `fixed`:
    Algorithms A (fresh) and B (fixed) of docs/theory.md: Iterative mixing. Which of the two the paper (arXiv
    2410.04840, iterative mixing) means is UNCONFIRMED.

    Args:
        width: features of a random projection; 0: the inputs themselves.
    """

    def __init__(
        self, setting: Setting, seed: int, mix: Mix, quality: float, lam: float, fixed: bool, width: int = 0
    ) -> None:
        self.setting, self.seed, self.mix, self.lam, self.fixed, self.width = setting, seed, mix, lam, fixed, width
        self.true = true_weights(setting, seed)
        self.fits = [Fitted(labeller(setting, quality, seed), 0.0)]

    def after(self, count: int) -> dict[str, float]:
        """Measures after so many rounds, at least one.

        `error` = |w_hat - w1|²_Sigma; `labeller_error`, the same of the model that labelled the last round's synthetic rows;
        `test_loss`, the expected squared error on real rows, noise and all; `train_loss`.
        """
        while len(self.fits) <= count:
            self.fits.append(self._fit(len(self.fits)))
        error, before = (self.setting.norm_squared(self.fits[at].w - self.true) for at in (count, count - 1))
        return {
            "error": error,
            "labeller_error": before,
            "test_loss": error + self.setting.noise**2,
            "train_loss": self.fits[count].train_loss,
        }

    def _fit(self, turn: int) -> Fitted:
        setting, mix = self.setting, self.mix
        streams = ((REAL, 1 if self.fixed else turn), (SYNTHETIC, turn))
        parts = (
            (sums(setting, self.seed, streams[0], mix.real), self.true, setting.noise),
            (sums(setting, self.seed, streams[1], mix.synthetic), self.fits[-1].w, setting.noise_synthetic),
        )
        moment = np.zeros(setting.d)
        for factor, (part, w, noise) in zip(mix.factors, parts, strict=True):
            moment += factor * part.moment(w, noise)
        w_hat = _solver(setting, self.seed, mix, streams, self.width).weights(moment, self.lam)
        loss = sum(part.loss(w, noise, w_hat) for part, w, noise in parts) / (mix.real + mix.synthetic)
        return Fitted(w_hat, max(0.0, loss))


@lru_cache(maxsize=8)
def rounds(setting: Setting, seed: int, mix: Mix, quality: float, lam: float, fixed: bool, width: int = 0) -> Rounds:
    """Rounds of fitting; cells that differ in how many they have are points of one."""
    return Rounds(setting, seed, mix, quality, lam, fixed, width)
