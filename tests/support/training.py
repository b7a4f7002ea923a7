"""What tests of training share: settings, and weights to compare."""

from pathlib import Path
from typing import Any

import torch

from collapse_cli.config.tree import TrainConfig

SETTINGS = TrainConfig(
    epochs=2,
    lr=3e-3,
    batch_size=4,
    weight_decay=0.1,
    schedule="cosine",
    min_lr=1e-4,
    warmup=0.2,
    clip=1.0,
    dtype="float32",
    select="last",
)


def altered(settings: TrainConfig, **changes: Any) -> TrainConfig:
    """Other settings; values that a user may not ask for, too."""
    return settings.model_copy(update=changes)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def identical(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
