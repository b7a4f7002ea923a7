"""Output head and cross-entropy in one, a few rows at a time: the full logits are never held.

At OPT's vocabulary of 50,272 the logits of 4,096 tokens are 800 MB, and a plain cross-entropy passes over them many
times; a piece of them that fits the caches costs little more than its matrix products.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEAST_CHUNK, MOST_CHUNK = 16 << 20, 128 << 20  # bytes of float32 logits at once
IGNORED = -100  # label of a token that is not predicted


def rows_at_once(weight: torch.Tensor) -> int:
    """How many tokens' logits are held together, for output embeddings (vocabulary, d).

    Small pieces stay in the caches, but each piece passes over the weights and their gradient once; as many bytes of
    logits as the weights have was the best for d = 64 and d = 768 (docs/lab_notebook.md).
    """
    size = min(max(4 * weight.numel(), LEAST_CHUNK), MOST_CHUNK)
    return max(1, size // (4 * len(weight)))


class _LinearCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of softmax(hidden @ weight.T); the gradients are made on the way forward."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """`hidden` (tokens, d), `weight` (vocabulary, d), `labels` (tokens,), all of them predicted."""
        rows = rows_at_once(weight)
        weight_gradient = torch.zeros_like(weight)
        hidden_gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        cast_weight = weight.to(hidden.dtype)
        for first in range(0, len(hidden), rows):
            part = slice(first, first + rows)
            states, wanted = hidden[part], labels[part, None]
            scores = (states @ cast_weight.T).float()
            top = scores.amax(dim=1, keepdim=True)
            chosen = scores.gather(1, wanted) - top
            odds = scores.sub_(top).exp_()
            mass = odds.sum(dim=1, keepdim=True)
            total += (mass.log() - chosen).sum(dtype=torch.float64)
            slope = odds.div_(mass).scatter_add_(1, wanted, -torch.ones_like(mass)).to(hidden.dtype)
            hidden_gradient[part] = slope @ cast_weight
            if hidden.dtype == weight.dtype:
                weight_gradient.addmm_(slope.T, states)
            else:
                weight_gradient += slope.T @ states
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total.to(torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * grad.to(hidden_gradient.dtype), weight_gradient * grad, None


def has_plain_head(model: "PreTrainedModel") -> bool:
    """Whether the logits are the last hidden states times the output embeddings, and nothing else.

    Found out by trying, since some families scale or cap their logits: what goes into the head must be the last hidden
    states, and what a head gives (here numbers so large that no cap would leave them as they are) must be the logits.
    """
    head = model.get_output_embeddings()
    if getattr(head, "weight", None) is None or getattr(head, "bias", None) is not None:
        return False
    given: list[torch.Tensor] = []

    def instead(_: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        given.append(inputs[0])
        return torch.linspace(-100, 100, output.numel(), dtype=output.dtype, device=output.device).view_as(output)

    ids = torch.arange(2, device=model.device)[None] % model.config.vocab_size
    training = model.training
    model.eval()
    hook = head.register_forward_hook(instead)
    try:
        with torch.no_grad():
            states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
        model.train(training)
    wanted = torch.linspace(-100, 100, logits.numel(), dtype=logits.dtype, device=logits.device).view_as(logits)
    return len(given) == 1 and torch.equal(given[0], states) and torch.equal(logits, wanted)


def summed_loss(model: "PreTrainedModel", ids: torch.Tensor, labels: torch.Tensor, *, plain_head: bool) -> torch.Tensor:
    """Cross-entropy in nats, summed over all predicted tokens, with gradients.

    Args:
        ids: (rows, width) token ids.
        labels: (rows, width-1) what follows each token; `IGNORED` where nothing is predicted.
        plain_head: what `has_plain_head` said of the model.
    """
    if not plain_head:
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    predicted = labels != IGNORED
    dtype = torch.get_autocast_dtype(ids.device.type) if torch.is_autocast_enabled(ids.device.type) else states.dtype
    with torch.autocast(ids.device.type, enabled=False):
        weight = model.get_output_embeddings().weight
        loss = _LinearCrossEntropy.apply(states[predicted].to(dtype), weight, labels[predicted])  # type: ignore[no-untyped-call]
    return cast(torch.Tensor, loss)


@torch.no_grad()
def token_losses(model: "PreTrainedModel", ids: torch.Tensor, *, plain_head: bool) -> torch.Tensor:
    """(rows, width-1) float32 negative log-likelihood of ids[:, 1:], in nats."""
    following = ids[:, 1:]
    if not plain_head:
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        losses = functional.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none")
        return losses.view(following.shape)
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
    weight = model.get_output_embeddings().weight
    rows = rows_at_once(weight)
    parts = []
    for first in range(0, len(states), rows):
        part = slice(first, first + rows)
        scores = (states[part] @ weight.T).float()
        wanted = scores.gather(1, following.flatten()[part, None]).squeeze(1)
        top = scores.amax(dim=1, keepdim=True)
        parts.append(scores.sub_(top).exp_().sum(dim=1).log_() + top.squeeze(1) - wanted)
    return torch.cat(parts).view(following.shape)
