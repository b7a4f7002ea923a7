"""Measures of two texts at equal numbers of words, each with an interval for the difference.

A text is parted into groups of rows of equally many words, in random order. A measure is taken of each group, so that it never depends on
how large a text is; and since groups are independent of each other, the difference of two texts has the interval of Welch's t.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from collapse_cli.check.word_counts import Counted, Vocabulary
from collapse_cli.metrics import diversity
from collapse_cli.metrics.intervals import LEVEL, Interval, interval, t_quantile
from collapse_cli.metrics.repetition import repetition

BLEU_ROWS = 50  # of a group

Measured = Callable[[Counted, Vocabulary], float | None]
"""A measure of a group of rows; None where there is nothing to measure."""


def _distinct(n: int) -> Measured:
    def share(group: Counted, vocabulary: Vocabulary) -> float | None:
        grams = group.grams().all(n)
        return len(np.unique(grams)) / len(grams) if len(grams) else None

    return share


def _repeated(group: Counted, vocabulary: Vocabulary) -> float | None:
    shares = repetition(group.grams(), 4)
    shares = shares[~np.isnan(shares)]
    return float(shares.mean()) if len(shares) else None


def _self_bleu(group: Counted, vocabulary: Vocabulary) -> float | None:
    value = diversity.self_bleu(group.grams(), BLEU_ROWS)["self_bleu"]
    return None if value is None else float(value)


def _compression(group: Counted, vocabulary: Vocabulary) -> float:
    """Bytes over bytes that are left when gzip's method is through with them (Shaib et al. 2024)."""
    rows = (vocabulary.written(ids[:length].tolist()) for ids, length in zip(group.tokens, group.lengths, strict=True))
    text = "\n".join(rows).encode("utf-8", "surrogatepass")
    return len(text) / len(zlib.compress(text, 9))


def _entropy(group: Counted, vocabulary: Vocabulary) -> float | None:
    return diversity.entropy(np.bincount(group.grams().all(1)))


def _length(group: Counted, vocabulary: Vocabulary) -> float:
    return float(group.whole.mean())


MEASURES: dict[str, Measured] = {  # by name; their words are in `findings.check`
    "distinct_1": _distinct(1),
    "distinct_2": _distinct(2),
    "unigram_entropy": _entropy,
    "compression": _compression,
    "self_bleu": _self_bleu,
    "rep_4": _repeated,
    "length": _length,
}


def compare(real: Sequence[Counted], synthetic: Sequence[Counted], vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Each measure of both texts, as JSON.

    Args:
        real, synthetic: groups of rows of equally many words.

    Returns:
        For each measure its `name`; of both texts the mean over groups with a 95% interval; their `difference`, synthetic minus real, with one that
        allows for the number of measures (Bonferroni).
    """
    told = []
    level = 1 - (1 - LEVEL) / len(MEASURES)
    for name, measure in MEASURES.items():
        ours, theirs = (
            [value for group in groups if (value := measure(group, vocabulary)) is not None]
            for groups in (real, synthetic)
        )
        if len(ours) < 2 or len(theirs) < 2:
            continue
        told.append(
            {
                "name": name,
                "real": interval(ours).record(),
                "synthetic": interval(theirs).record(),
                "difference": welch(ours, theirs, level).record(),
            }
        )
    return told


def welch(first: Sequence[float], second: Sequence[float], level: float) -> Interval:
    """The mean of the second values minus that of the first, with the interval of Welch's t (Biometrika 1947)."""
    n, m = len(first), len(second)
    a, b = float(np.var(first, ddof=1)) / n, float(np.var(second, ddof=1)) / m
    difference = float(np.mean(second) - np.mean(first))
    if a + b == 0:
        return Interval(difference, difference, difference, n + m)
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
    half = t_quantile(freedom, (1 + level) / 2) * math.sqrt(a + b)
    return Interval(difference, difference - half, difference + half, n + m)


def lengths(text: Counted) -> dict[str, Any]:
    """How many words rows have: quantiles, and how many rows are longer than what counts of them."""
    at = (0.05, 0.25, 0.5, 0.75, 0.95)
    return {
        "quantiles": {f"{q:g}": float(value) for q, value in zip(at, np.quantile(text.whole, at), strict=True)},
        "cut_share": float((text.whole > text.lengths).mean()),
    }
