"""Our side of the comparison: the engine's public calls. Every function returns the seconds its work took."""

import copy
import tempfile
from pathlib import Path
from typing import Any

from common import END, PAD, SHAPES, WIDTH, fresh_model, rows_of, stream_of, timed, train_settings

from collapse_cli.config.tree import DecodeConfig
from collapse_cli.lm import adapter, anchors
from collapse_cli.lm import sample as sampling
from collapse_cli.lm import score as scoring
from collapse_cli.lm.train import fit


def train(shape: str, dtype: str, batch: int, rows: int, **options: Any) -> float:
    """One epoch over `rows` rows in steps of `batch`, with other options of `train`; what is replayed are the same rows.

    An anchor has the same architecture. What it takes to make one (the Fisher information of `ewc`) is not in the time: it is done once a
    generation, whatever the epochs.
    """
    model, data = fresh_model(shape, purpose="train"), rows_of(rows, SHAPES[shape]["vocab_size"])
    settings = train_settings(batch, dtype, **options)
    more: dict[str, Any] = (
        {"replay": data} if settings.replay else {}
    )  # a commit before there was any has no such argument
    if settings.adapter:
        model = adapter.begun(own_model(shape), settings, seed=0).base_model.model
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if settings.anchor != "none":
            other = fresh_model(shape, purpose="anchor")
            more["anchor"] = anchors.anchor_of(
                settings, model, other, width=WIDTH, rows=lambda: data, seed=0, scratch=scratch
            )
        return timed(lambda: fit(model, data, settings, seed=0, scratch=scratch, **more))


def own_model(shape: str) -> Any:
    """A model that nothing else uses: an adapter stays on it."""
    return copy.deepcopy(fresh_model(shape))


def sample(
    shape: str, dtype: str, decode: DecodeConfig, rows: int, new_tokens: int = WIDTH, vocabulary: int = 0
) -> float:
    """Continue `rows` prompts, as many together as the engine likes; no row ends early."""
    model = fresh_model(shape, dtype, vocabulary=vocabulary)
    data = rows_of(rows, vocabulary or SHAPES[shape]["vocab_size"])
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"dtype": dtype, "end": END, "pad": PAD, "seed": 0, "scratch": Path(folder)}
        return timed(lambda: sampling.continue_rows(model, data, new_tokens, decode, **settings))


def score_blocks(shape: str, rows: int) -> float:
    """Score `rows` rows on their own."""
    model, data = fresh_model(shape), rows_of(rows, SHAPES[shape]["vocab_size"])
    return timed(lambda: scoring.score_blocks(model, data))


def score_sliding(shape: str, context: int, stride: int, windows: int) -> float:
    """Score a text that `windows` windows cover."""
    model = fresh_model(shape)
    stream = stream_of(windows, context, stride, SHAPES[shape]["vocab_size"])
    return timed(lambda: scoring.score_sliding(model, stream, context, stride))
