"""What text says, held against a truth that is known: distributions, what is left of them, and statements that are right or wrong.

What is counted, and how text is read, is the business of others; here counts become measures. `None` where there is nothing to measure.
"""

from collections.abc import Sequence

import numpy as np

BANDS = 5  # by how frequent a fact is in real text: from the most frequent fifth of the facts to the rarest


def share(part: float, whole: float) -> float | None:
    """`part` of `whole`; None of nothing."""
    return part / whole if whole else None


def divergence(counts: np.ndarray, truth: np.ndarray) -> float | None:
    """KL(counted shares ‖ truth) = Σ q ln (q / p), nats; finite, as all of `truth` (n,) is above 0. 0 is the truth.

    Of n draws from the truth itself about (values - 1) / 2n is expected, not 0 (Miller 1955).
    """
    total = counts.sum()
    if total == 0:
        return None
    q = counts[counts > 0] / total
    return float((q * np.log(q / truth[counts > 0])).sum())


def total_variation(counts: np.ndarray, truth: np.ndarray) -> float | None:
    """½ Σ |q - p| between counted shares and the truth: the share of mentions that would have to be of something else. 0..1."""
    total = counts.sum()
    return float(np.abs(counts / total - truth).sum() / 2) if total else None


def expected_distinct(probabilities: np.ndarray, documents: int) -> float:
    """How many values n documents are expected to hold, each with its own probability of being in one: Σ 1 - (1 - p)^n."""
    return float((1 - (1 - np.asarray(probabilities, np.float64)) ** documents).sum())


def bands(frequencies: Sequence[float], count: int = BANDS) -> list[np.ndarray]:
    """The indices of facts in `count` bands of equal numbers of them, the most frequent first (of equal ones the earlier)."""
    order = np.argsort(-np.asarray(frequencies, np.float64), kind="stable")
    return np.array_split(order, count)


def share_by_band(part: np.ndarray, whole: np.ndarray, groups: Sequence[np.ndarray]) -> list[float | None]:
    """Σ part / Σ whole within each group of indices."""
    return [share(float(part[group].sum()), float(whole[group].sum())) for group in groups]
