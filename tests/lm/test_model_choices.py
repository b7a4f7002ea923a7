"""Words in a model's config that transformers does not know: the setting, what stands there and what may, in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import e2e

from collapse_cli.errors import InputError, first_line
from collapse_cli.lm import architecture, folders
from collapse_cli.lm import model as models
from collapse_cli.lm.choices import unknown_choice

SIZES = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
LLAMA = {"model_type": "llama", "intermediate_size": 16, **SIZES}
QWEN = {"model_type": "qwen2", "intermediate_size": 16, "num_key_value_heads": 2, **SIZES}
OPT = {"model_type": "opt", "ffn_dim": 16, "word_embed_proj_dim": 16, **SIZES}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 300}
NEO = {"model_type": "gpt_neo", "hidden_size": 16, "num_layers": 2, "num_heads": 2, "vocab_size": 300}
NEO |= {"attention_types": [[["global", "local"], 1]]}

WORDS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "a rotation": (
        LLAMA,
        {"rope_scaling": {"rope_type": "lineer", "factor": 2.0}},
        ("rope_scaling.rope_type is 'lineer'", "did you mean 'linear'", "default, dynamic, linear, llama3"),
    ),
    "a rotation under its old name": (
        LLAMA,
        {"rope_scaling": {"type": "lineer", "factor": 2.0}},
        ("rope_scaling.type is 'lineer'", "must be one of", "linear"),
    ),
    "a rotation under its new name": (
        QWEN,
        {"rope_parameters": {"rope_type": "lineer", "rope_theta": 1e4, "factor": 2.0}},
        ("rope_parameters.rope_type is 'lineer'", "must be one of", "linear"),
    ),
    "a rotation that is a number": (
        LLAMA,
        {"rope_scaling": {"rope_type": 7, "factor": 2.0}},
        ("rope_scaling.rope_type is 7", "must be one of"),
    ),
    "an activation": (
        LLAMA,
        {"hidden_act": "sillu"},
        ("hidden_act is 'sillu'", "did you mean 'silu'", "gelu_new", "relu"),
    ),
    "an activation by another name": (
        OPT,
        {"activation_function": "rellu"},
        ("activation_function is 'rellu'", "did you mean 'relu'", "must be one of", "gelu"),
    ),
    "GPT-2's activation": (
        GPT2,
        {"activation_function": "gelu_neu"},
        ("activation_function is 'gelu_neu'", "did you mean 'gelu_new'", "must be one of"),
    ),
    "no activation": (LLAMA, {"hidden_act": None}, ("hidden_act",)),
    "how attention is computed": (
        LLAMA,
        {"attn_implementation": "eagre"},
        ("attn_implementation is 'eagre'", "did you mean 'eager'", "sdpa"),
    ),
    "the kind of each layer": (
        QWEN,
        {"layer_types": ["ful_attention"]},
        ("layer_types is 'ful_attention'", "did you mean 'full_attention'"),
    ),
    "GPT-Neo's attention": (NEO, {"attention_types": [[["global", "locl"], 1]]}, ("locl", "global", "local")),
    "the numbers' type": (
        LLAMA,
        {"dtype": "flaot32"},
        ("dtype is 'flaot32'", "did you mean 'float32'", "bfloat16"),
    ),
    "the numbers' type by its old name": (
        OPT,
        {"torch_dtype": "half32"},
        ("torch_dtype is 'half32'", "must be one of", "float16"),
    ),
    "a module in place of a type": (OPT, {"torch_dtype": "nn"}, ("torch_dtype is 'nn'", "must be one of", "float16")),
    "the kind of model": ({}, {**LLAMA, "model_type": "lama"}, ("'lama'", "did you mean 'llama'")),
}


def refused(fields: dict[str, Any], folder: Path | None) -> str:
    """What is said of a config: of one to start from (None), or of a model folder."""
    try:
        if folder is None:
            architecture.outline(architecture.make_config(fields), fields=fields)
        else:
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**config, **fields}))
            folders.check_weights(folder, "the model")
            models.check_complete(folder)
    except InputError as error:
        return str(error)
    pytest.fail("it was taken")


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("from_file", [False, True])
def test_an_unknown_word_is_named_with_what_is_known(name: str, from_file: bool) -> None:
    """As options on the command line are, and as a file that transformers wrote."""
    base, wrong, words = WORDS[name]
    if from_file or "attn_implementation" in wrong:  # which no configuration of ours has
        base = {**base, "architectures": ["X"], "transformers_version": "4.31.0"}
    said = refused({**base, **wrong}, None)
    assert all(word in said for word in words), said
    assert "KeyError" not in said
    assert "\n" not in said
    assert len(said) < 700


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders as transformers writes them."""
    home, found = tmp_path_factory.mktemp("models"), {}
    for base in (LLAMA, QWEN, OPT, GPT2, NEO):
        folder = found[base["model_type"]] = home / str(base["model_type"])
        models.build(architecture.make_config(base), seed=0).save_pretrained(folder)
    return found


# a written config has GPT-Neo's attention by layer, which goes before the types
@pytest.mark.parametrize("name", [name for name, (base, *_) in WORDS.items() if base and base is not NEO])
def test_so_it_is_in_a_model_folder(name: str, written: dict[str, Path], tmp_path: Path) -> None:
    base, wrong, words = WORDS[name]
    folder = tmp_path / "model"
    folder.mkdir()
    for file in written[base["model_type"]].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    said = refused(wrong, folder)
    assert str(folder) in said
    assert all(word in said for word in words), said
    assert "KeyError" not in said


def test_the_command_line_says_it(tmp_path: Path) -> None:
    config = e2e.write_experiment(tmp_path)
    for setting, word in (
        ("model.config.activation_function=geluu", "activation_function is 'geluu' (did you mean 'gelu'?)"),
        ("model.config.model_type=optt", "'optt' (did you mean 'opt'?)"),
    ):
        found = e2e.collapse("run", config, "--runs-dir", tmp_path / "runs", "--set", setting)
        assert found.code == 2
        assert found.err.count("\n") == 1
        assert word in found.err


def test_other_errors_keep_their_words() -> None:
    """A word that an error only happens to hold is not blamed, nor one that is known."""
    fields = {**LLAMA, "hidden_act": "silu", "name_or_path": "a model"}
    assert unknown_choice(ValueError("silu takes no such thing"), fields) == ""
    assert unknown_choice(ValueError("a model has layers"), fields) == ""
    assert unknown_choice(KeyError(), fields) == ""
    assert unknown_choice(KeyError("a model"), fields) == "name_or_path is 'a model', which llama models do not know"
    assert first_line(KeyError("Missing required keys: {'factor'}")) == "Missing required keys: {'factor'}"
    assert first_line(KeyError("x")) == "KeyError 'x'"


def test_a_rotation_that_lacks_what_it_needs_says_what() -> None:
    said = refused({**LLAMA, "rope_scaling": {"rope_type": "linear"}}, None)
    assert "factor" in said
    assert "KeyError" not in said
