"""Folders that are not the model they say they are: refused in one line, or scored as the whole model is."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.tiny import tiny_model

from collapse_cli.config.tree import DataConfig, ModelConfig
from collapse_cli.errors import InputError
from collapse_cli.learners import text_inputs
from collapse_cli.lm import architecture, folders
from collapse_cli.lm import model as models
from collapse_cli.lm import text as texts

VOCABULARY = 64
Weights = dict[str, torch.Tensor]


def random_model(kind: str = "llama", **fields: Any) -> Any:
    """A tiny model with large random weights, so that a wrong weight shows."""
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    config = transformers.AutoConfig.for_model(kind, **(common | fields))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, 0, 0.25)
    return model.eval()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole model with an output head of its own."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    random_model().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def rename(change: Callable[[str], str]) -> Callable[[Weights], Weights]:
    return lambda weights: {change(name): weight for name, weight in weights.items()}


def without(*names: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: weight for name, weight in weights.items() if name not in names}


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    file = folder / "model.safetensors"
    weights = {name: weight.contiguous().clone() for name, weight in change(load_file(file)).items()}
    save_file(weights, file, {"format": "pt"})


def configure(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    kept = {name: value for name, value in (json.loads(file.read_text()) | fields).items() if value is not None}
    file.write_text(json.dumps(kept))


def opened(folder: Path) -> Any:
    """Checked and loaded, as a run does."""
    folders.check_weights(folder, "the model")
    return models.load(folder)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=torch.arange(12)[None], use_cache=False).logits
    return found


WRONG_WEIGHTS: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "no output head": (without("lm_head.weight"), "missing: lm_head.weight"),
    "one weight gone": (without("model.layers.1.mlp.up_proj.weight"), "missing: model.layers.1.mlp.up_proj.weight"),
    "compiled": (rename(lambda name: "_orig_mod." + name), "left over: _orig_mod"),
    "wrapped": (rename(lambda name: "module." + name), "left over: module"),
    "a weight of nobody": (lambda weights: weights | {"score.weight": torch.ones(2, 16)}, "left over: score.weight"),
    "another vocabulary": (
        lambda weights: weights | {"model.embed_tokens.weight": torch.ones(VOCABULARY + 8, 16)},
        r"of another shape: model.embed_tokens.weight \(72, 16\) for \(64, 16\)",
    ),
    "not a number": (
        lambda weights: weights | {"model.norm.weight": torch.full((16,), torch.nan)},
        "NaN or infinite in model.norm.weight",
    ),
    "infinite": (
        lambda weights: weights | {"lm_head.weight": torch.full((VOCABULARY, 16), torch.inf)},
        "NaN or infinite in lm_head.weight",
    ),
    "bytes": (
        lambda weights: {name: (weight * 10).to(torch.int8) for name, weight in weights.items()},
        "holds I8 numbers.*quantised",
    ),
    "8-bit floats": (
        lambda weights: {name: weight.to(torch.float8_e4m3fn) for name, weight in weights.items()},
        "holds F8_E4M3 numbers.*quantised",
    ),
}


@pytest.mark.parametrize("case", WRONG_WEIGHTS)
def test_weights_that_are_not_the_models_are_refused_by_name(case: str, folder: Path) -> None:
    change, said = WRONG_WEIGHTS[case]
    rewrite(folder, change)
    with pytest.raises(InputError, match=said) as error:
        opened(folder)
    assert "\n" not in str(error.value)


HARMLESS: dict[str, Callable[[Weights], Weights]] = {
    "as it is": lambda weights: weights,
    "the prefix that a bare trunk lacks": rename(lambda name: name.removeprefix("model.")),
    "frequencies of rotation, as old checkpoints hold": lambda weights: (
        weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    ),
    "positions, as old checkpoints hold": lambda weights: weights | {"model.position_ids": torch.arange(32)[None]},
    "half precision of exact values": lambda weights: {name: weight.half().float() for name, weight in weights.items()},
}


@pytest.mark.parametrize("case", HARMLESS)
def test_harmless_differences_give_the_whole_model(case: str, folder: Path) -> None:
    rewrite(folder, HARMLESS[case])
    want = random_model()
    if case.startswith("half"):
        want = want.half().float()
    np.testing.assert_allclose(logits(opened(folder)), logits(want), rtol=1e-5, atol=1e-5)


def test_weights_in_half_precision_are_read_as_float32(folder: Path) -> None:
    rewrite(folder, lambda weights: {name: weight.to(torch.bfloat16) for name, weight in weights.items()})
    assert {weight.dtype for weight in opened(folder).parameters()} == {torch.float32}


def test_a_tied_head_need_not_be_in_the_file(tmp_path: Path) -> None:
    model = random_model(tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    np.testing.assert_allclose(logits(opened(tmp_path / "tied")), logits(model), rtol=1e-5, atol=1e-5)


def test_two_different_tables_in_the_file_go_before_a_config_that_ties_them(folder: Path) -> None:
    configure(folder, tie_word_embeddings=True)
    np.testing.assert_allclose(logits(opened(folder)), logits(random_model()), rtol=1e-5, atol=1e-5)


WRONG_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "fewer layers": ({"num_hidden_layers": 1}, "left over: model.layers.1"),
    "more layers": ({"num_hidden_layers": 3}, "missing: model.layers.2"),
    "more heads": ({"num_attention_heads": 8}, "of another shape"),
    "many more parameters": ({"hidden_size": 4096, "intermediate_size": 11008}, "describes a model of .* parameters"),
    "lost sizes": ({"hidden_size": None, "intermediate_size": None}, "lost settings: hidden_size, intermediate_size"),
    "heads that do not divide": ({"num_attention_heads": 3, "head_dim": None}, "config|cannot predict|shape"),
    "too many layers to make": ({"num_hidden_layers": 10**8}, "100,000,000 layers are more than"),
    "quantised by GPTQ": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantised \(gptq\)"),
    "quantised by bitsandbytes": (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        r"quantised \(bitsandbytes\).*call model\.dequantize\(\), and save that",
    ),
    "quantised by AWQ": (
        {"quantization_config": {"quant_method": "awq"}},
        r"quantised \(awq\).*or a GGUF file of the model",
    ),
    "in compressed tensors": (
        {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}},
        r"quantised \(compressed-tensors\).*CompressedTensorsConfig\(dequantize=True\)",
    ),
    "quantised by torchao": ({"quantization_config": {"quant_method": "torchao"}}, r"quantised \(torchao\)"),
    "not causal": ({"model_type": "t5"}, "no causal language model"),
    "unknown": ({"model_type": "nobodys"}, "cannot be used: model_type is .nobodys."),
    "code of its own": ({"model_type": "nobodys", "auto_map": {"AutoConfig": "mine.Mine"}}, "code|config cannot"),
}


@pytest.mark.parametrize("case", WRONG_CONFIGS)
def test_configs_that_are_not_the_weights_are_refused(case: str, folder: Path) -> None:
    fields, said = WRONG_CONFIGS[case]
    configure(folder, **fields)
    with pytest.raises(InputError, match=said) as error:
        opened(folder)
    assert "\n" not in str(error.value)


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


class Hostile:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("unpickled"),))


def unpickling(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Hostile()}, folder / "pytorch_model.bin")


def old_pickle(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def sharded(folder: Path) -> dict[str, str]:
    random_model().save_pretrained(folder, max_shard_size="8KB")
    (folder / "model.safetensors").unlink()
    found: dict[str, str] = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    return found


def index_without_a_weight(folder: Path) -> None:
    kept = {name: shard for name, shard in sharded(folder).items() if name != "lm_head.weight"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": kept}))


def shard_gone(folder: Path) -> None:
    (folder / sharded(folder)["lm_head.weight"]).unlink()


def index_damaged(folder: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").write_text("[]")


def pipe(path: Path) -> None:
    """What whoever opens it waits at, until somebody writes."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def mark(folder: Path) -> None:
    file = folder / "config.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())


