"""The fields of a generation's samples: summaries of scores, and that every field is there and can be written."""

import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ragged import arrays, ragged, random_rows

from collapse_cli.errors import InputError
from collapse_cli.metrics.samples import histogram, per_token, sample_measures, score_measures

FIELDS = {
    *("sample_rows", "compared_rows"),
    *(f"rep_{n}" for n in (2, 3, 4)),
    *("longest_repeat", "longest_repeat_max", "top_8grams", "exact_duplicate_rate", "near_duplicate_rate"),
    *(f"distinct_{n}" for n in (1, 2, 3, 4)),
    *("type_token_ratio", "distinct_tokens", "self_bleu", "self_bleu_rows"),
    *("unigram_entropy", "unigram_entropy_se", "next_token_entropy", "vocabulary_coverage", "recall_by_decile"),
}
SCORES = {
    *("sample_perplexity", "low_share", "high_share", "sample_histogram"),
    *(f"sample_log_perplexity_{name}" for name in ("mean", "median", "std", "variance", "variance_se", "quantiles")),
}
DECILES = np.arange(100) % 11 - 1
scores = st.lists(st.tuples(st.floats(0, 900), st.integers(0, 30)), max_size=30)


@settings(deadline=None)
@given(ragged)
def test_all_fields_are_there_and_can_be_written_whatever_the_samples(rows: list[list[int]]) -> None:
    found = sample_measures(*arrays(rows), DECILES)
    assert found.keys() == FIELDS
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["sample_rows"] == len(rows)
    assert found == sample_measures(*arrays(rows, extra=9), DECILES), "what is behind a row's end is not looked at"


@pytest.mark.parametrize("rows", [[], [[]], [[], []], [[5]], [[5, 6]], [[5]] * 30, [list(range(64))] * 100])
def test_edges(rows: list[list[int]]) -> None:
    tokens, lengths = arrays(rows, extra=0)
    found = sample_measures(tokens, lengths, DECILES)
    assert found.keys() == FIELDS
    json.dumps(found, allow_nan=False)
    assert found["exact_duplicate_rate"] == (None if not rows else pytest.approx(1 - 1 / len(rows)))
    assert found["near_duplicate_rate"] == found["exact_duplicate_rate"]


def test_a_collapsed_generation_beside_a_varied_one() -> None:
    """Every direction that docs/metrics.md gives."""
    random = np.random.Generator(np.random.Philox(4))
    varied = random.integers(0, 90, (300, 32)).astype(np.int32)
    collapsed = np.tile(random.integers(0, 9, (3, 4)).astype(np.int32), (100, 8))
    lengths = np.full(300, 32)
    one, other = sample_measures(varied, lengths, DECILES), sample_measures(collapsed, lengths, DECILES)
    for name in ("rep_2", "rep_3", "rep_4", "longest_repeat", "longest_repeat_max", "self_bleu"):
        assert other[name] > one[name], name
    for name in ("exact_duplicate_rate", "near_duplicate_rate"):
        assert one[name] == 0
        assert other[name] == pytest.approx(297 / 300)
    assert not one["top_8grams"]
    assert other["top_8grams"][0]["samples"] == 100
    for name in ("unigram_entropy", "next_token_entropy", "vocabulary_coverage", "type_token_ratio"):
        assert other[name] < one[name], name
    for n in range(1, 5):
        assert other[f"distinct_{n}"] < one[f"distinct_{n}"]


# --- scores -----------------------------------------------------------------------------------------------------------


def test_samples_weigh_by_tokens_in_the_perplexity_and_alike_in_the_mean() -> None:
    """1 token at 4 nats and 9 at 1 nat each, and an empty sample: 1.3 nats a token, 2.5 a sample."""
    found = score_measures(np.array([4.0, 9.0, 0.0]), np.array([1, 9, 0]))
    assert found["sample_perplexity"] == pytest.approx(math.exp(1.3))
    assert found["sample_log_perplexity_mean"] == pytest.approx(2.5)
    assert found["sample_log_perplexity_variance"] == pytest.approx(4.5)
    assert found["sample_log_perplexity_std"] == pytest.approx(math.sqrt(4.5))


