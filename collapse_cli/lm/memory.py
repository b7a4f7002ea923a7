"""How much fits into memory, and what to do when it did not."""

import ctypes
import logging
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch

from collapse_cli.data.dataset import how_many
from collapse_cli.process import free_memory, total_memory

Result = TypeVar("Result")
log = logging.getLogger(__name__)


@lru_cache(maxsize=256)
def warn_once(message: str) -> None:
    """Say something to the user, the first time only."""
    log.warning(message)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device, in bytes."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return free_memory()


def total_bytes(device: torch.device) -> int:
    """Memory that a device has, in bytes, whoever uses it now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return total_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def give_back() -> None:
    """Give the system what this process holds and does not use: of torch's on a GPU, and of glibc's, which keeps most of what was freed."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


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