def only(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(content)

    return change


WRONG_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an index that leaves a weight out": (index_without_a_weight, "missing: lm_head.weight"),
    "an index that names a missing file": (shard_gone, "names files that are not there"),
    "an index that is none": (index_damaged, "is damaged"),
    "cut short": (lambda f: (f / "model.safetensors").write_bytes(b"\x08"), "is damaged"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "is empty"),
    "a pointer": (lambda f: pointer(f / "model.safetensors"), "git-lfs pointer"),
    "a config that is a pointer": (lambda f: pointer(f / "config.json"), "git-lfs pointer"),
    "a .bin that is a pointer": (only("pytorch_model.bin", b"version https://git-lfs"), "git-lfs pointer"),
    "a hostile .bin": (unpickling, "holds program code beside weights, which is never run"),
    "a damaged .bin": (only("pytorch_model.bin", b"PK\x03\x04nothing"), "pytorch_model.bin|cannot be loaded"),
    "an adapter": (only("adapter_model.safetensors"), "holds an adapter"),
    "an adapter beside a model": (lambda f: (f / "adapter_config.json").write_text("{}"), "holds an adapter"),
    "GGUF": (only("model-q4.gguf"), "GGUF"),
    "ONNX": (only("model.onnx"), "ONNX"),
    "weights of a variant only": (only("model.fp16.safetensors"), "variant only .*; rename it to model.safetensors"),
    "a pipe for weights": (lambda f: pipe(f / "model.safetensors"), "model.safetensors is a named pipe"),
    "a pipe for a config": (lambda f: pipe(f / "generation_config.json"), "generation_config.json is a named pipe"),
    "a config with a mark": (mark, "config.json begins with a byte order mark"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_files_that_are_no_model_are_refused(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    change, said = WRONG_FILES[case]
    change(folder)
    with pytest.raises(InputError, match=said) as error:
        opened(folder)
    assert "\n" not in str(error.value)
    assert not Path("unpickled").exists()


def test_an_old_bin_and_shards_are_read(folder: Path, tmp_path: Path) -> None:
    old, parts = folder, Path(shutil.copytree(folder, tmp_path / "parts"))
    old_pickle(old)
    sharded(parts)
    for each in (old, parts):
        np.testing.assert_allclose(logits(opened(each)), logits(random_model()), rtol=1e-5, atol=1e-5)


OTHER_MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "a classifier": (
        lambda: transformers.LlamaForSequenceClassification(random_model().config),
        "LlamaForSequenceClassification.*missing: lm_head.weight; left over: score.weight",
    ),
    "a trunk": (lambda: transformers.LlamaModel(random_model().config), "missing: lm_head.weight"),
    "BART, encoder and decoder": (
        lambda: transformers.BartForConditionalGeneration(
            transformers.BartConfig(
                vocab_size=VOCABULARY, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
            )
        ),
        "left over: .*encoder",
    ),
    "BERT": (
        lambda: transformers.BertForMaskedLM(
            transformers.BertConfig(
                vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
            )
        ),
        "not causal",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_MODELS)
def test_models_with_another_purpose_are_refused(case: str, tmp_path: Path) -> None:
    make, said = OTHER_MODELS[case]
    make().save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=said):
        opened(tmp_path / "model")


@pytest.mark.parametrize(
    ("kind", "fields", "want"),
    [
        ("opt", {"ffn_dim": 24, "word_embed_proj_dim": 16}, 32),
        ("gpt2", {"n_embd": 16, "n_head": 2, "n_layer": 1, "n_positions": 48}, 48),
        ("roberta", {"is_decoder": True, "pad_token_id": 1, "max_position_embeddings": 34}, 32),
        ("mpt", {"d_model": 16, "n_heads": 2, "n_layers": 1, "max_seq_len": 40}, 40),
        ("bloom", {"hidden_size": 16, "n_head": 2, "n_layer": 1, "seq_length": 2048}, 2048),
        ("mamba", {"state_size": 4}, None),
    ],
)
def test_how_many_tokens_a_model_takes(kind: str, fields: dict[str, Any], want: int | None) -> None:
    taken = ("roberta", "opt", "llama")
    base = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    if kind in taken:
        base |= {"intermediate_size": 16, "max_position_embeddings": 32}
    config = transformers.AutoConfig.for_model(kind, **(base | fields))
    found = architecture.outline(config).positions
    assert found == want or (kind == "bloom" and found is None)
    if kind in taken:  # as many tokens as it says, and no more
        model = transformers.AutoModelForCausalLM.from_config(config)
        model(input_ids=torch.zeros(1, want, dtype=torch.long) + 5)
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.zeros(1, want + 1, dtype=torch.long) + 5)


def test_a_tokenizers_ids_may_have_gaps() -> None:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds

    inner = Tokenizer(kinds.WordLevel({"<unk>": 0, "a": 1, "b": 90}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    assert (len(tokenizer), texts.id_range(tokenizer)) == (3, 91)


# --- what no shape of a weight tells ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("rope_parameters", "lost settings: rope_parameters"),
        ("rms_norm_eps", "lost settings: rms_norm_eps"),
    ],
)
def test_a_setting_that_a_config_has_lost_is_named(lost: str, said: str, folder: Path) -> None:
    """The weights fit as well with transformers' default, and another perplexity would come out."""
    configure(folder, **{lost: None})
    with pytest.raises(InputError, match=said):
        opened(folder)


def test_another_version_may_write_other_settings_but_heads_must_be_said(folder: Path) -> None:
    """As many heads as transformers takes by itself fit these weights as well as the four that they were made for."""
    model = random_model(hidden_size=32, num_key_value_heads=4)
    model.save_pretrained(folder)
    configure(folder, transformers_version="4.31.0", rope_parameters=None, head_dim=None, num_key_value_heads=None)
    np.testing.assert_allclose(logits(opened(folder)), logits(model), rtol=1e-5, atol=1e-5)
    configure(folder, num_attention_heads=None)
    with pytest.raises(InputError, match="lost settings: num_attention_heads"):
        opened(folder)


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"])
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_below_one_are_named(name: str, value: int, folder: Path) -> None:
    configure(folder, **{name: value})
    with pytest.raises(InputError, match=f"{name} is {value}, but must be at least 1"):
        opened(folder)


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "gpt2"])
def test_a_hundred_million_layers_are_refused_before_a_list_is_made_of_them(kind: str, folder: Path) -> None:
    name = "n_layer" if kind == "gpt2" else "num_hidden_layers"
    configure(folder, model_type=kind, **{name: 10**8})
    with pytest.raises(InputError, match="100,000,000 layers are more than"):
        architecture.config_of(folder)
    with pytest.raises(InputError, match="100,000,000 layers are more than"):
        architecture.make_config({"model_type": kind, name: 10**8})


