"""Weights of rows as values: what texts are read, what the golden weight is, and how a configuration holds them."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_cli import config
from collapse_cli.config.weights import Weights, golden
from collapse_cli.errors import ConfigError, InputError


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("equal", Weights()),
        ("1:1", Weights()),
        ("golden", Weights(None)),
        ("2:1", Weights(2.0)),
        ("4:2", Weights(2.0)),
        ("1:4", Weights(0.25)),
        ("0.5:1e-3", Weights(500.0)),
    ],
)
def test_texts_are_read(text: str, weights: Weights) -> None:
    read = Weights.parse(text)
    assert read == weights
    assert str(read) == text, "as it was written"
    assert Weights.parse(str(weights)) == weights
    assert Weights.of(json.loads(json.dumps(read.params()))) == weights


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gold", 'must be "equal", "golden", or weights of a real and of a synthetic row'),
        ("2", "must be"),
        ("2:", "must be"),
        ("2:1:1", "must be"),
        ("a:b", "must be"),
        ("0:1", "to leave rows out, choose the policy: keep-0 has no real rows, keep-100 no synthetic ones"),
        ("1:0", "two numbers above 0"),
        ("-2:1", "two numbers above 0"),
        ("nan:1", "two numbers above 0"),
        ("inf:1", "two numbers above 0"),
        ("1e9:1", "by a factor of 1,000,000 at most"),
        ("1:1e9", "by a factor of 1,000,000 at most"),
    ],
)
def test_texts_that_are_none_are_refused(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        Weights.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(("k", "w"), [(1.0, (math.sqrt(5) - 1) / 2), (0.25, (math.sqrt(0.25**2 + 1) - 0.25) / 2)])
def test_the_golden_weight_is_that_of_the_paper(k: float, w: float) -> None:
    real, synthetic = round(k * 400), 400
    assert golden(real, synthetic) == pytest.approx(w, rel=1e-12)
    both = Weights(None).of_rows(real, synthetic)
    assert both is not None
    assert both[0] * real / (real + synthetic) == pytest.approx(w, rel=1e-12), "the share of the loss"


@given(real=st.integers(1, 10**6), synthetic=st.integers(1, 10**6))
def test_no_other_share_makes_the_error_of_a_mean_smaller(real: int, synthetic: int) -> None:
    """V(w) = (w² + (1-w)² k) / (1 - (1-w)²) of arXiv 2502.18049, whose smallest value is the golden weight itself."""
    k, w = real / synthetic, golden(real, synthetic)

    def error(share: float) -> float:
        return (share**2 + (1 - share) ** 2 * k) / (1 - (1 - share) ** 2)

    assert error(w) == pytest.approx(w, rel=1e-6)
    assert all(error(w) <= error(other) * (1 + 1e-12) for other in (w * 0.99, w + (1 - w) * 0.01))


@given(
    ratio=st.floats(1e-6, 1e6),
    real=st.integers(0, 10**6),
    synthetic=st.integers(0, 10**6),
)
def test_weights_are_1_on_average_and_none_where_all_rows_are_of_one_kind(
    ratio: float, real: int, synthetic: int
) -> None:
    both = Weights(ratio).of_rows(real, synthetic)
    if ratio == 1 or 0 in (real, synthetic):
        assert both is None
        return
    assert both is not None
    assert both[0] / both[1] == pytest.approx(ratio)
    assert (both[0] * real + both[1] * synthetic) / (real + synthetic) == pytest.approx(1)


# --- in a configuration -----------------------------------------------------------------------------------------------


def test_a_configuration_has_the_value_and_its_record_the_text() -> None:
    one = config.load({"mix": {"weights": "4:2"}}, "a test")
    assert one.mix.weights == Weights(2.0)
    assert one.model_dump(mode="json")["mix"]["weights"] == "4:2"
    assert config.load({}, "a test").mix.weights.equal
    from_set = config.load(config.parse_settings(["mix.weights=golden"]), "a test")
    assert from_set.mix.weights == Weights(None)


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"mix": {"weights": "gold"}}, r"mix\.weights.*must be"),
        ({"mix": {"weights": "goldn"}}, r"mix\.weights.*did you mean 'golden'"),
        ({"mix": {"weights": 2.0}}, r'mix\.weights.*must be "equal", "golden", or.*"2:1"'),
        ({"mix": {"weights": True}}, r'mix\.weights.*must be "equal", "golden", or.*"2:1"'),
        ({"mix": {"weights": {"real": 2, "synthetic": 1}}}, r'mix\.weights.*must be "equal", "golden", or.*"2:1"'),
    ],
)
def test_nonsense_is_refused(tree: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        config.load(tree, "a test")


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"loop": {"policies": ["keep-0", "keep-100"]}}, "no policy of this run mixes"),
        (
            {"kind": "mixture", "mixture": {"rows": [8], "share": [0.5]}},
            "it belongs to experiments of kind = generational",
        ),
    ],
)
def test_weights_that_would_do_nothing_are_refused(tree: dict[str, Any], why: str) -> None:
    given = config.merge(tree, {"mix": {"weights": "2:1"}})
    with pytest.raises(ConfigError, match=why):
        config.refuse_unread(given, given, "a test")
    config.refuse_unread(tree, tree, "a test")


def test_what_is_off_may_be_written_down_as_off() -> None:
    given = {"mix": {"weights": "equal"}, "loop": {"policies": ["keep-0"]}}
    config.refuse_unread(given, given, "a test")
