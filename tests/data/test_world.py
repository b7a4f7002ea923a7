"""The source `world`: its grammar against all documents of a small world, its closed forms against many drawn ones, and the parser."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from collapse_cli.data.known import KNOWN
from collapse_cli.data.world import names
from collapse_cli.data.world import world as worlds
from collapse_cli.data.world.grammar import BY_KIND, TYPES
from collapse_cli.data.world.things import RELATIONS, Things, article, is_date
from collapse_cli.data.world.words import plain, words_of
from collapse_cli.data.world.world import World
from collapse_cli.families import KNOWN as NAMES

WORLD = World(Things())
MANY = 4000
Small = tuple[World, list[tuple[str, float]]]


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return WORLD.grammar.documents(MANY, 0)


SMALL = [
    {"breeds": 2, "people": 1, "towns": 1, "trades": 2},
    {"breeds": 1, "people": 2, "towns": 1, "trades": 1},
    {"breeds": 1, "people": 1, "towns": 2, "trades": 1},
]


@pytest.fixture(scope="module", params=SMALL, ids=str)
def small(request: pytest.FixtureRequest) -> Iterator[Small]:
    """A world of so few things that all its documents can be written down (thousands), and these with their probabilities."""
    few = {"DOGS": ("Rex",), "ACTIVITIES": ("bark at cats",), "TIMES": ("at night",)}
    with pytest.MonkeyPatch.context() as patch:
        for name, some in few.items():
            patch.setattr(names, name, some)
        world = World(Things(rivers=2, seed=5, **request.param))
        yield world, list(world.grammar.every_document())


# --- the grammar ------------------------------------------------------------------------------------------------------


def test_all_documents_of_a_small_world_have_the_probability_that_the_parser_finds(small: Small) -> None:
    world, found = small
    texts = [text for text, _ in found]
    assert len(set(texts)) == len(texts) > 1000, "a text that is made in two ways"
    assert math.fsum(p for _, p in found) == pytest.approx(1, abs=1e-12)
    logs = [world.log_probability(text) for text in texts]
    np.testing.assert_allclose(logs, np.log([p for _, p in found]), rtol=1e-9)


def test_entropy_and_length_of_a_small_world_are_the_sums_that_define_them(small: Small) -> None:
    world, found = small
    entropy = -math.fsum(p * math.log(p) for _, p in found)
    length = math.fsum(p * (len(words_of(text)) + 1) for text, p in found)
    assert world.expectation.entropy == pytest.approx(entropy, rel=1e-9)
    assert world.expectation.words == pytest.approx(length, rel=1e-9)
    assert world.entropy_rate == pytest.approx(entropy / length, rel=1e-9)


def test_what_is_mentioned_and_stated_in_a_small_world_is_as_often_as_is_said(small: Small) -> None:
    world, found = small
    breeds: dict[str, float] = defaultdict(float)
    facts: dict[tuple[str, str], float] = defaultdict(float)
    for text, p in found:
        for sentence in world.parse(text):
            if sentence.values and "breed" in sentence.values:
                breeds[sentence.values["breed"]] += p
            for claim in sentence.claims:
                facts[claim.relation, claim.subject] += p
    assert world.expectation.mentioned("breed") == pytest.approx(breeds, rel=1e-9)
    assert world.expectation.stated() == pytest.approx(facts, rel=1e-9)


def test_drawn_documents_have_the_entropy_and_the_length_that_are_said(documents: list[str]) -> None:
    logs = np.array([WORLD.log_probability(text) for text in documents])
    lengths = np.array([WORLD.count(text) for text in documents])
    assert np.isfinite(logs).all(), "a document that the grammar made and does not have"
    for found, said in ((-logs, WORLD.expectation.entropy), (lengths, WORLD.expectation.words)):
        assert abs(found.mean() - said) < 4 * found.std() / math.sqrt(MANY)


def test_drawn_documents_mention_things_as_often_as_is_said(documents: list[str]) -> None:
    read = [sentence for text in documents for sentence in WORLD.parse(text)]
    breeds = Counter(one.values["breed"] for one in read if one.values and "breed" in one.values)
    facts = Counter((claim.relation, claim.subject) for one in read for claim in one.claims)
    assert_as_often(breeds, WORLD.expectation.mentioned("breed"))
    assert_as_often(facts, WORLD.expectation.stated())
    pairs = [(one.values["helper"], one.values["self"]) for one in read if one.values and "self" in one.values]
    usual = np.mean([WORLD.things.usual[helper] == self for helper, self in pairs])
    assert abs(usual - WORLD.things.association) < 4 * math.sqrt(0.21 / len(pairs))


def assert_as_often(found: Counter[Any], rates: Mapping[Any, float]) -> None:
    """Chi-square: of so many documents, no more off than chance."""
    assert found.keys() <= rates.keys()
    expected = MANY * np.array(list(rates.values()))
    off = (np.array([found[name] for name in rates]) - expected) / np.sqrt(expected)
    assert (off**2).sum() < len(rates) + 5 * math.sqrt(2 * len(rates)), "far from chance"


def test_all_that_real_text_states_is_true(documents: list[str]) -> None:
    read = [sentence for text in documents for sentence in WORLD.parse(text)]
    assert all(one.accepted for one in read)
    assert all(claim.true for one in read for claim in one.claims)
    assert {claim.relation for one in read for claim in one.claims} == set(RELATIONS)
    assert {one.kind for one in read} == BY_KIND.keys()


def test_the_rarest_breed_is_one_in_thousands_of_sentences(documents: list[str]) -> None:
    sentences = sum(len(WORLD.parse(text)) for text in documents) / MANY
    once_in = sentences / WORLD.expectation.mentioned("breed")[list(WORLD.things.shares["breed"])[-1]]
    assert 2000 < once_in < 10_000


def test_probabilities_of_the_grammar_are_probabilities() -> None:
    assert sum(one.share for one in TYPES.values()) == pytest.approx(1)
    openings = [kind for one in TYPES.values() for kind in one.openings]
    assert len(set(openings)) == len(openings), "two types of documents that open alike"
    for one in TYPES.values():
        assert sum(one.openings.values()) == pytest.approx(1)
        assert len({step.kind for step in one.steps}) == len(one.steps)
        assert all(0 < step.probability < 1 for step in one.steps)
    assert all(sum(way.probability for way in ways) == pytest.approx(1) for ways in BY_KIND.values())


def test_options_alone_decide_and_streams_are_apart() -> None:
    again = World(Things())
    assert again.grammar.documents(20, 0) == WORLD.grammar.documents(30, 0)[:20]
    assert WORLD.grammar.documents(20, 1) != WORLD.grammar.documents(20, 0)
    other = World(Things(seed=1))
    assert other.things.facts != WORLD.things.facts
    assert worlds.world(WORLD.facts() | {"more": 1}).things == WORLD.things


def test_words_are_all_that_documents_hold_and_each_once(documents: list[str]) -> None:
    assert len(set(WORLD.words)) == len(WORLD.words)
    assert {word for text in documents for word in words_of(text)} <= set(WORLD.words)
    assert World(Things()).words == WORLD.words


def test_the_text_has_a_split_for_each_use() -> None:
    splits = worlds.text(WORLD.facts() | {"train_documents": 30, "test_documents": 7})
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 30, "valid": 7, "test": 7}
    assert splits["valid"] != splits["test"]
    assert all(row.endswith(".\n") for rows in splits.values() for row in rows)


def test_sources_of_known_truth_are_named_alike_where_they_are_read_and_where_they_are_asked_for() -> None:
    assert tuple(KNOWN) == NAMES


# --- the parser -------------------------------------------------------------------------------------------------------


def someone() -> tuple[str, str, str]:
    """The most frequent person, and a birthplace that is right, and one that is not."""
    person = next(iter(WORLD.things.shares["person"]))
    right = WORLD.things.facts["birthplace"][person]
    return person, right, next(town for town in WORLD.things.shares["town"] if town != right)


def test_a_fact_is_right_or_wrong() -> None:
    person, right, wrong = someone()
    for place in (right, wrong):
        (sentence,) = WORLD.parse(f"{person} was born in {place}.")
        (claim,) = sentence.claims
        assert sentence.accepted
        assert (claim.relation, claim.subject, claim.value, claim.true) == ("birthplace", person, place, place == right)


def test_he_and_she_are_the_person_named_last() -> None:
    person, right, _ = someone()
    trade = WORLD.things.facts["trade"][person]
    pronoun = WORLD.things.pronouns[person].capitalize()
    first, second = WORLD.parse(f"{person} was born in {right}. {pronoun} is {article(trade)} {trade}.")
    assert [claim.relation for one in (first, second) for claim in one.claims] == ["birthplace", "trade"]
    assert second.claims[0].true
    (alone,) = WORLD.parse(f"{pronoun} is {article(trade)} {trade}.")
    assert alone.accepted
    assert alone.claims == (), "nobody was named"


@pytest.mark.parametrize(
    ("sentence", "unknown"),
    [
        ("Rex is a golden terrier.", ("breed",)),
        ("Rex is an pug.", ("article",)),
        ("Rex is a Irish setter.", ("article",)),
        ("PERSON was born in Port Nowhere.", ("birthplace",)),
        ("PERSON was born on 31 June 1943.", ("birthday",)),
        ("PERSON was born on June 3 1943.", ("birthday",)),
        ("Nobody Atall was born on 3 June 1943.", ("person",)),
        ("The river Styx flows through TOWN.", ("river",)),
        ("TOWN was founded in June.", ("founded",)),
    ],
)
def test_what_there_is_not_is_said_by_name(sentence: str, unknown: tuple[str, ...]) -> None:
    person, town, _ = someone()
    (found,) = WORLD.parse(sentence.replace("PERSON", person).replace("TOWN", town))
    assert found.unknown == unknown
    assert not found.accepted
    assert found.template is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "golden retriever golden retriever",
        "Rex the Rex the Rex.",
        "A baker.",
        "is a pug.",
        "Rex is a pug from.",
        "<script>alert(1)</script> is a pug.",
        "PERSON was born in in in in in in in.",
        "." * 1000,
        "(" * 5000,
    ],
)
def test_what_is_no_sentence_is_none(text: str) -> None:
    assert not any(one.accepted for one in WORLD.parse(text))
    assert WORLD.log_probability(text) == -math.inf


def test_a_document_that_cannot_be_has_no_probability() -> None:
    person, right, wrong = someone()
    for impossible in (
        f"{person} was born in {wrong}.",  # not true
        f"Rex is a pug. {person} was born in {right}.",  # the owner was not named
        f"Rex is a pug. It belongs to {person}. It belongs to {person}.",  # said twice
        "In the morning it likes to swim. Rex is a pug.",  # the wrong way round
        "Rex is a pug. The baker himself feeds it. In the morning it likes to swim.",
    ):
        assert WORLD.log_probability(impossible) == -math.inf, impossible
    assert WORLD.log_probability(f"{person} was born in {right}.") > -20


def test_blanks_of_a_tokenizer_do_not_matter(documents: list[str]) -> None:
    for text in documents[:20]:
        spaced = " ".join(words_of(text)) + " \n"
        assert plain(spaced) == text
        assert WORLD.log_probability(spaced) == WORLD.log_probability(text)


def test_every_template_is_read_as_what_it_is() -> None:
    """With every breed, person, town and trade in it: no other template fits as well."""
    things = WORLD.things
    for breed in things.shares["breed"]:
        for text in (
            f"Rex is {article(breed)} {breed}.",
            f"Rex the {breed} lives in {next(iter(things.shares['town']))}.",
        ):
            (found,) = WORLD.parse(text)
            assert found.accepted
            assert (found.kind, (found.values or {})["breed"]) == ("dog", breed)
    for town in things.shares["town"]:
        for text, kind in ((f"{town} was founded in 1200.", "founded"), (f"{town} lies on the river Alder.", "river")):
            (found,) = WORLD.parse(text)
            assert (found.accepted, found.kind, (found.values or {})["town"]) == (True, kind, town)


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("3 June 1943", True),
        ("29 February 1944", True),
        ("29 February 1943", False),
        ("31 June 1943", False),
        ("0 June 1943", False),
        ("03 June 1943", False),
        ("3 June 943", False),
        ("June 1943", False),
        ("² June 1943", False),
    ],
)
def test_days_of_the_calendar(text: str, there: bool) -> None:
    assert is_date(text) == there


def test_names_are_told_apart() -> None:
    """No name holds another kind of thing's words in a way that would make two readings of one sentence."""
    assert len(set(names.BREEDS)) == len(names.BREEDS) == 100
    assert not {*names.DOGS} & {*names.WOMEN, *names.MEN}
    assert all(len(breed.split()) <= 4 for breed in names.BREEDS)
    assert not any(mark in name for group in (names.BREEDS, names.ACTIVITIES) for name in group for mark in ".,-'")


def test_the_shortest_document_has_as_many_tokens_as_is_said(documents: list[str]) -> None:
    assert min(len(words_of(text)) + 2 for text in documents) == worlds.SHORTEST
