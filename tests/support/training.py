"""What tests of training share: settings, and weights to compare."""

from pathlib import Path
from typing import Any

import torch

SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "lr": 3e-3,
    "batch_size": 4,
    "weight_decay": 0.1,
    "schedule": "cosine",
    "min_lr": 1e-4,
    "warmup": 0.2,
    "clip": 1.0,
    "dtype": "float32",
    "select": "last",
}


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def identical(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