def test_many_layers_are_counted_without_making_them(monkeypatch: pytest.MonkeyPatch) -> None:
    config = random_model().config
    config.num_hidden_layers = 12
    exact = architecture.outline(config)
    monkeypatch.setattr(architecture, "COUNTED_LAYERS", 8)
    made: list[int] = []
    count = architecture._count
    monkeypatch.setattr(architecture, "_count", lambda few: made.append(few.num_hidden_layers) or count(few))
    assert architecture.outline(config) == exact
    assert made == [2, 4, 6]


def test_whole_numbers_in_a_bin_are_quantised_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({name: (weight * 10).to(torch.int8) for name, weight in weights.items()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"int8.*quantised"):
        opened(folder)


def test_weights_in_8_bit_floats_with_scales_are_read_as_what_they_stand_for(tmp_path: Path) -> None:
    """The format of config.json's quant_method = fp8: a weight is its 8-bit number times the scale of its block."""
    size, whole = 16, tiny_model("llama")
    whole.save_pretrained(tmp_path / "fp8")
    stored: dict[str, torch.Tensor] = {}
    wanted = {name: weight.clone() for name, weight in whole.state_dict().items()}
    for name, weight in whole.state_dict().items():
        if name.endswith("proj.weight"):
            rows, columns = weight.shape
            blocks = weight.reshape(rows // size, size, columns // size, size)
            scale = blocks.abs().amax((1, 3)) / 448
            small = (blocks / scale[:, None, :, None]).to(torch.float8_e4m3fn)
            stored[name], stored[f"{name}_scale_inv"] = small.reshape(rows, columns), scale
            wanted[name] = (small.float() * scale[:, None, :, None]).reshape(rows, columns)
        elif name != "lm_head.weight":
            stored[name] = weight
    save_file(stored, tmp_path / "fp8" / "model.safetensors", {"format": "pt"})
    file = tmp_path / "fp8" / "config.json"
    how = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [size, size]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": how}))
    read = opened(tmp_path / "fp8")
    assert all(torch.equal(weight, wanted[name]) for name, weight in read.state_dict().items())
    assert "quantised (fp8)" in " ".join(folders.notes(tmp_path / "fp8"))
    read.save_pretrained(tmp_path / "plain")
    again = opened(tmp_path / "plain")
    assert all(torch.equal(weight, wanted[name]) for name, weight in again.state_dict().items())
    assert not folders.notes(tmp_path / "plain")
    del stored["model.layers.1.mlp.up_proj.weight"]
    save_file(stored, tmp_path / "fp8" / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        opened(tmp_path / "fp8")


def test_an_index_may_not_name_files_outside_the_folder(folder: Path) -> None:
    """They would be read, and be no part of the model's hash."""
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    names = load_file(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="names files outside the folder"):
        opened(folder)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_weight_in_two_shards_is_refused(folder: Path, ending: str) -> None:
    """Transformers reads both and keeps the later one: another model, and nothing is said."""
    places = sharded(folder)
    first, last = min(places.values()), max(places.values())
    name = next(name for name, shard in places.items() if shard == first)
    weights = load_file(folder / last) | {name: torch.zeros_like(load_file(folder / first)[name])}
    save_file(weights, folder / last, {"format": "pt"})
    if ending == "bin":
        for shard in sorted(set(places.values())):
            torch.save(load_file(folder / shard), folder / f"pytorch_{shard.removesuffix('.safetensors')}.bin")
            (folder / shard).unlink()
        (folder / "model.safetensors.index.json").unlink()
        places = {name: f"pytorch_{shard.removesuffix('.safetensors')}.bin" for name, shard in places.items()}
        index = {"metadata": {}, "weight_map": places}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"holds weights twice, in .*{name}"):
        folders.check_weights(folder, "the model")


def test_a_second_set_of_weights_in_a_folder_is_said(folder: Path) -> None:
    """As where a model was saved again in another format: the old weights are read, and the new ones are not."""
    assert folders.notes(folder) == []
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    [note] = folders.notes(folder)
    assert "model.safetensors is read, pytorch_model.bin is not" in note


def test_shards_without_their_index(folder: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(InputError, match=r"parts of weights .* without their index"):
        opened(folder)


def test_a_masked_model_that_is_set_to_decode_is_still_none(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "model")
    configure(tmp_path / "model", is_decoder=True)
    with pytest.raises(InputError, match="BertForMaskedLM, which was trained to see the tokens on both sides"):
        opened(tmp_path / "model")


def test_a_suggestion_how_to_sample_that_is_none_does_not_keep_a_model_from_being_saved(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.3, "top_p": 0.5}')
    opened(folder).save_pretrained(folder.parent / "again")
    np.testing.assert_allclose(logits(opened(folder.parent / "again")), logits(random_model()), rtol=1e-5, atol=1e-5)


def test_no_family_is_taken_for_one_that_has_lost_settings(tmp_path: Path) -> None:
    """The default config of every causal family, as transformers itself has just written it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    refused = {}
    for kind in NAMES:
        try:
            transformers.AutoConfig.for_model(kind).save_pretrained(tmp_path)
        except Exception:
            continue
        try:
            architecture.config_of(tmp_path)
        except InputError as error:
            refused[kind] = str(error)
    assert {kind: said for kind, said in refused.items() if "not of text alone" not in said} == {}
    assert len(refused) < len(NAMES) / 4


# --- tokenizers -------------------------------------------------------------------------------------------------------


def words_tokenizer(*words: str, lower: bool = False) -> Any:
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers import models as kinds

    inner = Tokenizer(kinds.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if lower:
        inner.normalizer = normalizers.Lowercase()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def said_of(tokenizer: Any, *rows: str) -> list[str]:
    return texts.losses(tokenizer, rows, texts.encode(tokenizer, rows, line_bos=False))


def test_what_a_tokenizer_loses_of_a_text_is_said() -> None:
    plain = words_tokenizer("<unk>", "the", "cat")
    assert said_of(plain, "the cat", "the the") == []
    assert "25.0% of the test text's tokens are the unknown token" in said_of(plain, "the cat\n", "the dog\n")[0]
    small = words_tokenizer("<unk>", "the", "cat", lower=True)
    assert "('TheCat' becomes 'thecat')" in said_of(small, "The Cat\n")[0]


@pytest.mark.parametrize(
    ("name", "gone", "changed"),
    [
        ("", "", False),
        ("NFC", "", True),
        ("NFKC", "", True),
        ("Lowercase", "", True),
        ("StripAccents", "", True),
        ("Strip", "line ends", False),
        ("lines", "line ends", False),
        ("blanks", "runs of blanks", False),
        ("both", "line ends and runs of blanks", False),
    ],
)
def test_what_a_normaliser_drops_is_said(name: str, gone: str, changed: bool) -> None:
    """Text that comes back changed, and line ends and blanks that no token stands for; rows are read one by one."""
    from tokenizers import Regex, normalizers

    tokenizer = texts.train_bpe(["the old dog sees a red house\n"] * 20, 290)
    own = {
        "lines": normalizers.Replace("\n", " "),
        "blanks": normalizers.Replace(Regex(" +"), " "),
        "both": normalizers.Replace(Regex(r"\s+"), " "),
    }
    if name:
        tokenizer.backend_tokenizer.normalizer = own.get(name) or getattr(normalizers, name)()
    rows = ["The  old dog\n", "sees   a cafe\u0301\n", "\n", "  a red house\n"]
    said = said_of(tokenizer, *rows)
    drops = [one for one in said if "drops" in one]
    assert [f"the tokenizer drops {gone}: no token stands for them" in one for one in drops] == [True] * bool(gone)
    assert any("does not keep the text" in one for one in said) == changed
    assert len(said) == len(drops) + changed
    if name == "Strip":
        assert texts.losses(tokenizer, rows, texts.encode(tokenizer, rows, line_bos=False), apart=False) == []


def test_special_tokens_that_only_the_tokenizer_has_do_not_count() -> None:
    tokenizer = words_tokenizer("<unk>", "the", "cat")
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    assert (texts.id_range(tokenizer), texts.text_range(tokenizer)) == (4, 3)
    tokenizer.add_tokens(["dog"])
    assert (texts.id_range(tokenizer), texts.text_range(tokenizer)) == (5, 5)


def test_a_tokenizer_with_code_of_its_own_is_not_run(tmp_path: Path) -> None:
    words_tokenizer("<unk>", "a").save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    own = {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}, "tokenizer_class": "Mine"}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    with pytest.raises(InputError, match=r"program code that lies beside it .* never runs"):
        texts.load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: pipe(folder / "tokenizer.json"), "tokenizer.json is a named pipe"),
        (
            lambda folder: (folder / "tokenizer.json").unlink(),
            "it has no tokenizer.json, nor other files that hold tokens",
        ),
    ],
)
def test_a_tokenizer_whose_tokens_are_not_there_is_refused(
    change: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    words_tokenizer("a", "b").save_pretrained(tmp_path)
    change(tmp_path)
    model, data = ModelConfig(tokenizer=str(tmp_path)), DataConfig(source="pydoc")
    with pytest.raises(InputError, match=said):
        text_inputs.find_tokenizer(model, data, None)
