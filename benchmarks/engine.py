"""Tokens per second of training, sampling and scoring, beside the plain transformers way, as JSON.

    make bench                                        # a small OPT, in a few minutes on two cores
    .venv/bin/python benchmarks/engine.py --model opt125m --parts train,score

Every row gives ours, the plain way at the same settings, and their ratio, measured in turn in one process: on a shared
machine the ratios are to be quoted, the tokens/s only beside them. Weights are random; shapes and vocabulary are real.
Plain means: transformers' Trainer, `generate`, and a loop over `model(input_ids, labels)`.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collapse_cli.data import Dataset
from collapse_cli.lm import model as models
from collapse_cli.lm.sample import continue_rows
from collapse_cli.lm.score import score_blocks
from collapse_cli.lm.train import fit
from collapse_cli.rundir import hardware, versions
from collapse_cli.runner import quiet_libraries

SHAPES: dict[str, dict[str, Any]] = {
    # the model of the preset `quick`
    "quick": {"vocab_size": 512, "hidden_size": 64, "ffn_dim": 256, "num_hidden_layers": 2, "num_attention_heads": 2},
    # the model of the preset `wikitext2-small`
    "small": {"vocab_size": 50272, "hidden_size": 64, "ffn_dim": 256, "num_hidden_layers": 4, "num_attention_heads": 2},
    "opt125m": {"vocab_size": 50272},
}
WIDTH = 64
DECODES: dict[str, dict[str, Any]] = {
    "beams 5": {"beams": 5, "temperature": 0.0, "top_k": 0},
    "temperature 1": {"beams": 1, "temperature": 1.0, "top_k": 0},
    "top-k 50": {"beams": 1, "temperature": 1.0, "top_k": 50},
}
REST = {"top_p": 1.0, "repetition_penalty": 1.0, "min_new_tokens": -1}


def fresh_model(shape: str) -> Any:
    """A model with random weights."""
    fields: dict[str, Any] = {"model_type": "opt", "max_position_embeddings": 2048, **SHAPES[shape]}
    if "hidden_size" in fields:
        fields["word_embed_proj_dim"] = fields["hidden_size"]
    return models.build(models.make_config(fields), seed=0)


def rows_of(count: int, vocabulary: int) -> Dataset:
    """Random real rows of 64 tokens."""
    tokens = np.random.default_rng(0).integers(4, min(vocabulary, 50265), (count, WIDTH)).astype(np.int32)
    lengths = np.full(count, WIDTH, np.int32)
    return Dataset({"tokens": tokens, "lengths": lengths, "stream": np.arange(count)}, np.zeros(count, np.int32))


def compare(ours: Callable[[], None], plain: Callable[[], None], tokens: int, repeats: int) -> dict[str, float]:
    """Medians of tokens/s and of the ratio pair by pair; the order alternates."""
    speeds: dict[str, list[float]] = {"ours": [], "plain": []}
    for turn in range(repeats):
        for name, work in (("ours", ours), ("plain", plain))[:: 1 if turn % 2 == 0 else -1]:
            start = time.perf_counter()
            work()
            speeds[name].append(tokens / (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["plain"], strict=True)]
    return {
        "ours_tokens_per_s": round(statistics.median(speeds["ours"]), 1),
        "plain_tokens_per_s": round(statistics.median(speeds["plain"]), 1),
        "ratio": round(statistics.median(ratios), 2),
    }


def bench_train(shape: str, dtype: str, batch: int, steps: int, repeats: int) -> dict[str, Any]:
    """Our loop and transformers' Trainer over the same rows, batch and precision."""
    from transformers import Trainer, TrainingArguments

    data = rows_of(batch * steps, SHAPES[shape]["vocab_size"])
    settings = {"epochs": 1, "lr": 1e-4, "batch_size": batch, "weight_decay": 0.01, "schedule": "cosine", "min_lr": 0.0}
    settings |= {"warmup": 0.0, "clip": 1.0, "dtype": dtype, "select": "last"}
    ours_model, plain_model = fresh_model(shape), fresh_model(shape)
    examples = [{"input_ids": row, "labels": row} for row in torch.from_numpy(data.arrays["tokens"].astype(np.int64))]

    def ours() -> None:
        fit(ours_model, data, settings, seed=0, scratch=Path(tempfile.mkdtemp()))

    def plain() -> None:
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            learning_rate=1e-4,
            bf16=dtype == "bfloat16",
            use_cpu=models.device().type == "cpu",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its own summary
            Trainer(plain_model, arguments, train_dataset=examples).train()

    found = compare(ours, plain, batch * steps * WIDTH, repeats)
    return {"part": "train", "dtype": dtype, "batch": batch, "plain": "Trainer", **found}


