"""Policies as values: what names are read, which are refused and with what, and how a configuration holds them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_cli import config
from collapse_cli.config.policies import Policy, Rule, percent_kept
from collapse_cli.errors import ConfigError, InputError

PERCENTS = st.one_of(st.integers(0, 100), st.floats(0, 100, allow_nan=False))


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("keep-0", Policy("keep", 0.0)),
        ("keep-100", Policy("keep", 100.0)),
        ("keep-12.5", Policy("keep", 12.5)),
        ("fresh-10", Policy("fresh", 10.0)),
        ("keep-50-20-10", Policy("keep", 10.0, before=(50.0, 20.0))),
        ("keep-1e-05-2.5", Policy("keep", 2.5, before=(1e-05,))),
        ("fresh-0-100", Policy("fresh", 100.0, before=(0.0,))),
        ("keep-rows-250", Policy("keep-rows", rows=250)),
        ("accumulate-fresh-20", Policy("accumulate-fresh", 20.0)),
        ("accumulate-fresh-50-0", Policy("accumulate-fresh", 0.0, before=(50.0,))),
        ("accumulate", Policy("accumulate")),
        ("accumulate-subsample", Policy("accumulate-subsample")),
    ],
)
def test_names_are_read(name: str, policy: Policy) -> None:
    assert Policy.parse(name) == policy
    assert isinstance(Policy.parse(name).percent, float), "2 and 2.0 would be two keys"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("keep-101", r"must be in 0\.\.100"),
        ("keep--1", r"must be in 0\.\.100"),
        ("keep-nan", r"must be in 0\.\.100"),
        ("keep-inf", r"must be in 0\.\.100"),
        ("fresh-100.01", r"must be in 0\.\.100"),
        ("keep-", "must be a number"),
        ("keep-x", "must be a number"),
        ("fresh-", "must be a number"),
        ("keep-10%", "must be a number"),
        ("keep-50--20", "must be a number"),
        ("keep-50-x", "must be a number"),
        ("keep-50-101", r"must be in 0\.\.100, it is 101"),
        ("keep-50-20-20", "the last share stays for all later generations; say it once"),
        ("keep-rows-", "N must be a whole number from 1 on"),
        ("keep-rows-0", "keep-0 keeps none"),
        ("keep-rows-1.5", "N must be a whole number"),
        ("keep-rows-007", "N must be a whole number"),
        ("keep-rows-10-20", "N must be a whole number"),
        ("fresh-rows-10", "must be a number"),
        ("keep", "there is no policy 'keep'"),
        ("fresh", "there is no policy"),
        ("", "there is no policy"),
        ("accumulate-10", "there is no policy"),
        ("accumulate-fresh", "there is no policy"),
        ("accumulate-fresh-101", r"must be in 0\.\.100"),
        ("Keep-10", "there is no policy"),
        ("replace", "there is no policy 'replace'; known: keep-P"),
    ],
)
def test_names_that_are_none_are_refused(name: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        Policy.parse(name)
    assert repr(name) in str(caught.value)


@given(percent=PERCENTS)
def test_a_percentage_survives_its_name(percent: float) -> None:
    assert Policy.parse(f"keep-{percent}") == Policy("keep", float(percent))


@given(percent=PERCENTS)
def test_a_policy_that_was_never_named_has_a_name_that_stands_for_it(percent: float) -> None:
    for policy in (Policy("keep", float(percent)), Policy("fresh", float(percent))):
        assert Policy.parse(str(policy)) == policy
    assert [str(Policy("keep", share)) for share in (0.0, 10.0, 12.5)] == ["keep-0", "keep-10", "keep-12.5"]
    assert str(Policy("accumulate-subsample")) == "accumulate-subsample"


def test_one_policy_under_two_names_is_one_value_and_keeps_the_name_it_was_given() -> None:
    short, long = Policy.parse("keep-10"), Policy.parse("keep-10.0")
    assert short == long
    assert len({short, long}) == 1
    assert (str(short), str(long)) == ("keep-10", "keep-10.0")


@given(shares=st.lists(PERCENTS, min_size=2, max_size=5), rule=st.sampled_from(["keep", "fresh", "accumulate-fresh"]))
def test_a_schedule_is_what_it_says_in_each_generation(shares: list[float], rule: Rule) -> None:
    policy = Policy(rule, float(shares[-1]), before=tuple(map(float, shares[:-1])))
    assert Policy.parse(str(policy)) == policy
    for generation in range(1, 8):
        wanted = shares[min(generation, len(shares)) - 1]
        assert policy.at(generation).percent == policy.until(generation).percent == wanted
        assert [policy.until(generation).at(g) for g in range(1, generation + 1)] == [
            policy.at(g) for g in range(1, generation + 1)
        ], "what is said of later generations changes nothing"
    if rule == "keep":
        assert policy.at(1) == Policy("keep", float(shares[0])), (
            "one generation of a schedule is that of the plain policy"
        )
    assert policy.draws == (rule == "keep" and any(0 < share < 100 for share in shares))
    for generation in range(1, 8):
        share = shares[min(generation, len(shares)) - 1]
        assert policy.needs_samples(generation) == policy.at(generation).needs_samples(generation) == (share < 100)


def test_a_schedule_that_repeats_its_end_is_the_shorter_one_and_one_that_never_changes_is_none() -> None:
    assert Policy("keep", 20.0, before=(50.0, 20.0, 20.0)) == Policy.parse("keep-50-20")
    assert Policy("keep", 20.0, before=(20.0,)) == Policy.parse("keep-20")
    assert Policy.parse("keep-20").before == ()


def test_a_schedule_is_no_longer_than_a_table_can_hold() -> None:
    name = "keep-" + "-".join(str(share) for share in range(31))
    with pytest.raises(InputError, match="a schedule has at most 30 shares"):
        Policy.parse(name)
    assert Policy.parse(name.removesuffix("-30")).percent == 29


def test_fresh_knows_what_was_taken_before_and_keep_does_not() -> None:
    fresh, keep = Policy.parse("fresh-50-20-10"), Policy.parse("keep-50-20-10")
    assert fresh.at(2) == Policy("fresh", 20.0, before=(50.0,))
    assert keep.at(2) == Policy("keep", 20.0)
    assert [keep.at(g).percent for g in (0, 1, 3, 99)] == [50, 50, 10, 10]


def test_stages_have_a_policy_without_its_name() -> None:
    policy = Policy.parse("fresh-10.0")
    assert policy.params() == {"rule": "fresh", "percent": 10.0}
    assert Policy.of(json.loads(json.dumps(policy.params()))) == policy
    for name in ("fresh-50-20-10", "keep-rows-7", "accumulate-fresh-10"):
        assert Policy.of(json.loads(json.dumps(Policy.parse(name).params()))) == Policy.parse(name)


def test_of_rows_the_share_of_keep_is_known_and_of_what_later_versions_write_nothing() -> None:
    names = ("keep-5", "fresh-5", "accumulate", "later-1", None, "keep-50-5", "keep-rows-5")
    assert [percent_kept(name) for name in names] == [5.0] + 6 * [None]


def test_how_many_rows_a_generation_puts_together_is_part_of_a_policy_but_not_of_its_name() -> None:
    small = Policy.parse("fresh-50-20").of_size(30)
    assert (str(small), small.size, small.at(1).size, small.until(2).size) == ("fresh-50-20", 30, 30, 30)
    assert small != Policy.parse("fresh-50-20")
    assert Policy.of(json.loads(json.dumps(small.params()))) == small
    assert Policy.parse("keep-10").of_size(0).params() == {"rule": "keep", "percent": 10.0}


@pytest.mark.parametrize("key", ["real_rows", "share", "schedule"])
def test_who_looks_for_an_option_of_what_a_policy_says_is_told(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown key 'mix\.{key}'; a policy says that, as in --policy keep-"):
        config.load({"mix": {key: 5}}, "mine.toml")


# --- in a configuration -----------------------------------------------------------------------------------------------


def test_a_configuration_has_values_and_its_record_has_names() -> None:
    one = config.load({"loop": {"policies": ["keep-10.0", "accumulate"]}}, "a test")
    assert one.loop.policies == (Policy("keep", 10.0), Policy("accumulate"))
    for mode in ("json", "python"):
        assert list(one.model_dump(mode=mode)["loop"]["policies"]) == ["keep-10.0", "accumulate"]
    again = config.load(json.loads(one.model_dump_json()), "a test")
    assert (again, list(map(str, again.loop.policies))) == (one, ["keep-10.0", "accumulate"])


WRONG = (
    "there is no policy 'kep-10' (did you mean 'keep-10'?); known: keep-P, fresh-P (P in 0..100, or one for each generation: "
    "keep-50-20-10), keep-rows-N, accumulate, accumulate-fresh-P, accumulate-subsample"
)


@pytest.mark.parametrize(
    ("tree", "where"),
    [
        ({"loop": {"policies": ["keep-0", "kep-10"]}}, "loop.policies.1: "),
        ({"variants": {"a": {"loop": {"policies": ["kep-10"]}}}}, "variants.a: loop.policies.0: "),
    ],
)
def test_a_name_that_is_none_is_refused_when_the_configuration_is_read(tree: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(tree, "mine.toml")
    assert str(caught.value) == f"mine.toml: {where}{WRONG}"


def test_so_is_one_of_a_file_and_of_set(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[loop]\npolicies = ["kep-10"]\n')
    for tree in (config.read_toml(file), config.parse_settings(['loop.policies=["kep-10"]'])):
        with pytest.raises(
            ConfigError, match=r"loop\.policies\.0: there is no policy 'kep-10' \(did you mean 'keep-10'"
        ):
            config.load(tree, "x")
