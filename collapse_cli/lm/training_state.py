"""What a training keeps on the disk: a checkpoint to go on from, and the weights of its best epoch."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from collapse_cli.data.dataset import Dataset
from collapse_cli.engine import checkpoint as checkpoints
from collapse_cli.errors import InputError
from collapse_cli.lm.score import score_blocks
from collapse_cli.lm.step import named_trained

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NO_VALIDATION = "train.select = valid, but the data have no validation text; say --set data.valid=FILE"
CHECKPOINT_SHARE = 0.05  # of the time at most goes into checkpoints


class Checkpoint:
    """Weights, optimizer and position of a training in one file, replaced whole."""

    def __init__(self, path: Path, model: "PreTrainedModel", optimizer: torch.optim.AdamW) -> None:
        self.path, self.model, self.optimizer = path, model, optimizer
        self.due = time.monotonic() + checkpoints.seconds_between()

    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() >= self.due

    def save(self, state: Mapping[str, Any]) -> None:
        """Write down weights, optimizer and `state`."""
        start = time.monotonic()
        tensors = {}
        for name, weight in named_trained(self.model):
            tensors[f"weight.{name}"] = weight.detach()
            for key, value in self.optimizer.state[weight].items():
                tensors[f"{key}.{name}"] = value
        checkpoints.put_tensors(self.path, tensors, state)
        took = time.monotonic() - start
        self.due = time.monotonic() + max(checkpoints.seconds_between(), took / CHECKPOINT_SHARE if took > 1 else 0)

    def load(self) -> dict[str, Any] | None:
        """Put the saved weights and optimizer state in place; None when there is no checkpoint."""
        self.path.with_suffix(".tmp").unlink(missing_ok=True)
        if not checkpoints.is_sound(self.path):
            return None
        with safe_open(self.path, "pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()["state"])
            if state["best"] is not None and not checkpoints.is_sound(self.path.with_name("best.safetensors")):
                return None
            names = set(file.keys())
            for name, weight in named_trained(self.model):
                weight.data.copy_(file.get_tensor(f"weight.{name}"))
                self.optimizer.state[weight] = {
                    key: file.get_tensor(f"{key}.{name}").to(weight.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{key}.{name}" in names
                }
        return state


def keep_best(model: "PreTrainedModel", valid: Dataset | None, best: float | None, path: Path) -> float:
    """Write down the weights where their loss on the validation rows is the lowest so far.

    Args:
        best: the lowest one before, nats per predicted token; None: there was none.

    Returns:
        The lowest one.
    """
    if valid is None:
        raise InputError(NO_VALIDATION)
    nll, predicted = score_blocks(model, valid)
    model.train()
    loss = float(nll.sum() / predicted.sum())
    if best is not None and best <= loss:
        return best
    checkpoints.put_tensors(path, {name: weight.detach() for name, weight in named_trained(model)})
    return loss


def restore(model: "PreTrainedModel", path: Path) -> None:
    """Put the weights of the best epoch in place."""
    with safe_open(path, "pt") as file:
        for name, weight in named_trained(model):
            weight.data.copy_(file.get_tensor(name))
