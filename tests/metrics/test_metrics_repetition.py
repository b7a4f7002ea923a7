"""What samples repeat, against plain counting."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from support.ragged import arrays, grams, ragged, random_rows, slices

from collapse_cli.metrics import repetition
from collapse_cli.metrics.grams import Grams


@given(ragged)
def test_n_grams_have_the_same_number_if_and_only_if_they_are_the_same(rows: list[list[int]]) -> None:
    counted = grams(rows)
    for n in (1, 2, 3, 4, 5, 8):
        plain = [gram for row in rows for gram in slices(row, n)]
        ids = counted.all(n).tolist()
        assert len(ids) == len(plain)
        assert len(set(zip(plain, ids, strict=True))) == len(set(plain)) == len(set(ids))
        order = [gram for _, gram in sorted(set(zip(ids, plain, strict=True)))]
        assert order == sorted(order), "numbers are in the order of the tokens"


def test_numbers_of_large_token_ids_do_not_overflow() -> None:
    rows = [[2**31 - 1, 2**31 - 2, 2**31 - 1, 2**31 - 2], [2**31 - 2, 0, 2**31 - 1, 2**31 - 1]]
    plain = [gram for row in rows for gram in slices(row, 2)]
    assert grams(rows).all(2).tolist() == [sorted(set(plain)).index(gram) for gram in plain]


def test_rep_n_of_known_samples() -> None:
    """`1 2 1 2 1` has 4 bigrams, 2 of them distinct; a sample of one token has none."""
    found = repetition.repetition(grams([[1, 2, 1, 2, 1], [1, 2, 3], [7], []]), 2)
    assert found[:2].tolist() == [0.5, 0.0]
    assert np.isnan(found[2:]).all()


@given(ragged)
def test_rep_n_is_one_minus_distinct_over_all(rows: list[list[int]]) -> None:
    for n in (2, 3, 4):
        found = repetition.repetition(grams(rows), n)
        for row, value in zip(rows, found, strict=True):
            plain = slices(row, n)
            assert value == pytest.approx(1 - len(set(plain)) / len(plain)) if plain else np.isnan(value)


def slow_longest(row: list[int]) -> int:
    """The largest n for which an n-gram occurs twice."""
    return max((n for n in range(1, len(row)) if max(Counter(slices(row, n)).values()) > 1), default=0)


def test_the_longest_repeat_of_known_samples() -> None:
    rows = [[5, 6, 7, 1, 5, 6, 7], [4, 4, 4, 4], [1, 2, 3], [9], [], [1, 2, 1, 2, 1]]
    assert repetition.longest_repeat(grams(rows)).tolist() == [3, 3, 0, 0, 0, 3], "the two places may overlap"


@given(ragged)
def test_the_longest_repeat_is_that_of_a_search_through_all_phrases(rows: list[list[int]]) -> None:
    assert repetition.longest_repeat(grams(rows)).tolist() == [slow_longest(row) for row in rows]


def test_the_longest_repeat_over_more_rows_than_are_taken_at_once() -> None:
    rows = random_rows(3, repetition.ROWS_AT_ONCE + 300, 24, 6)
    assert repetition.longest_repeat(grams(rows)).tolist() == [slow_longest(row) for row in rows]


@given(ragged)
def test_frequent_phrases_are_those_that_counting_finds(rows: list[list[int]]) -> None:
    for n in (2, 8):
        counts = Counter(gram for row in rows for gram in slices(row, n))
        held = Counter(gram for row in rows for gram in set(slices(row, n)))
        expected = sorted((-count, gram) for gram, count in counts.items() if count > 1)[:10]
        assert repetition.frequent_phrases(grams(rows), n) == [
            {"tokens": list(gram), "count": -count, "samples": held[gram]} for count, gram in expected
        ]


def test_a_loop_counts_at_every_place() -> None:
    found = repetition.frequent_phrases(grams([[1] * 20, [1] * 8, [2] * 8]))
    assert found == [{"tokens": [1] * 8, "count": 14, "samples": 2}]
    assert type(found[0]["count"]) is int


@given(ragged)
def test_exact_duplicates_repeat_an_earlier_sample(rows: list[list[int]]) -> None:
    expected = [row in rows[:index] for index, row in enumerate(rows)]
    assert repetition.exact_duplicates(grams(rows)).tolist() == expected
    tokens, lengths = arrays(rows, extra=0)
    assert repetition.exact_duplicates(Grams(tokens, lengths)).tolist() == expected, "no room behind the longest"


def slow_near(rows: list[list[int]]) -> np.ndarray:
    """By comparing every sample with every earlier one."""
    sets = [frozenset(slices(row, 3)) for row in rows]
    return np.array(
        [
            row in rows[:index]
            or any(sets[index] and len(sets[index] & one) >= 0.8 * len(sets[index] | one) for one in sets[:index])
            for index, row in enumerate(rows)
        ],
        bool,
    )


@given(ragged)
def test_what_is_called_near_is_near_and_all_exact_duplicates_are(rows: list[list[int]]) -> None:
    found = repetition.near_duplicates(grams(rows))
    assert not (found & ~slow_near(rows)).any()
    assert not (repetition.exact_duplicates(grams(rows)) & ~found).any()


def spoiled(seed: int, rows: int, rate: float, copies: int) -> list[list[int]]:
    """Copies of a few texts of 64 tokens with some tokens changed."""
    random = np.random.Generator(np.random.Philox(seed))
    whole = random.integers(0, 1000, (copies, 64))[random.integers(0, copies, rows)]
    changed = np.where(random.random(whole.shape) < rate, random.integers(0, 1000, whole.shape), whole)
    return [row[: int(random.integers(40, 65))].tolist() for row in changed]


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.03, 0.3])
@pytest.mark.parametrize("copies", [2, 40])
def test_nearly_all_near_samples_are_found(rate: float, copies: int) -> None:
    rows = spoiled(5, 300, rate, copies)
    expected, found = slow_near(rows), repetition.near_duplicates(grams(rows))
    assert not (found & ~expected).any()
    assert expected.sum() - found.sum() <= 0.01 * len(rows)
    if rate == 0.01:
        assert 0.2 < expected.mean() < 0.95, "neither all nor none, or this test says nothing"


def test_the_boundary_belongs_to_near() -> None:
    """4 shared shingles of 5: exactly 0.8. 3 of 4 are less."""
    assert repetition.near_duplicates(grams([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]])).tolist() == [False, True]
    assert repetition.near_duplicates(grams([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]])).tolist() == [False, False]


def test_other_seeds_find_the_same_and_equal_ones_exactly_so() -> None:
    rows = spoiled(6, 200, 0.01, 10)
    first, again, other = (repetition.near_duplicates(grams(rows), seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).mean() <= 0.01


def test_the_minhash_estimates_jaccard() -> None:
    """Within 5 standard errors, sqrt(J (1 - J) / 126), of the exact similarity, which a set of Python agrees with."""
    rows = spoiled(7, 60, 0.04, 3)
    ids = grams(rows).ids(3)
    signatures = repetition.minhash(ids, 0)
    ordered = np.sort(ids, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    first, second = np.triu_indices(60, 1)
    exact = repetition.jaccard(ordered[first], ordered[second])
    sets = [frozenset(slices(row, 3)) for row in rows]
    assert exact == pytest.approx(
        [len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in zip(first, second, strict=True)]
    )
    estimate = (signatures[first] == signatures[second]).mean(axis=1)
    assert (np.abs(estimate - exact) <= 5 * np.sqrt(np.maximum(exact * (1 - exact), 0.001) / repetition.SLOTS)).all()
    assert np.abs((estimate - exact)[exact > 0.1].mean()) < 0.03, "and none that leans"


def test_thousands_of_samples_that_are_all_alike_take_no_square_of_comparisons() -> None:
    """One sample in two places: all but the first are near. A list of all pairs would be 100 million."""
    tokens = np.tile(np.arange(20, dtype=np.int32), (20_000, 1))
    tokens[:, -1] = np.arange(20_000) + 20
    assert repetition.near_duplicates(Grams(tokens, np.full(20_000, 20))).sum() == 19_999


def slow_overlap(prompt: list[int], row: list[int], n: int) -> float:
    """The share of a sample's n-grams that stand in its prompt; NaN without either."""
    there, own = slices(prompt, n), slices(row, n)
    return sum(gram in there for gram in own) / len(own) if there and own else float("nan")


