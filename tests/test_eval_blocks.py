"""`collapse eval` of a model: the length of the blocks that are scored decides whether the model can take them."""

from pathlib import Path
from typing import Any

import e2e
import pytest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 32 positions, and text; `data.block_size` is 64 unless it is said."""
    folder = tmp_path_factory.mktemp("short")
    e2e.write_model(folder / "model", positions=32)
    e2e.write_text(folder / "text")
    return folder


def scored(home: Path, *settings: str) -> Any:
    sets = [part for setting in settings for part in ("--set", setting)]
    return e2e.collapse("eval", home / "model", "--data", home / "text", "--json", *sets)


def test_a_short_model_is_scored_in_blocks_that_it_takes(home: Path) -> None:
    """Whatever a corpus to train on would have for rows."""
    made = [scored(home, "eval.block_size=32"), scored(home, "data.block_size=32")]
    made += [scored(home, "eval.block_size=32", "data.block_size=128"), scored(home, "eval.block_size=16")]
    assert [one.code for one in made] == [0] * 4, [one.err for one in made]
    found = [one.json["perplexity"] for one in made]
    assert found[0] == found[1] == found[2] != found[3]
    assert [one.json["protocol"]["context"] for one in made] == [32, 32, 32, 16]


@pytest.mark.parametrize("settings", [[], ["eval.block_size=64"], ["data.block_size=64"], ["eval.block_size=33"]])
def test_blocks_that_it_does_not_take_are_refused_by_the_right_name(home: Path, settings: list[str]) -> None:
    made = scored(home, *settings)
    asked = 33 if settings == ["eval.block_size=33"] else 64
    assert made.code == 2
    assert made.err == (f"collapse: eval.block_size is {asked}, but the model takes 32 tokens at most; lower it\n")


def test_under_the_sliding_protocol_the_context_decides(home: Path) -> None:
    assert scored(home, "eval.protocol=sliding").json["protocol"]["context"] == 32
    made = scored(home, "eval.protocol=sliding", "eval.context=33", "eval.stride=1")
    assert made.err == "collapse: eval.context is 33, but the model takes 32 tokens at most; lower it\n"
