"""What rows hold, whatever their learner: as numbers, and as something that can be compared."""

from hashlib import blake2b

import numpy as np

from collapse_cli.data.dataset import Dataset


def numbers(rows: Dataset) -> np.ndarray:
    """(rows, d) float64: all numbers of each row, its label's at the end."""
    parts = [rows.arrays[name].reshape(len(rows), -1) for name in ("x", "y") if name in rows.arrays]
    return np.concatenate(parts, axis=1).astype(np.float64)


def digests(rows: Dataset, width: int | None = None) -> np.ndarray:
    """(rows,) uint64: equal for rows of equal content, else different but for chance (2^-64 a pair).

    Args:
        width: of text, how many tokens of each row count; None: all.
    """
    if "tokens" in rows.arrays:
        tokens, lengths = rows.arrays["tokens"], rows.arrays["lengths"]
        lengths = lengths if width is None else np.minimum(lengths, width)
        raw = (ids[:length].tobytes() for ids, length in zip(tokens, lengths, strict=True))
    else:
        raw = (row.tobytes() for row in numbers(rows))
    return np.array([int.from_bytes(blake2b(one, digest_size=8).digest(), "little") for one in raw], np.uint64)
