"""What the small networks (vae, mlp) share: where they run, how they start, and training that can be taken up again."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from collapse_cli.data.dataset import WEIGHTS, Dataset
from collapse_cli.engine import checkpoint as checkpoints
from collapse_cli.errors import InputError
from collapse_cli.learners.protocol import Tell

Net = TypeVar("Net", bound=nn.Module)
ROWS_AT_ONCE = 256  # of a forward pass without training; shorter ones are filled up, so that all are alike


def device() -> torch.device:
    """A GPU when torch sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def start(make: Callable[[], Net], seed: int) -> Net:
    """A module with weights as torch's own layers begin: uniform in ±1/sqrt(fan in), biases too; from `seed` alone."""
    with torch.device("meta"):
        module = make()
    module = module.to_empty(device="cpu")
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                bound = layer.weight[0].numel() ** -0.5  # torch's fan in, for transposed convolutions too
                for weight in (layer.weight, layer.bias):
                    if weight is not None:
                        weight.uniform_(-bound, bound, generator=random)
    return module.to(device())


def weights(module: nn.Module) -> dict[str, np.ndarray]:
    """Its parameters as arrays."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def with_weights(make: Callable[[], Net], state: Mapping[str, np.ndarray]) -> Net:
    """A module with these parameters."""
    with torch.device("meta"):
        module = make()
    values = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in state.items()}
    module.load_state_dict(values, assign=True)
    return module.to(device())


def row_weights(data: Dataset) -> Tensor | None:
    """(rows,) float32 how much each row of a corpus counts in the loss; None where all count alike.

    They are 1 on average over the corpus, and a step divides by its number of rows, not by their weights: so its gradient
    is without bias that of the corpus' weighted mean, and a step of light rows alone stays light.
    """
    weights = data.arrays.get(WEIGHTS)
    return None if weights is None else torch.from_numpy(weights.astype(np.float32)).to(device())


@contextmanager
def steady() -> Iterator[None]:
    """Inside, a GPU's convolutions give the same bits each time, in float32 and not in the coarser TF32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def in_pieces(rows: Tensor, work: Callable[[Tensor], Tensor]) -> np.ndarray:
    """`work` on (rows, ...) a piece at a time, all of one size: what comes out for a row hardly depends on its company."""
    pieces = []
    with torch.inference_mode(), steady():
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            piece = rows[begin : begin + ROWS_AT_ONCE]
            fill = piece.new_zeros((ROWS_AT_ONCE - len(piece), *piece.shape[1:]))
            pieces.append(work(torch.cat([piece, fill]).to(device()))[: len(piece)].cpu())
    if not pieces:
        return work(rows.new_zeros((1, *rows.shape[1:])).to(device()))[:0].detach().cpu().numpy()
    joined: np.ndarray = torch.cat(pieces).numpy()
    return joined


@dataclass
class Training:
    """How a module is trained.

    Attributes:
        loss: the loss summed over the rows with these indices; random numbers come from the generator (of the CPU).
        averaged: whether a step follows the gradient of the mean over its rows, or of the sum.
        select: a loss of the module on other rows, after each epoch; the weights with the lowest are kept. None: the
            last ones are.
        name: of the section of the configuration, for messages.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[Tensor, torch.Generator], Tensor]
    rows: int
    epochs: int
    batch_size: int
    averaged: bool
    name: str
    select: Callable[[], float] | None = None
    best: dict[str, Tensor] = field(default_factory=dict, init=False)

    def run(self, seed: int, scratch: Path, tell: Tell) -> list[float]:
        """Train in place. Returns the mean loss per row of each epoch, as it was met.

        A checkpoint in `scratch` is taken up at the epoch where it was left, to the same bits.

        Raises:
            InputError: when there are no rows, or the loss is not finite.
        """
        if self.rows == 0:
            raise InputError("there are no rows to train on")
        checkpoint = _Checkpoint(scratch / "checkpoint.safetensors", self)
        losses, lowest = checkpoint.load()
        self.module.train()
        with steady():
            for epoch in range(len(losses), self.epochs):
                losses.append(self._epoch(seed, epoch))
                if not math.isfinite(losses[-1]):
                    raise InputError(
                        f"the loss is {losses[-1]} in epoch {epoch + 1} of {self.epochs}; lower {self.name}.lr"
                    )
                if self.select is not None and (now := self.select()) < lowest:
                    lowest = now
                    self.best = {name: value.clone() for name, value in self.module.state_dict().items()}
                checkpoint.save_sometimes(losses, lowest)
                tell((epoch + 1) * self.rows, self.epochs * self.rows, "rows")
        if self.best:
            self.module.load_state_dict(self.best)
        self.module.eval()
        return losses

    def _epoch(self, seed: int, epoch: int) -> float:
        words = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
        random = torch.Generator().manual_seed(int(words[0] >> 1))
        order = torch.randperm(self.rows, generator=random)
        total = torch.zeros((), dtype=torch.float64, device=device())
        for chosen in torch.split(order, self.batch_size):
            loss = self.loss(chosen, random)
            total += loss.detach()
            self.optimizer.zero_grad(set_to_none=True)
            (loss / len(chosen) if self.averaged else loss).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return float(total) / self.rows


class _Checkpoint:
    """Weights, optimizer and position of a training in one file, replaced whole."""

    def __init__(self, path: Path, training: Training) -> None:
        self.path, self.training = path, training
        self.due = time.monotonic() + checkpoints.seconds_between()

    def save_sometimes(self, losses: list[float], lowest: float) -> None:
        if time.monotonic() < self.due:
            return
        module, optimizer = self.training.module, self.training.optimizer
        tensors = {f"best.{name}": value for name, value in self.training.best.items()}
        for name, weight in module.named_parameters():
            tensors[f"weight.{name}"] = weight.detach()
            tensors |= {f"{key}.{name}": value for key, value in optimizer.state[weight].items()}
        state = {"losses": losses, "lowest": lowest if self.training.best else None}
        checkpoints.put_tensors(self.path, tensors, state)
        self.due = time.monotonic() + checkpoints.seconds_between()

    def load(self) -> tuple[list[float], float]:
        """Put weights and optimizer in place; the losses of the epochs done, and the lowest of `select`."""
        self.path.with_suffix(".tmp").unlink(missing_ok=True)
        if not checkpoints.is_sound(self.path):
            return [], math.inf
        module, optimizer = self.training.module, self.training.optimizer
        with safe_open(self.path, "pt") as file:
            names = set(file.keys())
            for name, weight in module.named_parameters():
                weight.data.copy_(file.get_tensor(f"weight.{name}"))
                optimizer.state[weight] = {
                    key: _beside(weight, file.get_tensor(f"{key}.{name}"))
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{key}.{name}" in names
                }
                if f"best.{name}" in names:
                    self.training.best[name] = file.get_tensor(f"best.{name}").to(weight.device)
            state = json.loads(file.metadata()["state"])
        lowest = state["lowest"]
        return list(state["losses"]), math.inf if lowest is None else float(lowest)


def _beside(weight: Tensor, value: Tensor) -> Tensor:
    """On the weight's device and, where it is as large, in the weight's layout."""
    if value.shape != weight.shape:
        return value.to(weight.device)
    return torch.empty_like(weight, requires_grad=False).copy_(value)
