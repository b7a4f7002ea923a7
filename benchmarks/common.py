"""What both sides of a comparison share: models, rows, decodes, what work costs, and the clock."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from collapse_cli.config.tree import DecodeConfig, TrainConfig
from collapse_cli.data.dataset import Dataset
from collapse_cli.lm import architecture
from collapse_cli.lm import model as models

WIDTH = 64  # tokens of a row, of a prompt and of a sample, as in the Nature recipe
OPT_VOCABULARY = 50272
SHAPES: dict[str, dict[str, Any]] = {
    # the model of the preset `quick`
    "quick": {"vocab_size": 512, "hidden_size": 64, "ffn_dim": 256, "num_hidden_layers": 2, "num_attention_heads": 2},
    # the model of the preset `wikitext2-small`
    "small": {
        "vocab_size": OPT_VOCABULARY,
        "hidden_size": 64,
        "ffn_dim": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
    },
    # between these and OPT-125m: 5.4 million parameters
    "medium": {
        "vocab_size": 8192,
        "hidden_size": 256,
        "ffn_dim": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    },
    "opt125m": {"vocab_size": OPT_VOCABULARY},
}
DECODES = {
    "beams 5": DecodeConfig(beams=5),
    "beams 5 penalty 3": DecodeConfig(beams=5, repetition_penalty=3.0),
    "top-k 50": DecodeConfig(beams=1, temperature=1.0, top_k=50),
    "temperature 1": DecodeConfig(beams=1, temperature=1.0),
    "greedy": DecodeConfig(beams=1),
}
END, PAD = 2, 1  # OPT's tokens


def on_gpu() -> bool:
    return models.device().type == "cuda"


@lru_cache(maxsize=8)
def fresh_model(shape: str, dtype: str = "float32", purpose: str = "", vocabulary: int = 0) -> Any:
    """A model with random weights, ready to predict; what is trained has a `purpose` and so is a model of its own."""
    fields: dict[str, Any] = {"model_type": "opt", "max_position_embeddings": 2048, **SHAPES[shape]}
    if shape != "opt125m":  # as in the presets; OPT-125m keeps its dropout of 0.1
        fields |= {"word_embed_proj_dim": fields["hidden_size"], "dropout": 0.0}
    if vocabulary:
        fields["vocab_size"] = vocabulary
    made: Any = models.build(architecture.make_config(fields), seed=0)
    return made.to(getattr(torch, dtype)).eval()


def rows_of(count: int, vocabulary: int, width: int = WIDTH) -> Dataset:
    """Random real rows of `width` tokens, none of them a special token."""
    tokens = np.random.default_rng(0).integers(4, min(vocabulary, 50265), (count, width)).astype(np.int32)
    lengths = np.full(count, width, np.int32)
    return Dataset({"tokens": tokens, "lengths": lengths, "stream": np.arange(count)}, np.zeros(count, np.int32))


def ids_of(count: int, vocabulary: int) -> torch.Tensor:
    """The same rows as a tensor of token ids on the device."""
    return torch.from_numpy(rows_of(count, vocabulary).arrays["tokens"].astype(np.int64)).to(models.device())


def stream_of(windows: int, context: int, stride: int, vocabulary: int) -> np.ndarray:
    """A text of as many tokens as `windows` sliding windows cover."""
    tokens: np.ndarray = rows_of(1, vocabulary, context + stride * (windows - 1)).arrays["tokens"]
    return tokens.reshape(-1)


def train_settings(batch: int, dtype: str, **options: Any) -> TrainConfig:
    """One epoch in steps of `batch` rows, with other options of `train`; both sides clip at 1 and decay by 0.01."""
    return TrainConfig.model_validate(
        {"epochs": 1, "lr": 1e-4, "batch_size": batch, "schedule": "linear", "dtype": dtype, **options}
    )


def synchronize() -> None:
    """Wait for what was handed to a GPU."""
    if on_gpu():
        torch.cuda.synchronize()


def release() -> None:
    """Give unused GPU memory back, for the other process."""
    gc.collect()
    if on_gpu():
        torch.cuda.empty_cache()


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    gc.collect()
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Counts:
    """Floating-point operations by the standard count: 2 a weight and token, and the products of attention.

    Only what has to be done counts: a prompt is read once however many beams continue it, no logits are made that
    nothing is predicted from, and attention looks back only.
    """

    layer: int
    head: int
    width: int
    layers: int

    @staticmethod
    def of(shape: str) -> "Counts":
        """The counts of a shape."""
        config = fresh_model(shape).config
        outline = architecture.outline(config)
        return Counts(outline.layer_parameters, outline.head_parameters, config.hidden_size, config.num_hidden_layers)

    def forward(self, tokens: float, logits: float, attended: float) -> float:
        """FLOPs of `tokens` through the layers, `logits` of them through the head, attending to `attended` in all."""
        return 2.0 * (self.layer * tokens + self.head * logits) + 4.0 * self.width * self.layers * attended

    def scored(self) -> float:
        """FLOPs of scoring one row."""
        return self.forward(WIDTH, WIDTH - 1, WIDTH * (WIDTH + 1) / 2)

    def trained(self) -> float:
        """FLOPs of one row in one epoch."""
        return 3 * self.scored()

    def window(self, context: int, stride: int) -> float:
        """FLOPs of one sliding window."""
        return self.forward(context, stride, context * (context + 1) / 2)

    def sampled(self, beams: int, new_tokens: int = WIDTH) -> float:
        """FLOPs of continuing one prompt; the first new token comes from the prompt's own pass."""
        passes = beams * (new_tokens - 1)
        attended = WIDTH * (WIDTH + 1) / 2 + beams * sum(WIDTH + i for i in range(1, new_tokens))
        return self.forward(WIDTH + passes, 1 + passes, attended)
