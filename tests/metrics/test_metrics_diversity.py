"""How many different things samples say, against plain counting, scipy, and sacrebleu itself."""

import math
from collections import Counter

import numpy as np
import pytest
import sacrebleu
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.ragged import grams, ragged, random_rows, slices

from collapse_cli.metrics import diversity
from collapse_cli.metrics.features import FEWEST, ROWS, mauve


@given(ragged, st.integers(0, 30), st.integers(0, 3))
def test_whole_samples_are_drawn_and_only_the_last_is_cut(rows: list[list[int]], budget: int, seed: int) -> None:
    lengths = np.array([len(row) for row in rows], np.int64)
    chosen, taken = diversity.draw(lengths, budget, seed)
    assert len(set(chosen.tolist())) == len(chosen)
    assert taken.sum() == min(budget, lengths.sum())
    assert (taken > 0).all()
    assert (taken[:-1] == lengths[chosen[:-1]]).all()


@given(ragged)
def test_distinct_n_is_distinct_over_all_where_the_budget_is_not_reached(rows: list[list[int]]) -> None:
    found = diversity.distinct(grams(rows))
    for n in range(1, 5):
        plain = [gram for row in rows for gram in slices(row, n)]
        assert found[f"distinct_{n}"] == (pytest.approx(len(set(plain)) / len(plain)) if plain else None)
    assert found["type_token_ratio"] == found["distinct_1"]
    assert found["distinct_tokens"] == sum(map(len, rows))


def test_distinct_n_is_taken_over_the_budget_however_many_samples_there_are() -> None:
    """Of 5 types in samples of any number: 5 / 100 at 100 tokens."""
    rows = [[0, 1, 2, 3, 4] * 4] * 50
    found = diversity.distinct(grams(rows), budget=110)
    assert found["distinct_tokens"] == 110
    assert found["distinct_1"] == 5 / 110
    assert found["distinct_2"] == 5 / (5 * 19 + 9)
    assert diversity.distinct(grams(rows * 3), budget=110) == found


def slow_self_bleu(rows: list[list[int]]) -> float:
    texts = [" ".join(map(str, row)) for row in rows if row]
    scores = [
        sacrebleu.sentence_bleu(
            text, texts[:index] + texts[index + 1 :], tokenize="none", use_effective_order=True
        ).score
        for index, text in enumerate(texts)
    ]
    return float(np.mean(scores))


@settings(deadline=None)
@given(ragged)
def test_self_bleu_is_that_of_sacrebleu_one_by_one(rows: list[list[int]]) -> None:
    assume(sum(bool(row) for row in rows) >= 2)
    assert diversity.self_bleu(grams(rows))["self_bleu"] == pytest.approx(slow_self_bleu(rows))


def test_self_bleu_of_longer_samples_is_that_of_sacrebleu() -> None:
    rows = random_rows(11, 40, 64)
    assert diversity.self_bleu(grams(rows))["self_bleu"] == pytest.approx(slow_self_bleu(rows))


def test_self_bleu_of_equal_samples_is_100_and_of_samples_that_share_nothing_0() -> None:
    assert diversity.self_bleu(grams([[1, 2, 3, 4, 5]] * 3)) == {"self_bleu": pytest.approx(100), "self_bleu_rows": 3}
    assert diversity.self_bleu(grams([[1, 2, 3], [4, 5, 6]]))["self_bleu"] == 0
    assert diversity.self_bleu(grams([[1, 2, 3], []])) == {"self_bleu": None, "self_bleu_rows": 1}


def test_self_bleu_takes_a_fixed_subset_of_the_filled_samples() -> None:
    rows = random_rows(12, 60, 20)
    found = diversity.self_bleu(grams(rows), rows=20)
    assert found["self_bleu_rows"] == 20
    assert diversity.self_bleu(grams(rows), rows=20) == found
    assert diversity.self_bleu(grams(rows), rows=20, seed=1) != found


