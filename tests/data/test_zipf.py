"""The source `zipf`: its truth against brute force, long samples, other libraries and closed forms."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from collapse_cli.data import zipf
from collapse_cli.data.zipf import Language

LANGUAGE = Language(vocabulary=64, exponent=1.0, rank=4, dependence=1.5, seed=3)
LONG = 200_000


@pytest.fixture(scope="module")
def chain() -> np.ndarray:
    return LANGUAGE.sample(LONG, 0)


def bigrams(chain: np.ndarray, vocabulary: int) -> np.ndarray:
    counts = np.zeros((vocabulary, vocabulary))
    np.add.at(counts, (chain[:-1], chain[1:]), 1)
    return counts


# --- the language -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "language",
    [
        LANGUAGE,
        Language(),
        Language(vocabulary=2),
        Language(exponent=0.0),
        Language(exponent=2.0, rank=1, dependence=4.0),
        Language(vocabulary=300, rank=300, dependence=1.0),
    ],
)
def test_zipfs_law_is_stationary_and_the_next_word_has_a_distribution(language: Language) -> None:
    pi, transition = language.stationary, language.transition
    assert transition.shape == (language.vocabulary, language.vocabulary)
    assert (transition > 0).all(), "a word that cannot follow another"
    np.testing.assert_allclose(transition.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(pi @ transition, pi, atol=1e-12)
    np.testing.assert_allclose(pi, pi[0] / np.arange(1, len(pi) + 1) ** language.exponent, rtol=1e-12)


def test_the_stationary_distribution_is_the_eigenvector_that_another_library_finds() -> None:
    values, vectors = np.linalg.eig(LANGUAGE.transition.T)
    first = np.argmax(values.real)
    np.testing.assert_allclose(values[first], 1, atol=1e-10)
    np.testing.assert_allclose(vectors[:, first] / vectors[:, first].sum(), LANGUAGE.stationary, atol=1e-10)


def test_the_entropy_rate_is_the_sum_that_defines_it() -> None:
    small = Language(vocabulary=7, rank=2)
    total = 0.0
    for i, j in itertools.product(range(7), repeat=2):
        total -= small.stationary[i] * small.transition[i, j] * math.log(small.transition[i, j])
    assert small.entropy_rate == pytest.approx(total, rel=1e-12)
    assert small.unigram_entropy == pytest.approx(stats.entropy(small.stationary), rel=1e-12)


def test_without_dependence_words_are_independent() -> None:
    free = Language(dependence=0.0)
    np.testing.assert_allclose(free.transition, np.tile(free.stationary, (256, 1)), rtol=1e-10)
    assert free.entropy_rate == pytest.approx(free.unigram_entropy)


def test_there_is_something_to_learn_by_default() -> None:
    language = Language()
    assert language.unigram_entropy - language.entropy_rate > 0.5
    dependences = [Language(dependence=value).entropy_rate for value in (0.0, 0.5, 1.0, 2.0, 3.0)]
    assert dependences == sorted(dependences, reverse=True)


def test_the_log_probabilities_have_as_many_dimensions_as_the_rank_says() -> None:
    """A softmax of rank + 1 dimensions (constants of a context aside) can be exact, one of fewer cannot."""
    centred = LANGUAGE.logs - LANGUAGE.logs.mean(axis=1, keepdims=True)
    values = np.linalg.svd(centred, compute_uv=False)
    assert values[LANGUAGE.rank] > 1e-2
    assert values[LANGUAGE.rank + 1] < 1e-8


def test_the_tail_types_are_the_rarest_that_hold_a_tenth() -> None:
    for language in (LANGUAGE, Language(), Language(exponent=0.5)):
        tail, pi = language.tail, language.stationary
        assert pi[tail].sum() <= 0.1
        assert pi[tail].sum() + pi[~tail][-1] > 0.1, "one more would fit"
        assert pi[tail].max() < pi[~tail].min()


def test_a_dependence_beyond_all_reason_is_refused() -> None:
    for dependence in (150.0, 1000.0):
        with pytest.raises(ValueError, match=r"data\.zipf\.dependence is too large"):
            _ = Language(dependence=dependence).transition


# --- its text ---------------------------------------------------------------------------------------------------------


def test_words_come_as_often_as_the_stationary_distribution_says(chain: np.ndarray) -> None:
    found = np.bincount(chain, minlength=64) / LONG
    # counts in a chain vary more than independent ones; by how much, the spectral gap bounds
    second = np.sort(np.abs(np.linalg.eigvals(LANGUAGE.transition)))[-2]
    spread = np.sqrt(LANGUAGE.stationary * (1 - LANGUAGE.stationary) / LONG * (1 + second) / (1 - second))
    assert (np.abs(found - LANGUAGE.stationary) < 4.5 * spread).all()


def test_the_next_word_comes_as_often_as_the_transition_says(chain: np.ndarray) -> None:
    counts = bigrams(chain, 64)
    expected = counts.sum(axis=1, keepdims=True) * LANGUAGE.transition
    enough = expected >= 5
    statistic = ((counts - expected)[enough] ** 2 / expected[enough]).sum()
    assert 1e-4 < stats.chi2.sf(statistic, enough.sum() - 64) < 1 - 1e-4


def test_the_entropy_rate_is_the_mean_surprise_of_a_long_text(chain: np.ndarray) -> None:
    surprise = -LANGUAGE.logs[chain[:-1], chain[1:]]
    parts = surprise[: len(surprise) // 1000 * 1000].reshape(-1, 1000).mean(axis=1)
    error = parts.std(ddof=1) / math.sqrt(len(parts))
    assert abs(surprise.mean() - LANGUAGE.entropy_rate) < 4 * error
    assert error < 0.01


def test_the_same_stream_is_the_same_chain_and_others_are_independent() -> None:
    first = LANGUAGE.sample(5000, 0)
    assert first.dtype == np.int32
    assert (first == Language(64, 1.0, 4, 1.5, 3).sample(5000, 0)).all()
    assert (first[:700] == LANGUAGE.sample(700, 0)).all(), "a shorter chain is the start of a longer one"
    same = (first == LANGUAGE.sample(5000, 1)).mean()
    chance = (LANGUAGE.stationary**2).sum()
    assert abs(same - chance) < 5 * math.sqrt(chance / 5000)
    assert len(LANGUAGE.sample(0, 0)) == 0


def test_another_seed_is_another_language() -> None:
    other = Language(64, 1.0, 4, 1.5, 4)
    assert np.abs(other.transition - LANGUAGE.transition).max() > 0.1
    np.testing.assert_array_equal(other.stationary, LANGUAGE.stationary)


def test_the_language_is_the_golden_one() -> None:
    """Runs of others must find the same text: a change here makes finished runs unrepeatable."""
    assert Language().sample(12, 0).tolist() == [81, 35, 31, 3, 42, 4, 31, 9, 65, 152, 3, 28]
    assert Language().entropy_rate == pytest.approx(3.395547, abs=1e-6)


def test_the_text_is_one_chain_a_split_and_lines_are_only_for_the_eye() -> None:
    facts = LANGUAGE.facts() | {"train_tokens": 100, "test_tokens": 33}
    splits = zipf.text(facts)
    assert [len(splits[name]) for name in ("train", "valid", "test")] == [7, 3, 3]
    spelled = zipf.words(64)
    for stream, (name, length) in enumerate({"train": 100, "valid": 33, "test": 33}.items()):
        found = [spelled.index(word) for word in "".join(splits[name]).split()]
        assert found == LANGUAGE.sample(length, stream).tolist()
        assert all(line.endswith("\n") for line in splits[name])


def test_a_language_comes_back_from_its_facts() -> None:
    assert zipf.from_facts(LANGUAGE.facts() | {"first_token": 0}) == LANGUAGE
    assert LANGUAGE.facts()["entropy_rate"] == LANGUAGE.entropy_rate
    assert len(set(zipf.words(64))) == 64


# --- models held to the truth -----------------------------------------------------------------------------------------


def test_kl_is_zero_for_the_truth_and_scipys_for_others() -> None:
    contexts = np.array([0, 5, 63, 5])
    np.testing.assert_allclose(LANGUAGE.kl(LANGUAGE.logs[contexts], contexts), 0, atol=1e-12)
    draw = np.random.Generator(np.random.Philox(1))
    q = draw.dirichlet(np.full(64, 0.3), 4) + 1e-9
    q /= q.sum(axis=1, keepdims=True)
    expected = [stats.entropy(LANGUAGE.transition[i], q[row]) for row, i in enumerate(contexts)]
    np.testing.assert_allclose(LANGUAGE.kl(np.log(q), contexts), expected, rtol=1e-10)


def test_mass_given_to_what_is_no_word_is_lost() -> None:
    contexts = np.arange(64)
    np.testing.assert_allclose(LANGUAGE.kl(LANGUAGE.logs + np.log(0.9), contexts), -np.log(0.9), rtol=1e-9)


def test_kl_of_frequencies_alone_is_the_information_in_the_word_before() -> None:
    contexts = np.arange(64)
    q = np.tile(np.log(LANGUAGE.stationary), (64, 1))
    mean = LANGUAGE.stationary @ LANGUAGE.kl(q, contexts)
    assert mean == pytest.approx(LANGUAGE.unigram_entropy - LANGUAGE.entropy_rate, rel=1e-10)


def test_the_loss_of_a_model_is_the_entropy_rate_and_its_kl(chain: np.ndarray) -> None:
    """Mean NLL = H + KL, for any model, as far as a long text tells."""
    draw = np.random.Generator(np.random.Philox(2))
    logits = LANGUAGE.logs + draw.normal(0, 0.5, (64, 64))
    log_q = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    excess = LANGUAGE.logs[chain[:-1], chain[1:]] - log_q[chain[:-1], chain[1:]]
    mean_kl = LANGUAGE.kl(log_q[chain[:-1]], chain[:-1]).mean()
    assert abs(excess.mean() - mean_kl) < 4 * excess.std() / math.sqrt(LONG)
    assert mean_kl > 0.05


def test_tail_mass_is_the_sum_over_the_tail_types() -> None:
    contexts = np.array([1, 2, 2])
    model, true = LANGUAGE.tail_mass(LANGUAGE.logs[contexts], contexts)
    np.testing.assert_allclose(model, true, rtol=1e-12)
    np.testing.assert_allclose(true, LANGUAGE.transition[contexts][:, LANGUAGE.tail].sum(axis=1))
    everywhere, _ = LANGUAGE.tail_mass(np.tile(np.log(LANGUAGE.stationary), (64, 1)), np.arange(64))
    np.testing.assert_allclose(everywhere, LANGUAGE.stationary[LANGUAGE.tail].sum())
    none = np.where(LANGUAGE.tail, -np.inf, LANGUAGE.logs[contexts])
    assert (LANGUAGE.tail_mass(none, contexts)[0] == 0).all()


def test_the_statistical_error_of_frequencies_is_that_of_theory() -> None:
    """Estimated from n independent words, frequencies have an expected KL(true || estimate) near (V-1)/2n."""
    language = Language(vocabulary=16, exponent=0.5, dependence=0.0)
    for n in (4000, 16_000):
        found = []
        for stream in range(60):
            counts = np.bincount(language.sample(n, stream), minlength=16)
            found.append(language.kl(np.log(counts / n)[None], np.zeros(1, int))[0])
        error = np.std(found, ddof=1) / math.sqrt(len(found))
        assert abs(np.mean(found) - 15 / (2 * n)) < 4 * error


def test_the_statistical_error_of_a_fitted_bigram_is_that_of_theory() -> None:
    """V(V-1) parameters fitted to n words: KL near V(V-1)/2n, so four times the text has a quarter of it."""
    language = Language(vocabulary=12, exponent=0.5, rank=3, dependence=0.5)
    means = []
    for n in (20_000, 80_000):
        found = []
        for stream in range(8):
            counts = bigrams(language.sample(n, stream), 12)
            log_q = np.log(counts / counts.sum(axis=1, keepdims=True))
            found.append(language.stationary @ language.kl(log_q, np.arange(12)))
        means.append(np.mean(found))
        assert means[-1] == pytest.approx(12 * 11 / (2 * n), rel=0.15)
    assert means[0] / means[1] == pytest.approx(4, rel=0.2)
