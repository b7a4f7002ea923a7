"""What a plan costs: tokens, floating-point operations, disk and time, estimated before it runs."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.experiment import policies

TOKENIZER_BYTES = 1 << 20
ROW_BYTES = 4
REAL_ROWS = 5000  # of real text, that samples are compared with
# Shares of the matrix-multiplication speed that the stages reach, and seconds a step costs besides: rough, from
# runs on two CPU cores. Times of finished stages of the same plan replace them.
EFFICIENCY = {"train": 0.35, "block": 0.35, "sample": 0.2, "eval": 0.4, "examine": 0.4, "real": 0.4}
STEP_SECONDS = {"train": 0.006, "block": 0.0, "sample": 0.004, "eval": 0.01, "examine": 0.01, "real": 0.01}
OTHER_SECONDS = {"data": 2.0, "mix": 0.1}


@dataclass(frozen=True)
class Size:
    """What costs depend on: parameters of the model, and rows of the original corpus and of the test corpus."""

    parameters: int
    layer_parameters: int
    head_parameters: int
    layers: int
    rows: int
    test_rows: int


@dataclass(frozen=True)
class Cost:
    """Of one stage: tokens trained on, sampled or scored; FLOPs; bytes it leaves in the store; passes of the model."""

    tokens: int = 0
    flops: float = 0.0
    disk: int = 0
    steps: int = 0


def rows_of(work: str, policy: str, generation: int, config: Experiment, rows: int) -> tuple[int, int]:
    """Of one stage of the loop: rows of the corpus, and rows that are sampled.

    Args:
        work: as `stage.Stage.work` names it.
        generation: the one at work; what it samples is for the next one's corpus.
        rows: of the original corpus.
    """
    mixer, growing = policies.parse(policy), config.mix.size == "growing"
    if work in ("sample", "examine"):
        generation += 1
        mixer = mixer if mixer.needs_samples else policies.Policy("keep")
    real, synthetic = policies.rows_in_corpus(mixer, rows, generation, growing=growing)
    if generation == 0:
        real, synthetic = rows, 0
    return real + synthetic, rows if mixer.accumulates else synthetic


def family_cost(work: str, rows: int, made: int, test_rows: int, row_bytes: int, row_flops: float) -> Cost:
    """The cost of one stage of a family that is no language model; sampling and scoring are a twentieth of fitting."""
    if work in ("train", "block"):
        return Cost(flops=rows * row_flops, disk=100 * row_bytes)
    used = made if work == "sample" else test_rows if work == "eval" else rows
    return Cost(flops=used * row_flops / 20, disk=used * row_bytes if work != "eval" else 8 * used)


def cost(work: str, rows: int, made: int, config: Experiment, size: Size) -> Cost:
    """The cost of one stage, for a dense transformer: 2 FLOPs a weight and token forward, 4 backward.

    Args:
        rows: of the corpus that is fitted, or mixed.
        made: rows that are sampled.
    """
    width = config.data.block_size
    dense = size.layer_parameters + size.head_parameters
    if work == "train":
        tokens = rows * width * config.train.epochs
        steps = config.train.epochs * -(-rows // config.train.batch_size)
        return Cost(tokens, 6.0 * dense * tokens, 4 * size.parameters + TOKENIZER_BYTES, steps)
    if work in ("sample", "examine", "real"):
        rows = made
        decode, new = config.sample.decode, config.sample.new_tokens
        prompt = 1 if config.sample.prompts == "none" else config.sample.prompt_tokens
        if work != "sample":
            rows = rows if work == "examine" else min(size.rows, REAL_ROWS)
            passed = 2.0 * rows * (size.layer_parameters * (prompt + new) + size.head_parameters * new)
            return Cost(rows * new, passed, 40 * rows, -(-rows // 32))
        passes = 2.0 * rows * decode.beams * (size.layer_parameters * (prompt + new) + size.head_parameters * new)
        return Cost(rows * new, passes, ROW_BYTES * rows * new, new * -(-rows // 128))
    if work == "eval":
        tokens = size.test_rows * (config.eval.block_size or width)
        return Cost(tokens, 2.0 * dense * tokens, 16 * size.test_rows, -(-size.test_rows // 64))
    return Cost(disk=ROW_BYTES * rows * width)


def seconds(work: str, cost: Cost, speed: float, layers: int) -> float:
    """A first guess of a stage's time at `speed` FLOP/s."""
    if work in OTHER_SECONDS:
        return OTHER_SECONDS[work]
    return cost.flops / (speed * EFFICIENCY[work]) + cost.steps * STEP_SECONDS[work] * (1 + layers / 4)


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


def disk_needed(costs: Iterable[tuple[str, Cost]], config: Experiment, size: Size) -> int:
    """Bytes that stages still to be made need at most, with one training checkpoint (weights and optimizer)."""
    models = [cost.disk for kind, cost in costs if kind == "train"]
    if config.store.keep_models != "all" and models:
        kept = 2 * len(config.loop.policies) * len(config.loop.seeds)  # at work at once, or the ends
        models = models[:kept]
    rest = sum(cost.disk for kind, cost in costs if kind != "train")
    return sum(models) + rest + 12 * size.parameters
