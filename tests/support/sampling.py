"""What tests of sampling share: families of models, our sampling in one call, and transformers' own of the same rows."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from support.tiny import END, KINDS, PAD, VOCABULARY, tiny_model

from collapse_cli.config.tree import DecodeConfig
from collapse_cli.data.dataset import Dataset
from collapse_cli.lm.sample import continue_rows

FAMILIES = (*KINDS, "grouped")  # grouped: a Llama-type model with fewer key-value heads than heads


def grouped(kind: str = "Llama", *, seed: int = 0, tied: bool = False, **changes: Any) -> Any:
    """A tiny model of a family whose configuration has the fields of Llama's; two key-value heads, four heads."""
    import transformers

    fields = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "pad_token_id": PAD,
        "bos_token_id": END,
        "eos_token_id": END,
        "tie_word_embeddings": tied,
    }
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**fields | changes)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@lru_cache
def family(name: str, seed: int = 0, eager: float = 1.0) -> Any:
    """A model, made once, not to be changed; `eager`: how much the output embedding of the end token is enlarged."""
    model = grouped(seed=seed) if name == "grouped" else tiny_model(name, seed=seed, tied=False)
    model.get_output_embeddings().weight.data[END] *= eager
    return model


def wide_model(seed: int = 0) -> Any:
    """A model whose matrices are large enough for oneDNN."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=1000,
        hidden_size=128,
        word_embed_proj_dim=128,
        ffn_dim=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        init_std=0.1,
    )
    return OPTForCausalLM(config).eval()


def continued(
    model: Any,
    prompts: Dataset,
    scratch: Path | None = None,
    *,
    new: int = 6,
    seed: int = 0,
    end: int | None = END,
    dtype: str = "float32",
    tell: Any = lambda done, total: None,
    rows: slice = slice(None),
    **how: Any,
) -> Dataset:
    """Our sampling; `how` are options of `DecodeConfig`."""
    if scratch is None:
        with TemporaryDirectory() as folder:
            more = {"new": new, "seed": seed, "end": end, "dtype": dtype, "tell": tell, "rows": rows}
            return continued(model, prompts, Path(folder), **more, **how)
    scratch.mkdir(parents=True, exist_ok=True)
    return continue_rows(
        model,
        prompts,
        new,
        DecodeConfig(**how),
        dtype=dtype,
        end=end,
        pad=PAD,
        seed=seed,
        scratch=scratch,
        tell=tell,
        rows=rows,
    )


def generated(model: Any, prompts: Dataset, *, new: int = 6, least: int = -1, **options: Any) -> np.ndarray:
    """(rows, new) what transformers' `generate` makes of prompts, which it wants padded on the left."""
    tokens, lengths = prompts.arrays["tokens"].astype(np.int64), prompts.arrays["lengths"]
    width = tokens.shape[1]
    mask = np.arange(width) >= width - lengths[:, None]
    ids = np.full_like(tokens, PAD)
    ids[mask] = tokens[mask[:, ::-1]]
    made = model.generate(
        torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask.astype(np.int64)),
        max_new_tokens=new,
        min_new_tokens=new if least < 0 else least,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=PAD,
        **options,
    )[:, width:].numpy()
    return np.pad(made, ((0, 0), (0, new - made.shape[1])), constant_values=PAD)


def chi_square(counts: np.ndarray, wanted: np.ndarray) -> float:
    """How many standard deviations the statistic lies above its mean; cells with few draws are put together."""
    total = counts.sum()
    few = wanted * total < 5
    counts = np.append(counts[~few], counts[few].sum())
    wanted = np.append(wanted[~few], wanted[few].sum())
    counts, wanted = counts[wanted > 0], wanted[wanted > 0]
    freedom = len(counts) - 1
    statistic = float(((counts - total * wanted) ** 2 / (total * wanted)).sum())
    return float((statistic - freedom) / np.sqrt(2 * freedom))


def warped(logits: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float = 0.0) -> np.ndarray:
    """Probabilities (rows, vocabulary) that transformers' own warpers leave."""
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    steps: list[Any] = [TemperatureLogitsWarper(temperature)]
    steps += [TopKLogitsWarper(top_k)] if top_k else []
    steps += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    steps += [MinPLogitsWarper(min_p)] if min_p else []
    scores = logits.double()
    for step in steps:
        scores = step(None, scores)
    probabilities: np.ndarray = scores.softmax(1).numpy()
    return probabilities
