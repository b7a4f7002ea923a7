"""Rows of unequal lengths: several texts in one row of a batch, or texts of like lengths together, so that little of
a batch is padding; and whether a model can take that.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from collapse_cli.lm import trial
from collapse_cli.lm.arithmetic import OwnRows
from collapse_cli.lm.attention import Causal, UnsupportedError, attending
from collapse_cli.lm.loss import IGNORED, has_plain_head, summed_loss
from collapse_cli.lm.memory import warn_once
from collapse_cli.lm.trial import remembered

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
        weights: (rows, width-1) float32 what the loss of each label is multiplied by; None: all by 1.
        masked: whether tokens of a text may be without a label that are not its first.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    owners: np.ndarray
    positions: torch.Tensor | None = None
    segments: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    masked: bool = False

    def places(self) -> np.ndarray:
        """(rows, width) position of each token in its text, on the host."""
        if self.positions is not None:
            return self.positions.cpu().numpy()
        return np.broadcast_to(np.arange(self.owners.shape[1]), self.owners.shape)

    def part(self, part: OwnRows) -> "Batch":
        """Some of its rows, which are what they are in the whole batch."""

        def of(rows: torch.Tensor) -> torch.Tensor:
            return rows[part.first : part.last]

        return replace(
            self,
            ids=of(self.ids),
            labels=of(self.labels),
            owners=self.owners[part.first : part.last],
            positions=None if self.positions is None else of(self.positions),
            segments=None if self.segments is None else of(self.segments),
            weights=None if self.weights is None else of(self.weights),
        )


@dataclass(frozen=True)
class Abilities:
    """What a model can do with the results of each text alone.

    Attributes:
        attends: go through our attention.
        packs: take several texts in one row.
        mixes: take texts of unequal lengths in one batch.
        together: take several texts of one length in one batch.
    """

    attends: bool = False
    packs: bool = False
    mixes: bool = True
    together: bool = True

    def shared_with(self, other: "Abilities") -> "Abilities":
        """What both can do, of two models that are given the same batches."""
        return Abilities(*(mine and theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


# The ways to go, the fastest first; the last is the model's own, which is what the others are compared with.
WAYS = (
    Abilities(attends=True, packs=True),
    Abilities(attends=True),
    Abilities(attends=True, mixes=False),
    Abilities(),
    Abilities(mixes=False),
    Abilities(mixes=False, together=False),
)


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
    tokens: np.ndarray,
    lengths: np.ndarray,
    tokens_at_once: int,
    device: torch.device,
    able: Abilities,
    weights: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Batches of at most `tokens_at_once` tokens (one row at least) with all that is to be predicted.

    Texts of less than two tokens predict nothing and are left out. Texts of one length stay in order.

    Args:
        tokens: (texts, columns) token ids.
        lengths: (texts,) how many of them are used.
        able: whether several texts may share a row or a batch.
        weights: (texts,) what the losses of a text are multiplied by; None: all by 1.
        mask: (texts, columns) bool, which tokens are predicted; None: all but the first of each text, which never is.
    """
    texts = np.flatnonzero(lengths >= 2)
    if len(texts) == 0:
        return
    used, longest = lengths[texts], int(lengths[texts].max())
    packed = able.packs
    if (used == longest).all():
        rows = [[text] for text in range(len(texts))]
    elif packed:
        rows = first_fit(used, longest)
    else:
        rows = [[text] for text in np.argsort(-used.astype(np.int64), kind="stable").tolist()]
    start = 0
    while start < len(rows):
        width = int(used[rows[start]].sum()) if not packed else longest
        most = max(1, tokens_at_once // width) if able.together else 1
        if not able.mixes:
            alike = next((n for n, row in enumerate(rows[start : start + most]) if used[row[0]] != width), most)
            most = min(most, alike)
        part = [texts[row] for row in rows[start : start + most]]
        start += len(part)
        batch = _batch(tokens, lengths, part, device, mask)
        yield batch if weights is None else replace(batch, weights=_weights(batch.owners, weights, device))


def _weights(owners: np.ndarray, weights: np.ndarray, device: torch.device) -> torch.Tensor:
    """`Batch.weights`: of each label that of the text before it."""
    return to_device(np.where(owners < 0, 0, weights[owners])[:, :-1].astype(np.float32), device)


def _batch(
    tokens: np.ndarray, lengths: np.ndarray, rows: list[np.ndarray], device: torch.device, mask: np.ndarray | None
) -> Batch:
    """`rows`: the texts of each row."""
    wanted = None if mask is None else np.where(mask, tokens, IGNORED).astype(np.int64)
    width = int(max(lengths[texts].sum() for texts in rows))
    if all(len(texts) == 1 for texts in rows):
        texts = np.concatenate(rows)
        mine = np.arange(width) < lengths[texts, None]
        ids = tokens[texts, :width].astype(np.int64)
        labels = np.where(mine, ids if wanted is None else wanted[texts, :width], IGNORED)[:, 1:]
        owners = np.where(mine, texts[:, None], -1)
        return Batch(to_device(ids, device), to_device(labels, device), owners, masked=mask is not None)
    ids, positions = np.zeros((2, len(rows), width), np.int64)
    owners = np.full((len(rows), width), -1, np.int64)
    labels = np.full((len(rows), width), IGNORED, np.int64)
    for row, texts in enumerate(rows):
        begin = 0
        for text in texts:
            end = begin + int(lengths[text])
            ids[row, begin:end] = tokens[text, : end - begin]
            labels[row, begin : end - 1] = (
                ids[row, begin + 1 : end] if wanted is None else wanted[text, 1 : end - begin]
            )
            positions[row, begin:end] = np.arange(end - begin)
            owners[row, begin:end] = text
            begin = end
    return Batch(
        to_device(ids, device),
        to_device(labels[:, :-1], device),
        owners,
        to_device(positions, device),
        to_device(owners, device),
        masked=mask is not None,
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


def abilities(model: "PreTrainedModel", reach: int, *, gradients: bool = False) -> Abilities:
    """Found out by trying, on rows of the lengths that the work will have: the fastest way with the model's own results.

    Args:
        reach: the longest row that will be asked for, in tokens.
        gradients: whether the gradients of the loss must be the model's own, too.
    """
    able, why = remembered(model, ("abilities", reach, gradients), lambda: _tried(model, reach, gradients))
    kind = model.config.model_type
    if not able.attends:
        warn_once(f"{kind} models keep their own attention, which is slower: {why}")
    if not able.together:
        warn_once(f"{kind} models are given one row at a time, which is slower: rows of one batch change each other")
    elif not able.mixes:
        warn_once(
            f"{kind} models are given rows of one length at a time, which is slower: in one batch with a longer row, "
            "a row has other results"
        )
    return able


def _tried(model: "PreTrainedModel", reach: int, gradients: bool) -> tuple[tuple[Abilities, str], bool]:
    training = model.training
    model.eval()
    try:
        with torch.autocast(model.device.type, enabled=False):
            return _try(model, max(2, reach), gradients)
    finally:
        model.train(training)


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


class _Rows:
    """The rows of a trial, and what the model's own forward pass makes of each alone."""

    def __init__(self, model: "PreTrainedModel", lengths: list[int], reach: int, gradients: bool) -> None:
        self.model, self.reach = model, reach
        self.lengths = np.array(lengths, np.int64)
        ids = trial.tokens(model, len(lengths), max(lengths))
        self.tokens = ids.cpu().numpy()
        alone = [ids[row : row + 1, :length] for row, length in enumerate(lengths)]
        with torch.no_grad():
            self.wanted = [model(input_ids=text, use_cache=False).logits[0] for text in alone]
        self.slopes: list[torch.Tensor] | None = None
        self.plain_head = has_plain_head(model)
        if gradients:
            parts = (
                _slopes(model, summed_loss(model, text, text[:, 1:], plain_head=False))
                for text in alone
                if text.shape[1] > 1
            )
            self.slopes = next(parts)
            for part in parts:
                for total, slope in zip(self.slopes, part, strict=True):
                    total += slope

    def agree(self, able: Abilities) -> bool:
        """Whether the model's results in this way are those of each row alone."""
        for batch in lay_out(self.tokens, self.lengths, len(self.lengths) * self.reach, self.model.device, able):
            causal = _Counted(batch.segments, self.reach)
            with torch.no_grad(), attending(self.model, causal) if able.attends else nullcontext():
                positions = {} if batch.positions is None else {"position_ids": batch.positions}
                logits = self.model(input_ids=batch.ids, use_cache=False, **positions).logits
            if able.attends and not causal.calls:
                return False
            for text in np.unique(batch.owners[batch.owners >= 0]).tolist():
                mine = torch.from_numpy(batch.owners == text).to(logits.device)
                if not _close(logits[mine], self.wanted[text]):
                    return False
        return self.slopes is None or self._slopes_agree(able, self.slopes)

    def _slopes_agree(self, able: Abilities, wanted: list[torch.Tensor]) -> bool:
        total: list[torch.Tensor] | None = None
        for batch in lay_out(self.tokens, self.lengths, len(self.lengths) * self.reach, self.model.device, able):
            with attention_for(self.model, able, batch):
                loss = summed_loss(
                    self.model, batch.ids, batch.labels, plain_head=self.plain_head, positions=batch.positions
                )
                part = _slopes(self.model, loss)
            total = part if total is None else [mine + other for mine, other in zip(total, part, strict=True)]
        if total is None:
            return True
        whole = torch.stack([slope.double().norm() for slope in wanted]).norm()
        return all(
            torch.allclose(mine.norm(), other.norm(), equal_nan=True, rtol=0.05, atol=float(whole.nan_to_num()) * 1e-3)
            and not (mine - other).double().norm() > 0.01 * other.double().norm() + 1e-3 * whole
            for mine, other in zip(total, wanted, strict=True)
        )


def _slopes(model: "PreTrainedModel", loss: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of a loss by all weights that can be trained."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    slopes = torch.autograd.grad(loss, weights, allow_unused=True)
    return [
        torch.zeros_like(weight) if slope is None else slope.detach()
        for weight, slope in zip(weights, slopes, strict=True)
    ]


def _close(given: torch.Tensor, wanted: torch.Tensor) -> bool:
    error = min(0.05, 1000 * torch.finfo(given.dtype).eps) * wanted.abs().max()
    return torch.allclose(given, wanted, rtol=0, atol=float(error.nan_to_num()), equal_nan=True)


def _try(model: "PreTrainedModel", reach: int, gradients: bool) -> tuple[tuple[Abilities, str], bool]:
    rows = [
        _Rows(model, trial.lengths(model, reach), reach, gradients),
        _Rows(model, [reach, reach, reach], reach, False),
    ]
    sure = all(bool(logits.isfinite().all()) for some in rows for logits in some.wanted)
    why = "" if model._can_set_attn_implementation() else "it cannot be exchanged"
    exchanged = not why
    for way in WAYS[:-1]:
        if way.attends and not exchanged:
            continue
        try:
            if all(some.agree(way) for some in rows):
                return (way, why), sure
            why = why or "ours cannot take its place, or gives other results"
        except UnsupportedError as error:
            why, exchanged = str(error), False
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # architectures differ in what they do with what they do not know
            why = why or (f"{type(error).__name__}: {error}".splitlines()[0] if way.attends and not way.packs else "")
    return (WAYS[-1], why), sure
