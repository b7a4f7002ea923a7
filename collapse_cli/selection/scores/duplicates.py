"""Which rows are the same as an earlier one."""

import numpy as np

from collapse_cli.config.selection import Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.selection.score import Material, Scored


class Duplicates:
    """How many earlier rows are the same: 0 of the first of its kind, then 1, 2 and so on."""

    def __init__(self, step: Step, material: Material) -> None:
        pass

    def score(self, rows: Dataset) -> Scored:
        first = next(iter(rows.arrays.values())) if "tokens" not in rows.arrays else rows.arrays["tokens"]
        whole = np.ascontiguousarray(first).reshape(len(rows), -1)
        if "lengths" in rows.arrays:  # what stands behind the end of a text is none of it
            behind = np.arange(whole.shape[1]) >= rows.arrays["lengths"][:, None]
            whole = np.where(behind, -1, whole)
        if not len(rows) or not whole.shape[1]:
            return Scored(np.arange(len(rows), dtype=np.float64))
        _, kind = np.unique(whole, axis=0, return_inverse=True)
        order = np.argsort(kind, kind="stable")
        starts = np.flatnonzero(np.diff(kind[order], prepend=-1))
        earlier = np.empty(len(rows), np.int64)
        earlier[order] = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
        counts = np.bincount(kind)
        return Scored(
            earlier.astype(np.float64),
            {"duplicates": int((earlier > 0).sum()), "kinds": len(counts), "most_alike": int(counts.max())},
        )
