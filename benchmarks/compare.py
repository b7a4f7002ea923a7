"""Comparisons of our side with the plain one, in turn: training, sampling, scoring."""

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import ours
import plain
from common import DECODES, WIDTH, Counts, release

from collapse_cli.lm.memory import is_out_of_memory

TRIAL_SECONDS = 1.0  # about how long a trial of a batch size takes, where one batch does not take longer


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: turns of each side.
        seconds: about how long a turn of a side takes; at least one whole batch is done.
        rows: our side samples and scores whole multiples of so many rows.
        batch: rows of an optimizer step.
        train_sizes, sizes, large_sizes: what the plain side may have on the device together when it trains, when it
            searches beams or scores, and when it samples or goes greedily.
        trial_tokens: new tokens of a trial.
        context, stride: of the sliding window.
    """

    shape: str
    rounds: int
    seconds: float
    rows: int
    batch: int
    train_sizes: Sequence[int]
    sizes: Sequence[int]
    large_sizes: Sequence[int]
    trial_tokens: int
    context: int
    stride: int


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the seconds that `units` of it take, and how many make a turn."""

    run: Callable[[int], float]
    units: int


class Comparison:
    """Measures both sides of one plan; the plain side in a process of its own."""

    def __init__(self, plan: Plan, pool: ProcessPoolExecutor) -> None:
        self.plan, self.pool, self.counts = plan, pool, Counts.of(plan.shape)

    def remote(self, work: Callable[..., float], *arguments: Any, **named: Any) -> float:
        """What `work` of plain.py returns in the other process."""
        return self.pool.submit(work, *arguments, **named).result()

    def train(self, dtype: str) -> dict[str, Any]:
        """`fit` and Trainer over the same rows, in the same steps and precision."""
        plan = self.plan

        def plainly(rows: int, at_once: int) -> float:
            return self.remote(plain.train, plan.shape, dtype, plan.batch, at_once, rows)

        sizes = [size for size in plan.train_sizes if plan.batch % size == 0]
        best, tried = self._best(sizes, plainly, plan.batch)
        ours.train(plan.shape, dtype, plan.batch, plan.batch)  # warm
        rows = self._units(tried[best], plan.batch)
        mine = Side(lambda units: ours.train(plan.shape, dtype, plan.batch, units), rows)
        theirs = Side(lambda units: plainly(units, best), rows)
        found = self._compare(mine, theirs, lambda rows: rows * WIDTH, self.counts.trained() / WIDTH)
        about = {"part": "train", "what": f"{plan.batch} rows a step", "dtype": dtype, "against": "Trainer"}
        return about | {"plain_batch": best, "tried": _per_token(tried)} | found

    def sample(self, dtype: str, decode: str) -> dict[str, Any]:
        """`continue_rows` and `generate` over 64 prompt and 64 new tokens; tokens/s counts a prompt's sample once."""
        plan, wanted = self.plan, DECODES[decode]

        def plainly(rows: int, at_once: int, new_tokens: int = WIDTH) -> float:
            return self.remote(plain.sample, plan.shape, dtype, decode, at_once, rows, new_tokens)

        sizes = plan.sizes if wanted.beams > 1 else plan.large_sizes
        best, tried = self._best(sizes, lambda rows, size: plainly(rows, size, plan.trial_tokens))
        slower = WIDTH / plan.trial_tokens  # a whole sample takes longer than the trial's
        ours.sample(plan.shape, dtype, wanted, min(16, plan.rows), 8)  # warm
        rate = plan.rows / ours.sample(plan.shape, dtype, wanted, plan.rows)
        mine = Side(lambda rows: ours.sample(plan.shape, dtype, wanted, rows), self._units(rate, plan.rows))
        theirs = Side(lambda rows: plainly(rows, best), self._units(tried[best] / slower, best))
        cost = self.counts.sampled(wanted.beams) / WIDTH
        found = self._compare(mine, theirs, lambda rows: rows * WIDTH, cost)
        about = {"part": "sample", "what": decode, "dtype": dtype, "against": "generate"}
        return about | {"plain_batch": best, "tried": _per_token(tried, plan.trial_tokens)} | found

    def score_blocks(self) -> dict[str, Any]:
        """`score_blocks` and a loop over `model(input_ids, labels)`, in float32."""
        plan = self.plan

        def plainly(rows: int, at_once: int) -> float:
            return self.remote(plain.score_blocks, plan.shape, at_once, rows)

        best, tried = self._best(plan.sizes, plainly, max(plan.sizes))
        ours.score_blocks(plan.shape, plan.rows)  # warm
        rate = plan.rows / ours.score_blocks(plan.shape, plan.rows)
        mine = Side(lambda rows: ours.score_blocks(plan.shape, rows), self._units(rate, plan.rows))
        theirs = Side(lambda rows: plainly(rows, best), self._units(tried[best], best))
        found = self._compare(mine, theirs, lambda rows: rows * WIDTH, self.counts.scored() / WIDTH)
        about = {"part": "score", "what": f"blocks of {WIDTH}", "dtype": "float32", "against": "loop"}
        return about | {"plain_batch": best, "tried": _per_token(tried)} | found

    def score_sliding(self) -> dict[str, Any]:
        """`score_sliding` and the usual loop, one window at a time, in float32; tokens are scored ones."""
        plan = self.plan
        context, stride = plan.context, plan.stride

        def plainly(windows: int) -> float:
            return self.remote(plain.score_sliding, plan.shape, context, stride, windows)

        def mine(windows: int) -> float:
            return ours.score_sliding(plan.shape, context, stride, windows)

        def tokens(windows: int) -> int:
            return context + stride * (windows - 1) - 1

        for run in (mine, plainly):
            run(1)  # warm
        ours_side, plain_side = (Side(run, self._units(4 / run(4), 4)) for run in (mine, plainly))
        cost = self.counts.window(context, stride) / stride
        found = self._compare(ours_side, plain_side, tokens, cost)
        what = f"sliding window {context}, stride {stride}"
        return {"part": "score", "what": what, "dtype": "float32", "against": "loop", "plain_batch": 1} | found

    def _best(
        self, sizes: Sequence[int], trial: Callable[[int, int], float], unit: int = 0
    ) -> tuple[int, dict[int, float]]:
        """The fastest size and the rows/s of each; a size that does not fit into memory is left out.

        Args:
            trial: seconds of so many rows at a size.
            unit: the rows of a trial are multiples of it; 0: of the size.
        """
        least = unit or sizes[0]
        seconds = trial(least, sizes[0])  # warms as well
        if seconds < TRIAL_SECONDS:
            seconds = trial(least, sizes[0])
        wanted = least * TRIAL_SECONDS / seconds
        tried: dict[int, float] = {}
        for size in sizes:
            step = unit or size
            rows = step * max(1, round(wanted / step))
            try:
                tried[size] = rows / trial(rows, size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not tried:
                    raise
                break
        self.pool.submit(release).result()
        return max(tried, key=lambda size: tried[size]), tried

    def _units(self, rate: float, unit: int) -> int:
        """As many whole units as a turn has time for, at `rate` a second."""
        return unit * max(1, int(rate * self.plan.seconds / unit))

    def _compare(
        self, mine: Side, theirs: Side, tokens: Callable[[int], int], flops_per_token: float
    ) -> dict[str, Any]:
        """Medians of tokens/s and of the ratio pair by pair; the order alternates."""
        speeds: dict[str, list[float]] = {"ours": [], "plain": []}
        for turn in range(self.plan.rounds):
            for name, side in (("ours", mine), ("plain", theirs))[:: 1 if turn % 2 == 0 else -1]:
                speeds[name].append(tokens(side.units) / side.run(side.units))
        ratios = [a / b for a, b in zip(speeds["ours"], speeds["plain"], strict=True)]
        speed = statistics.median(speeds["ours"])
        return {
            "ours_units": mine.units,
            "plain_units": theirs.units,
            "ours_tokens_per_s": round(speed, 1),
            "plain_tokens_per_s": round(statistics.median(speeds["plain"]), 1),
            "ratio": round(statistics.median(ratios), 2),
            "ratios": [round(ratio, 2) for ratio in ratios],
            "ours_gflops": round(speed * flops_per_token / 1e9, 2),
        }


def _per_token(tried: dict[int, float], tokens: int = WIDTH) -> dict[int, float]:
    return {size: round(rate * tokens, 1) for size, rate in tried.items()}
