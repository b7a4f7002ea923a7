"""How this machine multiplies matrices fast: oneDNN or torch's own way for float32, and memory that is not given back.

PyTorch hands float32 products to MKL, which on processors that are not Intel's leaves AVX-512 unused: oneDNN, which comes
with PyTorch too, was 2.2 times as fast on an AMD EPYC that has it. On processors without AVX-512 oneDNN is the slower one,
and torch's own way is taken (docs/benchmarks.md: Kinds of processors). bfloat16 goes to oneDNN anyway.
"""

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch.nn import functional
from torch.nn.functional import dropout as torchs_dropout
from torch.nn.functional import linear as torchs_linear

LEAST_WEIGHT = 1 << 13  # numbers; for smaller weights a call of oneDNN costs more than it saves
# Multiplications of a layer in training, likewise: oneDNN writes a program for each shape that it meets (0.7 ms), and where
# rows are texts of unequal lengths, each step has a shape of its own.
LEAST_WORK = 1 << 25
torchs_addmm = torch.addmm
NAMES = {"input": "rows", "p": "share"}  # of the arguments of torch's dropout, in ours
# Rows are filled up to multiples of this where one has to come out the same in every batch: MKL shares rows out to its threads,
# and a thread that is left with fewer than 4 of them adds up in another order.
FILL = 16


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


@lru_cache(maxsize=1)
def prefers_onednn() -> bool:
    """Whether float32 products are faster through oneDNN here: asked of the processor, so that a machine always answers alike."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512") and has_onednn()


def _onednn(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Rows (n, in) @ weight (out, in).T + bias (out,)."""
    return cast(torch.Tensor, torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], ""))


