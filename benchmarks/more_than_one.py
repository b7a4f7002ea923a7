"""How often `findings.several_models` is wrong: whether its interval of the growth holds the truth, and how often it calls a difference that is none.

One run with one lineage and one with four, over few seeds; noise is normal with the given standard deviation in nats for each model, half of
its variance common to all lineages of a seed. `python benchmarks/more_than_one.py`: a minute.
"""

import math

import numpy as np

from collapse_cli.findings.several_models import Ecosystem, more_than_one
from collapse_cli.records.row import Row
from collapse_cli.where import Where

LAST, TRIALS = 4, 1000
SLOW, FAST = 0.05, 0.2  # nats in a generation


def rows_of(lineages: int, rate: float, seeds: int, noise: float, draw: np.random.Generator) -> list[Row]:
    """Generation 0 and the last of each lineage and seed."""
    rows = []
    for seed in range(seeds):
        shared = draw.standard_normal(2)
        for lineage in range(lineages):
            off = noise * (shared + draw.standard_normal(2)) / math.sqrt(2)
            for at, generation in enumerate((0, LAST)):
                where = Where("keep-0", seed, generation, f"m{lineage}" if lineages > 1 else "")
                rows.append(Row.at(where, {"nll": 4 + rate * generation + float(off[at]), "predicted_tokens": 100.0}))
    return rows


def held_against(rate: float, seeds: int, noise: float, draw: np.random.Generator) -> Ecosystem:
    """Four lineages of a rate beside one of `FAST`."""
    found = more_than_one({"one": rows_of(1, FAST, seeds, noise, draw), "four": rows_of(4, rate, seeds, noise, draw)})
    assert found is not None
    return found.runs[1]


def main() -> None:
    draw, true = np.random.Generator(np.random.Philox(20261126)), math.exp((SLOW - FAST) * LAST)
    print(
        "| seeds | noise, nats | interval holds the truth | calls a difference that is none, of growth or of perplexity | finds exp(-0.6) |"
    )
    print("|---:|---:|---:|---:|---:|")
    for seeds in (2, 3, 5):
        for noise in (0.02, 0.1, 0.3):
            slow = [held_against(SLOW, seeds, noise, draw) for _ in range(TRIALS)]
            same = [held_against(FAST, seeds, noise, draw) for _ in range(TRIALS)]
            inside = sum(
                one.longer is not None and (one.longer.low or 0) <= true <= (one.longer.high or math.inf)
                for one in slow
            )
            called = sum(
                one.told_level in ("is lower", "is higher") or one.told in ("grows more slowly", "grows faster")
                for one in same
            )
            found = sum(one.told == "grows more slowly" for one in slow)
            print(f"| {seeds} | {noise} | {inside / TRIALS:.1%} | {called / TRIALS:.1%} | {found / TRIALS:.0%} |")


if __name__ == "__main__":
    main()
