"""`train.anchor` from the command line: which model is held to which, what others share, a kill, pruning, what is refused."""

from pathlib import Path
from typing import Any

import pytest
from support import e2e

COMMON: dict[str, Any] = {"loop__policies": '["keep-0"]', "loop__generations": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in one store: without an anchor, held by predictions to generation 0 and to the previous one, by weights to the base."""
    home = tmp_path_factory.mktemp("anchors")
    config = e2e.write_experiment(home)
    for name, more in {
        "free": {},
        "first": {"train__anchor": "kl"},
        "previous": {"train__anchor": "kl", "train__anchor_to": "previous", "store__keep_models": "none"},
        "base": {"train__anchor": "l2", "train__anchor_to": "base"},
        "fisher": {"train__anchor": "ewc", "train__anchor_rows": 6, "loop__init": "previous"},
        "lora": {"train__anchor": "distill", "train__adapter": 2, "loop__init": "gen0", "train__anchor_to": "previous"},
    }.items():
        e2e.run(config, home / "runs", "--name", name, **COMMON, **more)
    return home


def models(home: Path, name: str) -> list[str]:
    rows = e2e.metrics(home / "runs", name)
    return [rows["keep-0", 0, generation]["model_key"] for generation in range(3)]


def inputs(home: Path, name: str) -> dict[str, dict[str, str]]:
    return {stage["key"]: stage["inputs"] for stage in e2e.plan(home / "runs", name)}


def test_generation_0_has_no_anchor_and_is_one_for_all(home: Path) -> None:
    assert len({models(home, name)[0] for name in ("free", "first", "previous", "base", "fisher", "lora")}) == 1


def test_the_anchor_is_an_input_of_what_is_held_to_it(home: Path) -> None:
    first, previous = models(home, "first"), models(home, "previous")
    for at in (1, 2):
        assert inputs(home, "first")[first[at]]["anchor"] == first[0]
        assert inputs(home, "previous")[previous[at]]["anchor"] == previous[at - 1]
        assert "anchor" not in inputs(home, "base")[models(home, "base")[at]]
    assert first[1] == previous[1], "before generation 1 there is generation 0 alone"
    assert first[2] != previous[2]
    lora = models(home, "lora")
    mine = inputs(home, "lora")[lora[2]]
    assert (mine["anchor"], mine["anchor_base"]) == (lora[1], lora[0])


def test_what_was_made_small_is_written_beside_the_loss(home: Path) -> None:
    for name in ("first", "base", "fisher", "lora"):
        rows = e2e.metrics(home / "runs", name)
        assert all(rows["keep-0", 0, at]["train_objective"] > rows["keep-0", 0, at]["train_loss"] for at in (1, 2))
        assert "train_objective" not in rows["keep-0", 0, 0]
        numbers = {e2e.metrics(home / "runs", each)["keep-0", 0, 2]["perplexity"] for each in (name, "free")}
        assert len(numbers) == 2


def test_an_anchor_stays_until_nobody_is_held_to_it(home: Path) -> None:
    """And goes then, where models are not kept; generation 0 and 1 are those of the run `first`, too, which keeps its own."""
    previous = models(home, "previous")
    there = [e2e.folder_of(home / "runs", key) / "model.safetensors" for key in previous]
    assert [path.is_file() for path in there] == [True, True, False]


def test_killed_while_it_trains_the_numbers_are_the_same(home: Path) -> None:
    def job(runs: str, **more: Any) -> dict[str, Any]:
        sets = ('loop.policies=["keep-0"]', "train.anchor=ewc", "train.anchor_rows=6")
        argv = ["run", str(home / "tiny.toml"), "--runs-dir", str(home / runs), "--generations", "1", "--json"]
        return {"argv": [*argv, *(f"--set={option}" for option in sets)], **more}

    codes = e2e.drive(job("calm"), job("killed", strike=e2e.strike("train", 2, when="tell", tell=2)), job("killed"))
    assert [code for (code,) in codes] == [0, -9, 0]
    assert e2e.results(home / "killed") == e2e.results(home / "calm")


def test_a_run_that_goes_on_makes_pruned_models_again_once_each(home: Path) -> None:
    """Generation 3 begins at the weights of 2, which are gone, as are those that they began at; killed if it makes one twice."""

    def job(generations: int, **more: Any) -> dict[str, Any]:
        argv = ["run", str(home / "tiny.toml"), "--runs-dir", str(home / "chain"), "--name", f"chain-{generations}"]
        sets = ('loop.policies=["keep-0"]', "loop.init=previous", "store.keep_models=none")
        return {"argv": [*argv, f"--generations={generations}", *(f"--set={option}" for option in sets)], **more}

    assert e2e.drive(job(2), job(3, strike=e2e.strike("train", 5, when="tell"))) == [[0], [0]]
    long, short = e2e.results(home / "chain", "chain-3"), e2e.results(home / "chain", "chain-2")
    assert {where: long[where] for where in short} == short
    assert set(e2e.finished_events(home / "chain", "chain-3").values()) == {1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["train.anchor=kl", "loop.generations=0"], "generation 0 has no anchor, and there is no later one"),
        (["train.anchor=kl", "train.anchor_to=base"], "which here (a model from scratch) is nothing"),
        (["train.anchor=l2", "train.adapter=2", "loop.init=gen0"], "kl and distill hold what it predicts"),
        (["train.anchor_weight=2.0"], "train.anchor = none"),
        (["train.anchor=kl", "train.anchor_temperature=3.0"], "only train.anchor = distill reads it"),
        (["train.anchor=kl", "train.anchor_rows=3"], "only train.anchor = ewc reads it"),
        (["train.anchor=kl", "train.anchor_weight=0.0"], "train.anchor_weight must be"),
        (["train.anchor=dropout"], "train.anchor"),
    ],
)
def test_what_is_refused(home: Path, options: list[str], said: str) -> None:
    result = e2e.collapse(
        "run", home / "tiny.toml", "--runs-dir", home / "refused", *(f"--set={each}" for each in options)
    )
    assert result.code == 2
    assert said in " ".join(result.err.split())
    assert "Traceback" not in result.err
    assert not list((home / "refused").glob("*/plan.json"))
