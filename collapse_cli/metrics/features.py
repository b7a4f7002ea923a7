"""How near the samples as a whole are to real text, seen through a model's features."""

import warnings

import numpy as np

ROWS = 5000  # of each side at most
FEWEST = 50  # rows of a side below which nothing is said
ROWS_A_BUCKET = 40  # faiss asks for 39
ITERATIONS = 100


def mauve(real: np.ndarray, samples: np.ndarray, seed: int = 0) -> float | None:
    """MAUVE (Pillutla et al. 2021) between real continuations and samples, 0..1; 1: they cannot be told apart.

    Both sides' features are scaled to length 1, reduced by PCA to 90% of their variance, and cut into buckets by one
    k-means; MAUVE is the area below the curve of divergences of the two histograms, with scaling factor 5. mauve-text
    computes it. Buckets: one for 40 rows of both sides together, at least 2; k-means runs once, 100 rounds at most.

    Args:
        real, samples: (rows, size) features of one model; at most 5,000 rows of each are drawn with the seed.

    Returns:
        None where a side has fewer than 50 rows, where a feature is not finite, or where all features are the same.
    """
    if min(len(real), len(samples)) < FEWEST:
        return None
    real, samples = (_some(side, seed).astype(np.float64) for side in (real, samples))
    if not (np.isfinite(real).all() and np.isfinite(samples).all()):
        return None
    if np.all(real == real[0]) and np.all(samples == real[0]):
        return None
    from mauve import compute_mauve

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        outcome = compute_mauve(
            p_features=real,
            q_features=samples,
            num_buckets=max(2, (len(real) + len(samples)) // ROWS_A_BUCKET),
            kmeans_num_redo=1,
            kmeans_max_iter=ITERATIONS,
            seed=seed + 25,  # mauve-text's own default at 0
            verbose=False,
        )
    return float(outcome.mauve) if np.isfinite(outcome.mauve) else None


def _some(rows: np.ndarray, seed: int) -> np.ndarray:
    """At most ROWS rows, drawn once each; the same places of two arrays of equal length."""
    if len(rows) <= ROWS:
        return rows
    return rows[np.sort(np.random.Generator(np.random.Philox(seed)).permutation(len(rows))[:ROWS])]
