"""Keys outlive what changes around them: options that are added later, and the house that the code lives in."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from collapse_cli import config
from collapse_cli.config.experiment import Experiment
from collapse_cli.config.tree import EvalConfig, TrainConfig
from collapse_cli.engine.stage import Plan, Stage
from collapse_cli.experiment import kinds
from collapse_cli.families.gaussian import GaussianConfig
from collapse_cli.families.section import added, for_key, from_key
from collapse_cli.learners import Hints

# by the code before modules moved into rooms (commit be2790c): a digest of the sorted keys of each preset, of its first variant;
# that of `world` by the code that gave the preset its present size
BEFORE: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "keys_before.json").read_text())


class LaterTrain(TrainConfig):
    """`train` as a later version may have it."""

    patience: int = added(0, ge=0)
    """A new option. 0: as before."""


class LaterGaussian(GaussianConfig):
    shrinkage: float = added(0.0, ge=0)


class Inner(TrainConfig):
    both: LaterTrain = LaterTrain()


class Later(Experiment):
    """The tree of a later version, with options that were added."""

    train: LaterTrain = LaterTrain()
    gaussian: LaterGaussian = LaterGaussian()


class UnmarkedTrain(TrainConfig):
    patience: int = 0


class Unmarked(Experiment):
    """The same without the mark."""

    train: UnmarkedTrain = UnmarkedTrain()


def tree_of(preset: str) -> dict[str, Any]:
    """A preset with a text (or images) of a known hash, so that its keys do not depend on this machine."""
    tree = config.read_toml(config.preset_path(preset))
    variants = tree.pop("variants", {})
    first: dict[str, Any] = next(iter(variants.values()), {})
    return config.merge(config.merge(tree, first), {"data": {"sha256": "0" * 64}, "expect": []})


def plan(preset: str, kind: type[Experiment] = Experiment, **changes: Any) -> Plan:
    return kinds.plan(kind.model_validate(config.merge(tree_of(preset), changes)), Hints())


@pytest.mark.parametrize("preset", sorted(BEFORE))
def test_every_preset_asks_for_the_stages_of_before(preset: str) -> None:
    """So a store that was filled before is found and used."""
    keys = sorted(plan(preset).stages)
    assert {"stages": len(keys), "keys": hashlib.sha256(json.dumps(keys).encode()).hexdigest()} == BEFORE[preset]


@pytest.mark.parametrize("preset", sorted(BEFORE))
def test_options_that_are_added_change_no_key_while_they_are_neutral(preset: str) -> None:
    keys = sorted(plan(preset, Later).stages)
    assert hashlib.sha256(json.dumps(keys).encode()).hexdigest() == BEFORE[preset]["keys"]


def test_an_option_without_the_mark_would_change_them() -> None:
    assert plan("smoke", Unmarked).stages.keys() & plan("smoke").stages.keys() == {
        stage.key for stage in plan("smoke").stages.values() if stage.kind == "data"
    }


def changed(before: Plan, after: Plan) -> list[Stage]:
    return [stage for key, stage in after.stages.items() if key not in before.stages]


def test_an_option_that_is_not_neutral_is_in_the_keys_of_what_depends_on_it() -> None:
    before, after = plan("smoke"), plan("smoke", Later, train={"patience": 3})
    new = changed(before, after)
    assert {stage.kind for stage in new} == {"train", "sample", "mix", "eval"}, "all that is made of a model"
    trained = [stage for stage in new if stage.kind == "train"]
    assert len(trained) == sum(stage.kind == "train" for stage in before.stages.values())
    assert all(stage.params["train"]["patience"] == 3 for stage in trained)
    assert all("patience" not in json.dumps(stage.params) for stage in new if stage.kind != "train")


def test_within_a_block_too() -> None:
    before, after = plan("nature-gaussian"), plan("nature-gaussian", Later, gaussian={"shrinkage": 0.5})
    new = changed(before, after)
    assert {stage.kind for stage in new} == {"block"}
    assert all(stage.params["verbs"]["train"]["model"]["shrinkage"] == 0.5 for stage in new)


def test_what_is_left_out_is_there_again_when_it_is_read() -> None:
    assert "patience" not in for_key(LaterTrain())
    assert from_key(LaterTrain, for_key(LaterTrain(lr=1e-3))) == LaterTrain(lr=1e-3)
    assert from_key(LaterTrain, for_key(LaterTrain(patience=2))).patience == 2
    assert "patience" not in for_key(Inner())["both"]
    assert for_key(Inner(both=LaterTrain(patience=1)))["both"]["patience"] == 1
    assert for_key(EvalConfig()) == EvalConfig().model_dump(mode="json"), "nothing was added to it"


def test_what_a_stage_leaves_out_of_its_key_cannot_be_read_in_it() -> None:
    params = for_key(LaterTrain(lr=1e-3, target="full"))
    del params["target"]
    read = from_key(LaterTrain, params)
    assert (read.lr, read.patience) == (1e-3, 0)
    with pytest.raises(AttributeError, match="target"):
        _ = read.target


def test_the_rules_of_an_added_option_hold() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        LaterTrain(patience=-1)
