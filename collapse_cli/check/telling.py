"""How well two texts can be told apart: a small classifier, judged on rows that it has not seen.

It is the linear one of the score `detector`: counts of 1- to 3-grams of words, logistic regression. Each of five folds is judged by the classifier
that was fitted on the other four. Rows of one source hang together: by neighbours that are about one thing, and by copies with a few words changed.
A classifier would know such things by heart, so folds are made of stretches of neighbouring rows, what is near a stretch is not learned from where that is
judged, and rows that are the same, or like each other, are in one fold (blocked cross-validation; Roberts et al. 2017, Ecography 40).
"""

import math
from typing import Any

import numpy as np

from collapse_cli.check.word_counts import Counted
from collapse_cli.metrics.intervals import LEVEL, t_quantile
from collapse_cli.metrics.repetition import NEAR
from collapse_cli.selection.row_contents import digests
from collapse_cli.selection.scores.detector import classifier, gram_counts, hanging_together
from collapse_cli.selection.scores.duplicates import clusters

ROWS = 2_000  # of each text
FOLDS = 5
# Classifiers of two folds share most of the rows that they were fitted on, so they err together: Nadeau and Bengio (2003, Machine Learning 52) multiply
# the variance by 1 + folds * (rows of a fold / rows that its classifier is fitted on). Without it 15% of 120 intervals lacked 0.5 where nothing differed.
SHARED = math.sqrt(1 + FOLDS / (FOLDS - 1))
LIKENESS = (
    0.5,
    NEAR,
)  # Jaccard similarity of rows that are kept in one fold; the second where the first joins too many
LARGEST = 0.2  # share of the rows that one cluster of like rows may have, so that a fold can be without it
STRETCH, STRETCHES = (
    40,
    (10, 50),
)  # rows of a stretch of neighbours, and how many stretches a text has at least and at most
GAP = 10  # rows next to a stretch that are not learned from where it is judged; a third of a stretch at most


def tell_apart(first: Counted, second: Counted, seed: int = 0) -> dict[str, Any]:
    """The AUC of a classifier of rows of the second text against rows of the first; neighbours are rows whose indices follow each other.

    Returns:
        `rows` of each; `auc` with `low` and `high`; `accuracy`; `length`, the AUC of nothing but the length, with its interval; `likeness`, the Jaccard
        similarity from which on rows are in one fold, None where one cluster would hold more than a fifth of the rows: there only rows that are the same are.
    """
    random = np.random.Generator(np.random.Philox(seed))
    count = min(len(first), len(second), ROWS)
    chosen = (np.sort(random.choice(len(text), count, replace=False)) for text in (first, second))
    ours, theirs = (
        text.take(rows[np.argsort(text.index[rows], kind="stable")])
        for text, rows in zip((first, second), chosen, strict=True)
    )
    rows = [ours.dataset(), theirs.dataset()]
    width = min(int(text.arrays["lengths"].max()) for text in rows)
    content = np.concatenate([digests(text, width) for text in rows])
    likeness, lines = _like(ours.beside(theirs), seed)
    kind = hanging_together(lines, content)
    stretches = _stretches(count)
    stretch = np.tile(stretches, 2)
    home = stretch[np.unique(kind, return_index=True)[1]][kind]  # of what hangs together that of the first row
    folds = random.permutation(int(stretches.max()) + 1) % FOLDS
    late = np.arange(2 * count) >= count
    features = [gram_counts(text, width) for text in rows]
    decisions = _decided(features, folds[home], _beside(folds[stretches]), late)
    lengths = np.concatenate([text.arrays["lengths"] for text in rows]).astype(np.float64)
    groups = (kind, home + late * len(folds))
    auc, error, freedom = _auc(decisions, late, folds[home], groups)
    low, high = ends(auc, error * SHARED, count, freedom)
    by_length, length_error, freedom = _auc(lengths, late, np.zeros(len(late), np.int64), groups)
    length_low, length_high = ends(by_length, length_error, count, freedom)
    right = (decisions > 0) == late
    return {
        "rows": count,
        "width": width,
        "auc": auc,
        "low": low,
        "high": high,
        "accuracy": float(right.mean()),
        "length": {"auc": by_length, "low": length_low, "high": length_high},
        "likeness": likeness,
    }