def _suits(rows: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether to take oneDNN. The number of rows has no say: a row must come out the same in every batch."""
    return (
        rows.dtype == weight.dtype == torch.float32
        and rows.device.type == "cpu"
        and weight.numel() >= LEAST_WEIGHT
        and prefers_onednn()
    )


def filled(rows: torch.Tensor) -> torch.Tensor:
    """Rows (n, k) with zeros below, so that products round each of them alike however many there are (`FILL`)."""
    missing = -len(rows) % FILL
    if not missing or rows.dtype != torch.float32 or rows.device.type != "cpu":
        return rows
    return functional.pad(rows, (0, 0, 0, missing))


def _own_linear(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Torch's own, without gradients: a row comes out the same in every batch."""
    if rows.shape[:-1].numel() % FILL == 0:
        return torchs_linear(rows, weight, bias)
    flat = rows.reshape(-1, rows.shape[-1])
    return torchs_linear(filled(flat), weight, bias)[: len(flat)].view(*rows.shape[:-1], weight.shape[0])


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Left (n, k) @ right (k, m), without gradients."""
    if _suits(left, right):
        return _onednn(left, right.T)
    return left @ right


def transposed_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Left (n, k).T @ right (n, m), without gradients. What comes out may be the transpose of contiguous memory."""
    if left.numel() * right.shape[1] < LEAST_WORK or not _suits(left, right):
        return left.T @ right
    # oneDNN copies what it takes for rows when that is transposed, so that is to be the smaller one
    return _onednn(left.T, right.T) if left.shape[1] <= right.shape[1] else _onednn(right.T, left.T).T


@lru_cache(maxsize=4)
def _has_wider_products(device: str, dtype: torch.dtype) -> bool:
    """Whether torch's products give float32 of this dtype there; those before 2.8, and a CPU's, do not."""
    one = torch.ones(8, 8, device=device, dtype=dtype)
    try:
        torch.mm(one, one, out_dtype=torch.float32)
    except (TypeError, RuntimeError, NotImplementedError):
        return False
    return True


def product_in_float32(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Left (n, k) @ right (k, m) of half precision in float32, not rounded in between where torch can do that."""
    if left.dtype != torch.float32 and _has_wider_products(left.device.type, left.dtype):
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).float()


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
            _onednn(grad, weight.T) if wanted[0] else None,
            transposed_product(grad, rows) if wanted[1] else None,
            grad.sum(dim=0) if len(wanted) > 2 and wanted[2] else None,
        )


def linear(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """As `torch.nn.functional.linear`, with gradients."""
    if torch.is_grad_enabled():  # in training no row need come out the same in every batch
        taken = rows.numel() * len(weight) >= LEAST_WORK and _suits(rows, rows)
    else:
        taken = _suits(rows, weight)
    if not taken or torch.is_autocast_enabled(rows.device.type):
        own = torchs_linear if torch.is_grad_enabled() else _own_linear
        return own(rows, weight, bias)
    flat = rows.reshape(-1, rows.shape[-1])
    if torch.is_grad_enabled():
        made = _Linear.apply(flat, weight, bias)  # type: ignore[no-untyped-call]
    else:
        made = _onednn(flat, weight, bias)
    return cast(torch.Tensor, made.view(*rows.shape[:-1], weight.shape[0]))


class PackedWeights:
    """Weights laid out once as oneDNN multiplies them, for products of a few hundred rows with the same weights.

    They are found again by where they are in memory: drop this object before the weights.
    """

    def __init__(self, rows: int) -> None:
        """`rows`: how many rows the products usually have."""
        self.rows = rows
        self._packed: dict[tuple[int, torch.Size], torch.Tensor] = {}

    def linear(self, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """As `torch.nn.functional.linear`, without gradients."""
        # without AVX-512 oneDNN packs no weights in bfloat16
        packs = rows.dtype == weight.dtype == torch.bfloat16 and rows.device.type == "cpu" and prefers_onednn()
        if not packs and not _suits(rows, weight):
            return _own_linear(rows, weight, bias)
        key = (weight.data_ptr(), weight.shape)
        if key not in self._packed:
            self._packed[key] = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), self.rows)
        flat = rows.reshape(-1, rows.shape[-1])
        return _onednn(flat, self._packed[key], bias).view(*rows.shape[:-1], weight.shape[0])


@dataclass(frozen=True)
class OwnRows:
    """Those rows of a batch that are worked on here: from `first` to `last` of `rows`."""

    first: int
    last: int
    rows: int


def dropout(
    rows: torch.Tensor,
    share: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    part: OwnRows | None = None,
) -> torch.Tensor:
    """As `torch.nn.functional.dropout`, three to five times as fast on a CPU (docs/benchmarks.md): 16 random bits an element, four of them at a draw.

    The share is rounded to a multiple of 2**-16, and what is kept is scaled by exactly that. Random numbers are
    torch's, so that `torch.manual_seed` decides them.

    Args:
        part: which rows of a batch these are, first in their order: random numbers are drawn for the whole batch, so that
            each row gets those that it gets where all rows are together.
    """
    dropped = round(share * 2**16)
    if not training or inplace or rows.device.type != "cpu" or not 0 < dropped < 2**16:
        return torchs_dropout(rows, share, training, inplace)
    first, count = 0, rows.numel()
    drawn = count
    if part is not None:
        of_a_row = count // (part.last - part.first)
        first, drawn = part.first * of_a_row, max(part.first * of_a_row + count, part.rows * of_a_row)
    bits = torch.empty(-(-drawn // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    mask = torch.empty(rows.shape, dtype=rows.dtype)
    torch.ge(bits[first : first + count].view(rows.shape), dropped - 2**15, out=mask)
    return rows * mask * (2**16 / (2**16 - dropped))  # not a mask of that: in bfloat16 it would be rounded


Exchange = tuple[Any, str, Callable[..., Any]]  # a module, a name in it, and what stands there instead


@contextmanager
def exchanged(instead: list[Exchange]) -> Iterator[None]:
    """Inside, these are called; not by other threads at the same time, which there are none of."""
    before = [(where, name, getattr(where, name)) for where, name, _ in instead]
    try:
        for where, name, function in instead:
            setattr(where, name, function)
        yield
    finally:
        for where, name, function in before:
            setattr(where, name, function)


def for_usual_calls(use: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """What stands for torch's `linear`: `use` (rows, weight, bias=...), or torch's own for calls that are written otherwise."""

    def called(*args: Any, **kwargs: Any) -> torch.Tensor:
        return use(*args, **kwargs) if not kwargs or kwargs.keys() == {"bias"} else torchs_linear(*args, **kwargs)

    return called


class _Names:
    """What unchanged modules call, by name, for nn.Linear, the Conv1D of GPT-2 and dropout: with the functions above in their place.

    Names are exchanged and not each call looked at (`TorchFunctionMode`), which cost a small model 5% of its time. Calls that the
    functions above do not know go to torch's own.
    """

    def __init__(self, *, products: bool, packed: "PackedWeights | None", part: OwnRows | None = None) -> None:
        use = linear if packed is None else packed.linear

        def called_addmm(*args: Any, **kwargs: Any) -> torch.Tensor:
            if kwargs or args[0].dim() != 1:  # a sum of matrices is no layer's
                return torchs_addmm(*args, **kwargs)
            return use(args[1], args[2].T, args[0])

        def called_dropout(*args: Any, **kwargs: Any) -> torch.Tensor:
            return dropout(*args, **{NAMES.get(name, name): value for name, value in kwargs.items()}, part=part)

        self.instead: list[Exchange] = [(functional, "dropout", called_dropout)]
        if products:
            self.instead += [(functional, "linear", for_usual_calls(use)), (torch, "addmm", called_addmm)]


@contextmanager
def fast_products(
    device: torch.device, packed: "PackedWeights | None" = None, part: OwnRows | None = None
) -> Iterator[None]:
    """Inside, models work as fast as this machine can. Their results change by rounding only.

    Dropout takes its random numbers in another way than torch's.

    Args:
        packed: keeps weights as oneDNN wants them; only where weights do not change and no gradients are wanted.
        part: which rows of a batch are worked on here, on a CPU; None: all.
    """
    if device.type != "cpu":
        yield
        return
    keep_memory()
    # where torch's own way is the faster one, training has no use for ours
    products = prefers_onednn() or not torch.is_grad_enabled()
    with exchanged(_Names(products=products, packed=packed, part=part).instead):
        yield
