"""Token n-grams of ragged rows under exact ids, from which repetition and diversity are counted."""

import numpy as np


class Grams:
    """The n-grams within each row, numbered without hashing: equal ids are equal n-grams.

    An n-gram is the pair of its two halves, so its number comes from sorting pairs of numbers. Nothing is joined
    across the border of two rows.
    """

    def __init__(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """`tokens` (rows, width) int, `lengths` (rows,) how many of them count; what is behind is never looked at."""
        self.lengths = np.minimum(lengths.astype(np.int64), tokens.shape[1])
        used = np.arange(tokens.shape[1]) < self.lengths[:, None]
        self.tokens = np.where(used, tokens, -1).astype(np.int32)
        self._ids: dict[int, np.ndarray] = {1: self.tokens}

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.tokens)

    def take(self, rows: np.ndarray, lengths: np.ndarray | None = None) -> "Grams":
        """Some rows, cut to `lengths` where given; their n-grams are numbered anew."""
        return Grams(self.tokens[rows], self.lengths[rows] if lengths is None else lengths)

    def ids(self, n: int) -> np.ndarray:
        """(rows, width - n + 1) int32: the number of the n-gram that begins at each place, -1 where none does.

        Numbers are in the order of the token ids; from n = 2 on they are 0, 1, 2 ... without gaps.
        """
        if n not in self._ids:
            first, second = (n + 1) // 2, n // 2
            width = max(0, self.tokens.shape[1] - n + 1)
            front, back = self.ids(first)[:, :width], self.ids(second)[:, first : first + width]
            there = np.arange(width) < (self.lengths - n + 1)[:, None]
            size = int(back.max(initial=0)) + 1
            _, numbers = np.unique(front[there] * np.int64(size) + back[there], return_inverse=True)
            ids = np.full(there.shape, -1, np.int32)
            ids[there] = numbers
            self._ids[n] = ids
        return self._ids[n]

    def all(self, n: int) -> np.ndarray:
        """(n-grams,) the numbers of all n-grams, row by row."""
        ids = self.ids(n)
        kept: np.ndarray = ids[ids >= 0]
        return kept