def _like(both: Counted, seed: int) -> tuple[float | None, np.ndarray]:
    """The least similarity that joins not too many rows, and (rows,) the cluster of each by it; None, each row alone, where any does."""
    for likeness in LIKENESS:
        found = clusters(both.tokens, both.lengths, near=True, seed=seed, least=likeness).first
        if int(np.bincount(found).max()) <= LARGEST * len(both):
            return likeness, found
    return None, np.arange(len(both))


def _stretches(count: int) -> np.ndarray:
    """(rows,) 0, 1, 2 …: the stretch of neighbours that each row of a text is in."""
    least, most = STRETCHES
    many = min(most, max(least, count // STRETCH), count)
    return np.arange(count) * many // max(1, count)


def _beside(fold: np.ndarray) -> np.ndarray:
    """(rows, folds) bool: whether a row of a text is so near a stretch of a fold, or in it, that it is not learned from where that is judged.

    Args:
        fold: (rows,) of one text, in the order of its rows.
    """
    gap = min(GAP, len(fold) // (3 * STRETCHES[0]))
    there = np.zeros((len(fold), FOLDS), bool)
    there[np.arange(len(fold)), fold] = True
    near = there.copy()
    for back in range(1, gap + 1):
        near[back:] |= there[:-back]
        near[:-back] |= there[back:]
    return near


def _decided(features: list[Any], fold: np.ndarray, beside: np.ndarray, late: np.ndarray) -> np.ndarray:
    """(rows,) the decision on each row by the classifier that was fitted without its fold and what is beside that; 0 where nothing could be fitted."""
    from scipy.sparse import vstack

    x = vstack(features, format="csr")
    decisions = np.zeros(len(late))
    near = np.tile(beside, (2, 1))
    for one in np.unique(fold):
        mine = fold == one
        learned = ~mine & ~near[:, one]
        if len(np.unique(late[learned])) == 2:
            weights, offset = classifier(x[learned], late[learned])
            decisions[mine] = np.asarray(x[mine] @ weights) + offset
    return decisions


def _auc(
    decisions: np.ndarray, late: np.ndarray, fold: np.ndarray, groups: tuple[np.ndarray, ...]
) -> tuple[float, float, int]:
    """The AUC, the largest of its errors by several ways to group rows, and the degrees of freedom of that."""
    found = [(*fold_auc(decisions, late, fold, group), len(np.unique(group)) - 1) for group in groups]
    return max(found, key=lambda one: one[1])


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


def ends(auc: float, error: float, count: int, freedom: int) -> tuple[float, float]:
    """The 95% interval of an AUC, by t; of one at the end of its range the rule of three in place of no width at all."""
    half = t_quantile(max(1, freedom), (1 + LEVEL) / 2) * error
    if auc in (0.0, 1.0):
        half = 3 / count
    return max(0.0, auc - half), min(1.0, auc + half)


def two_parts(text: Counted) -> tuple[np.ndarray, np.ndarray]:
    """The rows of either half: of eight parts in the order of the text every second one, and the others."""
    order = np.argsort(text.index, kind="stable")
    part = np.zeros(len(text), np.int64)
    part[order] = np.arange(len(text)) * 8 // max(1, len(text))
    return np.flatnonzero(part % 2 == 0), np.flatnonzero(part % 2 == 1)


def halves(text: Counted, seed: int = 0) -> dict[str, Any]:
    """The same of two halves of one text: every second of eight parts of it, in the order of its rows, against the others.

    Where these are told apart, the rows of a text hang together (by topic or author) over more than neighbours, and other rows of the same source would be
    told apart too.
    """
    first, second = two_parts(text)
    return tell_apart(text.take(first), text.take(second), seed)
