"""The roof: the fastest matrix products and memory copies of this machine, best of many."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import fresh_model, on_gpu, synchronize
from torch.nn import functional

from collapse_cli.lm import arithmetic
from collapse_cli.lm import model as models

Size = tuple[int, int, int]  # rows, inner, columns


def sizes(shape: str) -> list[Size]:
    """Products of a model's layers and head over a good many tokens, and a square one."""
    config = fresh_model(shape).config
    tokens, square, logits = (16384, 8192, 16384) if on_gpu() else (2048, 1024, 512)
    width, inner = config.hidden_size, config.ffn_dim
    return [
        (tokens, width, width),
        (tokens, width, inner),
        (tokens, inner, width),
        (logits, width, config.vocab_size),
        (square, square, square),
    ]


def operands(dtype: str, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (rows, inner) and a weight (columns, inner)."""
    rows, inner, columns = size
    kind, place = getattr(torch, dtype), models.device()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.randn(rows, inner).to(place, kind), torch.randn(columns, inner).to(place, kind)


def flops_per_second(work: Callable[[], object], size: Size) -> float:
    """The best rate of a product over `size`."""
    rows, inner, columns = size
    return 2.0 * rows * inner * columns / best_seconds(work)


def best_seconds(work: Callable[[], object], budget: float = 0.5) -> float:
    """The shortest time of one call in about `budget` seconds of trying."""
    together = 20 if on_gpu() else 1  # a GPU is handed several, so that launching them does not count
    best, until = float("inf"), time.perf_counter() + budget
    tries = 0
    with torch.no_grad():
        while tries < 3 or time.perf_counter() < until:
            synchronize()
            start = time.perf_counter()
            for _ in range(together):
                work()
            synchronize()
            best = min(best, (time.perf_counter() - start) / together)
            tries += 1
    return best


def engine_multiply(dtype: str, size: Size) -> float:
    """FLOP/s of the same product as the engine's models make it."""
    rows, weight = operands(dtype, size)
    with arithmetic.fast_products(models.device()):
        return flops_per_second(lambda: functional.linear(rows, weight), size)


def copy_rate() -> float:
    """Bytes a second read and written by a large copy."""
    count = (1 << 30 if on_gpu() else 1 << 28) // 4
    source = torch.ones(count, device=models.device())
    target = torch.empty_like(source)
    return 2.0 * 4 * count / best_seconds(partial(target.copy_, source))


def measure(shape: str, dtypes: list[str], plain: Callable[[str, Size], float]) -> dict[str, Any]:
    """All rates in GFLOP/s, the best of each dtype, and the copy rate in GB/s.

    Args:
        plain: torch's own product, measured in the other process.
    """
    products: list[dict[str, Any]] = []
    for dtype in dtypes:
        for size in sizes(shape):
            rates = {"plain": plain(dtype, size), "engine": engine_multiply(dtype, size)}
            products.append(
                {"dtype": dtype, "size": size, **{name: round(rate / 1e9, 1) for name, rate in rates.items()}}
            )
    best = {
        dtype: max(max(row["plain"], row["engine"]) for row in products if row["dtype"] == dtype) for dtype in dtypes
    }
    return {"products_gflops": products, "best_gflops": best, "copy_gbytes": round(copy_rate() / 1e9, 1)}
