"""`collapse doctor`: what this machine has, and what it lacks."""

import os
import shutil
import time
from pathlib import Path

import psutil

from collapse_cli.engine.remote_addresses import address_of
from collapse_cli.errors import UserError, how_many
from collapse_cli.metrics import numbers
from collapse_cli.process import free_memory, total_memory
from collapse_cli.records.made_with import hardware, versions


def examine(runs: Path) -> dict[str, str]:
    """Facts about the machine, each with what it means for a run."""
    import huggingface_hub

    from collapse_cli.lm import places
    from collapse_cli.lm.model import device, has_fast_bf16
    from collapse_cli.run.costs import existing, matmul_speed

    installed, machine = versions(), hardware()
    place = existing(runs)
    fast = has_fast_bf16()
    return {
        "Python": installed.pop("python"),
        **installed,
        "system": f"{machine['system']} {machine['machine']}",
        "processor": f"{machine['processor']}, {how_many(machine['cores'], 'core')}, {how_many(machine['threads'], 'torch thread')}",
        "vector instructions": f"{', '.join(machine['vectors']) or 'none that is known'}; torch uses {machine['kernels']}",
        "memory": _memory(),
        "GPU": ", ".join(machine["gpus"]) or "none",
        "work is done on": device().type,
        "float32": f"{numbers.prefixed(matmul_speed('float32'))}FLOP/s",
        "bfloat16": f"{numbers.prefixed(matmul_speed('bfloat16'))}FLOP/s: "
        + ("dtype = auto means bfloat16" if fast else "emulated, dtype = auto means float32"),
        "GGUF files": f"not read; {places.INSTALL}" if places.missing_for_gguf() else "read",
        "runs folder": f"{address_of(runs) and f'{address_of(runs)}, worked on in '}{runs.absolute()}: "
        + ("writable" if os.access(place, os.W_OK) else "NOT WRITABLE"),
        **({"the place itself": elsewhere(runs)} if address_of(runs) else {}),
        "disk": f"{numbers.size(shutil.disk_usage(place).free)} free there",
        "Hub": _hub(),
        "Hub cache": str(huggingface_hub.constants.HF_HUB_CACHE),
    }


def elsewhere(runs: Path) -> str:
    """Whether the place can be read of which a folder of runs is a copy."""
    from collapse_cli.records.runs import store_of

    try:
        store_of(runs).there()
    except (UserError, OSError) as error:
        return f"NOT USABLE: {error}"
    return "answers; whether it can be written to is tried before a run"


def _memory() -> str:
    total = total_memory()
    limited = total < psutil.virtual_memory().total
    return f"{numbers.size(free_memory())} free of {numbers.size(total)}" + (
        ", the limit of this container or batch job" if limited else ""
    )


def _hub() -> str:
    import huggingface_hub
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return "told to stay offline (HF_HUB_OFFLINE); only what is cached or local can be used"
    start = time.perf_counter()
    try:
        huggingface_hub.HfApi().model_info("facebook/opt-125m", timeout=5)
    except Exception as error:  # whatever it is, it is the answer
        return f"NOT REACHABLE ({type(error).__name__}); use --model FOLDER --data FOLDER, a cache, or --preset quick"
    return f"reachable, answered in {time.perf_counter() - start:.1f} s"
