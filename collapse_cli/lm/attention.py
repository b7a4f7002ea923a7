"""Attention as the engine wants it: one function registered with transformers, which does what the work at hand asks.

Models are called unchanged. What their attention layers do is set by `attending`: attend causally over whole rows
(training, scoring), or over slots that the engine keeps (`lm/slots.py`, sampling).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "collapse"
# Up to here, on a CPU, plain products are faster than torch's fused attention: with AVX-512, and in training (docs/benchmarks.md: A
# processor of AVX2).
MATH_WIDTH = 128
# What models hand to attention functions besides the tensors, and what does not change the result here.
HARMLESS = {
    "cache_position",
    "is_causal",
    "output_attentions",
    "output_hidden_states",
    "past_key_values",
    "position_embeddings",
    "position_ids",
    "return_dict",
    "use_cache",
}


@lru_cache(maxsize=1)
def prefers_fused() -> bool:
    """Whether torch's fused attention is faster for short rows, too, where no gradients are wanted: asked of the processor, so that a
    machine always answers alike.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


class UnsupportedError(Exception):
    """A model's attention does more than the engine's; it has to go another way."""


class Attend(Protocol):
    """What attention layers do. `reach` is the longest row they will see, in tokens."""

    reach: int

    def __call__(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        dropout: float,
    ) -> torch.Tensor:
        """Query (rows, heads, tokens, d), key and value (rows, key heads, tokens, d) to (rows, tokens, heads, d)."""
        ...


_attend: ContextVar[Attend] = ContextVar("attend")


@contextmanager
def attending(model: "PreTrainedModel", attend: Attend) -> Iterator[None]:
    """Inside, the attention layers of `model` do what `attend` does."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _registered)
    before = model.config._attn_implementation
    token = _attend.set(attend)
    if before != NAME:
        model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        _attend.reset(token)
        if before != NAME:
            model.set_attn_implementation(before)


def _registered(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    attend = _attend.get()
    odd = sorted(name for name, value in rest.items() if value is not None and name not in HARMLESS)
    if odd or attention_mask is not None:
        raise UnsupportedError(f"its attention takes {', '.join(odd) or 'a mask'}")
    if sliding_window is not None and sliding_window < attend.reach:
        raise UnsupportedError(f"its attention sees {sliding_window} tokens only")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(module, query, key, value, scale, dropout), None


class Causal:
    """Each token attends to those before it in its row; with `segments`, in its part of the row only."""

    def __init__(self, segments: torch.Tensor | None, reach: int) -> None:
        """`segments` (rows, width): which of the texts packed into a row a token belongs to; `reach`: longest row."""
        self.reach = reach
        self.mask: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None  # the mask as what is added to scores, made when it is needed
        if segments is not None:
            width = segments.shape[1]
            before = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril_()
            self.mask = ((segments[:, :, None] == segments[:, None, :]) & before)[:, None]

    def __call__(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        dropout: float,
    ) -> torch.Tensor:
        width = query.shape[2]
        fused = query.dtype == torch.float32 and not torch.is_grad_enabled() and not dropout and prefers_fused()
        if query.device.type == "cpu" and width <= MATH_WIDTH and not fused:
            return self._by_products(query, key, value, scaling, dropout)
        made = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=self.mask,
            dropout_p=dropout,
            is_causal=self.mask is None,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        return made.transpose(1, 2)

    def _by_products(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, dropout: float
    ) -> torch.Tensor:
        groups, width = query.shape[1] // key.shape[1], query.shape[2]
        if groups > 1:
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        scores = torch.matmul(query if scaling == 1.0 else query * scaling, key.transpose(-1, -2))
        if self.bias is None or self.bias.shape[-1] != width or self.bias.dtype != scores.dtype:
            ahead = torch.ones(width, width, dtype=torch.bool).triu_(1) if self.mask is None else ~self.mask
            self.bias = torch.zeros(ahead.shape, dtype=scores.dtype).masked_fill_(ahead, -torch.inf)
        scores = scores + self.bias
        odds = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        return torch.matmul(functional.dropout(odds, dropout) if dropout else odds, value).transpose(1, 2)
