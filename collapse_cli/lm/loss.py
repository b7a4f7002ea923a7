"""Output head and cross-entropy in one, a tile of the vocabulary at a time: the full logits are never held.

At OPT's vocabulary of 50,272 the logits of 4,096 tokens are 800 MB, and a plain cross-entropy passes over them many
times. Here each tile of logits is passed over while it is in the caches, and besides the matrix products nothing passes
over the vocabulary a second time: the softmax's divisors are multiplied into the hidden states, which are far smaller.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional

from collapse_cli.lm.architecture import vocabulary
from collapse_cli.lm.arithmetic import product, transposed_product

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HELD_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}  # of exponentials, kept for the gradients; more tokens go in groups
TILE_BYTES = {"cpu": 4096, "cuda": 32768}  # of a token's logits in a tile of the vocabulary
LARGEST = 60.0  # logit whose exponential needs no care: sums of such are finite, and so are their inverses
IGNORED = -100  # label of a token that is not predicted
More = Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]  # see `token_details`


class _Softmax:
    """softmax(states @ weight.T), tile by tile: exp(logit - the tile's largest), and what that is to be multiplied by.

    Where no logit can be large (by Cauchy and Schwarz) nothing is subtracted, which saves two passes over them.

    Attributes:
        tiles: (first, last, exponentials) of each tile, exponentials (tokens, last - first) in the dtype of the states,
            0 at a token's label: what belongs to the label is added apart, exactly. Empty unless asked for.
        factors: (tiles, tokens) float32.
        losses: (tokens,) float32 cross-entropy in nats.
        missing: (tokens, 1) float32, 1 - the probability of the label, without cancellation where that is near 1.
    """

    def __init__(self, states: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, keep: bool) -> None:
        """`states` (tokens, d) and `weight` (vocabulary, d) of one dtype, `labels` (tokens,)."""
        size = max(1, TILE_BYTES.get(states.device.type, TILE_BYTES["cuda"]) // states.dtype.itemsize)
        chosen = torch.empty(len(states), dtype=torch.float32, device=states.device)
        tops, masses = [], []
        # not asked on a GPU, which would have to be waited for, and which passes over them faster than that
        small = weight.device.type == "cpu" and len(states) > 0
        small = small and _largest_norm(states) * _largest_norm(weight) < LARGEST
        self.tiles: list[tuple[int, int, torch.Tensor]] = []
        for first in range(0, len(weight), size):
            last = min(first + size, len(weight))
            scores = product(states, weight[first:last].T)
            here = (labels >= first) & (labels < last)  # masks, not places: nothing here waits for a GPU
            column = (labels - first).clamp_(0, last - first - 1)[:, None]
            chosen = torch.where(here, scores.gather(1, column).squeeze(1).float(), chosen)
            if small:
                tops.append(torch.zeros_like(chosen))
            else:
                top = scores.amax(dim=1, keepdim=True)
                tops.append(top.squeeze(1).float())
                scores.sub_(top)
            scores.exp_()
            # without the label's own, so that one that is nearly certain drowns no others
            scores.scatter_(1, column, scores.gather(1, column).masked_fill_(here[:, None], 0))
            masses.append(scores.sum(dim=1).float())
            if keep:
                self.tiles.append((first, last, scores))
        highest, others = torch.stack(tops), torch.stack(masses)
        top = highest.amax(dim=0)
        self.factors = highest.sub_(top).exp_()
        rest = others.mul_(self.factors).sum(dim=0)
        mass = rest + (chosen - top).exp()
        self.factors /= mass
        self.losses = mass.log() + (top - chosen)
        self.missing = (rest / mass)[:, None]


def _largest_norm(rows: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32).amax())


def _groups(where: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """The tokens in even groups, no larger than `HELD_BYTES` allows."""
    most = max(1, HELD_BYTES.get(where.device.type, HELD_BYTES["cpu"]) // (len(weight) * dtype.itemsize))
    return where.chunk(max(1, -(-len(where) // most)))


class _LinearCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of softmax(hidden @ weight.T); the gradients are made on the way forward.

    Besides inputs and gradients it holds `HELD_BYTES` of exponentials and a few tiles, whatever the number of tokens.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        where: torch.Tensor,
        dtype: torch.dtype,
        scale: float,
    ) -> torch.Tensor:
        """Arguments as those of `linear_cross_entropy`."""
        rows, head = hidden.detach(), weight.detach().to(dtype)
        hidden_wanted, weight_wanted = ctx.needs_input_grad[:2]
        hidden_gradient = torch.zeros(rows.shape, dtype=torch.float32, device=rows.device) if hidden_wanted else None
        weight_gradient = None
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        for number, group in enumerate(_groups(where, head, dtype)):
            states, wanted = rows[group].to(dtype), labels[group]
            softmax = _Softmax(states, head, wanted, keep=hidden_wanted or weight_wanted)
            total += softmax.losses.sum(dtype=torch.float64)
            missing = softmax.missing.mul_(-scale)
            if hidden_wanted:
                slope = head[wanted].float().mul_(missing)
            exact = states.float()
            if weight_wanted and number == 0:
                weight_gradient = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
            for (first, last, odds), factor in zip(softmax.tiles, softmax.factors.mul_(scale)[:, :, None], strict=True):
                if hidden_wanted:
                    slope.addcmul_(product(odds, head[first:last]).float(), factor)
                if weight_gradient is not None:
                    part = transposed_product(odds, (exact * factor).to(dtype))
                    # written the first time, so that nothing has to be zeroed
                    weight_gradient[first:last].copy_(part) if number == 0 else weight_gradient[first:last].add_(part)
            if weight_gradient is not None:
                exact.mul_(missing)
                if rows.device.type == "cpu":
                    weight_gradient.index_add_(0, wanted, exact)
                else:  # slower on a CPU, but on a GPU it gives the same bits each time
                    weight_gradient.index_put_((wanted,), exact, accumulate=True)
            if hidden_gradient is not None:
                hidden_gradient[group] = slope
        if weight_gradient is not None:
            weight_gradient = weight_gradient.to(weight.dtype)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.hidden_dtype = hidden.dtype
        return total * scale

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        if hidden_gradient is not None:
            hidden_gradient = hidden_gradient.to(ctx.hidden_dtype)
        if grad.device.type != "cpu" or grad != 1:  # a pass over the whole weight that training has no need of
            hidden_gradient, weight_gradient = (
                None if each is None else each * grad.to(each.dtype) for each in (hidden_gradient, weight_gradient)
            )
        return hidden_gradient, weight_gradient, None, None, None, None


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    scale: float = 1.0,
    where: torch.Tensor | None = None,
) -> torch.Tensor:
    """`scale` times the cross-entropy in nats of softmax(hidden @ weight.T), summed; float64, with gradients.

    Args:
        hidden: (tokens, d).
        weight: (vocabulary, d).
        labels: (tokens,), `IGNORED` where nothing is predicted.
        dtype: of the matrix products; that of `hidden` when None. Sums and gradients are float32 in any case.
        where: (predicted tokens,) the places of labels that are not `IGNORED`; looked for when None.
    """
    if where is None:
        where = (labels != IGNORED).nonzero().squeeze(1)
    loss = _LinearCrossEntropy.apply(hidden, weight, labels, where, dtype or hidden.dtype, scale)  # type: ignore[no-untyped-call]
    return cast(torch.Tensor, loss)


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

    ids = torch.arange(2, device=model.device)[None] % vocabulary(model.config)
    training = model.training
    model.eval()
    hook = head.register_forward_hook(instead)
    try:
        with torch.no_grad():
            states = getattr(model.base_model(input_ids=ids, use_cache=False), "last_hidden_state", None)
            logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
        model.train(training)
    wanted = torch.linspace(-100, 100, logits.numel(), dtype=logits.dtype, device=logits.device).view_as(logits)
    if states is None:  # the family has no model without its head
        return False
    return len(given) == 1 and torch.equal(given[0], states) and torch.equal(logits, wanted)


def _inputs(ids: torch.Tensor, positions: torch.Tensor | None) -> dict[str, Any]:
    return {"input_ids": ids, "use_cache": False} | ({} if positions is None else {"position_ids": positions})


def _head_dtype(states: torch.Tensor) -> torch.dtype:
    """Of the head's products: that of autocast where it is on."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


def summed_loss(
    model: "PreTrainedModel",
    ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    plain_head: bool,
    positions: torch.Tensor | None = None,
    scale: float = 1.0,
    where: torch.Tensor | None = None,
) -> torch.Tensor:
    """`scale` times the cross-entropy in nats, summed over all predicted tokens, with gradients.

    Args:
        ids: (rows, width) token ids.
        labels: (rows, width-1) what follows each token; `IGNORED` where nothing is predicted.
        plain_head: what `has_plain_head` said of the model.
        positions: (rows, width) position of each token in its text; when None, in its row.
        where: (predicted tokens,) their places in the flattened rows; looked for when None.
    """
    if not plain_head:
        logits = model(**_inputs(ids, positions)).logits[:, :-1].float()
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return loss.double() * scale
    states = model.base_model(**_inputs(ids, positions)).last_hidden_state
    dtype, weight = _head_dtype(states), model.get_output_embeddings().weight
    every = functional.pad(labels, (0, 1), value=IGNORED).flatten()  # a slice of the states would have to be undone
    with torch.autocast(ids.device.type, enabled=False):
        return linear_cross_entropy(states.flatten(0, 1), weight, every, dtype=dtype, scale=scale, where=where)


@torch.no_grad()
def token_losses(
    model: "PreTrainedModel",
    ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    plain_head: bool,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """(rows, width-1) float32 negative log-likelihood of `labels` in nats, 0 where they are `IGNORED`.

    Arguments as those of `summed_loss`. The head is applied where something is predicted only, a tile at a time.
    """
    if not plain_head:
        logits = model(**_inputs(ids, positions)).logits[:, :-1].float()
        losses = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return losses.view(labels.shape)
    return _losses_of(model, model.base_model(**_inputs(ids, positions)).last_hidden_state, labels)


def _losses_of(model: "PreTrainedModel", states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`token_losses` from the last hidden states (rows, width, d) of a model with a plain head."""
    dtype = _head_dtype(states)
    with torch.autocast(states.device.type, enabled=False):
        head, wanted = model.get_output_embeddings().weight.to(dtype), labels.flatten()
        losses = torch.zeros(len(wanted), dtype=torch.float32, device=states.device)
        where = (wanted != IGNORED).nonzero().squeeze(1)
        flat = states[:, :-1].flatten(0, 1)
        for group in _groups(where, head, dtype):
            losses[group] = _Softmax(flat[group].to(dtype), head, wanted[group], keep=False).losses
    return losses.view(labels.shape)


@torch.no_grad()
def losses_and_states(
    model: "PreTrainedModel",
    ids: torch.Tensor,
    labels: torch.Tensor,
    at: torch.Tensor,
    *,
    plain_head: bool,
    positions: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `token_losses` gives, and (len(at), d) float32 last hidden states at the places `at` of the flattened rows."""
    if plain_head:
        states = model.base_model(**_inputs(ids, positions)).last_hidden_state
        losses = _losses_of(model, states, labels)
    else:
        out = model(**_inputs(ids, positions), output_hidden_states=True)
        states = out.hidden_states[-1]
        losses = functional.cross_entropy(
            out.logits[:, :-1].float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
        ).view(labels.shape)
    return losses, states.flatten(0, 1)[at].float()


@torch.no_grad()
def token_details(
    model: "PreTrainedModel",
    ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    plain_head: bool,
    positions: torch.Tensor | None = None,
    more: More | None = None,
) -> dict[str, torch.Tensor]:
    """What a model says at every predicted token, in order; each value (predicted tokens,) float32.

    Arguments as those of `summed_loss`; `more` is asked for further values from the log-probabilities
    (tokens, vocabulary) and the token before each.

    Returns:
        `nll` of the label in nats, `confidence` (probability of the most probable token), `hit` (1 where that is the
        label), `entropy` of the distribution in nats, and what `more` gives.
    """
    inputs = _inputs(ids, positions)
    wanted, before = labels.flatten(), ids[:, :-1].flatten()
    where = (wanted != IGNORED).nonzero().squeeze(1)
    weight = model.get_output_embeddings().weight
    if plain_head:
        states = model.base_model(**inputs).last_hidden_state[:, :-1].flatten(0, 1)
        dtype = _head_dtype(states)
    else:
        states, dtype = model(**inputs).logits[:, :-1].flatten(0, 1), torch.float32
    details: list[dict[str, torch.Tensor]] = []
    with torch.autocast(ids.device.type, enabled=False):
        head = weight.to(dtype)
        for group in _groups(where, head, torch.float32):
            part = states[group].to(dtype)
            scores = product(part, head.T).float() if plain_head else part
            log_odds = functional.log_softmax(scores, dim=1)
            top, best = log_odds.max(dim=1)
            values = {
                "nll": -log_odds.gather(1, wanted[group, None]).squeeze(1),
                "confidence": top.exp(),
                "hit": (best == wanted[group]).float(),
                "entropy": -(log_odds.exp() * log_odds.clamp_min(torch.finfo(torch.float32).min)).sum(dim=1),
            }
            details.append(values | (more(log_odds, before[group]) if more else {}))
    return {name: torch.cat([part[name] for part in details]) for name in details[0]}
