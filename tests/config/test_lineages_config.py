"""Lineages as they are given: what each has of its own, and what cannot be."""

from typing import Any

import pytest

from collapse_cli.config import ConfigError, Experiment, load, merge
from collapse_cli.config.command_line import refuse_unread
from collapse_cli.config.pool import Segment
from collapse_cli.config.pool import notes as pool_notes
from collapse_cli.config.weights import Shares
from collapse_cli.errors import InputError

TWO: dict[str, Any] = {"a": {}, "b": {"train": {"lr": 0.5}}}


def of(**tree: Any) -> Experiment:
    return load(tree, "x")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"lineages": {"a": {}}}, "lineages.a is the only lineage; name at least two"),
    ({"lineages": {"a": {}, "B!": {}}}, "lower-case letters, digits"),
    ({"lineages": {"a": {}, "../b": {}}}, "lower-case letters, digits"),
    ({"lineages": {f"m{number}": {} for number in range(65)}}, "at most 64"),
    ({"pool": {"lineages": 65}}, "pool.lineages must be at most 64"),
    ({"pool": {"lineages": 2}, "lineages": {"a": {}}}, "pool.lineages = 2 has model-1, model-2"),
    ({"pool": {"rule": "all"}}, "there is one alone"),
    ({"pool": {"rule": "everybody"}}, "pool.rule must be 'own', 'all'"),
    ({"pool": {"real": "segments"}}, "there is one alone"),
    ({"pool": {"lineages": 1, "rule": "others"}}, "there are none (pool.lineages = 1)"),
    (
        {"lineages": {"a": {}, "b": {"loop": {"init": "gen0"}}}},
        "lineages.b.loop: lineages differ in model, data, train, sample",
    ),
    ({"lineages": {"a": {}, "b": {"data": 3}}}, "lineages.b.data must be a table of options, it is 3"),
    ({"lineages": {"a": {}, "b": {"learner": "ngram"}}}, "lineages.b.learner: all lineages have one learner"),
    ({"lineages": {"a": {}, "b": {"data": {"test": "x"}}}}, "measured on the same text"),
    ({"lineages": {"a": {}, "b": {"train": {"lr": -1.0}}}}, "lineages.b: train.lr must be above 0"),
    ({"lineages": {"a": {}, "b": {"train": {"rate": 1.0}}}}, "lineages.b: unknown key 'train.rate'"),
    ({"lineages": {"a": {}, "b": {"data": {"segment": "3/2"}}}}, 'such as "2/4"'),
    ({"pool": {"real": "segments"}, "lineages": {"a": {}, "b": {"data": {"source": "t"}}}}, "not both"),
    ({"kind": "mixture", "mixture": {"rows": [10], "share": [0.5]}, "lineages": TWO}, "kind = generational"),
    ({"lineages": TWO, "pool": {"rule": "random"}, "loop": {"init": "previous"}}, "set loop.init = base"),
    ({"lineages": TWO, "pool": {"weights": "1:2"}}, 'as in "1:1:2"'),
    ({"lineages": TWO, "pool": {"weights": "1:1:2"}}, "gives public rows a share of the loss, and there are none"),
    ({"lineages": TWO, "pool": {"weights": "1:0:2", "public": "t"}}, "gives public rows no share"),
    ({"lineages": TWO, "pool": {"weights": "1:0:2"}, "loop": {"policies": ["keep-0"]}}, "keep-0 has none"),
    ({"lineages": TWO, "pool": {"weights": "1:0:2"}, "loop": {"policies": ["keep-100"]}}, "keep-100 has none"),
    (
        {"lineages": TWO, "pool": {"weights": "1:0:2"}, "mix": {"weights": "2:1"}, "loop": {"policies": ["keep-50"]}},
        "give one of them",
    ),
]


