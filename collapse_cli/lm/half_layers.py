"""Linear layers of a training step in bfloat16: what autocast does, in fewer and larger pieces of work.

Under autocast each layer casts its rows, its weight and its bias, and all their gradients back, by a kernel each. Here all
weights are cast at once, layers that read the same rows (those of queries, keys and values) are one product, and gradients
of weights come out of their products in float32. Sums of gradients are rounded less often than under autocast, nothing else
differs.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.nn.functional import linear as torchs_linear

from collapse_cli.lm.arithmetic import exchanged, for_usual_calls, product_in_float32


@dataclass
class _Call:
    """A call of a layer: rows (..., in) @ weight (out, in).T + bias (out,)."""

    rows: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None


class _Group:
    """Layers that read the same rows, one product.

    Attributes:
        weight, bias: (out of all, in) and (out of all,) bfloat16, cast anew for each pass.
    """

    def __init__(self, calls: list[_Call]) -> None:
        self.weights, self.sizes = [call.weight for call in calls], [len(call.weight) for call in calls]
        self.biases = [call.bias for call in calls if call.bias is not None]
        self.weight = torch.empty(
            sum(self.sizes), calls[0].weight.shape[1], dtype=torch.bfloat16, device=calls[0].weight.device
        )
        self.bias = self.weight.new_empty(len(self.weight)) if self.biases else None
        self.rows: torch.Tensor | None = None  # those of which the products below are
        self.made: list[torch.Tensor | None] = []

    def casts(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(to, from) of all its weights and biases."""
        made = list(zip(torch.split(self.weight, self.sizes), self.weights, strict=True))
        if self.bias is not None:
            made += zip(torch.split(self.bias, self.sizes), self.biases, strict=True)
        return made

    def product(self, number: int, rows: torch.Tensor) -> torch.Tensor:
        """What layer `number` makes of the rows; all layers' at the first of them."""
        if rows is not self.rows or self.made[number] is None:
            self.rows, self.made = rows, [*_Product.apply(rows, self, *self.weights, *self.biases)]  # type: ignore[no-untyped-call]
        made, self.made[number] = self.made[number], None
        assert made is not None
        if not any(each is not None for each in self.made):
            self.rows = None
        return made


class HalfLayers:
    """The linear layers of one model. Its first pass is made as before, and looked at; all later ones must call the same layers."""

    def __init__(self) -> None:
        self._groups: list[_Group] | None = None
        self._places: dict[int, tuple[_Group, int]] = {}  # by the identity of a weight

    @contextmanager
    def used(self) -> Iterator[None]:
        """Inside, one pass over the model is made, under autocast."""
        if self._groups is None:
            calls: list[_Call] = []
            with exchanged([(functional, "linear", for_usual_calls(_noting(calls)))]):
                yield
            self._groups = [_Group(group) for group in _grouped(calls)]
            self._places = {id(w): (group, n) for group in self._groups for n, w in enumerate(group.weights)}
            return
        casts = [cast for group in self._groups for cast in group.casts()]
        if casts:
            with torch.no_grad():
                torch._foreach_copy_([to for to, _ in casts], [weight for _, weight in casts])
        with exchanged([(functional, "linear", for_usual_calls(self._linear))]):
            yield
        for group in self._groups:
            group.rows, group.made = None, []

    def _linear(self, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        group, number = self._places.get(id(weight), (None, 0))
        if group is None:
            return torchs_linear(rows, weight, bias)
        return group.product(number, rows)


def _noting(calls: list[_Call]) -> Callable[..., torch.Tensor]:
    def linear(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        calls.append(_Call(rows, weight, bias))
        return torchs_linear(rows, weight, bias)

    return linear


def _grouped(calls: list[_Call]) -> list[list[_Call]]:
    """The calls of layers that are trained, each once a pass; those that follow one another and read the same rows together."""
    times = Counter(id(call.weight) for call in calls)
    groups: list[list[_Call]] = []
    for call in calls:
        trained = [each.requires_grad and each.is_leaf for each in (call.weight, call.bias) if each is not None]
        exact = call.weight.dtype == torch.float32 and (call.bias is None or call.bias.dtype == torch.float32)
        if times[id(call.weight)] > 1 or not all(trained) or not exact:
            continue
        last = groups[-1][-1] if groups else None
        if last is not None and last.rows is call.rows and (last.bias is None) == (call.bias is None):
            groups[-1].append(call)
        else:
            groups.append([call])
    return groups


class _Product(torch.autograd.Function):
    """The products of a group: of rows (..., in), a tensor (..., out) for each layer."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, group: _Group, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Behind the group come its weights and biases, so that their gradients find them."""
        flat = rows.reshape(-1, rows.shape[-1]).to(group.weight.dtype)
        with torch.autocast(rows.device.type, enabled=False):
            made = torchs_linear(flat, group.weight, group.bias)
        ctx.save_for_backward(flat)
        ctx.group, ctx.dtype, ctx.shape = group, rows.dtype, rows.shape
        return tuple(torch.split(made.view(*rows.shape[:-1], -1), group.sizes, dim=-1))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (flat,), group = ctx.saved_tensors, ctx.group
        parts = [gradient.reshape(len(flat), -1) for gradient in gradients]
        with torch.autocast(flat.device.type, enabled=False):
            slope = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
            rows = None
            if ctx.needs_input_grad[0]:
                exact = ctx.dtype == torch.float32
                rows = product_in_float32(slope, group.weight) if exact else slope @ group.weight
                rows = rows.view(ctx.shape)
            weights = torch.split(product_in_float32(slope.T, flat), group.sizes)
            biases = torch.split(slope.sum(dim=0, dtype=torch.float32), group.sizes) if group.biases else ()
        return rows, None, *weights, *biases
