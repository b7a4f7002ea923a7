"""Sampling: continue rows of prompts. One function, behind which the way it is done may change."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from collapse_cli.data import Dataset

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS_BYTES = 24 << 20  # of float32 logits a step on a CPU, near what its caches hold; a GPU takes more
MOST_ROWS = 512
BLOCK = 256  # tokens whose probabilities are summed together when one is drawn


def rows_at_once(model: "PreTrainedModel", beams: int) -> int:
    """How many prompts are continued together."""
    room = LOGITS_BYTES * (1 if model.device.type == "cpu" else 64)
    return max(1, min(MOST_ROWS, room // (4 * beams * int(model.config.vocab_size))))


@torch.no_grad()
def continue_rows(
    model: "PreTrainedModel",
    prompts: Dataset,
    new_tokens: int,
    decode: Mapping[str, Any],
    *,
    dtype: str,
    end: int | None,
    pad: int,
    seed: int,
    scratch: Path,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """Continue every prompt.

    Args:
        prompts: `tokens` (rows, width) and `lengths` (rows,); `stream` (rows,) numbers each row's own random
            numbers, so that its sample does not depend on which other rows are sampled, nor in what order.
        decode: the fields of `config.DecodeConfig`.
        dtype: of the arithmetic.
        end: the end-of-text token, after which a row is over.
        scratch: finished batches are kept here, so that a killed sampling goes on where it was.

    Returns:
        `tokens` (rows, new_tokens) and `lengths` (rows,), the new tokens alone.
    """
    if dtype == "bfloat16":
        model = model.to(torch.bfloat16)
    model.eval()
    step = rows_at_once(model, int(decode["beams"]))
    nothing = np.zeros((0, new_tokens), np.int32)
    parts = [Dataset({"tokens": nothing, "lengths": nothing[:, 0]}, nothing[:, 0])]
    for first in range(0, len(prompts), step):
        path = scratch / f"rows-{first:09d}-{step}.safetensors"
        if not path.exists():
            batch = prompts.take(np.arange(first, min(first + step, len(prompts))))
            made = _generate(model, batch, new_tokens, decode, end=end, pad=pad, seed=seed)
            made.save(path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
        parts.append(Dataset.load(path))
        tell(min(first + step, len(prompts)), len(prompts))
    return Dataset.concat(parts)


def _generate(
    model: "PreTrainedModel",
    prompts: Dataset,
    new_tokens: int,
    decode: Mapping[str, Any],
    *,
    end: int | None,
    pad: int,
    seed: int,
) -> Dataset:
    from transformers import GenerationConfig

    tokens, lengths = prompts.arrays["tokens"], prompts.arrays["lengths"]
    width = int(lengths.max())
    ids = np.full((len(prompts), width), pad, np.int64)
    mask = np.arange(width) >= width - lengths[:, None]
    ids[mask] = tokens[:, :width][np.arange(width) < lengths[:, None]]  # prompts end together, padding comes first
    least = new_tokens if decode["min_new_tokens"] < 0 else int(decode["min_new_tokens"])
    model.generation_config = GenerationConfig()  # what a model folder suggests must not change our settings
    processors: list[Any] = []
    if end is not None and least > 0:
        processors.append(_NoEnd(end, width + least))
    if decode["temperature"] > 0:
        uniforms = np.stack([_uniforms(seed, int(row), new_tokens) for row in prompts.arrays["stream"]])
        processors.append(_DrawFromRow(torch.from_numpy(uniforms).to(model.device), width, decode))
    made = model.generate(
        torch.from_numpy(ids).to(model.device),
        attention_mask=torch.from_numpy(mask.astype(np.int64)).to(model.device),
        generation_config=GenerationConfig(
            max_new_tokens=new_tokens,
            num_beams=int(decode["beams"]),
            do_sample=False,
            repetition_penalty=float(decode["repetition_penalty"]),
            eos_token_id=end,
            pad_token_id=pad,
        ),
        logits_processor=processors,
    )
    new = made[:, width:].cpu().numpy().astype(np.int32)
    new = np.pad(new, ((0, 0), (0, new_tokens - new.shape[1])), constant_values=pad)
    ended = new == end if end is not None and least < new_tokens else np.zeros_like(new, bool)
    lengths = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, new_tokens).astype(np.int32)
    return Dataset({"tokens": new, "lengths": lengths}, np.zeros(len(new), np.int32))


def _uniforms(seed: int, row: int, count: int) -> np.ndarray:
    """(count,) float64 in [0, 1): a row's own random numbers, from a counter-based generator."""
    return np.random.Generator(np.random.Philox(key=[seed, row])).random(count)


class _NoEnd:
    """No end-of-text token before `width` tokens; in place, where transformers' own copies all scores."""

    def __init__(self, end: int, width: int) -> None:
        self.end, self.width = end, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] < self.width:
            scores[:, self.end] = -torch.inf
        return scores


class _DrawFromRow:
    """Draws each row's next token with that row's own random number, and leaves greedy search no other choice.

    transformers samples from one global stream, which makes a row's sample depend on the rest of its batch.
    """

    def __init__(self, uniforms: torch.Tensor, prompt_width: int, decode: Mapping[str, Any]) -> None:
        from transformers import TopKLogitsWarper, TopPLogitsWarper

        self.uniforms, self.prompt_width, self.temperature = uniforms, prompt_width, float(decode["temperature"])
        self.warpers: list[Callable[[Any, torch.Tensor], torch.Tensor]] = []
        if decode["top_k"] > 0:
            self.warpers.append(TopKLogitsWarper(int(decode["top_k"])))
        if decode["top_p"] < 1.0:
            self.warpers.append(TopPLogitsWarper(float(decode["top_p"])))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) that are 0 at the drawn token and -inf elsewhere."""
        scores = scores.float().div_(self.temperature)
        for warp in self.warpers:
            scores = warp(input_ids, scores)
        uniform = self.uniforms[:, input_ids.shape[1] - self.prompt_width]
        drawn = _invert(scores.sub_(scores.amax(dim=1, keepdim=True)).exp_(), uniform)
        return scores.fill_(-torch.inf).scatter_(1, drawn[:, None], 0.0)


def _invert(mass: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first index at which the running sum of `mass` (rows, n) exceeds `uniform` (rows,) times its total.

    In two steps, blocks and then within one block: a running sum over a whole vocabulary is slow, and not exact.
    """
    count = mass.shape[1]
    whole = count // BLOCK * BLOCK
    sums = torch.cat(
        [mass[:, :whole].reshape(len(mass), -1, BLOCK).sum(dim=2), mass[:, whole:].sum(dim=1, keepdim=True)], dim=1
    ).double()
    ends = sums.cumsum(dim=1)
    point = uniform[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, point, right=True).clamp_(max=sums.shape[1] - 1)
    columns = block * BLOCK + torch.arange(BLOCK, device=mass.device)
    inside = mass.gather(1, columns.clamp(max=count - 1)).double().masked_fill_(columns >= count, 0.0)
    point = (point - (ends.gather(1, block) - sums.gather(1, block))).clamp_(min=0)
    # rounding must not draw what has no probability: stay at or before the last token that has some
    last = torch.where(inside > 0, torch.arange(BLOCK, device=mass.device), 0).amax(dim=1, keepdim=True)
    within = torch.searchsorted(inside.cumsum(dim=1), point, right=True)
    return (block * BLOCK + torch.minimum(within, last)).squeeze(1)
