"""Losses by how frequent a token is, their changes, and calibration: against slow loops, resampling and known cases."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_cli.metrics.tails import (
    by_decile,
    calibration_error,
    decile_changes,
    decile_measures,
    frequency_deciles,
    ratio,
    token_measures,
)


def test_equally_frequent_types_are_cut_into_tenths() -> None:
    deciles = frequency_deciles(np.full(100, 7))
    assert np.bincount(deciles).tolist() == [10] * 10
    assert (np.diff(deciles) >= 0).all()


def test_types_that_do_not_occur_belong_to_no_decile() -> None:
    assert frequency_deciles(np.array([0, 5, 0, 5])).tolist() == [-1, 2, -1, 7]
    assert frequency_deciles(np.zeros(3, int)).tolist() == [-1, -1, -1]


def test_a_type_of_more_than_a_tenth_leaves_deciles_empty() -> None:
    deciles = frequency_deciles(np.array([80] + [1] * 20))
    assert deciles[0] == 4
    assert set(deciles[1:]) == {8, 9}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_more_frequent_types_are_never_in_a_later_decile(counts: list[int]) -> None:
    found = frequency_deciles(np.array(counts))
    pairs = sorted(zip(counts, found, strict=True), reverse=True)
    used = [decile for count, decile in pairs if count]
    assert all(0 <= decile <= 9 for decile in used)
    for (count, decile), (other, later) in pairwise(pairs):
        assert count == other or later == -1 or decile <= later


@given(st.integers(1, 30), st.integers(0, 200), st.integers(0, 5))
def test_deciles_hold_a_tenth_of_the_tokens_where_types_are_small(types: int, tokens: int, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(1, 4, 40 * types)
    mass = np.bincount(frequency_deciles(counts), counts, 10) / counts.sum()
    assert np.abs(mass - 0.1).max() <= 4 / counts.sum() + 1e-12


def test_losses_by_decile_are_those_of_a_loop() -> None:
    random = np.random.default_rng(0)
    nll, deciles, rows = random.gamma(2, 1, 500), random.integers(-1, 10, 500), random.integers(0, 7, 500)
    sums, counts = by_decile(nll, deciles, rows, 8)
    for row in range(8):
        for decile in range(10):
            here = (rows == row) & (deciles == decile)
            assert sums[row, decile] == pytest.approx(nll[here].sum())
            assert counts[row, decile] == here.sum()
    measures = decile_measures(sums, counts)
    assert measures["nll_by_decile"][3] == pytest.approx(nll[deciles == 3].mean())
    assert measures["tokens_by_decile"] == [(deciles == decile).sum() for decile in range(10)]


def test_a_decile_without_tokens_has_no_loss() -> None:
    assert decile_measures(np.zeros((2, 10)), np.zeros((2, 10), int))["nll_by_decile"] == [None] * 10
    assert ratio(np.zeros(3), np.zeros(3)) == (None, None)
    assert ratio(np.array([2.0, 0.0]), np.array([4, 0])) == (0.5, None)


def test_changes_are_those_of_head_and_tail() -> None:
    counts = np.ones((50, 10), int)
    first = np.random.default_rng(1).gamma(2, 1, (50, 10))
    now = first.copy()
    now[:, 7:] += 0.3
    found = decile_changes(now, first, counts)
    assert found["head_change"] == pytest.approx(0)
    assert found["tail_change"] == pytest.approx(0.3)
    assert found["tail_change_se"] == pytest.approx(0, abs=1e-12)
    assert found["nll_change_by_decile"] == pytest.approx([0] * 7 + [0.3] * 3)


def test_the_standard_error_is_that_of_resampled_rows() -> None:
    """Rows of unequal length whose tokens share a shift, so that tokens are no independent draws."""
    random = np.random.default_rng(2)
    counts = random.integers(1, 9, 400)
    sums = counts * random.normal(0.5, 1, 400) + random.normal(0, 0.1, 400)
    mean, error = ratio(sums, counts)
    picks = random.integers(0, 400, (4000, 400))
    drawn = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    assert mean == pytest.approx(sums.sum() / counts.sum())
    assert error == pytest.approx(drawn.std(), rel=0.06)


def test_calibration_error_is_that_of_a_loop_and_of_known_cases() -> None:
    random = np.random.default_rng(3)
    confidence, hit = random.random(2000), random.random(2000) < 0.4
    slow = 0.0
    for low in np.arange(15):
        here = (confidence >= low / 15) & (confidence < (low + 1) / 15)
        if here.any():
            slow += here.sum() / 2000 * abs(hit[here].mean() - confidence[here].mean())
    assert calibration_error(confidence, hit) == pytest.approx(slow)
    assert calibration_error(np.ones(4), np.ones(4)) == 0
    assert calibration_error(np.ones(4), np.zeros(4)) == 1
    assert calibration_error(np.zeros(0), np.zeros(0)) is None


def test_tokens_that_the_corpus_never_had_are_counted_apart() -> None:
    tokens = {
        "label": np.array([0, 1, 2, 2]),
        "nll": np.array([1.0, 2.0, 5.0, 7.0]),
        "confidence": np.full(4, 0.5),
        "hit": np.array([1.0, 0, 0, 1]),
        "entropy": np.full(4, 1.5),
    }
    found = token_measures(tokens, np.array([0, 4, -1]))
    assert found == {
        "unseen_tokens": 2,
        "nll_unseen": 6.0,
        "calibration_error": 0.0,
        "accuracy": 0.5,
        "predictive_entropy": 1.5,
    }
