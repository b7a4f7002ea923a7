"""What is said, before anything runs, of lineages of numbers that cannot take each other's rows."""

from typing import Any

import pytest

from collapse_cli.config import load
from collapse_cli.errors import ConfigError
from collapse_cli.run.early_checks import check_lineages, check_public

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"lineages": {"a": {}, "b": {"data": {"blobs": {"dimensions": 3}}}}},
        "lineages.a.data.blobs.dimensions = 2 and that of b is 3: rows of one cannot be fitted by the other; give all lineages the same",
    ),
    (
        {"lineages": {"a": {"gaussian": {"trials": 4}}, "b": {}}},
        "lineages.a.gaussian.trials = 4 and that of b is 1: rows of one cannot be fitted by the other; give all lineages the same",
    ),
    (
        {"pool": {"lineages": 2, "public": "text.txt"}},
        "pool.public is text, and the rows of the learner gaussian are numbers; of a source that is drawn say how many rows all share "
        "(pool.public_rows)",
    ),
    (
        {"pool": {"lineages": 2, "public_rows": 9, "public": "text.txt"}},
        "pool.public is text, and the rows of the learner gaussian are numbers; of a source that is drawn say how many rows all share "
        "(pool.public_rows)",
    ),
]
UNREADABLE: list[tuple[dict[str, Any], str]] = [
    (
        {"pool": {"lineages": 2, "public_rows": 9, "weights": "1:0:1"}},
        "pool.weights = 1:0:1 gives public rows no share of the loss, and there are some (pool.public, pool.public_rows)",
    ),
    (
        {"pool": {"lineages": 2, "weights": "1:1:1"}},
        "pool.weights = 1:1:1 gives public rows a share of the loss, and there are none",
    ),
    (
        {"pool": {"lineages": 2, "public_rows": 9}, "mix": {"weights": "2:1"}},
        "mix.weights knows no public rows",
    ),
]
BASE: dict[str, Any] = {
    "learner": "gaussian",
    "data": {"source": "blobs", "rows": 40},
    "loop": {"policies": ["keep-50"]},
}


@pytest.mark.parametrize(("changed", "said"), REFUSED, ids=[said[:50] for _, said in REFUSED])
def test_refused_before_anything_runs(changed: dict[str, Any], said: str) -> None:
    config = load({**BASE, **changed}, "a test")
    with pytest.raises(ConfigError) as found:  # noqa: PT012 - by whichever of both
        check_public(config)
        check_lineages(config)
    assert str(found.value) == said


def test_public_rows_of_a_text_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"pool.public_rows = 9 are drawn, and data.source = pydoc is not a distribution"
    ):
        check_public(
            load({"learner": "ngram", "data": {"source": "pydoc"}, "pool": {"lineages": 2, "public_rows": 9}}, "a test")
        )


@pytest.mark.parametrize(("changed", "said"), UNREADABLE, ids=[said[:50] for _, said in UNREADABLE])
def test_refused_when_it_is_read(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as found:
        load({**BASE, **changed}, "a test")
    assert said in str(found.value)
    assert "\n" not in str(found.value)


def test_lineages_of_equal_rows_with_parts_and_truths_of_their_own_are_taken() -> None:
    lineages = {"a": {"data": {"segment": "1/2"}}, "b": {"data": {"segment": "2/2", "blobs": {"shift": 1.0}}}}
    config = load({**BASE, "lineages": lineages, "pool": {"rule": "all", "public_rows": 5}}, "a test")
    check_public(config)
    check_lineages(config)