@pytest.mark.parametrize(("tree", "said"), WRONG, ids=[said[:30] for _, said in WRONG])
def test_what_cannot_be_is_one_line(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tree, "x")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_lineage_has_what_its_table_says_and_else_what_all_have() -> None:
    whole = of(lineages=TWO, pool={"rule": "all"}, train={"epochs": 3})
    assert whole.lineage_names == ("a", "b")
    a, b = whole.of_lineages().values()
    assert (a.train.lr, b.train.lr, a.train.epochs, b.train.epochs) == (2e-5, 0.5, 3, 3)
    assert a.pool.rule == "own", "as if it were alone"
    assert a.lineage_names == ("",)


def test_the_short_form_is_so_many_tables() -> None:
    short = of(pool={"lineages": 3, "real": "segments"}, lineages={"model-2": {"train": {"lr": 0.5}}})
    assert short.lineage_names == ("model-1", "model-2", "model-3")
    assert [str(own.data.segment) for own in short.of_lineages().values()] == ["1/3", "2/3", "3/3"]
    assert short.lineage("model-2").train.lr == 0.5
    assert of(pool={"lineages": 1, "rule": "segments", "real": "segments"}).lineage_names == ("",)


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ({"lineages": 0}, ""),
        ({"lineages": 2, "rule": "all"}, ""),
        ({"lineages": 1}, "pool.lineages = 1: there is one lineage alone, as without it"),
        ({"lineages": 1, "rule": "all"}, "as without it, and pool.rule = all has no effect"),
        ({"lineages": 1, "rule": "segments", "real": "segments"}, "pool.rule = segments and pool.real = segments have no effect"),
        ({"lineages": 1, "rule": "others", "foreign": "t"}, "as without it"),
        ({"lineages": 2, "rule": "random"}, "so that nothing is measured between lineages"),
    ],
)  # fmt: skip
def test_what_has_no_effect_and_what_is_not_measured_is_said(pool: dict[str, Any], said: str) -> None:
    found = of(pool=pool)
    notes = pool_notes(found.pool, found.lineages)
    assert len(notes) == bool(said)
    assert all(note.endswith(said) for note in notes)


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"model": {"source": "mine"}}, "model.source"),
        ({"train": {"lr": 0.1, "epochs": 2}}, "train.lr"),
        ({"data": {"segment": "1/2"}}, "data.segment"),
    ],
)
def test_what_every_lineage_has_its_own_of_is_refused_for_all(given: dict[str, Any], option: str) -> None:
    """It would be given, and change nothing."""
    both = {name: {"model": {"source": name}, "train": {"lr": lr}} for name, lr in (("a", 0.5), ("b", 0.25))}
    tree = {"lineages": both, "pool": {"real": "segments", "rule": "all"}, **given}
    with pytest.raises(ConfigError, match=f"{option} means nothing here: every lineage has its own"):
        refuse_unread(tree, tree, "x")
    one = {"lineages": {"a": both["a"], "b": {}}, **given}
    refuse_unread(one, one, "x")  # the other one reads it


def test_an_option_of_one_lineage_that_nothing_reads_is_named_with_it() -> None:
    tree = {"learner": "ngram", "lineages": {"a": {}, "b": {"train": {"lr": 0.5}}}}
    with pytest.raises(ConfigError, match=r"lineages\.b\.train\.lr means nothing here: it belongs to the learner lm"):
        refuse_unread(tree, tree, "x")


@pytest.mark.parametrize(
    ("tree", "option"),
    [
        ({"pool": {"rule": "all"}, "loop": {"policies": ["keep-100"]}}, "pool.rule"),
        ({"pool": {"rule": "all"}, "loop": {"generations": 0}}, "pool.rule"),
        ({"pool": {"weights": "1:0:1"}, "loop": {"generations": 0, "policies": ["keep-50"]}}, "pool.weights"),
    ],
)
def test_where_no_rows_are_pooled_what_is_said_of_them_is_refused(tree: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} means nothing here"):
        refuse_unread({"lineages": TWO, **tree}, {"lineages": TWO, **tree}, "x")


