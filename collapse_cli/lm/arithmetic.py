"""How this machine multiplies matrices fast: oneDNN for float32 on x86 CPUs, and memory that is not given back.

PyTorch hands float32 products to MKL, which on processors that are not Intel's leaves their 512-bit units idle: oneDNN,
which comes with PyTorch too, was 2.2 times as fast on an AMD EPYC (docs/benchmarks.md). bfloat16 goes to oneDNN anyway.
"""

import ctypes
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LEAST_WORK = 1 << 21  # multiplications; below, a call of oneDNN costs more than it saves


@lru_cache(maxsize=1)
def keep_memory() -> None:
    """Tell glibc to keep freed memory instead of giving it back to the system; nothing on other systems.

    Otherwise every large tensor is mapped, zeroed page by page and unmapped again: a third of the time of a training
    step of OPT-125m.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_max = -1, -4
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)


@lru_cache(maxsize=1)
def has_onednn() -> bool:
    """Whether float32 products can go to oneDNN here, and give what they should."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    left, right = torch.arange(12.0).view(3, 4), torch.arange(20.0).view(5, 4)
    try:
        return torch.equal(_onednn(left, right), left @ right.T)
    except (AttributeError, NotImplementedError, RuntimeError):  # an operator that torch keeps for its own compiler
        return False


def _onednn(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Rows (n, in) @ weight (out, in).T + bias (out,)."""
    return cast(torch.Tensor, torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], ""))


def _suits(left: torch.Tensor, right: torch.Tensor, work: int) -> bool:
    return (
        left.dtype == right.dtype == torch.float32 and left.device.type == "cpu" and work >= LEAST_WORK and has_onednn()
    )


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Left (n, k) @ right (k, m), without gradients."""
    if _suits(left, right, left.numel() * right.shape[1]):
        return _onednn(left, right.T)
    return left @ right


class _Linear(torch.autograd.Function):
    """rows (n, in) @ weight (out, in).T + bias, with all three products of training through oneDNN."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(rows, weight)
        return _onednn(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            product(grad, weight) if wanted[0] else None,
            product(grad.T, rows) if wanted[1] else None,
            grad.sum(dim=0) if len(wanted) > 2 and wanted[2] else None,
        )


def linear(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """As `torch.nn.functional.linear`, with gradients."""
    work = rows.numel() * weight.shape[0]
    if torch.is_autocast_enabled(rows.device.type) or not _suits(rows, weight, work):
        return functional.linear(rows, weight, bias)
    flat = rows.reshape(-1, rows.shape[-1])
    if torch.is_grad_enabled():
        made = _Linear.apply(flat, weight, bias)  # type: ignore[no-untyped-call]
    else:
        made = _onednn(flat, weight, bias)
    return cast(torch.Tensor, made.view(*rows.shape[:-1], weight.shape[0]))


class _Fast(TorchFunctionMode):
    """Sends the products of unchanged modules to `linear`: nn.Linear, and the Conv1D of GPT-2."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is functional.linear:
            return linear(*args, **(kwargs or {}))
        if func is torch.addmm and len(args) == 3 and not kwargs:
            return linear(args[1], args[2].T, args[0])
        return func(*args, **(kwargs or {}))


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Inside, models multiply as fast as this machine can. Their results change by rounding only."""
    if device.type != "cpu":
        yield
        return
    keep_memory()
    if not has_onednn():
        yield
        return
    with _Fast():
        yield
