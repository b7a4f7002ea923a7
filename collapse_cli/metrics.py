"""What is measured. Pure functions of arrays."""

import math
from collections.abc import Iterable

import numpy as np


def perplexity(nll: float) -> float:
    """exp of the mean negative log-likelihood (nats per predicted token); inf where that overflows."""
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf


def text_measures(nll: np.ndarray, predicted: np.ndarray, tokens: int, words: int, size: int) -> dict[str, float | int]:
    """Token-weighted measures of a scored text.

    Args:
        nll: (rows,) summed negative log-likelihood of each row's predicted tokens, in nats.
        predicted: (rows,) predicted tokens of each row.
        tokens, words, size: tokens, words (split at white space) and bytes (UTF-8) of the whole text.

    Returns:
        `nll` nats per predicted token; `perplexity` its exponential; `predicted_tokens`; `word_perplexity` and
        `bits_per_byte`: the mean NLL per token times tokens per word, or per byte, which makes tokenizers comparable.
    """
    total = int(predicted.sum())
    mean = float(nll.sum(dtype=np.float64)) / total
    return {
        "perplexity": perplexity(mean),
        "nll": mean,
        "predicted_tokens": total,
        "bits_per_byte": mean * tokens / size / math.log(2),
        "word_perplexity": perplexity(mean * tokens / words),
    }


def duplicate_share(tokens: np.ndarray) -> float:
    """Share of rows that repeat an earlier row exactly; `tokens` (rows, width)."""
    if len(tokens) == 0:
        return 0.0
    return 1 - len(np.unique(tokens, axis=0)) / len(tokens)


def share_with(tokens: np.ndarray, lengths: np.ndarray, ids: Iterable[int]) -> float:
    """Share of rows that hold one of `ids` within their used part; `tokens` (rows, width), `lengths` (rows,)."""
    if len(tokens) == 0:
        return 0.0
    used = np.arange(tokens.shape[1]) < lengths[:, None]
    return float((np.isin(tokens, list(ids)) & used).any(axis=1).mean())