def test_what_is_copied_from_the_prompt_in_known_samples() -> None:
    prompts, rows = [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2], [5, 6, 7]], [[2, 3, 9, 2, 3], [7, 8], [1, 2, 1], [1, 2, 3]]
    found = repetition.prompt_overlap(arrays(prompts), arrays(rows), 2)
    assert found.tolist() == [0.5, 0.0, 0.5, 0.0], (
        "each place counts; the prompt of another row does not; none reaches over the border"
    )
    short = repetition.prompt_overlap(arrays([[1], [1, 2, 3]]), arrays([[1, 2, 3], [1]]), 2)
    assert np.isnan(short).all()


@given(ragged, ragged)
def test_what_is_copied_is_what_a_search_in_the_prompt_finds(prompts: list[list[int]], rows: list[list[int]]) -> None:
    both = list(zip(prompts, rows, strict=False))
    before, after = [prompt for prompt, _ in both], [row for _, row in both]
    for n in (2, 4):
        found = repetition.prompt_overlap(arrays(before), arrays(after), n)
        assert found.tolist() == pytest.approx([slow_overlap(*one, n) for one in both], nan_ok=True)


def test_what_is_copied_over_more_rows_than_are_taken_at_once() -> None:
    prompts, rows = (random_rows(seed, repetition.ROWS_AT_ONCE + 300, 24, 6) for seed in (4, 5))
    found = repetition.prompt_overlap(arrays(prompts), arrays(rows), 2)
    assert found.tolist() == pytest.approx(
        [slow_overlap(*one, 2) for one in zip(prompts, rows, strict=True)], nan_ok=True
    )
