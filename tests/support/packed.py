"""Tiny GGUF files, written with the `gguf` package as llama.cpp's converter writes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer

WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
OF_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def llama(vocabulary: int, *, tied: bool = True, seed: int = 0) -> Any:
    """A llama model whose rows are as long as a block of quantised numbers, 32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": tied}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, initializer_range=0.3, **sizes, **heads, **ends)).eval()


def write(
    path: Path,
    model: Any,
    tokenizer: Tokenizer | None,
    kind: str,
    *,
    architecture: str = "llama",
    leave: str = "",
    parts: int = 1,
    adapter: bool = False,
    base: float = 10_000.0,
    cut: str = "gpt-2",
    more: Callable[[gguf.GGUFWriter], object] | None = None,
) -> Path:
    """A model and its byte-level BPE as a GGUF file.

    Args:
        kind: of its matrices' numbers: F16, Q8_0, Q4_1 ….
        leave: a weight that is left out.
        parts: in how many files it says that the model is.
        adapter: whether it says that it is no model, but an adapter.
        base: of the frequencies of the rotations.
        cut: how the tokenizer cuts text into words, by llama.cpp's name.
        more: writes what else is in it.
    """
    config, file = model.config, gguf.GGUFWriter(path, architecture)
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_block_count(config.num_hidden_layers)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_freq_base(base)
    file.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    file.add_vocab_size(config.vocab_size)
    if adapter:
        file.add_type("adapter")
    if parts > 1:
        file.add_uint16("split.count", parts)
    if more is not None:
        more(file)
    if tokenizer is not None:
        _add_tokenizer(file, tokenizer, cut)
    for name, weight in model.state_dict().items():
        if name != leave and not (name == "lm_head.weight" and config.tie_word_embeddings):
            _add(file, name, weight.numpy(), config, gguf.GGMLQuantizationType[kind])
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


def _add_tokenizer(file: gguf.GGUFWriter, tokenizer: Tokenizer, cut: str) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    end = model["vocab"]["</s>"]
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre(cut)
    file.add_token_list(tokens)
    file.add_token_types([gguf.TokenType.CONTROL if token == "</s>" else gguf.TokenType.NORMAL for token in tokens])
    file.add_token_merges([" ".join(pair) for pair in model["merges"]])
    file.add_bos_token_id(end)
    file.add_eos_token_id(end)


def _add(file: gguf.GGUFWriter, name: str, values: np.ndarray, config: Any, kind: gguf.GGMLQuantizationType) -> None:
    if name in WHOLE:
        packed = WHOLE[name]
    else:
        _, _, layer, rest = name.split(".", 3)
        part = rest.removesuffix(".weight")
        packed = f"blk.{layer}.{OF_LAYER[part]}.weight"
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(part.split(".")[-1])
        if heads:  # llama.cpp rotates neighbours, transformers halves
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
    if values.ndim == 1:
        file.add_tensor(packed, values.astype(np.float32))
    else:
        file.add_tensor(packed, gguf.quants.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
