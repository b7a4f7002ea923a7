"""The plain transformers side: Trainer, `generate`, and loops over `model(input_ids, labels)`.

It runs in a process of its own, so that nothing our engine sets for its process (memory, products, attention) helps
or hinders it. Every function returns the seconds its work took.
"""

import contextlib
import gc
import io
import tempfile
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from common import DECODES, END, PAD, SHAPES, WIDTH, fresh_model, ids_of, on_gpu, rows_of, stream_of, synchronize, timed

from collapse_cli.lm import model as models
from collapse_cli.process import quiet_libraries


def start(threads: int) -> None:
    """Make this process ready."""
    torch.set_num_threads(threads)
    quiet_libraries()


class Clock:
    """Seconds from the first step of a Trainer to its last, without what it sets up before."""

    def __init__(self) -> None:
        from transformers import TrainerCallback

        self.begin = self.end = 0.0
        self.callback = type("Timing", (TrainerCallback,), {"on_train_begin": self._begin, "on_train_end": self._end})()

    def _begin(self, *arguments: Any, **named: Any) -> None:
        synchronize()
        self.begin = time.perf_counter()

    def _end(self, *arguments: Any, **named: Any) -> None:
        synchronize()
        self.end = time.perf_counter()


def train(shape: str, dtype: str, batch: int, at_once: int, rows: int) -> float:
    """Trainer over `rows` rows in steps of `batch`, `at_once` of them on the device together."""
    from transformers import Trainer, TrainingArguments

    tokens = torch.from_numpy(rows_of(rows, SHAPES[shape]["vocab_size"]).arrays["tokens"].astype(np.int64))
    examples = [{"input_ids": row, "labels": row} for row in tokens]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # it prints a summary
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=batch // at_once,
            num_train_epochs=1,
            learning_rate=1e-4,
            weight_decay=0.01,
            bf16=dtype == "bfloat16",
            use_cpu=models.device().type == "cpu",
            dataloader_pin_memory=on_gpu(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
        )
        clock, model = Clock(), fresh_model(shape, purpose="train")
        trainer = Trainer(model, arguments, train_dataset=examples, callbacks=[clock.callback])
        gc.collect()
        trainer.train()
    return clock.end - clock.begin


def sample(shape: str, dtype: str, decode: str, at_once: int, rows: int, new_tokens: int = WIDTH) -> float:
    """`generate` over `rows` prompts, `at_once` together; no row ends early."""
    from transformers import GenerationConfig

    model, wanted = fresh_model(shape, dtype), DECODES[decode]
    prompts = ids_of(rows, SHAPES[shape]["vocab_size"])
    drawn: dict[str, Any] = {"do_sample": False}
    if wanted.temperature > 0:
        drawn = {"do_sample": True, "temperature": wanted.temperature, "top_k": wanted.top_k, "top_p": 1.0}
    model.generation_config = GenerationConfig()
    settings = GenerationConfig(
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        num_beams=wanted.beams,
        repetition_penalty=wanted.repetition_penalty,
        length_penalty=wanted.length_penalty,
        eos_token_id=END,
        pad_token_id=PAD,
        **drawn,
    )

    def work() -> None:
        for part in prompts.split(at_once):  # type: ignore[no-untyped-call]
            model.generate(part, attention_mask=torch.ones_like(part), generation_config=settings).cpu()

    with torch.no_grad():
        return timed(work)


def score_blocks(shape: str, at_once: int, rows: int) -> float:
    """`model(input_ids, labels)` over `rows` rows, `at_once` together."""
    model, ids = fresh_model(shape), ids_of(rows, SHAPES[shape]["vocab_size"])

    def work() -> None:
        losses = [model(input_ids=part, labels=part).loss for part in ids.split(at_once)]  # type: ignore[no-untyped-call]
        torch.stack(losses).cpu()

    with torch.no_grad():
        return timed(work)


def score_sliding(shape: str, context: int, stride: int, windows: int) -> float:
    """The loop of transformers' guide to perplexity: one window at a time."""
    model = fresh_model(shape)
    stream = stream_of(windows, context, stride, SHAPES[shape]["vocab_size"])
    ids = torch.from_numpy(stream.astype(np.int64))[None].to(models.device())

    def work() -> None:
        total, previous = torch.zeros((), device=ids.device), 0
        for begin in range(0, ids.shape[1], stride):
            end = min(begin + context, ids.shape[1])
            part = ids[:, begin:end]
            labels = part.clone()
            labels[:, : previous - end] = -100
            total += model(input_ids=part, labels=labels).loss * (end - previous)
            previous = end
            if end == ids.shape[1]:
                break
        total.cpu()

    with torch.no_grad():
        return timed(work)


def multiply(dtype: str, size: tuple[int, int, int]) -> float:
    """FLOP/s of torch's own matrix product (rows, inner) @ (inner, columns)."""
    from roof import flops_per_second, operands

    rows, weight = operands(dtype, size)
    return flops_per_second(partial(torch.matmul, rows, weight.T), size)
