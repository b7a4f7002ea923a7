"""Training: AdamW over rows of tokens, in a loop of our own that can be killed and taken up again at any step."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from collapse_cli.data import Dataset, InputError
from collapse_cli.lm.loss import IGNORED, has_plain_head, summed_loss
from collapse_cli.lm.score import score_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_AT_ONCE = 4096  # in one forward pass; larger batches are accumulated
LOGITS_BYTES = 512 << 20  # the same in float32 logits, for models whose loss needs all of them at once
CHECKPOINT_SECONDS = 60.0
CHECKPOINT_SHARE = 0.05  # of the time at most goes into checkpoints


class TrainError(InputError):
    """Training went wrong in a way that another setting mends."""


def fit(
    model: "PreTrainedModel",
    data: Dataset,
    settings: Mapping[str, Any],
    *,
    seed: int,
    scratch: Path,
    valid: Dataset | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Train `model` in place on the rows of `data`.

    Args:
        settings: the fields of `config.TrainConfig`, with `dtype` resolved.
        seed: of the order of rows and of dropout.
        scratch: where checkpoints are kept; a checkpoint found there is taken up.
        valid: rows to choose the best epoch by, for `select = "valid"`.

    Returns:
        `train_loss` (nats per predicted token, mean of the last epoch), `epoch_losses`, `steps`, `train_tokens`.

    Raises:
        TrainError: when the loss is not finite, or the weights did not change.
    """
    rows, batch, epochs = len(data), int(settings["batch_size"]), int(settings["epochs"])
    if rows == 0:
        raise InputError("there are no rows to train on")
    if data.arrays["lengths"].max() < 2:
        raise TrainError(
            "no row has two tokens, so there is nothing to predict; raise sample.decode.min_new_tokens or "
            "sample.new_tokens, or set train.target = full"
        )
    steps_per_epoch = math.ceil(rows / batch)
    total = epochs * steps_per_epoch
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"], fused=True
    )
    before, plain_head = _fingerprint(model), has_plain_head(model)
    checkpoint = Checkpoint(scratch / "checkpoint.safetensors", model, optimizer)
    state = checkpoint.load() or {"step": 0, "losses": [[0.0, 0]] * epochs, "best": None}
    step, losses, best = state["step"], [tuple(loss) for loss in state["losses"]], state["best"]

    model.train()
    with torch.random.fork_rng():
        while step < total:
            epoch, within = divmod(step, steps_per_epoch)
            order = _generator(seed, "order", epoch).permutation(rows)
            chosen = data.take(np.sort(order[within * batch : (within + 1) * batch]))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step, total, steps_per_epoch)
            torch.manual_seed(int(_generator(seed, "dropout", step).integers(2**63)))
            loss, predicted = _step(model, optimizer, chosen, settings, plain_head=plain_head)
            if not math.isfinite(loss):
                raise TrainError(
                    f"the loss is {loss} at step {step + 1} of {total}; lower train.lr or set train.dtype = float32"
                )
            losses[epoch] = (losses[epoch][0] + loss, losses[epoch][1] + predicted)
            step += 1
            if settings["select"] == "valid" and step % steps_per_epoch == 0:
                best = _keep_best(model, valid, best, scratch / "best.safetensors")
            checkpoint.save_sometimes({"step": step, "losses": losses, "best": best})
            tell(step, total)
    if best is not None:
        _restore(model, scratch / "best.safetensors")
    after = _fingerprint(model)
    if not all(map(math.isfinite, after)):
        raise TrainError("training left weights that are not finite; lower train.lr or set train.dtype = float32")
    if after == before:
        raise TrainError("training left every weight as it was; raise train.lr or train.epochs")
    model.eval()
    epoch_losses = [summed / count for summed, count in losses]
    return {
        "train_loss": epoch_losses[-1],
        "epoch_losses": epoch_losses,
        "steps": total,
        "train_tokens": epochs * int(data.arrays["lengths"].sum()),
    }