def test_another_model_or_text_takes_the_place_of_that_of_all_as_a_whole() -> None:
    base = {
        "model": {"config": {"model_type": "opt", "hidden_size": 8}, "tokenizer": "bpe", "sha256": "1" * 64},
        "data": {"source": "folder", "train": "t.txt", "test": "u.txt", "sha256": "2" * 64, "rows": 7},
        "lineages": {
            "a": {},
            "b": {"model": {"config": {"model_type": "gpt2", "n_embd": 8}}},
            "c": {"model": {"source": "dir"}},
            "d": {"data": {"source": "other"}},
        },
    }
    a, b, c, d = load(base, "x").of_lineages().values()
    assert b.model.config == {"model_type": "gpt2", "n_embd": 8}
    assert (c.model.config, c.model.source, c.model.sha256, c.model.tokenizer) == ({}, "dir", "", "bpe")
    assert (d.data.source, d.data.train, d.data.test, d.data.sha256, d.data.rows) == ("other", "", "", "", 7)
    assert d.data.scored is not None
    assert d.data.scored.places()["test"] == "u.txt"
    assert a.data.scored is None


def test_lineages_that_were_looked_up_are_there_again() -> None:
    """As `run.json` has them: what was found stands in each one's table, and the tables give the same experiments."""
    base = of(
        model={"config": {"model_type": "opt"}},
        lineages={"a": {}, "b": {"model": {"config": {"model_type": "gpt2"}}}, "c": {"data": {"source": "t"}}},
    )
    found = {
        name: load(
            merge(own.model_dump(mode="json"), {"data": {"sha256": name * 64}, "train": {"dtype": "float32"}}), "x"
        )
        for name, own in base.of_lineages().items()
    }
    again = load(base.with_lineages(found).model_dump(mode="json"), "x")
    assert {name: own.model_dump() for name, own in again.of_lineages().items()} == {
        name: own.model_dump() for name, own in found.items()
    }
    assert again.identity() == base.with_lineages(found).identity()


def test_of_a_run_it_matters_which_lineages_there_are_and_in_which_order() -> None:
    one = of(lineages=TWO, pool={"rule": "all"})
    assert one.identity() == of(lineages=TWO, pool={"rule": "all"}, loop={"generations": 3}).identity()
    for other in (
        of(lineages={**TWO, "c": {}}, pool={"rule": "all"}),
        of(lineages=dict(reversed(TWO.items())), pool={"rule": "all"}),
        of(lineages=TWO, pool={"rule": "others"}),
        of(lineages={**TWO, "b": {"train": {"lr": 0.25}}}, pool={"rule": "all"}),
    ):
        assert other.identity() != one.identity()
    assert of().identity() == of(pool={"lineages": 1}).identity()


def test_parts_of_a_text_lie_next_to_each_other_and_are_all_of_it() -> None:
    parts = [range(10)[Segment(part, 3).rows(10)] for part in (1, 2, 3)]
    assert [list(part) for part in parts] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    assert Segment.parse("2/4") == Segment(2, 4)
    assert str(Segment.parse("1/1")) == ""


def test_shares_of_the_loss() -> None:
    assert Shares.parse("1:1:2").params() == Shares.parse("0.25:0.25:0.5").params() == [0.25, 0.25, 0.5]
    assert Shares.parse("equal").equal
    assert Shares.parse("1:3:4").at(0, public=True).params() == [0.25, 0.75, 0.0]
    assert Shares.parse("1:3:4").at(0, public=False).equal, "generation 0 without public rows has real rows alone"
    assert Shares.parse("0:0:1").at(0, public=True).equal
    assert Shares.parse("1:3:4").at(2, public=False).params() == [0.125, 0.375, 0.5]
    for text in ("1:1", "a:b:c", "0:0:0", "1:-1:2", "1:1e-9:1", "1:1/0:1", "nan:1:1"):
        with pytest.raises(InputError):
            Shares.parse(text)
