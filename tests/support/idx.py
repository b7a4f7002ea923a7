"""Sets of images as IDX files."""

import gzip
import struct
from pathlib import Path

import numpy as np


def idx(array: np.ndarray) -> bytes:
    """The bytes of an IDX file, as its description has them."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def random_set(count: int, seed: int = 0, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return (
        random.integers(0, 256, (count, size, size), dtype=np.uint8),
        random.integers(0, 10, count, dtype=np.uint8),
    )


def write_set(folder: Path, stem: str, pixels: np.ndarray, labels: np.ndarray, *, zipped: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    for name, array in ((f"{stem}-images-idx3-ubyte", pixels), (f"{stem}-labels-idx1-ubyte", labels)):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1))
        else:
            (folder / name).write_bytes(idx(array))
