"""`[variants.NAME]`: each is a run of its own, checked when the configuration is read."""

from typing import Any

import pytest

from collapse_cli import config
from collapse_cli.config import load, variant_experiments
from collapse_cli.errors import ConfigError
from collapse_cli.findings.causes import BASELINE, TOGETHER

CAUSES = ("statistical", "expressivity", "approximation")

TREE: dict[str, Any] = {
    "model": {"config": {"model_type": "opt", "hidden_size": 32}},
    "train": {"lr": 1e-3},
    "variants": {
        "baseline": {},
        "small": {"model": {"config": {"hidden_size": 4}}},
        "few-rows": {"data": {"rows": 100}, "train": {"epochs": 1}},
    },
}


def test_a_variant_is_the_experiment_with_its_changes() -> None:
    found = variant_experiments(TREE, "x")
    assert list(found) == ["baseline", "small", "few-rows"]
    rest = {key: value for key, value in TREE.items() if key != "variants"}
    assert found["baseline"] == load(rest, "x")
    assert found["small"].model.config == {"model_type": "opt", "hidden_size": 4}
    assert (found["few-rows"].data.rows, found["few-rows"].train.epochs, found["few-rows"].train.lr) == (100, 1, 1e-3)
    assert all(not one.variants for one in found.values())


def test_a_configuration_without_variants_has_none() -> None:
    assert variant_experiments({"train": {"lr": 1e-3}}, "x") == {}


def test_the_tree_with_its_variants_comes_back_from_what_is_saved() -> None:
    experiment = load(TREE, "x")
    assert load(experiment.model_dump(mode="json"), "again") == experiment
    assert variant_experiments(experiment.model_dump(mode="json"), "x") == variant_experiments(TREE, "x")


def test_the_command_line_changes_every_variant_and_each_has_the_last_word() -> None:
    over = config.parse_settings(["train.epochs=3", "variants.small.train.lr=0.5"])
    found = variant_experiments(config.merge(TREE, over), "x")
    assert [one.train.epochs for one in found.values()] == [3, 3, 1]
    assert [one.train.lr for one in found.values()] == [1e-3, 0.5, 1e-3]


def test_variants_are_no_part_of_what_a_run_is() -> None:
    assert load(TREE, "x").identity() == variant_experiments(TREE, "x")["baseline"].identity()
    identities = [one.identity() for one in variant_experiments(TREE, "x").values()]
    assert all(identities.count(one) == 1 for one in identities)


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ({"small": {"data": {"rowz": 1}}}, "x: variants.small: unknown key 'data.rowz' (did you mean 'data.rows'?)"),
        ({"small": {"trian": {"lr": 1}}}, "x: variants.small: unknown key 'trian' (did you mean 'train'?)"),
        ({"small": {"train": {"lr": -1}}}, "x: variants.small: train.lr must be above 0, it is -1"),
        ({"small": {"sample": {"prompt_tokens": 99}}}, "x: variants.small: sample.prompt_tokens = 99"),
        ({"small": {"variants": {"a": {}}}}, "x: variants.small: a variant has no variants"),
        ({"../small": {}}, "x: variants.../small: a variant's name is"),
        ({"Small": {}}, "x: variants.Small: a variant's name is"),
        ({"": {}}, "a variant's name is"),
        ({"a" * 41: {}}, "a variant's name is"),
        ({"small": 3}, "x: variants.small must be a table, it is 3"),
        (["small"], "x: variants must be a table, it is ['small']"),
    ],
)
def test_a_variant_that_cannot_run_is_refused_by_name(variants: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load({**TREE, "variants": variants}, "x")
    assert said in str(refused.value)


def test_the_preset_error_sources_turns_each_cause_on_alone() -> None:
    tree = config.read_toml(config.preset_path("error-sources"))
    found = variant_experiments(tree, "error-sources")
    assert list(found) == [BASELINE, *CAUSES, TOGETHER]

    def dials(one: config.Experiment) -> tuple[int, float, int]:
        """Rows, steps of training, and hidden dimensions: one for each cause."""
        rows = one.data.rows or one.data.zipf.train_tokens // one.data.block_size
        return rows, rows * one.train.epochs / one.train.batch_size, one.model.config["hidden_size"]

    base = dials(found[BASELINE])
    for dial, name in enumerate(CAUSES[:1] + CAUSES[2:] + CAUSES[1:2]):
        turned = dials(found[name])
        assert turned[dial] < base[dial]
        assert turned[:dial] + turned[dial + 1 :] == base[:dial] + base[dial + 1 :], f"{name} turns more than its own"
        assert dials(found[TOGETHER])[dial] == turned[dial]
    rank = found[BASELINE].data.zipf.rank
    assert dials(found["expressivity"])[2] <= rank, "a softmax needs more dimensions than the rank to be the truth"
    assert base[2] > 2 * rank
    assert len({str(one.data.zipf) + str(one.loop) + str(one.sample) for one in found.values()}) == 1
