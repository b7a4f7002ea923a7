"""How far one refit of a mixture of Gaussians lands from the mixture that made its rows, by rows and by EM's tolerance.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/gmm_tolerance.py
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/gmm_tolerance.py --rows 50000 --tol 1e-5,1e-7 --chain 2050

As in the preset nature-gmm: two components, ONE blob, k-means anew in every generation. A chain of a few generations with the
preset's tolerance makes the parents; rows drawn from each are fitted with every tolerance. What chance alone leaves falls
like 1/rows; what a tolerance leaves does not depend on them. --chain follows chains of so many generations, to their end.
"""

import argparse
import math
from collections.abc import Iterator

import numpy as np

from collapse_cli.data import blobs
from collapse_cli.data.blobs import Blobs, Drawn
from collapse_cli.learners import em

BLOB = Blobs(dimensions=2, centers=1, separation=4.0, spread=1.0)
PRESET = 1e-5
MOST_STEPS = 200_000


def drawn(mixture: em.Mixture, rows: int, random: np.random.Generator) -> np.ndarray:
    """(rows, d) of a mixture."""
    which = random.choice(len(mixture.weights), rows, p=mixture.weights / mixture.weights.sum())
    roots = np.linalg.cholesky(mixture.covariances)
    x = random.standard_normal((rows, mixture.means.shape[1]))
    return np.asarray(np.einsum("rij,rj->ri", roots[which], x) + mixture.means[which])


def fitted(x: np.ndarray, tol: float, seed: int) -> tuple[em.Mixture, int]:
    """As the learner fits, but for its limit of EM steps."""
    found = em.fit(x, components=2, tol=tol, max_iter=MOST_STEPS, ridge=1e-6, seed=seed, start=None)
    return found.mixture, found.iterations


def chain(rows: int, tol: float, seed: int) -> Iterator[em.Mixture]:
    """Generation 0, 1, 2, …"""
    random = np.random.Generator(np.random.Philox(seed))
    x = blobs.draw(Drawn("blobs", rows, 1, 0, BLOB), seed)["train"].arrays["x"]
    while True:
        mixture, _ = fitted(x, tol, int(random.integers(2**31)))
        yield mixture
        x = drawn(mixture, rows, random)


def one_fit(rows: int, tols: list[float], chains: int, generations: int) -> dict[float, tuple[float, float, float]]:
    """By tolerance: mean squared L2 distance from parent to fit, its standard error over chains, mean EM steps."""
    found: dict[float, list[list[tuple[float, int]]]] = {tol: [] for tol in tols}
    for seed in range(chains):
        made, random = chain(rows, PRESET, seed), np.random.Generator(np.random.Philox(1000 + seed))
        each: dict[float, list[tuple[float, int]]] = {tol: [] for tol in tols}
        for _ in range(generations):
            parent = next(made)
            x, start = drawn(parent, rows, random), int(random.integers(2**31))
            for tol in tols:
                mixture, steps = fitted(x, tol, start)
                each[tol].append((em.l2_squared(parent, mixture), steps))
        for tol in tols:
            found[tol].append(each[tol])
    said = {}
    for tol, values in found.items():
        table = np.array(values).mean(axis=1)  # (chains, 2)
        said[tol] = (float(table[:, 0].mean()), float(table[:, 0].std(ddof=1) / math.sqrt(chains)), table[:, 1].mean())
    return said


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,50000,200000,1000000", help="default: %(default)s")
    parser.add_argument("--tol", default="1e-4,1e-5,1e-6,1e-7,1e-8", help="default: %(default)s")
    parser.add_argument("--chains", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--generations", type=int, default=5, help="parents of a chain; default: %(default)s")
    parser.add_argument("--chain", type=int, default=0, metavar="GENERATIONS", help="follow one chain so far instead")
    given = parser.parse_args()
    sizes, tols = [int(one) for one in given.rows.split(",")], [float(one) for one in given.tol.split(",")]
    names = " | ".join(f"tol {tol:g}" for tol in tols)
    what = (
        f"generation {given.chain:,}" if given.chain else f"one fit ({given.chains} chains, {given.generations} fits)"
    )
    print(f"Squared L2, {what}:\n")
    print(f"| N | {names} |\n|---:|{'---:|' * len(tols)}")
    for rows in sizes:
        cells = []
        if given.chain:
            for tol in tols:
                made = chain(rows, tol, 0)
                first = last = next(made)
                for _ in range(given.chain):
                    last = next(made)
                cells.append(f"{em.l2_squared(first, last):.2g}")
        else:
            for mean, error, steps in one_fit(rows, tols, given.chains, given.generations).values():
                cells.append(f"{mean:.1e} ± {error:.0e} ({steps:,.0f} steps)")
        print(f"| {rows:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
