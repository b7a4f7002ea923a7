"""The presets strong-gpt2 and strong-gpt2-full, and a language model in a given number of layers."""

from collections import Counter
from typing import Any

import pytest

from collapse_cli.config import Experiment, load, preset_path, read_toml, variant_experiments
from collapse_cli.config.cell import cells
from collapse_cli.errors import InputError
from collapse_cli.experiment import mixture
from collapse_cli.learners.lm import LanguageModel
from collapse_cli.lm import architecture


def read(name: str) -> dict[str, Any]:
    return read_toml(preset_path(name))


def experiment_of(**model: Any) -> Experiment:
    return Experiment.model_validate({"model": model})


@pytest.fixture(scope="module")
def small() -> tuple[Experiment, Any]:
    """The preset, and its plan (for less text, which is quicker to make)."""
    config = load(read("strong-gpt2"), "strong-gpt2")
    tree = config.model_dump(mode="json")
    tree["data"]["zipf"] |= {"train_tokens": 4096, "test_tokens": 1024}
    resolved = LanguageModel.resolve(Experiment.model_validate(tree))
    return config, mixture.plan(resolved.config, resolved.hints)


def test_the_small_preset_has_real_rows_enough(small: tuple[Experiment, Any]) -> None:
    config, _ = small
    rows = config.data.zipf.train_tokens // config.data.block_size
    mixture.check_real_rows(config, rows)
    largest = max(cell.real for cell in cells(config.mixture))
    assert rows - largest >= config.mixture.generator_rows[0], "the generator would be fitted on rows of the cells"


def test_every_cell_of_a_size_is_trained_alike_but_for_its_rows(small: tuple[Experiment, Any]) -> None:
    config, plan = small
    sizes = Counter(one.train.params["model"]["config"]["n_layer"] for one in plan.generations)
    assert sizes == {size: len(plan.generations) // 2 for size in config.mixture.size}
    assert len({str(one.train.params["train"]) for one in plan.generations}) == 1
    generators = [stage for stage in plan.stages.values() if stage.kind == "sample"]
    assert len(generators) == 1, "the generator is one for all cells"
    assert generators[0].inputs["model"].params["model"]["config"]["n_layer"] == config.model.config["n_layer"] == 1
    decode = generators[0].params["sample"]["decode"]
    assert (decode["temperature"], decode["top_p"], decode["beams"]) == (1.0, 1.0, 1)


def test_the_full_preset_has_the_settings_of_the_paper() -> None:
    """Section 3.4 of shared/field.md; it needs the Hub and data, so it is read and not planned."""
    found = variant_experiments(read("strong-gpt2-full"), "strong-gpt2-full")
    assert list(found) == ["share", "size"]
    for config in found.values():
        fields = config.model.config
        assert (fields["model_type"], fields["n_embd"], fields["n_head"], fields["n_layer"]) == ("gpt2", 768, 12, 12)
        assert fields["embd_pdrop"] == fields["resid_pdrop"] == fields["attn_pdrop"] == 0.05
        assert config.data.block_size == fields["n_positions"] == 512
        assert (config.train.lr, config.train.weight_decay, config.train.batch_size) == (5e-3, 0.1, 512)
        assert 1 + config.sample.new_tokens <= fields["n_positions"]
    share, size = found["share"], found["size"]
    assert share.mixture.share == (0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9, 1)
    assert size.mixture.size == (12, 18, 24)
    assert [cell.share for cell in cells(size.mixture)] == [1] * 12
    assert [round(rows * 512 / 1e8) for rows in size.mixture.rows] == [6, 12, 24, 40]
    steps = share.train.epochs * -(-share.mixture.rows[0] // share.train.batch_size)
    assert steps == pytest.approx(80_000, rel=0.01)
    assert steps * share.train.warmup == pytest.approx(2000, rel=0.01)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"model_type": "gpt2", "n_embd": 32, "n_head": 2, "n_layer": 1}, 3),
        ({"model_type": "gpt2", "n_embd": 32, "n_head": 2, "num_hidden_layers": 4}, 2),
        ({"model_type": "gpt2", "n_embd": 32, "n_head": 2}, 2),
        ({"model_type": "opt", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}, 5),
        ({"model_type": "llama", "hidden_size": 32, "num_attention_heads": 2}, 2),
    ],
)
def test_a_model_from_scratch_comes_in_any_number_of_layers(fields: dict[str, Any], size: int) -> None:
    experiment = experiment_of(config=fields)
    sized = LanguageModel.sized(experiment, size)
    assert architecture.make_config(sized.model.config, vocab_size=300).num_hidden_layers == size
    assert experiment.model.config == fields, "the configuration itself was changed"
    assert sized.model_copy(update={"model": experiment.model}) == experiment


def test_a_model_with_weights_has_its_own_layers() -> None:
    with pytest.raises(InputError, match=r"mixture\.size .* some/model has its own; give model\.config"):
        LanguageModel.sized(experiment_of(source="some/model"), 2)
