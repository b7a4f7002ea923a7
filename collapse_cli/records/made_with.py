"""What a run was made with: versions, the commit of this package, the machine."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "pydantic",
)


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries whose numbers it shows."""
    found = {"python": platform.python_version(), "collapse": metadata.version("collapse-cli")}
    return found | {name: metadata.version(name) for name in PACKAGES}


def git_state() -> dict[str, str | bool] | None:
    """Commit of the checkout this package runs from, and whether it was changed since; None when it is installed."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        ask = ["git", "-C", str(here)]
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)  # noqa: S603
        changed = subprocess.run([*ask, "status", "--porcelain"], capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(changed.stdout.strip())}


def hardware() -> dict[str, Any]:
    """What the numbers of seconds were measured on."""
    import psutil
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
    }
