"""What a run was made with: versions, the commit of this package, the machine."""

import platform
import subprocess
from functools import cache
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
    known = {"python": platform.python_version(), "collapse": _version("collapse-cli")}
    return known | {name: _version(name) for name in PACKAGES}


@cache  # each is a file that is read and parsed
def _version(package: str) -> str:
    return metadata.version(package)


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


# instructions that decide by which routine, and so in which order, numbers are summed: as Linux calls them, as people do
VECTORS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 bfloat16",
    "amx_bf16": "AMX bfloat16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "NEON bfloat16",
}
CPUINFO = Path("/proc/cpuinfo")


def processor() -> tuple[str, list[str]]:
    """The name of the processor, and which of `VECTORS` it has; without Linux none of them are found out."""
    try:
        lines = [line.partition(":") for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return _brand() or platform.processor() or platform.machine(), []
    processor = {name.strip(): value.strip() for name, _, value in reversed(lines)}  # of the first core
    name = processor.get("model name") or processor.get("Model") or platform.processor() or platform.machine()
    flags = (processor.get("flags") or processor.get("Features") or "").split()
    return name, [word for flag, word in VECTORS.items() if flag in flags]


def _brand() -> str:
    """What macOS calls its processor; empty elsewhere."""
    if platform.system() != "Darwin":
        return ""
    ask = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""


def hardware() -> dict[str, Any]:
    """What the numbers were made on: another processor, or another number of threads, rounds sums differently.

    Returns:
        `processor` its name, `vectors` which of `VECTORS` it has, `kernels` for which instructions torch chose its routines;
        `cores`, `threads` of torch in this process, `memory_gib`, `gpus` their names.
    """
    import psutil
    import torch

    name, vectors = processor()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": name,
        "vectors": vectors,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
    }
