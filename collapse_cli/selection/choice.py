"""One of each K candidates, by a reward: p' = p H^K (curation; Ferbach et al., arXiv 2407.09499, equation 6).

A chooser compares rewards as Bradley and Terry have it: of K candidates it takes j with probability e^r(j) / (sum over all K of e^r).
"""

import numpy as np

from collapse_cli.errors import InputError


def one_of_each(rewards: np.ndarray, seed: int) -> np.ndarray:
    """(places,) int64: which candidate is taken at each place.

    Args:
        rewards: (K, places); -inf of a candidate that is never taken, where its place has another.
        seed: of the choices. Each place has its own random numbers: more places begin with the same choices.

    Raises:
        InputError: for rewards that are no numbers.
    """
    if np.isnan(rewards).any() or np.isposinf(rewards).any():
        raise InputError("select: a reward is no finite number, so that nothing can be chosen by it")
    among, places = rewards.shape
    drawn = np.random.Generator(np.random.Philox(seed)).random((places, among))
    # the largest of r + Gumbel noise is j with the probability of Bradley and Terry's choice (Luce; Yellott 1977)
    noise = -np.log(-np.log1p(-drawn) + np.finfo(np.float64).tiny)
    chosen: np.ndarray = (rewards.T + noise).argmax(axis=1)
    return chosen
