"""Scoring: the negative log-likelihood of rows under a model, token-weighted, memory independent of their number."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from collapse_cli.data import Dataset, InputError
from collapse_cli.lm.loss import has_plain_head, token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_AT_ONCE = 2048  # scored together on a CPU, so that a layer's work stays near its caches; a GPU takes more


def rows_at_once(model: "PreTrainedModel", width: int) -> int:
    """How many rows of `width` tokens are scored together."""
    return max(1, TOKENS_AT_ONCE * (1 if model.device.type == "cpu" else 16) // width)


@torch.no_grad()
def score_blocks(
    model: "PreTrainedModel", data: Dataset, tell: Callable[[int, int], None] = lambda done, total: None
) -> tuple[np.ndarray, np.ndarray]:
    """Score every row on its own: each token but the first is predicted from those before it in the row.

    Returns:
        (rows,) float64 summed negative log-likelihood in nats, and (rows,) int64 predicted tokens.
    """
    model.eval()
    plain_head = has_plain_head(model)
    tokens, lengths = data.arrays["tokens"], data.arrays["lengths"]
    step = rows_at_once(model, tokens.shape[1])
    nll = np.zeros(len(data))
    for first in range(0, len(data), step):
        part = slice(first, first + step)
        ids = torch.from_numpy(tokens[part].astype(np.int64)).to(model.device)
        losses = token_losses(model, ids, plain_head=plain_head).cpu().numpy().astype(np.float64)
        used = np.arange(1, tokens.shape[1]) < lengths[part, None]
        nll[part] = (losses * used).sum(axis=1)
        tell(min(first + step, len(data)), len(data))
    return nll, np.maximum(lengths.astype(np.int64) - 1, 0)


@torch.no_grad()
def score_sliding(
    model: "PreTrainedModel",
    stream: np.ndarray,
    context: int,
    stride: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Score a stream of tokens with a window of `context` tokens that moves by `stride`.

    Every token but the first is scored once, with at least `context - stride` tokens before it (fewer only in the
    first window).

    Returns:
        (windows,) float64 summed negative log-likelihood in nats, and (windows,) int64 predicted tokens.

    Raises:
        InputError: unless the stride is less than the context.
    """
    if not 0 < stride < context:
        raise InputError(
            f"eval.stride = {stride} must be less than eval.context = {context}, so that every token has one before it"
        )
    model.eval()
    plain_head = has_plain_head(model)
    nll, predicted, scored = [], [], 1
    while scored < len(stream):
        end = min(len(stream), context if scored == 1 else scored + stride)
        begin = max(0, end - context)
        ids = torch.from_numpy(stream[begin:end].astype(np.int64))[None].to(model.device)
        losses = token_losses(model, ids, plain_head=plain_head)[0, scored - begin - 1 :]
        nll.append(float(losses.double().sum()))
        predicted.append(end - scored)
        scored = end
        tell(scored, len(stream))
    return np.asarray(nll), np.asarray(predicted, np.int64)
