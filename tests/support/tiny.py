"""Tiny models and rows for tests of the language-model engine: two layers, large random weights, float32."""

from typing import Any

import numpy as np
import torch

from collapse_cli.data.dataset import Dataset

VOCABULARY = 97
PAD, END = 1, 2
KINDS = ("opt", "gpt2", "llama")


def tiny_model(
    kind: str, *, seed: int = 0, vocabulary: int = VOCABULARY, tied: bool = True, dropout: float = 0.0
) -> Any:
    """A model of a family. The weights are large enough that its choices are far from ties."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

    tokens = {"vocab_size": vocabulary, "pad_token_id": PAD, "bos_token_id": END, "eos_token_id": END}
    common = tokens | {"tie_word_embeddings": tied}
    torch.manual_seed(seed)
    if kind == "opt":
        config = OPTConfig(
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            dropout=dropout,
            init_std=0.3,
            **common,
        )
        return OPTForCausalLM(config).eval()
    if kind == "gpt2":
        config = GPT2Config(
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=64,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            initializer_range=0.3,
            **common,
        )
        return GPT2LMHeadModel(config).eval()
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attention_dropout=dropout,
        initializer_range=0.3,
        **common,
    )
    return LlamaForCausalLM(config).eval()


def rows_of(tokens: np.ndarray, lengths: Any = None, **arrays: np.ndarray) -> Dataset:
    """Real rows of tokens; full ones unless `lengths` says otherwise."""
    count, width = tokens.shape
    used = np.full(count, width, np.int32) if lengths is None else np.asarray(lengths, np.int32)
    return Dataset({"tokens": tokens.astype(np.int32), "lengths": used, **arrays}, np.zeros(count, np.int32))


def random_rows(
    count: int, width: int, *, seed: int = 0, vocabulary: int = VOCABULARY, ragged: bool = False
) -> Dataset:
    """Random tokens (no special ones), each row with a stream of its own; `ragged`: 2..width tokens are used."""
    random = np.random.default_rng(seed)
    tokens = random.integers(4, vocabulary, (count, width))
    lengths = random.integers(2, width + 1, count) if ragged else None
    return rows_of(tokens, lengths, stream=np.arange(count))


def losses(model: Any, tokens: np.ndarray) -> np.ndarray:
    """(len - 1,) negative log-likelihood of each token but the first given all before it, in float64."""
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0, :-1].double()
    odds = logits - logits.logsumexp(dim=1, keepdim=True)
    result: np.ndarray = -odds[torch.arange(len(tokens) - 1), torch.from_numpy(tokens[1:].astype(np.int64))].numpy()
    return result