@given(st.lists(st.integers(0, 50), max_size=30))
def test_entropy_is_that_of_scipy(counts: list[int]) -> None:
    found = diversity.entropy(np.array(counts, np.int64))
    if sum(counts) == 0:
        assert found is None
    else:
        assert found == pytest.approx(scipy.stats.entropy(counts), abs=1e-12)


@given(ragged)
def test_entropies_of_samples_are_those_of_plain_counts(rows: list[list[int]]) -> None:
    unigrams = Counter(token for row in rows for token in row)
    found, _ = diversity.unigram_entropy(grams(rows))
    assert found == (pytest.approx(scipy.stats.entropy(list(unigrams.values()))) if unigrams else None)
    pairs = Counter(gram for row in rows for gram in slices(row, 2))
    first = Counter(gram[0] for row in rows for gram in slices(row, 2))
    conditional = -sum(
        count / sum(pairs.values()) * math.log(count / first[before]) for (before, _), count in pairs.items()
    )
    assert diversity.next_token_entropy(grams(rows)) == (pytest.approx(conditional, abs=1e-9) if pairs else None)


def test_entropies_of_known_samples() -> None:
    """Four types equally often; after each only one follows, or any of two."""
    assert diversity.unigram_entropy(grams([[0, 1, 2, 3]] * 40)) == (pytest.approx(math.log(4)), pytest.approx(0))
    assert diversity.next_token_entropy(grams([[0, 1, 2, 3]] * 4)) == 0
    assert diversity.next_token_entropy(grams([[0, 1], [0, 2]])) == pytest.approx(math.log(2))


@given(ragged)
def test_the_jackknife_is_the_leave_a_group_out_formula(rows: list[list[int]]) -> None:
    filled = [row for row in rows if row]
    groups = min(20, len(filled))
    _, error = diversity.unigram_entropy(grams(rows))
    if groups < 2:
        assert error is None
        return
    left = []
    for group in range(groups):
        rest = Counter(token for index, row in enumerate(filled) if index % groups != group for token in row)
        left.append(scipy.stats.entropy(list(rest.values())))
    assert error == pytest.approx(math.sqrt((groups - 1) ** 2 / groups * np.var(left, ddof=1)), abs=1e-9)


def test_the_standard_error_is_what_entropies_of_other_draws_scatter_by() -> None:
    """60 corpora whose samples are of one topic each, so that their tokens are no independent draws."""
    random = np.random.Generator(np.random.Philox(5))

    def corpus() -> list[list[int]]:
        return [(10 * topic + random.integers(0, 10, 32)).tolist() for topic in random.integers(0, 8, 200)]

    found = [diversity.unigram_entropy(grams(corpus())) for _ in range(60)]
    scatter = np.std([value for value, _ in found], ddof=1)
    assert 0.7 < np.mean([error for _, error in found]) / scatter < 1.4


def test_coverage_counts_types_of_the_real_corpus() -> None:
    """Types 0..5 are real; 3 of 6 are used; 7 is not real and counts for nothing; 9 is not even known."""
    deciles = np.array([0, 0, 1, 1, 9, 9, -1, -1])
    found = diversity.coverage(grams([[0, 0, 2, 7], [4, 9], []]), deciles)
    assert found["vocabulary_coverage"] == 0.5
    assert found["recall_by_decile"] == [0.5, 0.5, None, None, None, None, None, None, None, 0.5]
    assert diversity.coverage(grams([[], []]), deciles)["vocabulary_coverage"] == 0
    nothing_known = diversity.coverage(grams([[1]]), np.full(8, -1))
    assert nothing_known == {"vocabulary_coverage": None, "recall_by_decile": [None] * 10}


@given(ragged)
def test_recall_weighted_by_types_is_coverage(rows: list[list[int]]) -> None:
    assume(rows)
    deciles = np.arange(61) % 11 - 1
    found = diversity.coverage(grams(rows), deciles)
    used = {token for row in rows for token in row}
    for decile, recall in enumerate(found["recall_by_decile"]):
        types = np.flatnonzero(deciles == decile).tolist()
        assert recall == pytest.approx(len(used & set(types)) / len(types))
    real = set(np.flatnonzero(deciles >= 0).tolist())
    assert found["vocabulary_coverage"] == pytest.approx(len(used & real) / len(real))


