"""What models of known text, and their samples, are held to: real text is the truth, and each kind of error is found where it was put."""

import numpy as np
import pytest

from collapse_cli.data.dataset import Dataset
from collapse_cli.data.world.things import RELATIONS, Things
from collapse_cli.data.world.world import World
from collapse_cli.learners.truths import LOG_TRUTH, NextWords, Statements, truth_of
from collapse_cli.metrics import truth

WORLD = World(Things())
TRUTH = Statements(WORLD)
DOCUMENTS = 600


@pytest.fixture(scope="module")
def real() -> list[str]:
    return WORLD.grammar.documents(DOCUMENTS, 7)


def test_the_truth_is_that_of_the_text() -> None:
    assert isinstance(truth_of({"world": WORLD.facts()}), Statements)
    assert truth_of({"splits": {}}) is None
    zipf = {"vocabulary": 8, "exponent": 1.0, "rank": 2, "dependence": 1.0, "seed": 0, "first_word_id": 0}
    assert isinstance(truth_of({"zipf": zipf}), NextWords)


def test_real_text_is_all_right(real: list[str]) -> None:
    found = TRUTH.of_samples(real, [True] * DOCUMENTS)
    assert found["sentences_accepted"] == found["documents_possible"] == found["facts_true"] == 1
    assert found["possible_nll"] == pytest.approx(WORLD.entropy_rate, rel=0.05)
    assert set(found["facts_true_by_band"]) == {1.0}
    assert found["facts_true_by_relation"] == dict.fromkeys(RELATIONS, 1.0)
    assert found["breeds_left"] == pytest.approx(found["breeds_expected"], abs=8)
    assert found["facts_left"] == pytest.approx(found["facts_expected"], abs=10)
    assert found["breeds_kl"] < 0.15
    assert found["association"] == pytest.approx(0.7, abs=0.12)
    assert {found[f"{name}_unknown"] for name in ("breeds", "people", "places", "dates")} == {0.0}


def test_counts_are_those_of_a_plain_search(real: list[str]) -> None:
    """A second way, which reads no sentence: the names of breeds as they stand in the text, the longest first."""
    found = TRUTH.of_samples(real, [True] * DOCUMENTS)
    text = "\n".join(real)
    for breed in sorted(WORLD.things.shares["breed"], key=len, reverse=True):
        assert found["breed_counts"][breed] == text.count(breed), breed
        text = text.replace(breed, "…")
    people = sum("\n".join(real).count(f" works as a {trade}.") for trade in WORLD.things.usual)
    assert people > 20
    born = sum(f"{person} was born in {place}" in text for person, place in WORLD.things.facts["birthplace"].items())
    assert found["facts_left"] >= born
    assert found["sentences"] == "\n".join(real).count(".")


def broken(real: list[str], before: str, after: str) -> tuple[dict[str, object], int]:
    """The fields of text in which one thing is replaced, and how often it was."""
    changed = [text.replace(before, after) for text in real]
    return TRUTH.of_samples(changed, [True] * DOCUMENTS), sum(text.count(before) for text in real)


def test_another_birthplace_is_a_fact_that_is_wrong(real: list[str]) -> None:
    person = next(iter(WORLD.things.shares["person"]))
    right = WORLD.things.facts["birthplace"][person]
    wrong = next(town for town in WORLD.things.shares["town"] if town != right)
    found, times = broken(real, f"{person} was born in {right}", f"{person} was born in {wrong}")
    assert times > 5
    assert found["facts_true"] == pytest.approx(1 - times / found["facts_stated"])  # type: ignore[operator]
    assert found["facts_true_by_band"][0] < 1 == found["facts_true_by_band"][-1]  # type: ignore[index]
    assert found["sentences_accepted"] == 1, "it is a sentence nonetheless"
    assert found["documents_possible"] == pytest.approx(1 - times / DOCUMENTS)
    assert found["places_unknown"] == 0


