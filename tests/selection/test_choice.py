"""Curation by the code that selects, against exact values of Ferbach et al.'s equation 6."""

from itertools import product

import numpy as np
import pytest

from collapse_cli.errors import InputError
from collapse_cli.selection.choice import one_of_each

P, R = np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 2.0])


def exactly(p: np.ndarray, r: np.ndarray, among: int) -> np.ndarray:
    """P H^K: over all ways to draw K - 1 rivals."""
    h = np.zeros(len(p))
    for rivals in product(range(len(p)), repeat=among - 1):
        there = list(rivals)
        h += p[there].prod() * among * np.exp(r) / (np.exp(r) + np.exp(r[there]).sum())
    return p * h


def test_the_exact_values_are_those_that_were_derived() -> None:
    """shared/mitigation.md section 2."""
    two = exactly(P, R, 2)
    assert two == pytest.approx([0.35452, 0.34159, 0.30389], abs=6e-6)
    assert exactly(exactly(two, R, 2), R, 2) == pytest.approx([0.10998, 0.31446, 0.57555], abs=6e-6)
    assert exactly(P, R, 4) == pytest.approx([0.26156, 0.33785, 0.40059], abs=6e-6)


def chosen_shares(p: np.ndarray, r: np.ndarray, among: int, places: int, seed: int) -> np.ndarray:
    """What the selecting code makes of candidates that are drawn from p."""
    candidates = np.random.default_rng(seed).choice(len(p), (among, places), p=p)
    taken = one_of_each(r[candidates], seed)
    return np.bincount(candidates[taken, np.arange(places)], minlength=len(p)) / places


@pytest.mark.parametrize("among", [1, 2, 4])
def test_what_is_chosen_has_the_exact_distribution(among: int) -> None:
    places = 100_000
    exact = exactly(P, R, among)
    shares = chosen_shares(P, R, among, places, 3)
    assert (np.abs(shares - exact) <= 4 * np.sqrt(exact * (1 - exact) / places)).all()


def test_three_rounds_and_very_many_candidates() -> None:
    places, p = 200_000, P
    for seed in range(3):
        p = chosen_shares(p, R, 2, places, seed)
    assert p == pytest.approx([0.10998, 0.31446, 0.57555], abs=4 * 3 * np.sqrt(0.25 / places))
    limit = P * np.exp(R) / (P @ np.exp(R))
    assert limit == pytest.approx([0.17900, 0.29194, 0.52906], abs=6e-6)
    many = chosen_shares(P, R, 1000, 4_000, 5)
    assert (np.abs(many - limit) <= 4 * np.sqrt(limit * (1 - limit) / 4_000) + 0.001).all()


def test_each_place_has_its_own_chance_and_large_rewards_do_no_harm() -> None:
    rewards = np.random.default_rng(0).standard_normal((3, 50))
    assert (one_of_each(rewards, 1)[:20] == one_of_each(rewards[:, :20], 1)).all()
    assert (one_of_each(1e6 * rewards, 1) == rewards.argmax(axis=0)).all()
    assert (one_of_each(rewards + 1e5, 1) == one_of_each(rewards, 1)).all(), "only differences of rewards count"


def test_a_reward_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="no finite number"):
        one_of_each(np.array([[0.0, np.nan]]), 0)