# --- MAUVE ------------------------------------------------------------------------------------------------------------


def cloud(seed: int, rows: int = 400, shift: float = 0.0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).normal(size=(rows, 16)).astype(np.float32) + np.float32(shift)


def test_mauve_is_high_for_the_same_falls_with_distance_and_is_low_for_another() -> None:
    real = cloud(1)
    same, near, far = (mauve(real, cloud(2, shift=shift)) for shift in (0.0, 0.4, 5.0))
    assert same is not None
    assert near is not None
    assert far is not None
    assert mauve(real, real) == pytest.approx(1)
    assert 0.9 < same <= 1
    assert far < 0.05
    assert far < near < same


def test_mauve_is_the_same_on_repeated_calls_and_leaves_its_input_alone() -> None:
    real, samples = cloud(1), cloud(2, shift=0.3)
    kept = real.copy(), samples.copy()
    assert mauve(real, samples) == mauve(real, samples)
    assert (real == kept[0]).all()
    assert (samples == kept[1]).all()


def test_mauve_is_that_of_its_formula_on_one_dimension() -> None:
    """Two buckets that k-means cannot miss: the area below the curve of Pillutla et al., equation 2, scaled by 5."""
    real = np.repeat([[1.0, 0.0], [0.0, 1.0]], [30, 10], axis=0)
    samples = np.repeat([[1.0, 0.0], [0.0, 1.0]], [10, 30], axis=0)
    p, q = np.array([0.75, 0.25]), np.array([0.25, 0.75])
    points = [(0.0, 1.0)]
    for weight in np.linspace(1e-6, 1 - 1e-6, 25):
        mixture = weight * p + (1 - weight) * q
        points.append(tuple(np.exp(-5 * scipy.stats.entropy(side, mixture)) for side in (q, p)))
    points.append((1.0, 0.0))
    x, y = np.array(sorted(points)).T
    both = [np.repeat(side, 2, axis=0) for side in (real, samples)]
    assert mauve(*both) == pytest.approx(np.trapezoid(y, x), abs=1e-3)


def test_collapsed_samples_have_a_mauve_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    real = cloud(1)
    for copies in (1, 3):
        found = mauve(real, np.repeat(cloud(2, copies), 400 // copies + 1, axis=0))
        assert found is not None
        assert found < 0.05
    mauve(cloud(1, FEWEST), cloud(2, FEWEST))
    mauve(np.repeat(cloud(1, 1), 60, axis=0), np.repeat(cloud(2, 1), 60, axis=0))
    assert capfd.readouterr() == ("", "")


def test_mauve_says_nothing_where_nothing_can_be_said() -> None:
    assert mauve(cloud(1), cloud(2, FEWEST - 1)) is None
    assert mauve(cloud(1, 0), cloud(2)) is None
    constant = np.repeat(cloud(1, 1), 100, axis=0)
    assert mauve(constant, constant) is None
    for odd in (np.nan, np.inf):
        broken = cloud(1)
        broken[3, 2] = odd
        assert mauve(broken, cloud(2)) is None


def test_mauve_takes_so_many_rows_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, np.ndarray] = {}

    def record(**given: np.ndarray) -> object:
        asked.update(given)
        return type("Found", (), {"mauve": 0.5})

    import mauve as library

    monkeypatch.setattr(library, "compute_mauve", record)
    real = np.arange(2.0 * (ROWS + 10)).reshape(-1, 2)
    assert mauve(real, -real) == 0.5
    assert asked["p_features"].shape == (ROWS, 2)
    assert (asked["p_features"] == -asked["q_features"]).all(), "the same prompts of both sides"
    assert len(np.unique(asked["p_features"][:, 0])) == ROWS
