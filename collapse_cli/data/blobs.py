"""The source `blobs`: points drawn from Gaussians of equal weight, whose mean and covariance are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError

TEST_ROWS = 1000  # of a source that is drawn, where `data.eval_rows` is 0


@dataclass(frozen=True)
class Blobs:
    """The section `data.blobs`.

    Attributes:
        dimensions: d.
        centers: how many Gaussians.
        separation: radius of the circle that several stand on.
        spread: standard deviation of each, in each dimension.
        shift: of all of them, along the first dimension.
    """

    dimensions: int
    centers: int
    separation: float
    spread: float
    shift: float = 0.0


@dataclass(frozen=True)
class Drawn:
    """Which rows are drawn: what they depend on of the section `data`.

    Attributes:
        rows, eval_rows, reserve: of the original corpus, of the test rows (0: `TEST_ROWS`), and beyond the corpus.
        blobs: from which distribution.
    """

    source: str
    rows: int
    eval_rows: int
    reserve: int
    blobs: Blobs


def centers(blobs: Blobs) -> np.ndarray:
    """(centers, d) where they stand: one at the origin, several evenly on a circle; in one dimension evenly on a line; all moved by `shift`."""
    count, radius, d = blobs.centers, blobs.separation, blobs.dimensions
    places = np.zeros((count, d))
    if count > 1 and d == 1:
        places[:, 0] = np.linspace(-radius, radius, count)
    elif count > 1:
        angle = 2 * np.pi * np.arange(count) / count
        places[:, 0], places[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    places[:, 0] += blobs.shift
    return places


def truth(blobs: Blobs) -> tuple[np.ndarray, np.ndarray]:
    """(d,) mean and (d,) variances of the source; coordinates are not correlated."""
    places = centers(blobs)
    return places.mean(axis=0), blobs.spread**2 + places.var(axis=0)


def check(rows: int, least: int) -> None:
    """Whether `data.rows` says how many rows to draw, and enough of them.

    Raises:
        InputError: when it does not.
    """
    if rows == 0:
        raise InputError("data.source = blobs draws its rows: say how many, as in data.rows = 1000")
    if rows < least:
        raise InputError(f"data.rows = {rows} is too few to fit this model; it needs at least {least} rows")


def params(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the rows depend on, of the section `data`."""
    return {name: data[name] for name in ("source", "rows", "eval_rows", "reserve", "blobs")}


def draw(data: Drawn, seed: int, trials: tuple[int, ...] = ()) -> dict[str, Dataset]:
    """`train`, `test` and `reserve`: `x` (rows, *trials, d) float64, from random numbers of their own each.

    More rows begin with the same rows.
    """
    blobs, parts = data.blobs, {}
    sizes = {"train": data.rows, "test": data.eval_rows or TEST_ROWS, "reserve": data.reserve}
    for (name, rows), source in zip(sizes.items(), np.random.SeedSequence(seed).spawn(len(sizes)), strict=True):
        points, places = (np.random.Generator(np.random.Philox(stream)) for stream in source.spawn(2))
        x = points.standard_normal((rows, *trials, blobs.dimensions)) * blobs.spread
        if blobs.centers > 1:
            x += centers(blobs)[places.integers(blobs.centers, size=(rows, *trials))]
        elif blobs.shift:
            x += centers(blobs)[0]
        parts[name] = Dataset({"x": x}, np.zeros(rows, np.int32))
    return parts
