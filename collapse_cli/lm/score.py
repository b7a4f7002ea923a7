"""Scoring: the negative log-likelihood of rows under a model, token-weighted, memory independent of their number."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.errors import InputError
from collapse_cli.lm.architecture import vocabulary
from collapse_cli.lm.arithmetic import PackedWeights, fast_products
from collapse_cli.lm.attention import Causal, attending
from collapse_cli.lm.loss import (
    IGNORED,
    More,
    has_plain_head,
    losses_and_states,
    predictions,
    token_details,
    token_losses,
)
from collapse_cli.lm.memory import halving
from collapse_cli.lm.packing import Batch, abilities, attention_for, lay_out, to_device
from collapse_cli.lm.text import join

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_AT_ONCE = 4096  # scored together on a CPU, so that a layer's work stays near its caches; a GPU takes more
LOGITS_BYTES = 512 << 20  # of float32 logits, for models that give them all at once
CHUNK = 16  # batches whose rows are packed together
Columns = dict[str, np.ndarray]  # of equal length, a value for each token
Part = Callable[[int], slice]  # of so many pieces of work, which next to each other are to be done


def everything(pieces: int) -> slice:
    """The part that is all of it."""
    return slice(0, pieces)


class Scorer:
    """A model made ready to score rows of up to `width` tokens; a context.

    Attributes:
        rows_at_once: how many rows of full width one forward pass takes; less from where memory ran out.
    """

    def __init__(self, model: "PreTrainedModel", width: int, dtype: str) -> None:
        model.eval()
        self.model, self.width, self.bf16 = model, width, dtype == "bfloat16"
        self.plain_head, self.able = has_plain_head(model), abilities(model, width)
        tokens = TOKENS_AT_ONCE * (1 if model.device.type == "cpu" else 16)
        if not self.plain_head:
            tokens = min(tokens, LOGITS_BYTES // (4 * vocabulary(model.config)))
        self.rows_at_once = max(1, tokens // max(1, width)) if self.able.together else 1
        self._stack = ExitStack()

    def __enter__(self) -> "Scorer":
        kind = self.model.device.type
        self._stack.enter_context(torch.no_grad())
        packed = None if self.bf16 else PackedWeights(TOKENS_AT_ONCE)  # autocast has weights of its own
        self._stack.enter_context(fast_products(self.model.device, packed))
        # one context for all batches, so that the weights are cast once
        self._stack.enter_context(torch.autocast(kind, dtype=torch.bfloat16, enabled=self.bf16))
        if self.able.attends:
            self._stack.enter_context(attending(self.model, Causal(None, self.width)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, batch: Batch) -> np.ndarray:
        """(rows, width-1) float64 negative log-likelihood of the labels in nats, 0 where there is none."""
        with attention_for(self.model, self.able, batch):
            losses = token_losses(
                self.model, batch.ids, batch.labels, plain_head=self.plain_head, positions=batch.positions
            )
        return losses.cpu().numpy().astype(np.float64)

    def details(self, batch: Batch, rows: np.ndarray, more: More | None) -> Columns:
        """Of each predicted token: `row`, `label`, and what `token_details` gives. `rows` (rows, width-1) on the host."""
        with attention_for(self.model, self.able, batch):
            by_token = token_details(
                self.model, batch.ids, batch.labels, plain_head=self.plain_head, positions=batch.positions, more=more
            )
        labels = batch.labels.cpu().numpy()
        predicted = labels != IGNORED
        columns = {name: values.cpu().numpy().astype(np.float64) for name, values in by_token.items()}
        return {"row": rows[predicted], "label": labels[predicted], **columns}

    def predicted(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What `predictions` gives of the batch."""
        with attention_for(self.model, self.able, batch):
            return predictions(self.model, batch.ids, plain_head=self.plain_head, positions=batch.positions)

    def ends(self, batch: Batch, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Losses as those of a call, and the last hidden states at the places `at` of the flattened rows."""
        with attention_for(self.model, self.able, batch):
            losses, states = losses_and_states(
                self.model,
                batch.ids,
                batch.labels,
                to_device(at, self.model.device),
                plain_head=self.plain_head,
                positions=batch.positions,
            )
        return losses.cpu().numpy().astype(np.float64), states.cpu().numpy()


@dataclass
class Details:
    """What is wanted of every predicted token, besides its loss, and what was found.

    Attributes:
        more: further values, see `loss.token_details`.
        parts: `row` and `label` of each predicted token, and the values of `token_details`, as scoring went.
    """

    more: More | None = None
    parts: list[Columns] = field(default_factory=list)

    def columns(self) -> Columns:
        """All of it, in one array each."""
        if not self.parts:
            return {name: np.zeros(0) for name in ("row", "label", "nll", "confidence", "hit", "entropy")}
        return {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}


def score_blocks(
    model: "PreTrainedModel",
    data: Dataset,
    tell: Callable[[int, int], None] = lambda done, total: None,
    dtype: str = "float32",
    details: Details | None = None,
    each: np.ndarray | None = None,
    part: Part = everything,
) -> tuple[np.ndarray, np.ndarray]:
    """Score every row on its own: each token but the first is predicted from those before it in the row.

    Where rows have a mask, only the tokens in it are.

    Args:
        dtype: `float32`, or `bfloat16` for matrix products in that.
        details: filled with what is found at each token; scoring then takes longer.
        each: (rows, width-1) filled with the loss of each predicted token, where there are no details.
        part: which of the rows are scored: they go into pieces, which are the same whatever part of them is asked for.

    Returns:
        (rows,) float64 summed negative log-likelihood in nats, and (rows,) int64 predicted tokens; of the part.
    """
    tokens, lengths, mask = data.arrays["tokens"], data.arrays["lengths"], data.arrays.get(MASK)
    with Scorer(model, int(lengths.max(initial=1)), dtype) as scorer:
        pieces, own = _pieces(lengths, scorer, part)
        nll = np.zeros(len(lengths[own]))

        def chunk(rows: int) -> tuple[np.ndarray, list[Columns]]:
            sums, noted = np.zeros(len(lengths[piece])), []
            at_once, done = rows * scorer.width, piece.start
            some = None if mask is None else mask[piece]
            for batch in lay_out(tokens[piece], lengths[piece], at_once, model.device, scorer.able, mask=some):
                owners = batch.owners[:, 1:]
                if details is None:
                    losses = scorer(batch)
                    sums += np.bincount(owners[owners >= 0], losses[owners >= 0], minlength=len(sums))
                    if each is not None:
                        there, row, column = places_of(batch)
                        each[done + row, column] = losses[there]
                else:
                    columns = scorer.details(batch, owners, details.more)
                    sums += np.bincount(columns["row"], columns["nll"], minlength=len(sums))
                    noted.append({**columns, "row": columns["row"] + done})
            return sums, noted

        for piece in pieces:
            (sums, noted), scorer.rows_at_once = halving(chunk, scorer.rows_at_once, "scoring")
            nll[piece.start - own.start : piece.stop - own.start] = sums
            if details is not None:
                details.parts.extend(noted)
            tell(piece.stop - own.start, len(nll))
    return nll, data.predicted[own]


def _pieces(lengths: np.ndarray, scorer: Scorer, part: Part) -> tuple[list[slice], slice]:
    """The rows that are laid out together, of a part of all, and which rows that part has.

    Rows of full width are a batch each; others are laid out `CHUNK` batches at a time, so that they fill these.
    """
    pieces, done = list[slice](), 0
    while done < len(lengths):
        full = lengths[done : done + scorer.rows_at_once].min() == scorer.width
        end = min(done + scorer.rows_at_once * (1 if full else CHUNK), len(lengths))
        pieces.append(slice(done, end))
        done = end
    own = pieces[part(len(pieces))]
    return own, slice(own[0].start, own[-1].stop) if own else slice(0, 0)


def places_of(batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, width-1) which labels of a batch are predicted; of these the text, and the place in it less one, from 0 on."""
    there = batch.labels.cpu().numpy() != IGNORED
    return there, batch.owners[:, 1:][there], batch.places()[:, 1:][there] - 1


def score_continuations(
    model: "PreTrainedModel",
    prompts: Dataset,
    new: Dataset,
    ends: np.ndarray,
    tell: Callable[[int, int], None] = lambda done, total: None,
    dtype: str = "float32",
    part: Part = everything,
) -> tuple[np.ndarray, np.ndarray]:
    """Score what continues prompts, given the prompt; the prompt itself is not scored.

    Args:
        prompts, new: `tokens` (rows, columns) and `lengths` (rows,) each, prompts of at least one token.
        ends: (rows,) after how many new tokens the model's state is wanted; 0: not at all.
        dtype: `float32`, or `bfloat16` for matrix products in that.
        part: which of the rows are scored, as `score_blocks` has it.

    Returns:
        (rows,) float64 summed negative log-likelihood of the new tokens in nats, and (rows with `ends` > 0, d) float32
        last hidden states there; of the part.
    """
    joined = join(prompts, new)
    tokens, lengths = joined.arrays["tokens"], joined.arrays["lengths"]
    starts = prompts.arrays["lengths"].astype(np.int64)
    wanted = np.where(ends > 0, starts + ends - 1, -1)
    states: list[np.ndarray] = []
    with Scorer(model, int(lengths.max(initial=1)), dtype) as scorer:
        pieces, own = _pieces(lengths, scorer, part)
        nll = np.zeros(len(lengths[own]))

        def chunk(rows: int) -> tuple[np.ndarray, np.ndarray]:
            sums, at = np.zeros(len(lengths[piece])), wanted[piece]
            kept: dict[int, np.ndarray] = {}
            at_once = rows * scorer.width
            for batch in lay_out(tokens[piece], lengths[piece], at_once, model.device, scorer.able):
                owners, places = batch.owners, batch.places()
                inside = owners >= 0
                batch.labels[to_device((places[:, 1:] < starts[piece][owners[:, 1:]]), model.device)] = IGNORED
                here = np.flatnonzero((inside & (places == at[owners])).ravel())
                losses, last = scorer.ends(batch, here)
                sums += np.bincount(owners[:, 1:][inside[:, 1:]], losses[inside[:, 1:]], minlength=len(sums))
                kept |= dict(zip(owners.ravel()[here].tolist(), last, strict=True))
            order = np.flatnonzero(at >= 0)
            return sums, np.stack([kept[row] for row in order.tolist()]) if len(order) else np.zeros((0, 0), np.float32)

        for piece in pieces:
            (sums, some), scorer.rows_at_once = halving(chunk, scorer.rows_at_once, "scoring samples")
            nll[piece.start - own.start : piece.stop - own.start] = sums
            if len(some):
                states.append(some)
            tell(piece.stop - own.start, len(nll))
    return nll, np.concatenate(states) if states else np.zeros((0, 0), np.float32)


def score_sliding(
    model: "PreTrainedModel",
    stream: np.ndarray,
    context: int,
    stride: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
    dtype: str = "float32",
    details: Details | None = None,
    part: Part = everything,
) -> tuple[np.ndarray, np.ndarray]:
    """Score a stream of tokens with a window of `context` tokens that moves by `stride`.

    Every token but the first is scored once, with at least `context - stride` tokens before it (fewer only in the
    first window).

    Args:
        dtype: `float32`, or `bfloat16` for matrix products in that.
        details: filled with what is found at each token; scoring then takes longer.
        part: which of the windows are scored, as `score_blocks` has it.

    Returns:
        (windows,) float64 summed negative log-likelihood in nats, and (windows,) int64 predicted tokens; of the part.

    Raises:
        InputError: unless the stride is less than the context.
    """
    if not 0 < stride < context:
        raise InputError(
            f"eval.stride = {stride} must be less than eval.context = {context}, so that every token has one before it"
        )
    width = min(context, len(stream))
    ends = np.minimum(np.arange(width, len(stream) + stride, stride), len(stream))
    ends = ends[: 1 + int((ends < len(stream)).sum())]
    if len(stream) < 2:
        ends = ends[:0]
    predicted = np.diff(ends, prepend=1)
    with Scorer(model, width, dtype) as scorer:
        at_once = scorer.rows_at_once
        batches = part(-(-len(ends) // at_once))
        first, last = (min(edge * at_once, len(ends)) for edge in (batches.start, batches.stop))
        nll, done, before = np.zeros(last - first), first, int(ends[first - 1]) if first else 0

        def some(rows: int) -> tuple[np.ndarray, list[Columns]]:
            part = slice(done, min(done + rows, last))
            inside = ends[part, None] - width + np.arange(width)
            ids = stream[inside].astype(np.int64)
            new = np.arange(width) >= width - predicted[part, None]
            labels = np.where(new, ids, IGNORED)[:, 1:]
            batch = Batch(to_device(ids, model.device), to_device(labels, model.device), np.zeros(0))
            if details is None:
                return scorer(batch).sum(axis=1), []
            windows = np.broadcast_to(np.arange(len(ids))[:, None], labels.shape)
            columns = scorer.details(batch, windows, details.more)
            summed = np.bincount(columns["row"], columns["nll"], minlength=len(ids))
            return summed, [{**columns, "row": columns["row"] + done}]

        while done < last:
            (sums, noted), scorer.rows_at_once = halving(some, scorer.rows_at_once, "scoring")
            nll[done - first : done - first + len(sums)] = sums
            if details is not None:
                details.parts.extend(noted)
            done += len(sums)
            tell(int(ends[done - 1]) - before, int(ends[last - 1]) - before)
    return nll, predicted[first:last].astype(np.int64)
