"""Intervals against scipy's, against numbers worked out by hand, and against what they promise: coverage."""

import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from collapse_cli.families import INSTRUMENTS, OWN, SHARE, Measure
from collapse_cli.metrics import intervals, numbers
from collapse_cli.metrics.intervals import Interval, interval, normal, paired, scattered, t_quantile
from collapse_cli.metrics.numbers import factors, perplexity, with_factor, with_interval

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


def test_three_values_by_hand() -> None:
    """1, 2, 3: mean 2, standard deviation 1, t(2) at 0.975 = 4.3027 (any table), half-width 4.3027 / √3 = 2.4841."""
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert found.low == pytest.approx(2 - 2.48414, abs=1e-5)
    assert found.high == pytest.approx(2 + 2.48414, abs=1e-5)
    assert found.half == pytest.approx(2.48414, abs=1e-5)


def test_two_values_by_hand() -> None:
    """0 and 2: s = √2, t(1) at 0.975 = 12.7062, half-width 12.7062; at 50% t(1) = 1, half-width 1."""
    assert interval([0.0, 2.0]).half == pytest.approx(12.7062, abs=1e-4)
    assert interval([0.0, 2.0], level=0.5).half == pytest.approx(1.0)


@given(VALUES, st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]))
def test_it_is_scipys_t_interval(values: list[float], level: float) -> None:
    error = stats.sem(values)
    expected = stats.t.interval(level, len(values) - 1, np.mean(values), error) if error > 0 else [values[0]] * 2
    found = interval(values, level)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.dictionaries(st.integers(0, 9), st.floats(-50, 50)), st.dictionaries(st.integers(0, 9), st.floats(-50, 50)))
def test_paired_is_scipys_paired_t_test_over_common_seeds(first: dict[int, float], second: dict[int, float]) -> None:
    common = sorted(first.keys() & second.keys())
    found = paired(first, second)
    if not common:
        assert found is None
        return
    assert found is not None
    assert found.n == len(common)
    if len(common) == 1:
        assert found == Interval(first[common[0]] - second[common[0]], None, None, 1)
        return
    here, there = [first[seed] for seed in common], [second[seed] for seed in common]
    if np.std(np.subtract(here, there)) > 1e-6:
        expected = stats.ttest_rel(here, there).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-6)


def test_one_value_has_no_interval_and_none_is_a_mistake() -> None:
    assert interval([4.0]) == Interval(4.0, None, None, 1)
    assert interval([4.0]).half is None
    with pytest.raises(ValueError, match="of 0 values"):
        interval([])
    with pytest.raises(ValueError, match=r"at level 1\.0"):
        interval([1.0, 2.0], level=1.0)


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert interval([3.0, 3.0, 3.0]) == Interval(3.0, 3.0, 3.0, 3)


def test_perplexities_as_large_as_floats_go_give_no_error_and_json() -> None:
    huge = interval([sys.float_info.max, sys.float_info.max, 12.0])
    assert math.isfinite(huge.mean)
    assert huge.high is None
    assert interval([math.inf, 1.0]).low is None
    json.dumps(huge.record(), allow_nan=False)


def test_small_differences_of_large_values_are_kept() -> None:
    """With sums of squares these would be lost: s is 1e-3 beside a mean of 1e9."""
    assert interval([1e9 - 1e-3, 1e9, 1e9 + 1e-3]).half == pytest.approx(4.3027 * 1e-3 / math.sqrt(3), rel=1e-3)


def test_the_interval_of_an_increasing_function() -> None:
    found = interval([math.log(2), math.log(8)]).within(math.exp)
    plain = interval([math.log(2), math.log(8)])
    assert plain.low is not None
    assert (found.mean, found.low) == (pytest.approx(4), pytest.approx(math.exp(plain.low)))
    assert Interval(0.0, None, None, 1).within(math.exp) == Interval(1.0, None, None, 1)


