"""What a plan costs: disk and time, estimated before it runs. What a stage costs is known to its kind."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from collapse_cli.engine.stage import Cost
from collapse_cli.experiment.costs import Size


def correction(observed: Iterable[tuple[str, float, float]]) -> Mapping[str, float]:
    """By kind, real seconds over guessed ones, from finished stages (kind, guessed, real)."""
    sums: dict[str, tuple[float, float]] = {}
    for kind, guess, real in observed:
        before = sums.get(kind, (0.0, 0.0))
        sums[kind] = (before[0] + guess, before[1] + real)
    return {kind: real / guess for kind, (guess, real) in sums.items() if guess > 0}


def matmul_speed(dtype: str) -> float:
    """FLOP/s of a matrix product on this machine, measured in a fraction of a second."""
    import torch

    from collapse_cli.lm.model import device

    side = 768 if device().type == "cpu" else 4096
    kind: Any = getattr(torch, dtype)
    a = torch.ones(side, side, dtype=kind, device=device())
    best = 0.0
    for _ in range(6):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def disk_needed(costs: Iterable[tuple[str, Cost]], size: Size) -> int:
    """Bytes that stages still to be made need at most, with one training checkpoint (weights and optimizer)."""
    costs, config = list(costs), size.config
    models = [cost.disk for kind, cost in costs if kind == "train"]
    if config.store.keep_models != "all" and models:
        kept = 2 * len(config.loop.policies) * len(config.loop.seeds)  # at work at once, or the ends
        models = models[:kept]
    rest = sum(cost.disk for kind, cost in costs if kind != "train")
    return sum(models) + rest + 12 * size.parameters
