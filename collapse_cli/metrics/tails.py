"""Where a model forgets: losses by how frequent a token is in the real corpus, and how well its confidence is founded."""

from collections.abc import Mapping
from typing import Any

import numpy as np

DECILES = 10
HEAD, TAIL = slice(0, 3), slice(7, 10)  # deciles 1..3 and 8..10
BINS = 15  # of confidence


def frequency_deciles(counts: np.ndarray) -> np.ndarray:
    """Token types cut by frequency into ten groups that hold a tenth of the corpus' tokens each, as nearly as types can.

    A type belongs to the decile in which the middle of its tokens lies, the most frequent types first (of equally
    frequent ones the lower id). A type that makes up more than a tenth leaves a decile empty.

    Args:
        counts: (types,) how often each type occurs in the real training corpus.

    Returns:
        (types,) int64: 0 (head) to 9 (tail), -1 for types that do not occur.
    """
    order = np.argsort(-counts, kind="stable")
    ranked = counts[order].astype(np.float64)
    total = ranked.sum()
    middle = (np.cumsum(ranked) - ranked / 2) / total if total else ranked
    deciles = np.full(len(counts), -1, np.int64)
    deciles[order] = np.where(ranked > 0, np.minimum((middle * DECILES).astype(np.int64), DECILES - 1), -1)
    return deciles


def by_decile(nll: np.ndarray, deciles: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses of tokens summed by the row they stand in and their decile.

    Args:
        nll: (tokens,) negative log-likelihood in nats.
        deciles: (tokens,) each token's decile; -1 is left out.
        rows: (tokens,) the row it stands in, below `count`.

    Returns:
        (count, 10) float64 sums and (count, 10) int64 numbers of tokens.
    """
    known = deciles >= 0
    cells = rows[known] * DECILES + deciles[known]
    size = count * DECILES
    sums = np.bincount(cells, nll[known].astype(np.float64), size).reshape(count, DECILES)
    return sums, np.bincount(cells, minlength=size).reshape(count, DECILES)


def decile_measures(sums: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """`nll_by_decile` (nats per token; None where a decile has none) and `tokens_by_decile`, from `by_decile`."""
    total, tokens = sums.sum(axis=0), counts.sum(axis=0)
    means = [float(loss / number) if number else None for loss, number in zip(total, tokens, strict=True)]
    return {"nll_by_decile": means, "tokens_by_decile": [int(number) for number in tokens]}


def decile_changes(now: np.ndarray, first: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """How the losses by decile differ from generation 0's, paired over the rows of the test text.

    The standard error is that of a ratio of sums over rows (Cochran, Sampling Techniques, 1977, section 2.11), since
    the tokens of a row are no independent draws.

    Args:
        now, first: (rows, 10) summed losses of this generation and of generation 0 on the same rows.
        counts: (rows, 10) tokens.

    Returns:
        `nll_change_by_decile` and its `_se`, and the same of deciles 1..3 and 8..10: `head_change`, `tail_change`.
    """
    difference = now - first
    each = [ratio(difference[:, decile], counts[:, decile]) for decile in range(DECILES)]
    changes: dict[str, Any] = {
        "nll_change_by_decile": [change for change, _ in each],
        "nll_change_by_decile_se": [error for _, error in each],
    }
    for name, part in (("head", HEAD), ("tail", TAIL)):
        change, error = ratio(difference[:, part].sum(axis=1), counts[:, part].sum(axis=1))
        changes |= {f"{name}_change": change, f"{name}_change_se": error}
    return changes


def ratio(sums: np.ndarray, counts: np.ndarray) -> tuple[float | None, float | None]:
    """sum(sums) / sum(counts) over rows, and its standard error; None where it cannot be had."""
    total, rows = counts.sum(), int((counts > 0).sum())
    if total == 0:
        return None, None
    mean = sums.sum() / total
    if rows < 2:
        return float(mean), None
    residuals = sums - mean * counts
    return float(mean), float(np.sqrt((residuals**2).sum() * rows / (rows - 1)) / total)


def calibration_error(confidence: np.ndarray, hit: np.ndarray) -> float | None:
    """Expected calibration error: over bins of confidence, |share of hits - mean confidence|, weighted by tokens.

    Naeini et al. 2015; Guo et al. 2017, with 15 bins of equal width.

    Args:
        confidence: (tokens,) probability of the most probable token.
        hit: (tokens,) whether that was the token.
    """
    if len(confidence) == 0:
        return None
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(bins, hit.astype(np.float64) - confidence, BINS)
    return float(np.abs(gap).sum() / len(confidence))


def token_measures(tokens: Mapping[str, np.ndarray], deciles: np.ndarray) -> dict[str, Any]:
    """Measures of a scored text that need each token.

    Args:
        tokens: of each predicted token `label`, `nll`, `confidence` (of the most probable token), `hit` (whether that
            is the label), `entropy` (of the model's distribution, nats).
        deciles: (types,) as `frequency_deciles` gives them.
    """
    unseen = deciles[tokens["label"]] < 0
    return {
        "unseen_tokens": int(unseen.sum()),
        "nll_unseen": float(tokens["nll"][unseen].mean()) if unseen.any() else None,
        "calibration_error": calibration_error(tokens["confidence"], tokens["hit"]),
        "accuracy": float(tokens["hit"].mean()) if len(unseen) else None,
        "predictive_entropy": float(tokens["entropy"].mean()) if len(unseen) else None,
    }
