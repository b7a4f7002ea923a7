"""What is measured. Pure functions of arrays."""

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from collapse_cli.errors import InputError

LARGEST = math.log(sys.float_info.max)  # nats: of more there is no exponential
NO_WORDS = "not defined: no white space parts the text into words"  # why there is no word perplexity


def floored(floor: float) -> str:
    """What a perplexity of n-grams depends on beside the text."""
    return f"a token that the model gives no probability counts as {floor:g} (ngram.floor), and the perplexity depends on that"


def perplexity(nll: float) -> float:
    """The exponential of the mean negative log-likelihood (nats per predicted token).

    Where that overflows, the largest float: JSON has no infinity, and `nll` stands beside it.
    """
    try:
        return math.exp(nll)
    except OverflowError:
        return sys.float_info.max


def text_measures(
    nll: np.ndarray, predicted: np.ndarray, tokens: int, words: int, size: int
) -> dict[str, float | int | None]:
    """Token-weighted measures of a scored text.

    Args:
        nll: (rows,) summed negative log-likelihood of each row's predicted tokens, in nats.
        predicted: (rows,) predicted tokens of each row.
        tokens, words, size: tokens, words (split at white space) and bytes (UTF-8) of the whole text.

    Returns:
        `nll` nats per predicted token; `perplexity` its exponential; `predicted_tokens`; `word_perplexity` and
        `bits_per_byte`: the mean NLL per token times tokens per word, or per byte, which makes tokenizers comparable.
        `word_perplexity` is None where no word ends (`NO_WORDS`): of a text without white space between words, and where
        words are so long that it is larger than any float.

    Raises:
        InputError: when the loss is not finite.
    """
    total = int(predicted.sum())
    mean = float(nll.sum(dtype=np.float64)) / total
    if not math.isfinite(mean):
        raise InputError(
            f"the model's loss on the test text is {mean}; where its weights were trained here, lower train.lr or set train.dtype "
            "= float32; else give a model whose weights and config are sound"
        )
    word = mean * tokens / words if words > 1 else math.inf
    return {
        "perplexity": perplexity(mean),
        "nll": mean,
        "predicted_tokens": total,
        "bits_per_byte": mean * tokens / size / math.log(2),
        "word_perplexity": math.exp(word) if word < LARGEST else None,
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


def warnings(
    row: Mapping[str, Any], before: Mapping[str, Any] | None, *, max_duplicates: float, selects: bool
) -> list[str]:
    """Guard rails: what makes a row of `metrics.jsonl` doubtful, in words.

    Args:
        before: the row of the previous generation of the same policy and seed.
        max_duplicates: the share of duplicated synthetic rows from which on to warn.
        selects: whether real validation text chose the weights.
    """
    messages = []
    if row.get("duplicate_share", 0.0) > max_duplicates:
        messages.append(f"{row['duplicate_share']:.0%} of the synthetic rows repeat another one")
    if row.get("special_token_share", 0.0) > 0:
        messages.append(f"{row['special_token_share']:.1%} of the synthetic rows hold special tokens such as padding")
    both = before is not None and "perplexity" in before and "perplexity" in row
    loss = row.get("nll")
    beyond = isinstance(loss, float) and loss >= LARGEST
    if beyond:
        messages.append(
            f"the perplexity is larger than any number (a mean loss of {loss:,.0f} nats a token): the largest stands in its place, "
            "and changes from it mean nothing; where the model was trained here, lower train.lr"
        )
    if both and not beyond and before is not None and f"{before['perplexity']:.4g}" == f"{row['perplexity']:.4g}":
        messages.append(
            "the perplexity equals that of the generation before to 4 digits; was the model trained at all?"
        )
    if row.get("variance") == 0.0:
        messages.append(
            "the variance is 0: less than float64 resolves beside the mean, so that logarithms stop falling"
        )
    if selects and row["real_rows"] == 0:
        messages.append("real validation text chose the weights of a model trained on synthetic rows only")
    return messages
