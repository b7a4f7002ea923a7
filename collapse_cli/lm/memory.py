"""How much fits into memory, and what to do when it did not."""

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from collapse_cli.data.dataset import how_many

Result = TypeVar("Result")
log = logging.getLogger(__name__)
CGROUP = Path("/sys/fs/cgroup")  # containers and batch systems limit memory here


@lru_cache(maxsize=256)
def warn_once(message: str) -> None:
    """Say something to the user, the first time only."""
    log.warning(message)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device, in bytes."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    free = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        return free if limit == "max" else max(0, min(free, int(limit) - used))
    except (OSError, ValueError):
        return free


def total_bytes(device: torch.device) -> int:
    """Memory that a device has, in bytes, whoever uses it now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    total = int(psutil.virtual_memory().total)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        return total if limit == "max" else min(total, int(limit))
    except (OSError, ValueError):
        return total


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def halving(work: Callable[[int], Result], rows: int, what: str) -> tuple[Result, int]:
    """`work(rows)`, again with half as many rows when memory runs out; the result, and how many rows it took.

    Raises:
        MemoryError, RuntimeError: when a single row does not fit either.
    """
    while True:
        try:
            return work(rows), rows
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or rows == 1:
                raise
        rows //= 2  # outside the handler, which holds on to the tensors of the failed try
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warn_once(f"memory ran out while {what}; going on with {how_many(rows, 'row')} at once")