def test_a_breed_that_is_lost_is_missed_and_one_that_is_invented_is_noticed(real: list[str]) -> None:
    plain = TRUTH.of_samples(real, [True] * DOCUMENTS)
    found, times = broken(real, "beagle", "golden terrier")
    assert times > 5
    assert found["breeds_left"] == plain["breeds_left"] - 1
    assert found["breed_counts"]["beagle"] == 0  # type: ignore[index]
    assert found["breeds_unknown"] == pytest.approx(times / (times + sum(found["breed_counts"].values())))  # type: ignore[attr-defined]
    crowded, _ = broken(real, "Labrador retriever", "golden retriever")
    assert crowded["breeds_tv"] > plain["breeds_tv"]
    assert crowded["breeds_kl"] > plain["breeds_kl"]


def test_a_bias_that_is_amplified_is_seen(real: list[str]) -> None:
    for trade, usual in WORLD.things.usual.items():
        other = {"himself": "herself", "herself": "himself"}[usual]
        real = [text.replace(f"{trade} {other}", f"{trade} {usual}") for text in real]
    found = TRUTH.of_samples(real, [True] * DOCUMENTS)
    assert found["association"] == 1
    assert set(found["association_by_trade"].values()) == {1.0}
    assert found["association_truth"] == 0.7


def test_a_text_that_was_cut_off_is_judged_as_far_as_it_goes(real: list[str]) -> None:
    cut = [text[: len(text) * 2 // 3] for text in real]
    found = TRUTH.of_samples(cut, [False] * DOCUMENTS)
    assert found["sentences_accepted"] == 1
    assert found["documents_possible"] == 0, "none came to its end"
    assert found["possible_nll"] is None
    ended = TRUTH.of_samples(cut, [True] * DOCUMENTS)
    assert ended["sentences_accepted"] < 1, "a text that ends within a sentence is wrong"


def test_of_nothing_nothing_is_known() -> None:
    found = TRUTH.of_samples([], [])
    assert (found["facts_true"], found["breeds_kl"], found["association"]) == (None, None, None)
    assert found["breeds_expected"] == found["facts_expected"] == 0


def test_each_sentence_is_judged() -> None:
    person = next(iter(WORLD.things.shares["person"]))
    right = WORLD.things.facts["birthplace"][person]
    wrong = next(town for town in WORLD.things.shares["town"] if town != right)
    text = f"{person} was born in {right}. {person} was born in {wrong}. {person} was born in Oz. Rex a pug. Rex is an pug."
    assert [one["verdict"] for one in TRUTH.judged(text)] == ["right", "false", "unknown", "odd", "odd"]
    assert " ".join(one["text"] for one in TRUTH.judged(text)) == text


def test_divergence_of_a_model_is_what_it_loses_beyond_the_truth(real: list[str]) -> None:
    """Of a model that knows nothing but the length, each word being as probable as any other: cross-entropy less entropy."""
    logs = np.array([WORLD.log_probability(text) for text in real])
    words = np.array([WORLD.count(text) for text in real])
    nll = words * np.log(len(WORLD.words) + 1.0)
    test = Dataset({LOG_TRUTH: logs}, np.zeros(DOCUMENTS, np.int32))
    found = TRUTH.of_model({}, nll, words, test)
    assert found["kl_truth"] == pytest.approx(np.log(len(WORLD.words) + 1.0) + logs.sum() / words.sum())
    assert found["entropy_rate"] == WORLD.entropy_rate
    means = [
        TRUTH.of_model({}, nll[rows], words[rows], test.take(rows))["kl_truth"]
        for rows in (np.random.default_rng(seed).integers(0, DOCUMENTS, DOCUMENTS) for seed in range(300))
    ]
    assert found["kl_truth_se"] == pytest.approx(np.std(means), rel=0.2), "the error of a bootstrap"
    itself = TRUTH.of_model({}, -logs, words, test)
    assert itself["kl_truth"] == pytest.approx(0, abs=1e-12)
    assert itself["kl_truth_se"] == pytest.approx(0, abs=1e-12)


def test_bands_go_from_frequent_facts_to_rare_ones() -> None:
    rates = WORLD.expectation.stated()
    groups = truth.bands(list(rates.values()))
    means = [np.mean([list(rates.values())[at] for at in group]) for group in groups]
    assert means == sorted(means, reverse=True)
    assert sum(map(len, groups)) == len(rates) == 3 * 40 + 2 * 16
