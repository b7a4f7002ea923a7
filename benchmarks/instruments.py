"""Seconds of each instrument on a generation's samples, at the size of the Nature recipe and at that of `quick`.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/instruments.py
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/instruments.py --kinds zipf,collapsed --json FILE

Scoring samples under a model is not in here (benchmarks/engine.py: score). Samples are made up, seeded: `zipf` has tokens
of Zipf frequencies; `collapsed` has half of the samples near one of twenty, with a few tokens changed; `loops` repeats
a phrase of eight tokens; of all kinds some samples are shorter and a few empty.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import OPT_VOCABULARY, WIDTH
from report import Report, about_machine

from collapse_cli.metrics import diversity, features, repetition, samples, tails
from collapse_cli.metrics.grams import Grams

SIZES = (37_354, 1_024)
KINDS = ("zipf", "collapsed", "loops")


def zipf(random: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """(rows, width) tokens with frequencies 1 / (rank + 2.7)."""
    shares = 1 / (np.arange(OPT_VOCABULARY) + 2.7)
    found = np.searchsorted(np.cumsum(shares / shares.sum()), random.random((rows, width)))
    return np.minimum(found, OPT_VOCABULARY - 1).astype(np.int32)


def make(kind: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and lengths of samples."""
    random = np.random.Generator(np.random.Philox(7))
    tokens = zipf(random, rows, WIDTH)
    if kind == "collapsed":
        near = np.flatnonzero(random.random(rows) < 0.5)
        copies = zipf(random, 20, WIDTH)[random.integers(0, 20, len(near))]
        tokens[near] = np.where(random.random(copies.shape) < 0.06, tokens[near], copies)
    if kind == "loops":
        tokens = np.tile(tokens[:, :8], WIDTH // 8)
    lengths = np.full(rows, WIDTH)
    short = random.random(rows) < 0.2
    lengths[short] = random.integers(0, WIDTH + 1, int(short.sum()))
    return tokens, lengths


def works(kind: str, rows: int, size: int) -> list[tuple[str, Callable[[], Any]]]:
    """The instruments by name, in the order in which they are used; what is counted once is counted for the first."""
    tokens, lengths = make(kind, rows)
    deciles = tails.frequency_deciles(np.bincount(zipf(np.random.default_rng(1), rows, WIDTH).ravel()))
    random = np.random.Generator(np.random.Philox(8))
    nll = random.gamma(9, 0.4, rows) * lengths
    real, made = (
        (random.normal(size=(rows, size)) * np.linspace(3, 0.1, size)).astype(np.float32)[: features.ROWS]
        for _ in range(2)
    )
    grams = Grams(tokens, lengths)
    return [
        ("n-grams numbered (2, 3, 4, 8)", lambda: [grams.ids(n) for n in (2, 3, 4, 8)]),
        ("rep-2..4", lambda: [repetition.repetition(grams, n) for n in (2, 3, 4)]),
        ("longest repeat", partial(repetition.longest_repeat, grams)),
        ("8-grams", partial(repetition.frequent_phrases, grams)),
        ("exact duplicates", partial(repetition.exact_duplicates, grams)),
        ("near duplicates", partial(repetition.near_duplicates, grams)),
        ("distinct-1..4", partial(diversity.distinct, grams)),
        ("self-BLEU", partial(diversity.self_bleu, grams)),
        ("unigram entropy", partial(diversity.unigram_entropy, grams)),
        ("next-token entropy", partial(diversity.next_token_entropy, grams)),
        ("coverage", partial(diversity.coverage, grams, deciles)),
        ("summary of scores", partial(samples.score_measures, nll, lengths)),
        (f"MAUVE, {size} features", partial(samples.mauve, real, made)),
        ("all but MAUVE, by sample_measures", partial(samples.sample_measures, tokens, lengths, deciles)),
    ]


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def imports() -> list[tuple[str, float]]:
    """Seconds of the first import of each library, in this order."""

    def load(name: str) -> float:
        return timed(partial(__import__, name))

    return [(name, load(name)) for name in ("sacrebleu", "datasketch", "faiss", "sklearn.decomposition", "mauve")]


def main() -> None:
    """Measure, print tables and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="zipf", help=f"some of {','.join(KINDS)}; default: %(default)s")
    parser.add_argument("--features", type=int, default=768, help="size of a feature")
    parser.add_argument("--rounds", type=int, default=2, help="the fastest of so many counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there instead of printing it")
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    for kind in kinds:
        if kind not in KINDS:
            parser.error(f"there is no kind {kind!r}; known: {', '.join(KINDS)}")
    asked = {name: value for name, value in vars(given).items() if name != "json"}
    report = Report(given.json, about_machine() | {"settings": asked})
    loaded = imports()
    report.table("First imports, seconds", ["library", "seconds"], [[name, f"{cost:.2f}"] for name, cost in loaded])
    report.keep({"imports": dict(loaded)})
    for kind in kinds:
        columns: list[dict[str, float]] = []
        for rows in SIZES:
            best: dict[str, float] = {}
            for _ in range(given.rounds):
                for name, work in works(kind, rows, given.features):
                    best[name] = min(best.get(name, np.inf), timed(work))
            columns.append(best)
            print(f"{kind}, {rows:,} samples: done", file=sys.stderr)
        lines = [[name, *(f"{column[name]:.3f}" for column in columns)] for name in columns[0]]
        report.table(f"{kind}: seconds", ["instrument", *(f"{rows:,} samples" for rows in SIZES)], lines)
        report.keep({kind: {str(rows): column for rows, column in zip(SIZES, columns, strict=True)}})
    report.finish({})


if __name__ == "__main__":
    main()
