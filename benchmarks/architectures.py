"""Which way collapse goes with each causal architecture of transformers: tiny models with random weights.

    .venv/bin/python benchmarks/architectures.py            # goes on where it was; writes docs/architectures.md

What is found is kept in runs/architectures.jsonl, a line an architecture. Rows are of 40 tokens at most, windows are of
16. An architecture is left out where a tiny model of it cannot be made from the settings that most have.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from collapse_cli.data import Dataset
from collapse_cli.lm import fallback
from collapse_cli.lm.decode import try_out
from collapse_cli.lm.packing import abilities
from collapse_cli.lm.score import score_blocks

ROOT = Path(__file__).parent.parent
FOUND, TABLE = ROOT / "runs" / "architectures.jsonl", ROOT / "docs" / "architectures.md"
REACH = 40
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
FIRST = ("opt", "gpt2", "llama", "phimoe", "rwkv", "recurrent_gemma", "mistral", "gemma3_text", "mamba", "bloom")
MOST_PARAMETERS = 20_000_000  # more: the architecture has other names for its sizes


def tiny(kind: str) -> Any:
    """A tiny random model."""
    config = transformers.AutoConfig.for_model(kind, **SIZES)
    if getattr(config, "sliding_window", None):
        config.sliding_window = 16
    if hasattr(config, "is_decoder"):  # BERT's kinds see what comes later otherwise
        config.is_decoder = True
    with torch.device("meta"):
        count = sum(each.numel() for each in transformers.AutoModelForCausalLM.from_config(config).parameters())
    if count > MOST_PARAMETERS:
        raise ValueError(f"{count:,} parameters")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, 0, 0.25)
    return model


@torch.no_grad()
def scoring_error(model: Any) -> float:
    """The largest difference, in nats, of a row scored among 16 of unequal length from the row alone."""
    lengths = np.resize(np.array([REACH, 3, 10, 16, 17, 30], np.int32), 16)
    tokens = np.random.default_rng(0).integers(4, SIZES["vocab_size"], (16, REACH)).astype(np.int32)
    nll, _ = score_blocks(model, Dataset({"tokens": tokens, "lengths": lengths}, np.zeros(16, np.int32)))
    worst = 0.0
    for row, length in enumerate(lengths):
        ids = torch.from_numpy(tokens[row : row + 1, :length].astype(np.int64))
        odds = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(1)
        worst = max(worst, abs(float(nll[row]) + float(odds.gather(1, ids[0, 1:, None]).sum())))
    return worst


def look(kind: str) -> dict[str, Any]:
    """What is found of an architecture."""
    try:
        model = tiny(kind)
        model(input_ids=torch.arange(4, REACH)[None], use_cache=False)
    except Exception as error:  # each fails in its own way
        return {"kind": kind, "left out": type(error).__name__}
    try:
        able, trial = abilities(model, REACH, gradients=True), try_out(model, REACH)
        sampled = "engine"
        if trial.why_not:
            way = fallback.find_way(model, REACH, 2, 1)
            sampled = "refused" if way is None else f"generate{way.said()}"
        row = "packed" if able.packs else "mixed" if able.mixes else "of one length" if able.together else "alone"
        attention = "ours" if able.attends else "its own"
        return {"kind": kind, "sampling": sampled, "attention": attention, "rows": row, "nats": scoring_error(model)}
    except Exception as error:
        return {"kind": kind, "failed": f"{type(error).__name__}: {error}"[:100]}


def table(found: list[dict[str, Any]]) -> str:
    """The document."""
    good, failed = [one for one in found if "sampling" in one], [one for one in found if "failed" in one]
    lines = [
        "# Architectures",
        "",
        f"Made by `benchmarks/architectures.py` with transformers {transformers.__version__}: tiny models, rows of up to "
        f"{REACH} tokens, windows of 16. The last column is the largest difference, in nats, of the score of a row among 16 "
        "of unequal length from its score alone.",
        "",
        "| architecture | sampling | attention in training and scoring | rows | difference |",
        "|---|---|---|---|---|",
        *(f"| {e['kind']} | {e['sampling']} | {e['attention']} | {e['rows']} | {e['nats']:.1e} |" for e in good),
    ]
    if failed:
        lines += ["", "Failed: " + "; ".join(f"{one['kind']} ({one['failed']})" for one in failed) + "."]
    left = ", ".join(one["kind"] for one in found if "left out" in one)
    lines += ["", f"Left out, because these settings do not make a tiny model of them: {left}.", ""]
    todo = [kind for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if kind not in {one["kind"] for one in found}]
    if todo:
        lines += [f"Not looked at yet: {', '.join(todo)}.", ""]
    return "\n".join(lines)


def main() -> None:
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    FOUND.parent.mkdir(exist_ok=True)
    found = [json.loads(line) for line in FOUND.read_text().splitlines()] if FOUND.exists() else []
    known = {one["kind"] for one in found}
    for kind in (*FIRST, *(other for other in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if other not in FIRST)):
        if kind not in known:
            found.append(look(kind))
            with FOUND.open("a") as file:
                file.write(json.dumps(found[-1]) + "\n")
        TABLE.write_text(table(found))


if __name__ == "__main__":
    main()
