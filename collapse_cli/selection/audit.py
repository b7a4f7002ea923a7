"""What became of the candidates: counts by origin, scores before and after, false rejects, and rows to look at.

All of it is JSON for `metrics.jsonl`, and bounded: so many numbers of each distribution, so many rows, so many characters of each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from collapse_cli.data.dataset import Dataset
from collapse_cli.learners.protocol import Facts

QUANTILES = np.linspace(0, 1, 11)
EXAMPLES = 10  # rows that were thrown away, and as many that stay
CHARACTERS = 300  # of each
NUMBERS = 8  # of a row that is no text


@dataclass
class Audit:
    """What is written down while the steps choose.

    Attributes:
        steps: of each step, as JSON.
        left_at: (candidates,) the number of the step that threw a row away, from 1; 0 of those that stay.
        score: (candidates,) the last score that a row was given.
        held: (held-out rows,) the probability that a real row would have stayed.
    """

    left_at: np.ndarray
    score: np.ndarray
    held: np.ndarray
    steps: list[Facts] = field(default_factory=list)

    @classmethod
    def of(cls, candidates: int, held: int) -> "Audit":
        """Before the first step."""
        return cls(np.zeros(candidates, np.int64), np.full(candidates, np.nan), np.ones(held))


def quantiles(scores: np.ndarray) -> list[float]:
    """The smallest score, the nine deciles, the largest; empty where there is none that is finite."""
    finite = scores[np.isfinite(scores)]
    return [float(value) for value in np.quantile(finite, QUANTILES)] if len(finite) else []


def false_rejects(held: np.ndarray) -> float | None:
    """The share of held-out real rows that the same rules would throw away; None where there are none."""
    return float(1 - held.mean()) if len(held) else None


def counts(rows: Dataset, chosen: np.ndarray, filled: int) -> Facts:
    """How many candidates there were and how many stay, real ones among them.

    Args:
        chosen: (kept,) indices of the rows that stay, repeated where they were drawn more than once.
        filled: how many real rows stand where too few stayed.
    """
    kept = rows.origin[chosen]
    each = np.bincount(chosen, minlength=1)
    return {
        "select_candidates": len(rows),
        "select_candidates_real": int((rows.origin == 0).sum()),
        "select_kept": len(chosen),
        "select_kept_real": int((kept == 0).sum()),
        "select_distinct": int((each > 0).sum()),
        "select_most_repeats": int(each.max()),
        "select_filled": filled,
    }


def examples(
    rows: Dataset, audit: Audit, text: Callable[[Dataset], Sequence[str]] | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows that were thrown away, and rows that stay: evenly from the lowest to the highest score."""
    thrown, kept = np.flatnonzero(audit.left_at > 0), np.flatnonzero(audit.left_at == 0)
    return _told(rows, spread(thrown, audit.score), audit, text), _told(rows, spread(kept, audit.score), audit, text)


def spread(rows: np.ndarray, score: np.ndarray) -> np.ndarray:
    """At most `EXAMPLES` of the rows, evenly over their scores, the ends among them."""
    order = rows[np.argsort(score[rows], kind="stable")]
    if len(order) <= EXAMPLES:
        return order
    return order[np.linspace(0, len(order) - 1, EXAMPLES).round().astype(np.int64)]


def _told(
    rows: Dataset, which: np.ndarray, audit: Audit, text: Callable[[Dataset], Sequence[str]] | None
) -> list[dict[str, Any]]:
    if not len(which):
        return []
    some = rows.take(which)
    words = text(some) if text is not None else [_numbers(some, row) for row in range(len(some))]
    return [
        {
            "text": word[:CHARACTERS],
            "origin": int(rows.origin[row]),
            "score": float(audit.score[row]) if np.isfinite(audit.score[row]) else None,
            "step": int(audit.left_at[row]),
        }
        for row, word in zip(which.tolist(), words, strict=True)
    ]


def _numbers(rows: Dataset, row: int) -> str:
    parts = [np.ravel(array[row]) for array in rows.arrays.values() if array.dtype.kind in "fiu"]
    numbers = np.concatenate(parts) if parts else np.zeros(0)
    return " ".join(f"{number:.4g}" for number in numbers[:NUMBERS]) + (" …" if len(numbers) > NUMBERS else "")
