"""The source `blobs`: points drawn from Gaussians of equal weight, whose mean and covariance are known."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError

TEST_ROWS = 1000  # of a source that is drawn, where `data.eval_rows` is 0


def centers(blobs: Mapping[str, Any]) -> np.ndarray:
    """(centers, d) where they stand: one at the origin, several evenly on a circle; in one dimension evenly on a line."""
    count, radius, d = blobs["centers"], blobs["separation"], blobs["dimensions"]
    found = np.zeros((count, d))
    if count == 1:
        return found
    if d == 1:
        found[:, 0] = np.linspace(-radius, radius, count)
        return found
    angle = 2 * np.pi * np.arange(count) / count
    found[:, 0], found[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    return found


def truth(blobs: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(d,) mean and (d,) variances of the source; coordinates are not correlated."""
    places = centers(blobs)
    return places.mean(axis=0), blobs["spread"] ** 2 + places.var(axis=0)


def check(data: Mapping[str, Any], least: int) -> None:
    """Whether the section `data` says how many rows to draw, and enough of them.

    Raises:
        InputError: when it does not.
    """
    rows = data["rows"]
    if rows == 0:
        raise InputError("data.source = blobs draws its rows: say how many, as in data.rows = 1000")
    if rows < least:
        raise InputError(f"data.rows = {rows} is too few to fit this model; it needs at least {least} rows")


def params(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the rows depend on, of the section `data`."""
    return {name: data[name] for name in ("source", "rows", "eval_rows", "reserve", "blobs")}


def draw(data: Mapping[str, Any], seed: int, trials: tuple[int, ...] = ()) -> dict[str, Dataset]:
    """`train`, `test` and `reserve`: `x` (rows, *trials, d) float64, from random numbers of their own each.

    More rows begin with the same rows.
    """
    blobs, parts = data["blobs"], {}
    sizes = {"train": data["rows"], "test": data["eval_rows"] or TEST_ROWS, "reserve": data["reserve"]}
    for (name, rows), source in zip(sizes.items(), np.random.SeedSequence(seed).spawn(len(sizes)), strict=True):
        points, places = (np.random.Generator(np.random.Philox(one)) for one in source.spawn(2))
        x = points.standard_normal((rows, *trials, blobs["dimensions"])) * blobs["spread"]
        if blobs["centers"] > 1:
            x += centers(blobs)[places.integers(blobs["centers"], size=(rows, *trials))]
        parts[name] = Dataset({"x": x}, np.zeros(rows, np.int32))
    return parts
