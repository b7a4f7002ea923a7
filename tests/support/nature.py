"""The curves of Shumailov et al., arXiv 2305.17493v3, figure 10: mean test perplexity of five runs, by generation.

Read off the figure's vector paths; the smallest and largest of the five runs from generation 1 on.
"""

import math

import numpy as np
from support.rows import row_of

from collapse_cli.records.row import Row

NO_REAL = (33.83, 60.73, 53.95, 53.62, 53.78, 53.30, 52.97, 52.85, 52.76, 52.25)  # 5 epochs
NO_REAL_RUNS = (
    *((60.5, 61.4), (53.2, 54.5), (52.8, 54.2), (52.7, 54.6), (52.2, 54.3)),
    *((52.0, 53.6), (52.3, 53.5), (52.5, 53.2), (51.7, 53.1)),
)
TENTH_REAL = (33.83, 40.83, 38.95, 38.01, 37.49, 36.99, 37.00, 36.88, 37.02, 36.96)  # 10 epochs
TENTH_REAL_RUNS = (
    *((40.1, 42.0), (37.8, 41.1), (36.9, 41.2), (36.7, 39.9), (36.7, 37.5)),
    *((36.9, 37.2), (36.8, 36.9), (36.8, 37.1), (36.8, 37.2)),
)


def rows(means: tuple[float, ...], policy: str, last: int = 9) -> list[Row]:
    """The means as one seed's rows of `metrics.jsonl`, up to generation `last`."""
    return [row_of(policy, 0, g, nll=math.log(value), perplexity=value) for g, value in enumerate(means[: last + 1])]


def five(means: tuple[float, ...], runs: tuple[tuple[float, float], ...], policy: str, last: int = 9) -> list[Row]:
    """Five seeds with the published mean and as wide as the published runs; their order by size changes at random."""
    random = np.random.Generator(np.random.Philox(10))
    spread = (runs[0], *runs)  # of generation 0 none was drawn
    rows = []
    for g, mean in enumerate(means[: last + 1]):
        width = (spread[g][1] - spread[g][0]) / mean
        for seed, off in enumerate(random.permutation([-0.5, -0.25, 0.0, 0.25, 0.5])):
            nll = math.log(mean) + width * float(off)
            rows.append(row_of(policy, seed, g, nll=nll, perplexity=math.exp(nll)))
    return rows
