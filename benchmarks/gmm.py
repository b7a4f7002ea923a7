"""A generation of a mixture of Gaussians (fit and sample), ours beside scikit-learn's, on the same rows in turn.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/gmm.py
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/gmm.py --rows 1000 --after 0,1000 --json FILE

A chain of generations as in the preset nature-gmm (two components, one blob, keep-0) is made by our side; on the corpus of
each generation every way fits and samples as many rows, in an order that turns. Plain is what the notebook of the Nature
paper does: `GaussianMixture(n_components=2, tol=1e-5, max_iter=2000).fit`, then `sample`; its k-means draws from the
same state as ours, so that both start alike. Warm: the same with weights_init, means_init and precisions_init of the
mixture that made the rows; ours with gmm.start = parent does that. --after: generations that the chain makes before.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from report import Report, about_machine
from sklearn.mixture import GaussianMixture as Plain

from collapse_cli.data import blobs
from collapse_cli.data.blobs import Blobs, Drawn
from collapse_cli.data.dataset import Dataset
from collapse_cli.learners import Hints, em, silent
from collapse_cli.learners.gmm import GaussianMixture as Ours

MODEL = {"components": 2, "tol": 1e-5, "max_iter": 2000, "ridge": 1e-6, "engine": "fast"}
BLOB = Blobs(dimensions=2, centers=1, separation=4.0, spread=1.0)
WAYS = ("scikit-learn", "scikit-learn, warm", "ours", "ours, from the parent")


def plainly(x: np.ndarray, seed: int, parent: em.Mixture | None) -> tuple[em.Mixture, int]:
    """What a user of scikit-learn writes; as many rows sampled as fitted to. Returns the mixture and EM steps."""
    start: dict[str, Any] = {}
    if parent is not None:
        start = {
            "weights_init": parent.weights / parent.weights.sum(),
            "means_init": parent.means,
            "precisions_init": np.linalg.inv(parent.covariances),
        }
    model = Plain(n_components=2, tol=1e-5, max_iter=2000, random_state=em.random_state(seed), **start).fit(x)
    model.sample(len(x))
    return em.Mixture(model.weights_, model.means_, model.covariances_), int(model.n_iter_)


def ours(x: np.ndarray, seed: int, parent: em.Mixture | None) -> tuple[em.Mixture, int, np.ndarray]:
    """Our learner; the rows for the next generation besides."""
    model = Ours({"model": MODEL | {"start": "kmeans" if parent is None else "parent"}}, Hints(), silent)
    if parent is not None:
        model.restore({**vars(parent), "fitted": np.zeros(3)})
    rows = len(x)
    model.fit(Dataset({"x": x}, np.zeros(rows, np.int32)), seed=seed, scratch=Path())
    prompts = Dataset({"stream": np.arange(rows), "extra": np.zeros(rows, bool)}, np.zeros(rows, np.int32))
    made = model.sample(prompts, seed=seed, scratch=Path()).rows.arrays["x"]
    state = model.state()
    return em.Mixture(state["weights"], state["means"], state["covariances"]), int(state["fitted"][0]), made


def measure(rows: int, after: int, generations: int, seed: int) -> dict[str, dict[str, float]]:
    """By way: seconds and processor seconds a generation, EM steps, and log-likelihood of a row less that of scikit-learn."""
    x = blobs.draw(Drawn("blobs", rows, 1, 0, BLOB), seed)["train"].arrays["x"]
    parent: em.Mixture | None = None
    for generation in range(after):
        parent, _, x = ours(x, generation, None)
    totals = {way: dict.fromkeys(("seconds", "processor", "steps", "likelihood"), 0.0) for way in WAYS}
    for generation in range(after, after + generations + 1):
        works: dict[str, Callable[[], Any]] = {
            WAYS[0]: partial(plainly, x, generation, None),
            WAYS[1]: partial(plainly, x, generation, parent),
            WAYS[2]: partial(ours, x, generation, None),
            WAYS[3]: partial(ours, x, generation, parent),
        }
        turn = generation % len(WAYS)
        found = {}
        for way in (*WAYS[turn:], *WAYS[:turn]):
            wall, processor = time.perf_counter(), time.process_time()
            found[way] = works[way]()
            took = time.perf_counter() - wall, time.process_time() - processor
            if generation > after:  # the first is to warm up, and generation 0 has no parent
                totals[way]["seconds"] += took[0] / generations
                totals[way]["processor"] += took[1] / generations
                totals[way]["steps"] += found[way][1] / generations
        if generation > after:
            base = found[WAYS[0]][0].log_likelihoods(x).mean()
            for way in WAYS:
                totals[way]["likelihood"] += (found[way][0].log_likelihoods(x).mean() - base) / generations
        parent, _, x = found[WAYS[2]]
    return totals


def main() -> None:
    """Measure, print tables and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000,10000,50000", help="rows of a generation; default: %(default)s")
    parser.add_argument("--after", default="0", help="generations made before; default: %(default)s")
    parser.add_argument("--generations", type=int, default=30, help="so many are measured; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there instead of printing it")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # EM that did not converge: both sides' steps are in the table
    asked = {name: value for name, value in vars(given).items() if name != "json"}
    report = Report(given.json, about_machine() | {"settings": asked})
    columns = ["way", "ms", "times as fast", "processor ms", "times as fast", "EM steps", "log-likelihood of a row"]
    for rows in map(int, given.rows.split(",")):
        for after in map(int, given.after.split(",")):
            found = measure(rows, after, given.generations, given.seed)
            base = found[WAYS[0]]
            lines = [
                [
                    way,
                    f"{1000 * one['seconds']:.2f}",
                    f"{base['seconds'] / one['seconds']:.1f}",
                    f"{1000 * one['processor']:.2f}",
                    f"{base['processor'] / one['processor']:.1f}",
                    f"{one['steps']:.1f}",
                    f"{one['likelihood']:+.1e}",
                ]
                for way, one in found.items()
            ]
            report.table(f"{rows:,} rows, generations {after + 1} to {after + given.generations}", columns, lines)
            report.keep({f"{rows} rows after {after}": found})
            print(f"{rows:,} rows after {after}: done", file=sys.stderr)
    report.finish({})


if __name__ == "__main__":
    main()
