"""GGUF files: read as transformers reads them, hashed by their content, and refused in one line where they cannot be read."""

import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from support import e2e, packed

from collapse_cli.config.tree import DataConfig, ModelConfig
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.learners import text_inputs
from collapse_cli.lm import folders, model, places, text
from collapse_cli.lm import gguf as gguf_files

KINDS = ("F16", "Q8_0", "Q4_1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`text`, a folder of text; a llama model as `KIND.gguf` with the tokenizer of `tokenizer`."""
    folder = tmp_path_factory.mktemp("gguf")
    e2e.write_text(folder / "text")
    bpe = text.train_bpe((folder / "text" / "train.txt").read_text().splitlines(keepends=True), 300)
    bpe.save_pretrained(folder / "tokenizer")
    for kind in KINDS:
        packed.write(folder / f"{kind}.gguf", packed.llama(len(bpe)), bpe.backend_tokenizer, kind)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_that_the_blocks_stand_for(home: Path, kind: str) -> None:
    read, wanted = model.load(home / f"{kind}.gguf").state_dict(), packed.llama(300).state_dict()
    quantised = gguf.GGMLQuantizationType[kind]
    assert len(read) == len(wanted)
    for name, weight in wanted.items():
        if weight.ndim == 2:
            blocks = gguf.quants.quantize(weight.numpy(), quantised)
            weight = torch.from_numpy(gguf.quants.dequantize(blocks, quantised).astype(np.float32))
        assert read[name].dtype == torch.float32
        assert torch.equal(read[name], weight), name


def test_the_tokenizer_is_that_of_the_file(home: Path) -> None:
    mine, wanted = text.load_tokenizer(home / "Q8_0.gguf"), text.load_tokenizer(home / "tokenizer")
    assert wanted.get_vocab().items() <= mine.get_vocab().items()
    assert text.text_range(mine) == len(wanted), "transformers adds one special token, which no text becomes"
    assert (mine.bos_token, mine.eos_token) == ("</s>", "</s>")
    named = text_inputs.find_tokenizer(ModelConfig(tokenizer=str(home / "Q8_0.gguf")), DataConfig(), None)
    assert named.tokenizer is not None
    assert named.tokenizer.get_vocab() == mine.get_vocab()
    assert named.model.tokenizer_sha256 == folders.hash_tokenizer(home / "Q8_0.gguf")
    rows = ["The cat sees\n", "  two  blanks, ünïcode\n", "</s>", "<|endoftext|>"]
    for row in rows:
        coded = text.encode(mine, [row], line_bos=True)
        assert coded.tolist() == text.encode(wanted, [row], line_bos=True).tolist()
        assert mine.decode(coded[1:]) == row


def test_its_perplexity_is_that_of_transformers_and_of_a_folder_that_it_was_converted_to(
    home: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    plain: Any = AutoModelForCausalLM.from_pretrained(home, gguf_file="Q4_1.gguf", dtype=torch.float32).eval()
    converted = tmp_path / "converted"
    model.load(home / "Q4_1.gguf").save_pretrained(converted)
    text.load_tokenizer(home / "Q4_1.gguf").save_pretrained(converted)
    assert not json.loads((converted / "config.json").read_text()).keys() & {"quantization_config"}
    options = ["--data", home / "text", "--set", "data.block_size=16", "--json"]
    own, other = (e2e.collapse("eval", each, *options) for each in (home / "Q4_1.gguf", converted))
    assert (own.code, other.code) == (0, 0), own.err + other.err
    assert own.json["perplexity"] == other.json["perplexity"]
    assert "quantised (Q4_1)" in " ".join(own.json["notes"])
    assert not other.json["notes"]
    stream = text.encode(
        text.load_tokenizer(converted),
        (home / "text" / "test.txt").read_text().splitlines(keepends=True),
        line_bos=False,
    )
    ids = torch.from_numpy(stream[: len(stream) // 16 * 16].astype(np.int64)).reshape(-1, 16)
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(plain(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert own.json["perplexity"] == pytest.approx(float(losses.exp()), rel=1e-5)


def test_a_run_begins_with_it_and_its_models_are_ordinary_folders(home: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    shutil.copy(home / "Q8_0.gguf", tmp_path / "alone")
    options = {
        "data__source": home / "text",
        "data__block_size": 16,
        "data__rows": 24,
        "data__eval_rows": 8,
        "loop__generations": 1,
    }
    options |= {
        "sample__prompt_tokens": 16,
        "sample__new_tokens": 16,
        "sample__decode__beams": 1,
        "train__epochs": 1,
        "train__dtype": "float32",
    }
    settings = [word for key, value in options.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]
    runs = tmp_path / "runs"
    begin = ["run", "--policy", "keep-0", "--runs-dir", runs, "--json", *settings]
    said = e2e.collapse(*begin, "--name", "packed", "--model", home / "Q8_0.gguf")
    assert said.code == 0, said.err
    assert "Q8_0.gguf are quantised" in said.err + said.out
    made = e2e.folder_of(runs, e2e.metrics(runs, "packed")["keep-0", 0, 1]["model_key"])
    assert {"config.json", "model.safetensors"} <= {path.name for path in made.iterdir()}
    assert e2e.collapse("eval", made, "--data", home / "text").code == 0
    again = e2e.collapse(*begin, "--name", "folder", "--model", tmp_path / "alone", "--dry-run")
    assert again.code == 0, again.err
    assert again.json["cached"] == again.json["stages"], "the file's content is the key, not where it lies"
    lora = e2e.collapse(*begin, "--name", "lora", "--model", home / "Q8_0.gguf", "--set", "train.adapter=2")
    assert lora.code == 0, lora.err
    alone = e2e.folder_of(runs, e2e.metrics(runs, "lora")["keep-0", 0, 0]["model_key"])
    assert json.loads((alone / "adapter_config.json").read_text())["base_model_name_or_path"].endswith("Q8_0.gguf")
    assert e2e.collapse("eval", alone, "--data", home / "text").code == 0


def test_keys_follow_the_content_alone(home: Path, tmp_path: Path) -> None:
    copy = shutil.copy(home / "F16.gguf", tmp_path / "other name.gguf")
    assert folders.check_weights(Path(copy), "the model") == folders.check_weights(home / "F16.gguf", "the model")
    hashes = {folders.check_weights(home / f"{kind}.gguf", "the model") for kind in KINDS}
    assert len(hashes) == 3
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "generation_config.json").write_text("{")
    found, _ = folders.find_folder(str(tmp_path), "", "the model")
    assert found == Path(copy)
    assert model.load(found).config.model_type == "llama", "what lies beside it has no say"


def test_a_model_that_was_changed_is_not_the_one_that_is_read_next(home: Path) -> None:
    first = model.load(home / "F16.gguf")
    with torch.no_grad():
        first.lm_head.weight.zero_()
    second = model.load(home / "F16.gguf")
    assert second.lm_head.weight.abs().sum() > 0
    assert second.lm_head.weight is second.get_input_embeddings().weight, "and what was tied is still"


def test_an_adapter_may_lie_on_it(home: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = model.load(home / "Q8_0.gguf")
    settings: dict[str, Any] = {"r": 2, "target_modules": ["q_proj", "up_proj"], "init_lora_weights": False}
    torch.manual_seed(0)
    adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
    adapted.save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(home / "Q8_0.gguf")}))
    on_blocks = folders.check_weights(tmp_path, "the model")
    with torch.no_grad():
        ids = torch.arange(9)[None]
        wanted, plain = adapted.eval()(ids).logits, model.load(home / "Q8_0.gguf")(ids).logits
        assert torch.allclose(model.load(tmp_path)(ids).logits, wanted, atol=1e-4)
        assert (wanted - plain).abs().max() > 0.01
    assert folders.check_weights(tmp_path, "the model", str(home / "F16.gguf")) != on_blocks


def test_untied_heads_and_weights_that_are_missing(home: Path, tmp_path: Path) -> None:
    bpe = text.load_tokenizer(home / "tokenizer").backend_tokenizer
    whole = packed.llama(300, tied=False)
    read = model.load(packed.write(tmp_path / "untied.gguf", whole, bpe, "F16"))
    assert not read.config.tie_word_embeddings
    assert torch.equal(read.lm_head.weight, whole.lm_head.weight.half().float())
    path = packed.write(tmp_path / "lost.gguf", whole, bpe, "F16", leave="model.layers.1.mlp.up_proj.weight")
    folders.check_weights(path, "the model")
    with pytest.raises(InputError, match=r"missing: model\.layers\.1\.mlp\.up_proj\.weight"):
        model.check_complete(path)


# --- what is refused --------------------------------------------------------------------------------------------------


def _cut(path: Path, home: Path) -> None:
    path.write_bytes((home / "Q8_0.gguf").read_bytes()[:-1000])


def _cut_in_its_header(path: Path, home: Path) -> None:
    path.write_bytes((home / "Q8_0.gguf").read_bytes()[:900])


def _without_heads(path: Path, home: Path) -> None:
    whole = (home / "Q8_0.gguf").read_bytes()
    assert whole.count(b"attention.head_count\4") == 1
    path.write_bytes(whole.replace(b"attention.head_count\4", b"attention.head_cxunt\4"))


def _foreign(path: Path, home: Path) -> None:
    path.write_bytes(b"PK\3\4 no such file")


def _empty(path: Path, home: Path) -> None:
    path.write_bytes(b"")


def _unknown(path: Path, home: Path) -> None:
    packed.write(path, packed.llama(300), None, "F16", architecture="rwkv6")


def _part(path: Path, home: Path) -> None:
    packed.write(path, packed.llama(300), None, "F16", parts=3)


def _adapter(path: Path, home: Path) -> None:
    packed.write(path, packed.llama(300), None, "F16", adapter=True)


def _without_tokenizer(path: Path, home: Path) -> None:
    packed.write(path, packed.llama(300), None, "F16")


def _several(path: Path, home: Path) -> None:
    path.mkdir()
    for kind in KINDS:
        shutil.copy(home / f"{kind}.gguf", path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_cut, "is damaged, or only a part of a file"),
        (_cut_in_its_header, "is damaged, or only a part of a file"),
        (_without_heads, "has lost settings: attention.head_count"),
        (_foreign, "is no GGUF file, whatever its name says"),
        (_empty, "is no GGUF file, whatever its name says"),
        (_unknown, "reads no GGUF files of the architecture 'rwkv6'"),
        (_adapter, "is an adapter in llama.cpp's form, and collapse reads peft's"),
        (_part, "is one of 3 parts of a model; join them first"),
        (_without_tokenizer, "holds no tokenizer; name one with --set model.tokenizer=FOLDER"),
        (_several, "holds 3 GGUF files; give one of them by its name"),
    ],
)
def test_files_that_cannot_be_read_are_said_in_a_line(
    make: Callable[[Path, Path], None], said: str, home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    make(path, home)
    answer = e2e.collapse("eval", path, "--data", home / "text")
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") <= 2
    assert "there is no run" not in answer.err


def test_a_file_that_is_not_there_and_one_that_is_a_pipe(tmp_path: Path) -> None:
    answer = e2e.collapse("eval", tmp_path / "none.gguf", "--data", tmp_path)
    assert answer.code == 2
    assert "there is no file" in answer.err


def test_a_repository_of_the_hub_with_gguf_files_alone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(folders, "hub_revision", lambda *_: "abc")
    monkeypatch.setattr(
        huggingface_hub, "list_repo_files", lambda *_, **__: ["README.md", "m.Q4_K_M.gguf", "m.Q8_0.gguf"]
    )
    with pytest.raises(
        InputError, match=r"'of/m-GGUF' has only GGUF files \(m\.Q4_K_M\.gguf, m\.Q8_0\.gguf\); download the one"
    ):
        folders.find_folder("of/m-GGUF", "", "the model")


@pytest.mark.parametrize("module", places.READS_GGUF)
def test_a_missing_extra_is_said_before_anything_is_read(
    module: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = places.importlib.util.find_spec
    monkeypatch.setattr(places.importlib.util, "find_spec", lambda name: None if name == module else found(name))
    with pytest.raises(
        ConfigError, match=rf"takes {module}, which is not installed: pip install 'collapse-cli\[gguf\]'"
    ):
        places.check_gguf(home / "F16.gguf", "the model")


def test_a_broken_extra_is_a_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", types.ModuleType("gguf"))
    gguf_files._read_header.cache_clear()
    with pytest.raises(ConfigError, match=r"cannot be loaded \(cannot import name 'GGUFReader'.* install it again"):
        gguf_files._header(home / "F16.gguf")


# --- what transformers does not read, and says nothing of -----------------------------------------------------------------

LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _scaled(file: gguf.GGUFWriter, rope: dict[str, Any]) -> None:
    """As llama.cpp's converter writes it: of Llama 3's scaling nothing but by how much each frequency is divided."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if rope["rope_type"] != "llama3":
        file.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        file.add_rope_scaling_factor(rope["factor"])
        if "original_max_position_embeddings" in rope:
            file.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        return
    config = LlamaConfig(hidden_size=32, num_attention_heads=4, rope_parameters=rope)
    frequencies = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()
    divisors = rope["rope_theta"] ** (-2 * np.arange(4) / 8) / frequencies
    assert divisors.round(2).tolist() == [1.0, 1.0, 2.69, 8.0], (
        "a kept one, one between, and one that is divided by all"
    )
    file.add_tensor("rope_freqs.weight", divisors.astype(np.float32))


@pytest.mark.parametrize("rope", [LINEAR, YARN, LLAMA3], ids=lambda rope: str(rope["rope_type"]))
def test_rotations_are_scaled_as_a_file_says(tmp_path: Path, rope: dict[str, Any]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {**rope, "rope_theta": 5e5}
    plain = packed.llama(40)
    path = packed.write(tmp_path / "m.gguf", plain, None, "F32", base=5e5, more=lambda file: _scaled(file, rope))
    folders.check_weights(path, "the model")
    read = model.load(path).eval()
    wanted: Any = LlamaForCausalLM(LlamaConfig(**{**plain.config.to_dict(), "rope_parameters": rope})).eval()
    wanted.load_state_dict(plain.state_dict())
    read.save_pretrained(tmp_path / "saved")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(read(ids).logits, wanted(ids).logits)
        assert torch.equal(model.load(tmp_path / "saved").eval()(ids).logits, wanted(ids).logits)
        assert (plain(ids).logits - wanted(ids).logits).abs().max() > 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (lambda file: file.add_tensor("rope_freqs.weight", np.array([1, 2, 4, 8], np.float32)), "what it says of rope_freqs.weight"),
        (lambda file: file.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE), "rope.scaling.type = longrope"),
        (lambda file: file.add_sliding_window(4), "attention.sliding_window = 4"),
        (lambda file: file.add_logit_scale(0.5), "logit_scale = 0.5"),
        (lambda file: file.add_key_length(16), "attention.key_length = 16"),
        (lambda file: file.add_tensor("blk.0.attn_q.bias", np.ones(32, np.float32)), "left over: blk.0.attn_q.bias"),
    ],
)  # fmt: skip
def test_what_would_compute_something_else_is_refused(
    tmp_path: Path, more: Callable[[gguf.GGUFWriter], object], said: str
) -> None:
    path = packed.write(tmp_path / "m.gguf", packed.llama(40), None, "F32", more=more)
    with pytest.raises(InputError) as error:
        model.load(path)
    assert said in str(error.value)
    neutral = packed.write(
        tmp_path / "n.gguf", packed.llama(40), None, "F32", more=lambda file: file.add_rope_scaling_attn_factors(1.0)
    )
    model.load(neutral)


@pytest.mark.parametrize(("cut", "said"), [("gpt-2", False), ("llama-bpe", False), ("deepseek-coder", True)])
def test_a_tokenizer_that_cuts_text_in_a_way_that_is_not_known_is_said(
    home: Path, tmp_path: Path, cut: str, said: bool
) -> None:
    bpe: Any = text.load_tokenizer(home / "tokenizer")
    path = packed.write(tmp_path / "m.gguf", packed.llama(300), bpe.backend_tokenizer, "F16", cut=cut)
    assert ["deepseek-coder" in note for note in gguf_files.notes(path, "the model")] == [True] * said
