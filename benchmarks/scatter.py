"""How much chance moves the measures of samples: python benchmarks/scatter.py [--draws 20] [--parts mauve,text].

Two Markdown tables (docs/metrics.md, "How much chance moves them"). MAUVE on normal clouds of features, `shift` apart in each
of the first ten dimensions: once with the same rows and other seeds of k-means, once with other rows. The rest on rows of 64
words of a language whose truth is known (`collapse_cli/data/zipf.py`, 2,000 words), by how many rows are looked at: the scatter over
independent draws, and how the mean moves with the number of rows alone. All seeds are fixed.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from collapse_cli.data import zipf
from collapse_cli.metrics import diversity, tails
from collapse_cli.metrics.features import mauve
from collapse_cli.metrics.grams import Grams

CLOUDS = ((256, 64), (512, 64), (1024, 64), (1024, 768), (5000, 768))  # rows a side, features
SHIFTS = (0.0, 0.3, 1.0)  # of ten dimensions, in standard deviations
MOVED = 10
LANGUAGE = zipf.Language(vocabulary=2000, exponent=1.0, rank=8, dependence=1.0)
WIDTH = 64
ROWS = (64, 128, 256, 512, 1024, 4096)
CORPUS = 4096  # rows of the corpus that deciles are of


def cloud(rows: int, size: int, shift: float, seed: int) -> np.ndarray:
    """(rows, size) features."""
    x = np.random.default_rng(seed).standard_normal((rows, size))
    x[:, :MOVED] += shift
    return x


def mauve_table(draws: int) -> list[str]:
    """MAUVE by number of rows and distance: its scatter over k-means seeds, and over draws of both sides."""
    lines = [
        "| rows a side | features | shift | mean | k-means seed: standard deviation | largest less smallest | other rows: standard deviation | largest less smallest |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for rows, size in CLOUDS:
        for shift in SHIFTS:
            count = draws if rows < 5000 else max(3, draws // 2)
            real, made = cloud(rows, size, 0.0, 1), cloud(rows, size, shift, 2)
            seeds = [_number(mauve(real, made, seed)) for seed in range(count)]
            fresh = [
                _number(mauve(cloud(rows, size, 0.0, 1000 + 2 * draw), cloud(rows, size, shift, 1001 + 2 * draw)))
                for draw in range(count)
            ]
            numbers = [
                np.mean(fresh),
                *(one for some in (seeds, fresh) for one in (np.std(some, ddof=1), np.ptp(some))),
            ]
            lines.append(f"| {rows:,} | {size} | {shift:g} | " + " | ".join(f"{one:.3f}" for one in numbers) + " |")
    return lines


def text_table(draws: int) -> list[str]:
    """Diversity by number of rows: mean over draws ± their standard deviation."""
    corpus = _rows(CORPUS, 0)
    deciles = tails.frequency_deciles(np.bincount(corpus.tokens.ravel(), minlength=LANGUAGE.vocabulary))
    found: dict[str, list[str]] = {}
    for rows in ROWS:
        values: dict[str, list[float]] = {}
        for draw in range(draws):
            grams = _rows(rows, 1 + draw)
            entropy, error = diversity.unigram_entropy(grams)
            measured = {
                **{name: value for name, value in diversity.distinct(grams).items() if name.startswith("distinct_")},
                "self_bleu": diversity.self_bleu(grams)["self_bleu"],
                "unigram_entropy": entropy,
                "unigram_entropy_se": error,
                "next_token_entropy": diversity.next_token_entropy(grams),
                "vocabulary_coverage": diversity.coverage(grams, deciles)["vocabulary_coverage"],
                "recall, decile 10": diversity.coverage(grams, deciles)["recall_by_decile"][9],
            }
            for name, value in measured.items():
                values.setdefault(name, []).append(_number(value))
        for name, series in values.items():
            wanted = 0 if name == "distinct_tokens" else 3
            found.setdefault(name, []).append(f"{np.mean(series):,.{wanted}f} ± {np.std(series, ddof=1):.2g}")
    head = "| measure | " + " | ".join(f"{rows:,} rows" for rows in ROWS) + " |"
    return [
        head,
        "|---|" + "---:|" * len(ROWS),
        *(f"| `{name}` | " + " | ".join(row) + " |" for name, row in found.items()),
    ]


def _rows(count: int, stream: int) -> Grams:
    words = LANGUAGE.sample(count * WIDTH, stream).reshape(count, WIDTH)
    return Grams(words, np.full(count, WIDTH))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--parts", default="mauve,text")
    options = parser.parse_args(words)
    for part in options.parts.split(","):
        print("\n".join({"mauve": mauve_table, "text": text_table}[part](options.draws)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
