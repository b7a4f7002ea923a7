"""How alike models are, and what they hold together: Jensen-Shannon distances of predictions, and the mixture of all.

All models predict the same tokens of the same text. Formulas, and what they miss: docs/metrics.md, "Between lineages".
"""

from collections.abc import Sequence

import numpy as np

from collapse_cli.metrics import perplexity


def jensen_shannon(p: np.ndarray, q: np.ndarray, of: np.ndarray, count: int) -> np.ndarray:
    """Jensen-Shannon divergence of pairs of distributions in bits, from what both hold (Lin 1991, equation 3.2).

    ½ KL(p ‖ m) + ½ KL(q ‖ m), m = (p + q) / 2: 0 of equal ones, 1 of those that share nothing. A value that one distribution
    alone holds adds half its probability, so the sum is 1 + ½ Σ p log2(p / (p+q)) + q log2(q / (p+q)) over what both hold.

    Args:
        p, q: (entries,) probabilities above 0.
        of: (entries,) which of the `count` pairs each entry belongs to.

    Returns:
        (count,) float64 in 0..1.
    """
    both = p + q
    shared = np.bincount(of, p * np.log2(p / both) + q * np.log2(q / both), count)
    return np.asarray(np.clip(1 + shared / 2, 0, 1))


def distance(divergences: np.ndarray) -> float | None:
    """Jensen-Shannon distance of two models: the root of their mean divergence in bits; 0..1, None of nothing.

    It is the distance of two distributions of a context and the token behind it, with the contexts of the text for both. The root is
    a metric (Endres and Schindelin 2003, IEEE Trans. Inf. Theory 49:1858); the divergence itself is none.

    Args:
        divergences: (tokens,) of the distributions of each token.
    """
    return float(np.sqrt(np.mean(divergences, dtype=np.float64))) if len(divergences) else None


def mixture_nll(nll: np.ndarray) -> np.ndarray:
    """(tokens,) -ln of the mean probability that models give each token, in nats; exact where probabilities underflow.

    Args:
        nll: (models, tokens) -ln of each model's.
    """
    least = nll.min(axis=0)
    return np.asarray(least - np.log(np.exp(least - nll).mean(axis=0)))


def mixture_measures(nll: np.ndarray) -> dict[str, float | int]:
    """What models predict together: the mean of their probabilities, token by token, all models alike.

    Args:
        nll: (models, tokens) of each model's predictions in nats; one token at least.

    Returns:
        `mixture_models`; `mixture_nll` (nats per token) and `mixture_perplexity`; `mixture_gain`: by how much that is less than
        the mean of the models' own losses, nats per token, never below 0 (Jensen's inequality).
    """
    together = float(mixture_nll(nll).mean(dtype=np.float64))
    alone = float(nll.mean(dtype=np.float64))
    return {
        "mixture_models": len(nll),
        "mixture_nll": together,
        "mixture_perplexity": perplexity(together),
        "mixture_gain": max(0.0, alone - together),
    }


def bits_per_byte(nll: float, tokens: int, size: int) -> float:
    """`nll` nats per predicted token of a text of so many tokens and `size` bytes, in bits per byte."""
    return nll * tokens / size / float(np.log(2))


def mean(values: Sequence[float | None]) -> float | None:
    """None of nothing, and where one is not known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def geometric_mean(values: Sequence[float | None]) -> float | None:
    """Of perplexities, which differ by factors; None of nothing, and where one is not known."""
    logs = mean([None if value is None else float(np.log(value)) for value in values])
    return None if logs is None else perplexity(logs)
