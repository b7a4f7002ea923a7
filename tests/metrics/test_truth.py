"""Counts against a known truth: by hand, by scipy, and by drawing."""

import math

import numpy as np
import pytest
from scipy import stats

from collapse_cli.metrics import truth

SHARES = np.array([0.5, 0.3, 0.15, 0.05])


def test_divergence_and_total_variation_as_scipy_and_the_definition_have_them() -> None:
    counts = np.array([7, 0, 2, 1])
    q = counts / counts.sum()
    assert truth.divergence(counts, SHARES) == pytest.approx(stats.entropy(q, SHARES))
    assert truth.total_variation(counts, SHARES) == pytest.approx(np.maximum(q - SHARES, 0).sum())
    assert truth.divergence(10 * SHARES, SHARES) == pytest.approx(0, abs=1e-12)
    assert truth.total_variation(10 * SHARES, SHARES) == pytest.approx(0, abs=1e-12)


def test_of_nothing_there_is_no_distance() -> None:
    nothing = np.zeros(4)
    assert truth.divergence(nothing, SHARES) is None
    assert truth.total_variation(nothing, SHARES) is None
    assert truth.share(0, 0) is None


def test_draws_from_the_truth_itself_are_off_by_what_chance_gives() -> None:
    draws = np.random.default_rng(0).multinomial(400, SHARES, size=3000)
    kl = np.mean([truth.divergence(counts, SHARES) for counts in draws])
    assert kl == pytest.approx((len(SHARES) - 1) / (2 * 400), rel=0.1)  # Miller 1955


def test_expected_distinct_values_are_what_draws_hold() -> None:
    draws = np.random.default_rng(1).random((2000, 30, 4)) < SHARES
    held = draws.any(axis=1).sum(axis=1)
    assert truth.expected_distinct(SHARES, 30) == pytest.approx(held.mean(), abs=4 * held.std() / math.sqrt(2000))
    assert truth.expected_distinct(SHARES, 0) == 0


def test_bands_are_of_equal_numbers_and_the_most_frequent_comes_first() -> None:
    frequencies = [0.1, 0.9, 0.5, 0.5, 0.2, 0.3, 0.05]
    groups = truth.bands(frequencies, 3)
    assert [group.tolist() for group in groups] == [[1, 2, 3], [5, 4], [0, 6]]
    part, whole = np.array([0, 2, 1, 1, 0, 0, 0.0]), np.array([0, 2, 2, 1, 1, 1, 0.0])
    assert truth.share_by_band(part, whole, groups) == [0.8, 0.0, None]
