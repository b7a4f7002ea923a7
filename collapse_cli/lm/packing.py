"""Rows of unequal lengths: several texts in one row of a batch, or texts of like lengths together, so that little of
a batch is padding; and whether a model can take that.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from collapse_cli.lm.attention import Causal, UnsupportedError, attending
from collapse_cli.lm.loss import IGNORED
from collapse_cli.lm.memory import warn_once

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Batch:
    """Rows for one forward pass. Their tensors are where the model is.

    Attributes:
        ids: (rows, width) token ids.
        labels: (rows, width-1) what follows each token in its text, `IGNORED` where its text ends.
        owners: (rows, width) which of the texts a token belongs to, -1 for padding; on the host.
        positions, segments: (rows, width) position of each token in its text, and number of the text;
            None where each row is one text.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    owners: np.ndarray
    positions: torch.Tensor | None = None
    segments: torch.Tensor | None = None

    def places(self) -> np.ndarray:
        """(rows, width) position of each token in its text, on the host."""
        if self.positions is not None:
            return self.positions.cpu().numpy()
        return np.broadcast_to(np.arange(self.owners.shape[1]), self.owners.shape)


@dataclass(frozen=True)
class Abilities:
    """What a model can do: go through our attention, and take several texts in one row."""

    attends: bool = False
    packs: bool = False


def first_fit(lengths: np.ndarray, width: int) -> list[list[int]]:
    """Texts of these lengths, each at most `width`, put into rows: the longest first, each where it first fits."""
    rows: list[list[int]] = []
    room: list[int] = []
    for text in np.argsort(-lengths.astype(np.int64), kind="stable").tolist():
        length = int(lengths[text])
        row = next((number for number, free in enumerate(room) if free >= length), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(text)
        room[row] -= length
    return rows


def lay_out(
    tokens: np.ndarray, lengths: np.ndarray, tokens_at_once: int, device: torch.device, *, packed: bool
) -> Iterator[Batch]:
    """Batches of at most `tokens_at_once` tokens (one row at least) with all that is to be predicted.

    Texts of less than two tokens predict nothing and are left out. Texts of one length stay in order.

    Args:
        tokens: (texts, columns) token ids.
        lengths: (texts,) how many of them are used.
        packed: whether several texts may share a row.
    """
    texts = np.flatnonzero(lengths >= 2)
    if len(texts) == 0:
        return
    used, longest = lengths[texts], int(lengths[texts].max())
    if (used == longest).all():
        rows = [[text] for text in range(len(texts))]
    elif packed:
        rows = first_fit(used, longest)
    else:
        rows = [[text] for text in np.argsort(-used.astype(np.int64), kind="stable").tolist()]
    start = 0
    while start < len(rows):
        width = int(used[rows[start]].sum()) if not packed else longest
        part = [texts[row] for row in rows[start : start + max(1, tokens_at_once // width)]]
        start += len(part)
        yield _batch(tokens, lengths, part, device)


def _batch(tokens: np.ndarray, lengths: np.ndarray, rows: list[np.ndarray], device: torch.device) -> Batch:
    """`rows`: the texts of each row."""
    width = int(max(lengths[texts].sum() for texts in rows))
    if all(len(texts) == 1 for texts in rows):
        texts = np.concatenate(rows)
        mine = np.arange(width) < lengths[texts, None]
        ids = tokens[texts, :width].astype(np.int64)
        labels = np.where(mine, ids, IGNORED)[:, 1:]
        return Batch(to_device(ids, device), to_device(labels, device), np.where(mine, texts[:, None], -1))
    ids, positions = np.zeros((2, len(rows), width), np.int64)
    owners = np.full((len(rows), width), -1, np.int64)
    labels = np.full((len(rows), width), IGNORED, np.int64)
    for row, texts in enumerate(rows):
        begin = 0
        for text in texts:
            end = begin + int(lengths[text])
            ids[row, begin:end] = tokens[text, : end - begin]
            labels[row, begin : end - 1] = ids[row, begin + 1 : end]
            positions[row, begin:end] = np.arange(end - begin)
            owners[row, begin:end] = text
            begin = end
    return Batch(
        to_device(ids, device),
        to_device(labels[:, :-1], device),
        owners,
        to_device(positions, device),
        to_device(owners, device),
    )


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy there; on a GPU one that the work already queued does not have to wait for."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def attention_for(model: "PreTrainedModel", able: Abilities, batch: Batch) -> "AbstractContextManager[None]":
    """Inside, the model attends as the rows of the batch need it."""
    if not able.attends:
        return nullcontext()
    return attending(model, Causal(batch.segments, batch.ids.shape[1]))


def abilities(model: "PreTrainedModel", reach: int) -> Abilities:
    """Found out by trying: our attention must give the logits of the model's own, in one row and in a packed one.

    Args:
        reach: the longest row that will be asked for, in tokens.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            found, why = _try(model, reach)
    finally:
        model.train(training)
    if not found.attends:
        warn_once(f"{model.config.model_type} models keep their own attention, which is slower: {why}")
    return found


class _Counted(Causal):
    """Says whether it was asked at all."""

    calls = 0

    def __call__(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        dropout: float,
    ) -> torch.Tensor:
        self.calls += 1
        return super().__call__(layer, query, key, value, scaling, dropout)


def _try(model: "PreTrainedModel", reach: int) -> tuple[Abilities, str]:
    if not model._can_set_attn_implementation():
        return Abilities(), "it cannot be exchanged"
    device = model.device
    ids = torch.arange(9, device=device)[None] % model.config.vocab_size
    texts = ids[:, :5], ids[:, 5:]
    wanted = [model(input_ids=text, use_cache=False).logits for text in texts]

    def agrees(segments: torch.Tensor | None, wanted: torch.Tensor, **inputs: Any) -> bool:
        causal = _Counted(segments, reach)
        with attending(model, causal):
            logits = model(**inputs, use_cache=False).logits
        error = min(0.05, 1000 * torch.finfo(logits.dtype).eps) * wanted.abs().max()
        same = torch.allclose(logits, wanted, rtol=0, atol=float(error.nan_to_num()), equal_nan=True)
        return same and causal.calls > 0

    try:
        if not agrees(None, wanted[0], input_ids=texts[0]):
            return Abilities(), "ours cannot take its place, or gives other results"
    except UnsupportedError as error:
        return Abilities(), str(error)
    except Exception as error:  # families differ in what they do with what they do not know
        return Abilities(), f"{type(error).__name__}: {error}".splitlines()[0]
    segments = (torch.arange(9, device=device) >= 5).long()[None]
    positions = torch.arange(9, device=device)[None] - 5 * segments
    try:
        packs = agrees(segments, torch.cat(wanted, dim=1), input_ids=ids, position_ids=positions)
    except Exception:  # as above; its rows then go one text each, which is slower and nothing else
        packs = False
    return Abilities(attends=True, packs=packs), ""