def bench_sample(shape: str, dtype: str, name: str, rows: int, repeats: int) -> dict[str, Any]:
    """Our sampling and `generate` with its own batching of all rows at once."""
    model = fresh_model(shape)
    if dtype == "bfloat16":
        model = model.to(torch.bfloat16)
    data = rows_of(rows, SHAPES[shape]["vocab_size"])
    decode = DECODES[name] | REST
    prompts = torch.from_numpy(data.arrays["tokens"].astype(np.int64)).to(model.device)

    def ours() -> None:
        place = Path(tempfile.mkdtemp())
        continue_rows(model, data, WIDTH, decode, dtype=dtype, end=2, pad=1, seed=0, scratch=place)

    def plain() -> None:
        sampled = {"do_sample": True, "top_k": decode["top_k"]} if decode["temperature"] else {"do_sample": False}
        ends = {"eos_token_id": 2, "pad_token_id": 1, "min_new_tokens": WIDTH, "max_new_tokens": WIDTH}
        mask = torch.ones_like(prompts)
        with torch.no_grad():
            model.generate(prompts, attention_mask=mask, num_beams=decode["beams"], **ends, **sampled)

    found = compare(ours, plain, rows * WIDTH, repeats)
    return {"part": "sample", "decode": name, "dtype": dtype, "rows": rows, "plain": "generate", **found}


def bench_score(shape: str, rows: int, repeats: int) -> dict[str, Any]:
    """Our scoring and a loop over `model(input_ids, labels)` with batches of 16 rows, in float32."""
    model = fresh_model(shape).eval()
    data = rows_of(rows, SHAPES[shape]["vocab_size"])
    ids = torch.from_numpy(data.arrays["tokens"].astype(np.int64)).to(model.device)

    def ours() -> None:
        score_blocks(model, data)

    def plain() -> None:
        with torch.no_grad():
            for part in ids.split(16):  # type: ignore[no-untyped-call]
                model(input_ids=part, labels=part)

    found = compare(ours, plain, rows * WIDTH, repeats)
    return {"part": "score", "dtype": "float32", "rows": rows, "plain": "loop", **found}


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="small")
    parser.add_argument("--parts", default="train,sample,score")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=models.resolve_dtype("auto"))
    parser.add_argument("--batch", type=int, default=32, help="rows of a training step")
    parser.add_argument("--steps", type=int, default=6, help="training steps a turn")
    parser.add_argument("--rows", type=int, default=64, help="rows sampled and scored a turn")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    quiet_libraries()
    rows = []
    for part in given.parts.split(","):
        if part == "train":
            rows.append(bench_train(given.model, given.dtype, given.batch, given.steps, given.repeats))
        elif part == "sample":
            rows += [bench_sample(given.model, given.dtype, name, given.rows, given.repeats) for name in DECODES]
        elif part == "score":
            rows.append(bench_score(given.model, given.rows, given.repeats))
        else:
            sys.exit(f"there is no part {part!r}; known: train, sample, score")
    print(json.dumps({"model": given.model, "hardware": hardware(), "versions": versions(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
