"""What is measured of a generation's samples: the fields of `metrics.jsonl`. Formulas and sources: docs/metrics.md.

Samples are `tokens` (rows, width) int and `lengths` (rows,) int: continuations without their prompts. A row may be empty;
what stands behind its length is never looked at. Values can be written as JSON: None where there is nothing to measure.
"""

from typing import Any

import numpy as np

from collapse_cli.errors import InputError
from collapse_cli.metrics import diversity, perplexity, repetition
from collapse_cli.metrics.features import mauve
from collapse_cli.metrics.grams import Grams

__all__ = ["mauve", "per_token", "prompt_measures", "sample_measures", "score_measures"]

BARS = 10  # of the histogram per nat
MOST_BARS = 10_000  # what is above 1,000 nats per token counts in the last one
LOW, HIGH = 0.05, 0.99  # quantiles of generation 0 beyond which samples are counted


def equal_rows(count: int, most: int) -> np.ndarray:
    """At most `most` (1 at least) of `count` samples, drawn with a fixed seed, ascending.

    Entropies, coverage and MAUVE depend on how many samples there are, and policies make different numbers of them.
    """
    return np.sort(np.random.Generator(np.random.Philox(0)).permutation(count)[: max(1, most)])


def sample_measures(
    tokens: np.ndarray, lengths: np.ndarray, deciles: np.ndarray, equal: np.ndarray | None = None
) -> dict[str, Any]:
    """Repetition, duplicates, diversity and coverage of a generation's samples.

    Args:
        tokens, lengths: the samples, see above.
        deciles: (types,) the frequency decile of each type in the real corpus, 0 (head) to 9 (tail), -1 for types that do
            not occur there, as `tails.frequency_deciles` gives them.
        equal: the samples that diversity, entropies, coverage and recall are of, as `equal_rows` draws them; None: all.

    Returns:
        `sample_rows`, `compared_rows`; `rep_2` .. `rep_4`; `longest_repeat`, `longest_repeat_max`; `top_8grams` (without their text);
        `exact_duplicate_rate`, `near_duplicate_rate`; `distinct_1` .. `distinct_4`, `type_token_ratio`, `distinct_tokens`;
        `self_bleu`, `self_bleu_rows`; `unigram_entropy`, `unigram_entropy_se`, `next_token_entropy`; `vocabulary_coverage`,
        `recall_by_decile`. All draws have a fixed seed: equal samples give equal values.
    """
    grams = Grams(tokens, lengths)
    few = grams if equal is None or len(equal) == len(grams) else Grams(tokens[equal], lengths[equal])
    measures: dict[str, Any] = {"sample_rows": len(grams), "compared_rows": len(few)}
    for n in (2, 3, 4):
        measures[f"rep_{n}"] = _mean(repetition.repetition(grams, n))
    repeats = repetition.longest_repeat(grams)
    measures["longest_repeat"] = _mean(repeats)
    measures["longest_repeat_max"] = int(repeats.max()) if len(grams) else None
    measures["top_8grams"] = repetition.frequent_phrases(grams)
    measures["exact_duplicate_rate"] = _mean(repetition.exact_duplicates(grams))
    measures["near_duplicate_rate"] = _mean(repetition.near_duplicates(grams))
    measures |= diversity.distinct(few) | diversity.self_bleu(few)
    measures["unigram_entropy"], measures["unigram_entropy_se"] = diversity.unigram_entropy(few)
    measures["next_token_entropy"] = diversity.next_token_entropy(few)
    return measures | diversity.coverage(few, deciles)


def prompt_measures(
    prompts: tuple[np.ndarray, np.ndarray], samples: tuple[np.ndarray, np.ndarray]
) -> dict[str, float | None]:
    """`prompt_overlap_4`: how much of what samples say stands in their prompts; None where no prompt is long enough.

    Args:
        prompts, samples: `tokens` and `lengths` of each, row by row.
    """
    return {"prompt_overlap_4": _mean(repetition.prompt_overlap(prompts, samples, 4))}


def per_token(nll: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Each sample's log-perplexity (nats per token); samples without a token are left out.

    Raises:
        InputError: when one is not finite.
    """
    filled = tokens > 0
    losses: np.ndarray = nll[filled].astype(np.float64) / tokens[filled]
    if not np.isfinite(losses).all():
        raise InputError(
            "the loss of samples under the model of generation 0 is not finite; set sample.dtype = float32, or lower train.lr where "
            "its weights were trained here"
        )
    return losses


def score_measures(nll: np.ndarray, tokens: np.ndarray, first: np.ndarray | None = None) -> dict[str, Any]:
    """How probable samples are to the model of generation 0 of the same seed.

    Args:
        nll: (rows,) summed negative log-likelihood of each continuation under that model, nats.
        tokens: (rows,) tokens of each continuation.
        first: (rows,) nats per token of generation 0's own samples; None: these are they. What is not finite is left out.

    Returns:
        `sample_perplexity`, `sample_log_perplexity_*`, `low_share`, `high_share`, `sample_histogram`.

    Raises:
        InputError: when a loss is not finite.
    """
    values = per_token(nll, tokens)
    count = len(values)
    first = values if first is None else first[np.isfinite(first)]
    if count == 0:
        names = ("mean", "median", "std", "variance", "variance_se", "quantiles")
        empty: dict[str, Any] = {f"sample_log_perplexity_{name}": None for name in names}
        return {"sample_perplexity": None, **empty, "low_share": None, "high_share": None, "sample_histogram": None}
    quantiles = np.quantile(values, np.arange(1, 100) / 100)
    variance, error = _variance(values)
    measures: dict[str, Any] = {
        "sample_perplexity": perplexity(float(nll[tokens > 0].sum(dtype=np.float64) / tokens.sum())),
        "sample_log_perplexity_mean": float(values.mean()),
        "sample_log_perplexity_median": float(quantiles[49]),
        "sample_log_perplexity_std": None if variance is None else float(np.sqrt(variance)),
        "sample_log_perplexity_variance": variance,
        "sample_log_perplexity_variance_se": error,
        "sample_log_perplexity_quantiles": quantiles.tolist(),
        "low_share": None,
        "high_share": None,
        "sample_histogram": histogram(values),
    }
    if len(first):
        low, high = np.quantile(first, [LOW, HIGH])
        measures |= {"low_share": float((values < low).mean()), "high_share": float((values > high).mean())}
    return measures


def histogram(values: np.ndarray) -> dict[str, Any]:
    """Counts of values >= 0 in bars 0.1 wide from 0 on, without the empty ones at both ends: `low`, `width`, `counts`."""
    bars = np.clip(values * BARS, 0, MOST_BARS - 1).astype(np.int64)
    first = int(bars.min())
    return {"low": first / BARS, "width": 1 / BARS, "counts": np.bincount(bars - first).tolist()}


def _variance(values: np.ndarray) -> tuple[float | None, float | None]:
    """The unbiased variance and its standard error, sqrt((m4 - s^4 (n - 3)/(n - 1)) / n); None for too few values."""
    count = len(values)
    if count < 2:
        return None, None
    variance = float(values.var(ddof=1))
    if count < 4:
        return variance, None
    fourth = float(((values - values.mean()) ** 4).mean())
    return variance, float(np.sqrt(max(0.0, fourth - variance**2 * (count - 3) / (count - 1)) / count))


def _mean(values: np.ndarray) -> float | None:
    """The mean of what is not NaN; None of nothing."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None
