"""How well two texts can be told apart: a small classifier, judged on rows that it has not seen.

It is the linear one of the score `detector`: counts of 1- to 3-grams of words, logistic regression. Each of five folds is judged by the classifier
that was fitted on the other four. Rows that are the same, or near each other, are in one fold, so that nothing is known by heart.
"""

import math
from typing import Any

import numpy as np

from collapse_cli.check.word_counts import Counted
from collapse_cli.metrics.intervals import LEVEL
from collapse_cli.selection.row_contents import digests
from collapse_cli.selection.scores.detector import classifier, gram_counts, parts

ROWS = 2_000  # of each text
FOLDS = 5
# Classifiers of two folds share most of the rows that they were fitted on, so they err together: Nadeau and Bengio (2003, Machine Learning 52) multiply
# the variance by 1 + folds * (rows of a fold / rows that its classifier is fitted on). Without it 15% of 120 intervals lacked 0.5 where nothing differed.
SHARED = math.sqrt(1 + FOLDS / (FOLDS - 1))
LARGEST = 0.2  # share of the rows that one cluster of near duplicates may have, so that a fold can be without it


def tell_apart(first: Counted, second: Counted, near: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """The AUC of a classifier of rows of the second text against rows of the first.

    Args:
        near: (rows of both,) the cluster of near duplicates that each row is in, those of the first text before those of the second.

    Returns:
        `rows` of each; `auc` with `low` and `high`; `accuracy`; `length`, the AUC of nothing but the length, with its interval; `grouped`, whether
        near duplicates are in one fold: where one cluster holds more than a fifth of the rows, only rows that are the same are.
    """
    random = np.random.Generator(np.random.Philox(seed))
    count = min(len(first), len(second), ROWS)
    ours, theirs = (np.sort(random.choice(len(text), count, replace=False)) for text in (first, second))
    rows = [first.take(ours).dataset(), second.take(theirs).dataset()]
    width = min(int(text.arrays["lengths"].max()) for text in rows)
    clusters = np.concatenate([near[ours], near[len(first) + theirs]])
    content = np.concatenate([digests(text, width) for text in rows])
    grouped = int(np.unique(clusters, return_counts=True)[1].max()) <= LARGEST * 2 * count
    lines = clusters if grouped else np.arange(2 * count)
    fold = parts(lines, content, random) % FOLDS
    _, group = np.unique(lines if grouped else content, return_inverse=True)
    late = np.arange(2 * count) >= count
    features = [gram_counts(text, width) for text in rows]
    decisions = _decided(features, fold, late)
    lengths = np.concatenate([text.arrays["lengths"] for text in rows]).astype(np.float64)
    auc, error = fold_auc(decisions, late, fold, group)
    low, high = ends(auc, error * SHARED, count)
    by_length, length_error = fold_auc(lengths, late, np.zeros(len(late), np.int64), group)
    length_low, length_high = ends(by_length, length_error, count)
    right = (decisions > 0) == late
    return {
        "rows": count,
        "width": width,
        "auc": auc,
        "low": low,
        "high": high,
        "accuracy": float(right.mean()),
        "length": {"auc": by_length, "low": length_low, "high": length_high},
        "grouped": grouped,
    }


def _decided(features: list[Any], fold: np.ndarray, late: np.ndarray) -> np.ndarray:
    """(rows,) the decision on each row by the classifier that was fitted without its fold; 0 where nothing could be fitted."""
    from scipy.sparse import vstack

    x = vstack(features, format="csr")
    decisions = np.zeros(len(late))
    for one in np.unique(fold):
        mine = fold == one
        if len(np.unique(late[~mine])) == 2:
            weights, offset = classifier(x[~mine], late[~mine])
            decisions[mine] = np.asarray(x[mine] @ weights) + offset
    return decisions


def fold_auc(decisions: np.ndarray, late: np.ndarray, fold: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """The mean AUC within folds, and its standard error.

    Folds are not pooled: decisions of two classifiers are on two scales. The error is that of the influence of each row (LeDell, Petersen and
    van der Laan 2015, Electronic Journal of Statistics 9), summed over the rows of a group, which are no independent draws.

    Args:
        decisions: (rows,) higher where a row is more likely `late` (rows,) bool.
        fold, group: (rows,) int.
    """
    from scipy.stats import rankdata

    influence, weights, areas = np.zeros(len(late)), [], []
    for one in np.unique(fold):
        here = np.flatnonzero(fold == one)
        positive = here[late[here]]
        negative = here[~late[here]]
        n, m = len(positive), len(negative)
        if not n or not m:
            continue
        ranks = rankdata(decisions[here])
        own_positive, own_negative = rankdata(decisions[positive]), rankdata(decisions[negative])
        above = (ranks[late[here]] - own_positive) / m  # share of the others below each, ties as halves
        below = 1 - (ranks[~late[here]] - own_negative) / n
        area = float(above.mean())
        influence[positive], influence[negative] = (above - area) / n * len(here), (below - area) / m * len(here)
        areas.append(area)
        weights.append(len(here))
    if not areas:
        return 0.5, float("inf")
    total = sum(weights)
    sums = np.bincount(group, influence)
    groups = int((np.bincount(group) > 0).sum())
    error = np.sqrt((sums**2).sum() * groups / max(1, groups - 1)) / total
    return float(np.average(areas, weights=weights)), float(error)


def ends(auc: float, error: float, count: int) -> tuple[float, float]:
    """The 95% interval of an AUC; of one at the end of its range the rule of three in place of no width at all."""
    from scipy.special import ndtri

    half = float(ndtri((1 + LEVEL) / 2)) * error
    if auc in (0.0, 1.0):
        half = 3 / count
    return max(0.0, auc - half), min(1.0, auc + half)


def two_parts(text: Counted) -> tuple[np.ndarray, np.ndarray]:
    """The rows of either half: of eight parts in the order of the text every second one, and the others."""
    order = np.argsort(text.index, kind="stable")
    part = np.zeros(len(text), np.int64)
    part[order] = np.arange(len(text)) * 8 // max(1, len(text))
    return np.flatnonzero(part % 2 == 0), np.flatnonzero(part % 2 == 1)


def halves(text: Counted, near: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """The same of two halves of one text: every second of eight parts of it, in the order of its rows, against the others.

    Where these are told apart, the rows of a text hang together (by topic or author), and other rows of the same source would be told apart too.
    """
    first, second = two_parts(text)
    return tell_apart(text.take(first), text.take(second), np.concatenate([near[first], near[second]]), seed)
