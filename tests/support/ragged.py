"""Ragged samples for tests of the instruments: lists of token lists, as the arrays the instruments take."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from collapse_cli.metrics.grams import Grams

JUNK = 3  # also a token that is used, so that junk that is looked at shows


def arrays(rows: Sequence[Sequence[int]], extra: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (rows, width) with junk behind each row's end, and lengths."""
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.full((len(rows), int(lengths.max(initial=0)) + extra), JUNK, np.int32)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = row
    return tokens, lengths


def grams(rows: Sequence[Sequence[int]]) -> Grams:
    return Grams(*arrays(rows))


def slices(row: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """The n-grams of one row, the plain way."""
    return [tuple(row[place : place + n]) for place in range(len(row) - n + 1)]


few_tokens = st.lists(st.lists(st.integers(0, 4), max_size=14), max_size=10)
more_tokens = st.lists(st.lists(st.integers(0, 60), max_size=14), max_size=10)
ragged = st.one_of(few_tokens, more_tokens)


def random_rows(seed: int, rows: int, width: int, types: int = 50) -> list[list[int]]:
    """Samples of 0..width tokens, small ids more frequent."""
    random = np.random.Generator(np.random.Philox(seed))
    return [(types * random.random(int(random.integers(0, width + 1))) ** 3).astype(int).tolist() for _ in range(rows)]