def learning_rate(settings: Mapping[str, Any], step: int, total: int, steps_per_epoch: int) -> float:
    """The learning rate of step `step` (from 0) of `total`.

    `cosine-epoch` is torch's CosineAnnealingLR(T_max=epochs) stepped once an epoch, as in the Nature code.
    """
    lr, low = float(settings["lr"]), float(settings["min_lr"])
    warm = int(settings["warmup"] * total)
    if step < warm:
        return lr * (step + 1) / (warm + 1)
    if settings["schedule"] == "constant":
        return lr
    if settings["schedule"] == "cosine-epoch":
        part = (step // steps_per_epoch) / (total // steps_per_epoch)
    else:
        part = (step - warm) / max(1, total - warm)
    fall = part if settings["schedule"] == "linear" else (1 - math.cos(math.pi * part)) / 2
    return lr + (low - lr) * fall


def _step(
    model: "PreTrainedModel",
    optimizer: torch.optim.Optimizer,
    chosen: Dataset,
    settings: Mapping[str, Any],
    *,
    plain_head: bool,
) -> tuple[float, int]:
    """One optimizer step over all rows of `chosen`. Returns the summed loss in nats and the predicted tokens."""
    tokens, lengths = chosen.arrays["tokens"].astype(np.int64), chosen.arrays["lengths"]
    width = int(lengths.max())
    labels = np.where(np.arange(width) < lengths[:, None], tokens[:, :width], IGNORED)[:, 1:]
    predicted = int((labels != IGNORED).sum())
    at_once = TOKENS_AT_ONCE // width
    if not plain_head:
        at_once = min(at_once, LOGITS_BYTES // (4 * width * model.config.vocab_size))
    at_once = max(1, at_once)
    bf16 = settings["dtype"] == "bfloat16"
    summed = 0.0
    for first in range(0, len(chosen), at_once):
        part = slice(first, first + at_once)
        ids = torch.from_numpy(tokens[part, :width]).to(model.device)
        target = torch.from_numpy(labels[part]).to(model.device)
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = summed_loss(model, ids, target, plain_head=plain_head)
        (loss / max(1, predicted)).backward()  # type: ignore[no-untyped-call]
        summed += float(loss.detach())
    if settings["clip"] > 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip"])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return summed, predicted


def _generator(seed: int, *stream: str | int) -> np.random.Generator:
    """Random numbers of their own for each purpose and step, so that none need be saved in a checkpoint."""
    words = [int.from_bytes(part.encode(), "big") if isinstance(part, str) else part for part in stream]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words])))


class Checkpoint:
    """Weights, optimizer and position of a training in one file, replaced whole."""

    def __init__(self, path: Path, model: "PreTrainedModel", optimizer: torch.optim.AdamW) -> None:
        self.path, self.model, self.optimizer = path, model, optimizer
        self.due = time.monotonic() + _checkpoint_seconds()

    def save_sometimes(self, state: Mapping[str, Any]) -> None:
        start = time.monotonic()
        if start < self.due:
            return
        tensors = {}
        for name, weight in self.model.named_parameters():
            tensors[f"weight.{name}"] = weight.detach()
            for key, value in self.optimizer.state[weight].items():
                tensors[f"{key}.{name}"] = value
        attempt = self.path.with_suffix(".tmp")
        save_file({name: value.contiguous() for name, value in tensors.items()}, attempt, {"state": json.dumps(state)})
        attempt.replace(self.path)
        took = time.monotonic() - start
        self.due = time.monotonic() + max(_checkpoint_seconds(), took / CHECKPOINT_SHARE if took > 1 else 0)

    def load(self) -> dict[str, Any] | None:
        """Put the saved weights and optimizer state in place; None when there is no checkpoint."""
        self.path.with_suffix(".tmp").unlink(missing_ok=True)
        if not self.path.exists():
            return None
        with safe_open(self.path, "pt") as file:
            names = set(file.keys())
            for name, weight in self.model.named_parameters():
                weight.data.copy_(file.get_tensor(f"weight.{name}"))
                self.optimizer.state[weight] = {
                    key: file.get_tensor(f"{key}.{name}").to(weight.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{key}.{name}" in names
                }
            state: dict[str, Any] = json.loads(file.metadata()["state"])
        return state


def _checkpoint_seconds() -> float:
    return float(os.environ.get("COLLAPSE_CHECKPOINT_SECONDS", CHECKPOINT_SECONDS))


def _keep_best(model: "PreTrainedModel", valid: Dataset | None, best: float | None, path: Path) -> float:
    if valid is None:
        raise InputError("train.select = valid, but the data have no validation text; say --set data.valid=FILE")
    nll, predicted = score_blocks(model, valid)
    model.train()
    loss = float(nll.sum() / predicted.sum())
    if best is not None and best <= loss:
        return best
    attempt = path.with_suffix(".tmp")
    save_file({name: weight.detach().contiguous() for name, weight in model.named_parameters()}, attempt)
    attempt.replace(path)
    return loss


def _restore(model: "PreTrainedModel", path: Path) -> None:
    with safe_open(path, "pt") as file:
        for name, weight in model.named_parameters():
            weight.data.copy_(file.get_tensor(name))


def _fingerprint(model: "PreTrainedModel") -> list[float]:
    """A number per tensor that any training step changes."""
    weights = [weight.detach().double() for weight in model.parameters()]
    return [float((w * w).sum() + w.sum()) for w in weights]