def test_an_estimate_with_its_standard_error() -> None:
    assert normal(1.0, 0.5).record() == pytest.approx({"mean": 1.0, "low": 1 - 0.979982, "high": 1.979982, "n": 1})
    assert normal(1.0, None) == Interval(1.0, None, None, 1)
    assert normal(1.0, math.nan) == Interval(1.0, None, None, 1)
    low, high = stats.norm.interval(0.9, 2.0, 0.1)
    assert (normal(2.0, 0.1, 0.9).low, normal(2.0, 0.1, 0.9).high) == pytest.approx((low, high))


def test_two_sources_of_error() -> None:
    """Either alone gives the normal and the t interval; 3 and 4 together 5, with 4 · (5/4)⁴ = 9.77 degrees of freedom."""
    assert scattered(1.0, 0.5, 0.0, 4) == normal(1.0, 0.5)
    assert scattered(1.0, 0.5, 9.0, 0) == normal(1.0, 0.5)
    assert scattered(1.0, 0.0, 2.0, 4).half == pytest.approx(2.0 * stats.t.ppf(0.975, 4))
    assert scattered(0.0, 3.0, 4.0, 4).half == pytest.approx(5 * stats.t.ppf(0.975, 4 * (5 / 4) ** 4))
    assert scattered(0.0, 3.0, 1e-9, 1).half == pytest.approx(3 * stats.norm.ppf(0.975))
    assert scattered(1.0, None, 2.0, 4) == Interval(1.0, None, None, 1)


@pytest.mark.parametrize("freedom", [1, 2, 5, 30])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.95, 0.975, 0.9995])
def test_quantiles_are_those_of_scipy_stats(freedom: int, probability: float) -> None:
    assert t_quantile(freedom, probability) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_covers_the_truth_as_often_as_it_says(n: int, level: float) -> None:
    """6,000 draws: the standard error of the share is at most 0.005; a normal quantile would give 0.81 at n = 3."""
    random = np.random.Generator(np.random.Philox(7))
    hit = 0
    for _ in range(6000):
        found = interval(list(random.normal(5.0, 2.0, n)), level)
        assert found.low is not None
        assert found.high is not None
        hit += found.low <= 5.0 <= found.high
    assert hit / 6000 == pytest.approx(level, abs=0.02)


def test_pairing_removes_what_a_seed_does_to_both() -> None:
    """Seeds move both policies by ±10, the difference is 1 ± 0.1: only the paired interval can tell it from 0."""
    random = np.random.Generator(np.random.Philox(3))
    shift = random.normal(0, 10, 4)
    first = {seed: 50 + shift[seed] + 1 + random.normal(0, 0.1) for seed in range(4)}
    second = {seed: 50 + shift[seed] for seed in range(4)}
    found, alone = paired(first, second), interval(list(first.values()))
    assert found is not None
    assert found.low is not None
    assert found.low > 0
    assert alone.half is not None
    assert alone.half > 5


def test_values_that_are_one_and_the_same_are_one_number_and_no_interval() -> None:
    """An n-gram's generation 0 does not hang on the seed: "0.174 (0.174 to 0.174)" was printed, and "413 ×÷1.00"."""
    for name, number in (("unseen_share", 0.17379182156133829), ("perplexity", 413.0317), ("kl_truth", 0.1)):
        over = intervals.over_seeds(name, [number] * 3)
        assert over.exact
        assert "to" not in numbers.spread(over)
        assert numbers.spread(over).endswith(" (same for all seeds)")
        assert with_factor(over) == with_interval(over) == f"{perplexity(number)} (same for all seeds)"
    for number, share, said in (
        (0.0, True, "0% (none seen in 3 seeds)"),
        (0.0, False, "0 (in each of 3 seeds)"),
        (1.0, True, "100% (in each of 3 seeds)"),
        (1.0, False, "1.00 (same for all seeds)"),
    ):  # rare cases may be missed by three seeds
        assert numbers.spread(intervals.interval([number] * 3), share=share) == said
    assert not intervals.over_seeds("perplexity", [413.0]).exact
    assert not intervals.interval([1.0, 1.0 + 1e-12]).exact