@given(scores, st.none() | st.lists(st.floats(0, 30), max_size=20))
def test_summaries_agree_with_numpy_and_can_be_written(
    rows: list[tuple[float, int]], before: list[float] | None
) -> None:
    nll, tokens = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], np.int64)
    found = score_measures(nll, tokens, None if before is None else np.array(before))
    assert found.keys() == SCORES
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    values = [loss / count for loss, count in rows if count]
    if not values:
        assert set(found.values()) == {None}
        return
    assert found["sample_log_perplexity_median"] == pytest.approx(np.median(values))
    assert found["sample_log_perplexity_quantiles"] == pytest.approx(
        [np.percentile(values, percent) for percent in range(1, 100)]
    )
    assert sum(found["sample_histogram"]["counts"]) == len(values)
    if before == []:
        assert found["low_share"] is None
    else:
        first = values if before is None else before
        assert found["low_share"] == pytest.approx(np.mean(np.array(values) < np.percentile(first, 5)))
        assert found["high_share"] == pytest.approx(np.mean(np.array(values) > np.percentile(first, 99)))


def test_shares_are_5_and_1_percent_of_generation_0_itself_and_show_both_ends_of_a_later_one() -> None:
    values = np.arange(1000) / 100
    found = score_measures(values * 10, np.full(1000, 10))
    assert (found["low_share"], found["high_share"]) == (0.05, 0.01)
    later = np.concatenate([np.full(60, 0.1), np.full(30, 5.0), np.full(10, 30.0)])
    found = score_measures(later * 10, np.full(100, 10), np.append(values, np.nan))
    assert (found["low_share"], found["high_share"]) == (0.6, 0.1)


def test_the_standard_error_of_the_variance_is_what_variances_of_other_draws_scatter_by() -> None:
    random = np.random.Generator(np.random.Philox(6))
    draws = random.gamma(4, 1, (400, 200))
    found = [score_measures(row, np.ones(200, np.int64)) for row in draws]
    variances = [one["sample_log_perplexity_variance"] for one in found]
    errors = [one["sample_log_perplexity_variance_se"] for one in found]
    assert variances == pytest.approx(draws.var(axis=1, ddof=1).tolist())
    assert 0.85 < np.mean(errors) / np.std(variances, ddof=1) < 1.15


def test_bars_are_a_tenth_of_a_nat_from_0_on_and_empty_ends_are_cut() -> None:
    assert histogram(np.array([0.3, 0.31, 0.7, 0.05 + 0.45])) == {"low": 0.3, "width": 0.1, "counts": [2, 0, 1, 0, 1]}
    assert histogram(np.array([0.0])) == {"low": 0.0, "width": 0.1, "counts": [1]}
    assert histogram(np.array([1e9, 2e9])) == {"low": 999.9, "width": 0.1, "counts": [2]}, "no list of a billion"


@given(st.lists(st.floats(0, 40), min_size=1, max_size=30))
def test_bars_are_those_of_numpy(values: list[float]) -> None:
    found = histogram(np.array(values))
    counts, _ = np.histogram(np.array(values) * 10, np.arange(402))
    bars = np.flatnonzero(counts)
    assert found["counts"] == counts[bars[0] : bars[-1] + 1].tolist()
    assert found["low"] == pytest.approx(bars[0] / 10)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error(loss: float) -> None:
    with pytest.raises(InputError, match="not finite; set"):
        score_measures(np.array([1.0, loss]), np.array([1, 1]))


def test_a_perplexity_beyond_floats_is_the_largest() -> None:
    assert score_measures(np.array([1e6]), np.array([1]))["sample_perplexity"] == sys.float_info.max


def test_per_token_leaves_out_samples_without_a_token() -> None:
    assert per_token(np.array([2.0, 0.0, 6.0], np.float32), np.array([1, 0, 3])).tolist() == [2.0, 2.0]


def test_many_ragged_samples_are_measured_like_few() -> None:
    """What is a mean over samples does not change when all are there twice; duplicates and counts do."""
    rows = random_rows(9, 200, 30)
    once, twice = (sample_measures(*arrays(rows * times), DECILES) for times in (1, 2))
    for name in ("rep_2", "rep_3", "rep_4", "longest_repeat", "unigram_entropy", "next_token_entropy"):
        assert twice[name] == pytest.approx(once[name]), name
    assert twice["exact_duplicate_rate"] >= 0.5
    assert twice["recall_by_decile"] == once["recall_by_decile"]
