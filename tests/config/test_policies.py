"""Policies as values: what names are read, which are refused and with what, and how a configuration holds them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_cli import config
from collapse_cli.config.policies import Policy, percent_kept
from collapse_cli.errors import ConfigError, InputError

PERCENTS = st.one_of(st.integers(0, 100), st.floats(0, 100, allow_nan=False))


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("keep-0", Policy("keep", 0.0)),
        ("keep-100", Policy("keep", 100.0)),
        ("keep-12.5", Policy("keep", 12.5)),
        ("fresh-10", Policy("fresh", 10.0)),
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
        ("keep", "there is no policy 'keep'"),
        ("fresh", "there is no policy"),
        ("", "there is no policy"),
        ("accumulate-10", "there is no policy"),
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


def test_stages_have_a_policy_without_its_name() -> None:
    policy = Policy.parse("fresh-10.0")
    assert policy.params() == {"rule": "fresh", "percent": 10.0}
    assert Policy.of(json.loads(json.dumps(policy.params()))) == policy


def test_of_rows_the_share_of_keep_is_known_and_of_what_later_versions_write_nothing() -> None:
    assert [percent_kept(name) for name in ("keep-5", "fresh-5", "accumulate", "later-1", None)] == [5.0] + 4 * [None]


# --- in a configuration -----------------------------------------------------------------------------------------------


def test_a_configuration_has_values_and_its_record_has_names() -> None:
    one = config.load({"loop": {"policies": ["keep-10.0", "accumulate"]}}, "a test")
    assert one.loop.policies == (Policy("keep", 10.0), Policy("accumulate"))
    for mode in ("json", "python"):
        assert list(one.model_dump(mode=mode)["loop"]["policies"]) == ["keep-10.0", "accumulate"]
    again = config.load(json.loads(one.model_dump_json()), "a test")
    assert (again, list(map(str, again.loop.policies))) == (one, ["keep-10.0", "accumulate"])


WRONG = "there is no policy 'kep-10' (did you mean 'keep-10'?); known: keep-P, fresh-P (P in 0..100), accumulate, accumulate-subsample"


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