@pytest.mark.parametrize("measure", sorted({*INSTRUMENTS, *OWN}, key=lambda one: one.name), ids=lambda one: one.name)
def test_no_interval_ends_where_a_measure_cannot_be(measure: Measure) -> None:
    """The page's limits are by unit, the terminal's by name; an accuracy from -0.3 to 1.2 was printed."""
    low, high = measure.bounds
    ours = intervals.bounds(measure.name)
    if measure.unit in ("0–1", SHARE, "0–100") or low in (0, 1):
        assert ours == (low, high)
    inside = [0.02, 0.9] if high == 1 else [1.02 if low == 1 else 0.02, 90.0]
    over = intervals.over_seeds(measure.name, inside)
    assert over.low is not None
    assert over.high is not None
    assert ours[0] <= over.low <= over.high <= ours[1]


def test_a_perplexity_is_never_below_one_and_its_factor_is_that_of_the_end_that_is_not_cut() -> None:
    """Of two seeds "87.5 (0.0510 to 150,242)" was printed."""
    over = intervals.over_seeds("mixture_perplexity", [43.0, 178.0])
    assert over.low == 1.0
    assert over.high is not None
    assert with_factor(over) == with_factor(intervals.geometric([43.0, 178.0]))
    assert intervals.bounds("sample_log_perplexity_mean")[0] == 0, "its logarithm may be"


def test_a_narrow_interval_is_shown_to_have_a_width() -> None:
    """0.500 (0.500 to 0.500), 422 ×÷1.00 and +2% (+2% to +2%) looked as if chance had no part in them."""
    assert numbers.spread(Interval(0.50012, 0.49987, 0.50037, 12)) == "0.5001 (0.4999 to 0.5004)"
    assert numbers.spread(Interval(0.11, 0.1, 0.12, 12)) == "0.110 (0.100 to 0.120)"
    assert (
        numbers.spread(Interval(1.0, 1.0 - 1e-9, 1.0 + 1e-9, 12)) == "1.00000 (1.00000 to 1.00000)"
    )  # where digits end
    assert with_factor(Interval(422.0, 422 / 1.0013, 422 * 1.0013, 3)) == "422 ×÷1.0013"
    assert factors(Interval(1.0213, 1.0206, 1.0221, 3)) == ("+2.1%", "+2.1% to +2.2%")
    assert factors(Interval(2.4412, 2.4391, 2.4433, 3)) == ("×2.441", "×2.439 to ×2.443")
    assert factors(Interval(1.02, 1.0, 1.05, 3)) == ("+2%", "+0% to +5%")
    assert factors(Interval(0.999, 0.9, 1.05, 3)) == ("+0%", "-10% to +5%")
    assert factors(Interval(1.5, 1.5, 1.5, 3)) == ("+50%", "same for all seeds")


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1 kB"),
        (999_499, "999 kB"),
        (999_600, "1 MB"),
        (2.5e9, "2.5 GB"),
        (999.7e9, "1 TB"),
    ],
)
def test_sizes_are_in_the_unit_of_which_they_are_below_a_thousand(number: float, written: str) -> None:
    assert numbers.size(number) == written
    assert numbers.prefixed(number) == written.removesuffix("B").strip()


@given(st.floats(1, 1e30))
def test_no_size_and_no_count_is_written_with_an_exponent(number: float) -> None:
    """1e+03 kB was what 999,600 bytes were called."""
    for text in (numbers.size(number), numbers.prefixed(number)):
        assert "e+" not in text
        assert not text.split()[0].endswith(".")


@given(st.floats(10, 9.9e5))
def test_factors_and_perplexities_have_all_digits_before_the_point_and_no_bare_point(number: float) -> None:
    texts = (
        perplexity(number),
        numbers.change(number, 1.0),
        factors(Interval(number, None, None, 1))[0],
        with_factor(Interval(50.0, 50 / number, 50 * number, 3)).split()[1],
    )
    for text in texts:
        digits = text.lstrip("×÷")
        assert "e" not in digits
        assert not digits.endswith(".")
        assert float(digits.replace(",", "")) == pytest.approx(number, rel=6e-3)
