"""Sampling: continue rows of prompts, a batch at a time, in pieces that survive a kill."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from collapse_cli.config.tree import DecodeConfig
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine import checkpoint as checkpoints
from collapse_cli.errors import InputError
from collapse_cli.lm import fallback, search
from collapse_cli.lm.architecture import vocabulary
from collapse_cli.lm.arithmetic import fast_products
from collapse_cli.lm.attention import attending
from collapse_cli.lm.decode import Decoder, Trial, try_out
from collapse_cli.lm.memory import free_bytes, halving, warn_once
from collapse_cli.lm.search import LEAST_ROWS
from collapse_cli.lm.slots import most_slots

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEMORY_SHARE = 0.5  # of the free memory, for keys and values
MOST_SEQUENCES = {"cpu": 2560, "cuda": 8192}  # rows times beams at once; more brings nothing
# On a CPU so many for any model; more only of one beam whose keys and values are few: a step has costs of its own, but what it reads
# leaves the caches (docs/benchmarks.md: A processor of AVX2).
ALWAYS, CACHED_BYTES = 640, 96 << 20
LOGITS_BYTES = {"cpu": 32 << 20, "cuda": 1 << 30}  # of float32 logits held together; on a CPU what its caches hold
FALLBACK_BYTES = {"cpu": 24 << 20, "cuda": 1 << 30}  # the same, where `generate` holds them for all rows


class SampleError(InputError):
    """Sampling went wrong in a way that another setting mends."""


@torch.no_grad()
def continue_rows(
    model: "PreTrainedModel",
    prompts: Dataset,
    new_tokens: int,
    decode: DecodeConfig,
    *,
    dtype: str,
    end: int | None,
    pad: int,
    seed: int,
    scratch: Path,
    tell: Callable[[int, int], None] = lambda done, total: None,
    rows: slice = slice(None),
) -> Dataset:
    """Continue every prompt.

    Memory is bounded: keys and values take half of what is free at most (`MEMORY_SHARE`), logits `LOGITS_BYTES`.

    Args:
        prompts: `tokens` (rows, width) and `lengths` (rows,); `stream` (rows,) numbers each row's own random
            numbers, so that its sample does not depend on which other rows are sampled, nor in what order.
        decode: how the next token is chosen.
        dtype: of the arithmetic.
        end: the end-of-text token, after which a row is over.
        scratch: finished batches are kept here, so that a killed sampling goes on where it was.
        tell: called with the new tokens made so far and in all.
        rows: of the prompts, those to be continued, the others not.

    Returns:
        `tokens` (rows, new_tokens) and `lengths` (rows,), the new tokens alone.

    Raises:
        SampleError: when the model's logits are not finite, or there are more beams than tokens to choose from.
    """
    model.eval()
    first = rows.indices(len(prompts))[0]
    prompts = prompts.take(np.arange(len(prompts))[rows])
    least = new_tokens if decode.min_new_tokens < 0 else decode.min_new_tokens
    rules = search.Rules(decode, new_tokens, least, end, pad)
    if decode.beams > vocabulary(model.config):
        raise SampleError(
            f"sample.decode.beams = {decode.beams} is more than the vocabulary of {vocabulary(model.config)}"
        )
    with ExitStack() as stack:
        stack.enter_context(fast_products(model.device))
        trial = try_out(model, prompts.arrays["tokens"].shape[1] + new_tokens)
        way: fallback.Way | None = fallback.WAYS[0]
        if trial.why_not:
            kind, reach = model.config.model_type, prompts.arrays["tokens"].shape[1] + new_tokens
            way = fallback.find_way(model, reach, decode.beams, pad)
            if way is None:
                raise SampleError(
                    f"{kind} models cannot be sampled with rows of {reach} tokens: transformers' generate gives other "
                    "scores than the model itself, even row by row and without a cache; give another model"
                )
            warn_once(f"{kind} models are sampled through transformers' generate{way.said()}: {trial.why_not}")
        if dtype == "bfloat16":
            model = model.to(torch.bfloat16)
        step = rows_at_once(model, trial, prompts.arrays["tokens"].shape[1], rules)
        if model.device.type == "cuda":
            step = evenly(step, len(prompts))
        batches = Batches(model, None if not trial.why_not else way, rules, seed, dtype)
        done = _Pieces(scratch, len(prompts))
        while (start := done.next_row()) < len(prompts):
            part = slice(start, min(start + step, done.next_start(start)))

            def made(rows: int, part: slice = part) -> Dataset:
                some = prompts.take(np.arange(part.start, min(part.start + rows, part.stop)))
                return batches.run(
                    some,
                    rows,
                    first + part.start,
                    lambda tokens: tell(part.start * new_tokens + tokens, done.rows * new_tokens),
                )

            finished, step = halving(made, step, "sampling")
            done.save(start, finished)
            tell(done.next_row() * new_tokens, len(prompts) * new_tokens)
    return done.all(new_tokens)


def rows_at_once(model: "PreTrainedModel", trial: Trial, width: int, rules: search.Rules) -> int:
    """How many prompts of `width` tokens are continued together."""
    beams, kind = rules.decode.beams, model.device.type
    if trial.why_not:
        room = FALLBACK_BYTES.get(kind, FALLBACK_BYTES["cuda"])
        return max(1, min(MOST_SEQUENCES["cpu"], ALWAYS, room // (4 * vocabulary(model.config))) // beams)
    slots = most_slots(width, rules.new_tokens, beams)
    size = slots * trial.states * int(next(model.parameters()).element_size())
    fit = int(MEMORY_SHARE * free_bytes(model.device)) // size
    most = MOST_SEQUENCES.get(kind, MOST_SEQUENCES["cuda"])
    if kind == "cpu":
        most = min(most, max(ALWAYS, CACHED_BYTES // size if beams == 1 else 0))
    return max(1, min(fit, most // beams))


def evenly(step: int, rows: int) -> int:
    """Rows of a batch, at most `step`, for batches of one size that are all nearly full: a GPU records steps for that size."""
    batches = max(1, -(-rows // step))
    return max(min(step, LEAST_ROWS), -(-rows // batches))


class Batches:
    """Continues one batch of prompts after another; what can be kept from one to the next is kept."""

    def __init__(
        self, model: "PreTrainedModel", way: fallback.Way | None, rules: search.Rules, seed: int, dtype: str
    ) -> None:
        """`way`: how `generate` is asked; None: the engine samples."""
        self.model, self.way, self.rules, self.seed, self.dtype = model, way, rules, seed, dtype
        self.beams = rules.decode.beams
        room = LOGITS_BYTES.get(model.device.type, LOGITS_BYTES["cuda"])
        self.at_once = max(2 * LEAST_ROWS, room // (4 * vocabulary(model.config)))
        self.decoder: Decoder | None = None

    def run(self, prompts: Dataset, rows: int, start: int, tell: Callable[[int], None]) -> Dataset:
        """Continue up to `rows` prompts, the first of them row `start` of the corpus."""
        count, device, new_tokens = len(prompts), self.model.device, self.rules.new_tokens
        size = rows if device.type == "cuda" else max(count, LEAST_ROWS)
        filled = prompts.take(np.arange(size) % count)  # a batch that is not full goes round
        ids = torch.from_numpy(filled.arrays["tokens"].astype(np.int64)).to(device)
        lengths = torch.from_numpy(filled.arrays["lengths"].astype(np.int64)).to(device)
        drawn = None
        if self.rules.decode.temperature > 0:
            drawn = torch.from_numpy(uniforms(self.seed, filled.arrays["stream"], new_tokens)).to(device)

        def tell_tokens(step: int) -> None:
            tell(step * count)

        if self.way is not None:
            made, bad = fallback.generate(self.model, ids, lengths, drawn, self.rules, self.way)
        else:
            if self.decoder is None or self.decoder.rows != size:
                self.decoder = None  # its memory first
                self.decoder = Decoder(self.model, size, self.beams, ids.shape[1], new_tokens)
            with attending(self.model, self.decoder.slots):
                if self.beams > 1:
                    made, bad = search.beam_search(self.decoder, ids, lengths, self.rules, self.at_once, tell_tokens)
                else:
                    made, bad = search.one_by_one(
                        self.decoder, ids, lengths, drawn, self.rules, self.at_once, tell_tokens
                    )
        bad_steps = bad[:count].cpu().numpy()
        if (bad_steps >= 0).any():
            row = int(np.flatnonzero(bad_steps >= 0)[0])
            advice = "lower train.lr where its weights were trained here, or give a model whose weights are sound"
            if self.model.dtype == torch.bfloat16:
                advice = f"set sample.dtype = float32; if that does not help, {advice}"
            raise SampleError(
                f"row {start + row} of the prompts, counted from 0: the logits of new token {bad_steps[row] + 1} "
                f"of {self.rules.new_tokens} are not finite; {advice}"
            )
        return self._dataset(made[:count].cpu().numpy().astype(np.int32))

    def _dataset(self, new: np.ndarray) -> Dataset:
        rules = self.rules
        ended = np.zeros_like(new, bool)
        if rules.end is not None and rules.least < rules.new_tokens:
            ended = new == rules.end
        lengths = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, rules.new_tokens).astype(np.int32)
        return Dataset({"tokens": new, "lengths": lengths}, np.zeros(len(new), np.int32))


class _Pieces:
    """Finished batches on disk, each named by its rows: whatever their sizes were, what is there is not done again."""

    def __init__(self, scratch: Path, rows: int) -> None:
        self.scratch, self.rows = scratch, rows
        spans = [
            path.stem.split("-")[1:]
            for path in scratch.glob("rows-" + "[0-9]" * 9 + "-" + "[0-9]" * 9 + ".safetensors")
        ]
        self.ends = {int(first): int(end) for first, end in spans}
        self.ends = {first: end for first, end in self.ends.items() if checkpoints.is_sound(self._path(first, end))}

    def _path(self, start: int, end: int) -> Path:
        return self.scratch / f"rows-{start:09d}-{end:09d}.safetensors"

    def next_row(self) -> int:
        """The first row that is not done."""
        row = 0
        while row in self.ends:
            row = self.ends[row]
        return row

    def next_start(self, row: int) -> int:
        """Where the next finished batch after `row` starts; the number of rows when there is none."""
        return min((start for start in self.ends if start > row), default=self.rows)

    def save(self, start: int, made: Dataset) -> None:
        end = start + len(made)
        checkpoints.keep(self._path(start, end), {**made.arrays, "origin": made.origin}, None)
        self.ends[start] = end

    def all(self, new_tokens: int) -> Dataset:
        nothing = np.zeros((0, new_tokens), np.int32)
        parts, row = [Dataset({"tokens": nothing, "lengths": nothing[:, 0]}, nothing[:, 0])], 0
        while row < self.rows:
            end = self.ends[row]
            parts.append(Dataset.load(self._path(row, end)))
            row = end
        return Dataset.concat(parts)


def uniforms(seed: int, rows: np.ndarray, count: int) -> np.ndarray:
    """(rows, count) float64 in [0, 1): each row's own random numbers, those of a counter-based generator with the key (seed, row)."""
    source = np.random.Philox(key=[seed, 0])
    generator, begins = np.random.Generator(source), source.state
    made = np.empty((len(rows), count))
    for mine, row in zip(made, rows.tolist(), strict=True):
        begins["state"]["key"][1] = row
        source.state = begins  # a generator of its own for each row would take most of the time
        generator.random(out=mine)
    return made
