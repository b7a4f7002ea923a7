"""Output head and loss of the tokens in one, a tile of the vocabulary at a time: the full logits are never held.

At OPT's vocabulary of 50,272 the logits of 4,096 tokens are 800 MB, and a plain cross-entropy passes over them many
times. Here each tile of logits is passed over while it is in the caches, and besides the matrix products nothing passes
over the vocabulary a second time: the softmax's divisors are multiplied into the hidden states, which are far smaller.
Other losses than cross-entropy cost no pass over the vocabulary more: each is a number a token (`TokenLoss`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch.nn import functional

from collapse_cli.lm import trial
from collapse_cli.lm.architecture import vocabulary
from collapse_cli.lm.arithmetic import filled, product, product_in_float32, transposed_product

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HELD_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}  # of exponentials, kept for the gradients; more tokens go in groups
# of log-probabilities, of which nothing is kept; with fewer tokens at once a large head would be laid out for its product too often
DETAILED_BYTES, DETAILED_TOKENS = {"cpu": 64 << 20, "cuda": 2 << 30}, 256
TILE_BYTES = {"cpu": 4096, "cuda": 32768}  # of a token's logits in a tile of the vocabulary
LARGEST = 60.0  # logit whose exponential needs no care: sums of such are finite, and so are their inverses
IGNORED = -100  # label of a token that is not predicted
More = Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]  # see `token_details`
Kind = Literal["cross-entropy", "truncated", "focal", "smoothed"]
# adds something to a loss: of last hidden states (tokens, d) and the head (vocabulary, d), or of logits (tokens, vocabulary)
# and None; and of the places of the predicted tokens among them
Beside = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor], torch.Tensor | None]


@dataclass(frozen=True)
class TokenLoss:
    """What a token costs, by the probability p that the model gave it.

    `cross-entropy`: -log p. `truncated`: that where p <= `number`, nothing above (arXiv 2509.08972); what is nothing has no
    gradient. `focal`: -(1-p)^`number` log p (Lin et al. 2017, equation 4). `smoothed`: the cross-entropy to a target that
    leaves the token 1 - `number` and shares `number` evenly among all ids of the vocabulary (Szegedy et al. 2016, section 7).
    """

    kind: Kind = "cross-entropy"
    number: float = 0.0

    @property
    def smoothing(self) -> float:
        """The share that goes to all ids."""
        return self.number if self.kind == "smoothed" else 0.0

    def of(self, nll: torch.Tensor, missing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of each token in nats, and what it grows by with -log p; of a smoothed one without the other ids.

        Args:
            nll: (tokens,) -log p.
            missing: (tokens,) 1 - p, without cancellation.
        """
        if self.kind == "truncated":
            counts = (nll.neg().exp().clamp_max(1) <= self.number).to(nll.dtype)
            return counts * nll, counts
        if self.kind == "focal":
            # of a token that is nearly certain, log p from 1 - p: a power of that may be divided by
            exact = torch.where(missing < 0.5, torch.log1p(-missing).neg(), nll)
            rest = missing.clamp_min(torch.finfo(missing.dtype).tiny)
            power = rest**self.number
            return power * exact, power + self.number * power / rest * (1 - missing) * exact
        return nll, torch.ones_like(nll)


CROSS_ENTROPY = TokenLoss()


class _Softmax:
    """softmax(states @ weight.T), tile by tile: exp(logit - the tile's largest), and what that is to be multiplied by.

    Where no logit can be large (by Cauchy and Schwarz) nothing is subtracted, which saves two passes over them.

    Attributes:
        tiles: (first, last, exponentials) of each tile, exponentials (tokens, last - first) in the dtype of the states,
            0 at a token's label: what belongs to the label is added apart, exactly. Below them the rows that were filled
            up (`arithmetic.filled`). Empty unless asked for.
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
        # filled up, so that rows come out the same in every batch, and that steps of unequal lengths share their shapes
        given = filled(states)
        for first in range(0, len(weight), size):
            last = min(first + size, len(weight))
            made = product(given, weight[first:last].T)
            scores = made[: len(states)]
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
                self.tiles.append((first, last, made))
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


def groups(
    where: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype, room: Mapping[str, int] = HELD_BYTES, least: int = 1
) -> tuple[torch.Tensor, ...]:
    """The tokens in even groups, whose logits hold no more bytes than `room` has for this kind of device; `least` tokens fit anyway."""
    most = max(least, room.get(where.device.type, room["cpu"]) // (len(weight) * dtype.itemsize))
    return where.chunk(max(1, -(-len(where) // most)))


class _LinearLosses(torch.autograd.Function):
    """Summed losses of softmax(hidden @ weight.T), and the cross-entropy beside them; gradients are made on the way forward.

    Any loss that depends on the label's probability p alone has the gradient of the cross-entropy, token by token times
    d loss / d(-log p). What smoothing adds, `smoothing` (logit of the label - mean logit), needs the mean weight only.

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
        token: TokenLoss,
        weights: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Arguments as those of `linear_losses`."""
        rows, head = hidden.detach(), weight.detach().to(dtype)
        plain, smoothing = token == CROSS_ENTROPY and weights is None, token.smoothing
        middle = head.mean(dim=0, dtype=torch.float32) if smoothing else None
        hidden_wanted, weight_wanted = ctx.needs_input_grad[:2]
        hidden_gradient = torch.zeros(rows.shape, dtype=torch.float32, device=rows.device) if hidden_wanted else None
        weight_gradient = None
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        entropy = total if plain else torch.zeros_like(total)
        for number, group in enumerate(groups(where, head, dtype)):
            states, wanted = rows[group].to(dtype), labels[group]
            softmax = _Softmax(states, head, wanted, keep=hidden_wanted or weight_wanted)
            exact = states.float()
            share: torch.Tensor | None = None  # of each token in the gradients; None: `scale` of all
            if plain:
                total += softmax.losses.sum(dtype=torch.float64)
                missing = softmax.missing.mul_(-scale)
            else:
                entropy += softmax.losses.sum(dtype=torch.float64)
                values, rises = token.of(softmax.losses, softmax.missing.squeeze(1))
                if middle is not None:
                    values = values + smoothing * ((head[wanted].float() - middle) * exact).sum(dim=1)
                if weights is not None:
                    values, rises = values * weights[group], rises * weights[group]
                total += values.sum(dtype=torch.float64)
                share = rises * scale
                # at the label: 1 - p, and what is taken from it for all
                missing = (smoothing - softmax.missing).mul_(share[:, None])
            if hidden_wanted:
                slope = head[wanted].float().mul_(missing)
                if middle is not None and share is not None:
                    slope.addcmul_(middle, share[:, None], value=-smoothing)
            if weight_wanted and number == 0:
                weight_gradient = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
            factors = softmax.factors.mul_(scale if share is None else share)[:, :, None]
            for (first, last, odds), factor in zip(softmax.tiles, factors, strict=True):
                if hidden_wanted:
                    slope.addcmul_(product(odds, head[first:last])[: len(states)].float(), factor)
                if weight_gradient is not None:
                    part = transposed_product(odds[: len(states)], (exact * factor).to(dtype))
                    # written the first time, so that nothing has to be zeroed
                    weight_gradient[first:last].copy_(part) if number == 0 else weight_gradient[first:last].add_(part)
            if weight_gradient is not None:
                if middle is not None and share is not None:
                    weight_gradient.sub_((share @ exact).mul_(smoothing / len(head)))
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
        loss, beside = total * scale, entropy * scale
        ctx.mark_non_differentiable(beside)
        return loss, beside

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        if hidden_gradient is not None:
            hidden_gradient = hidden_gradient.to(ctx.hidden_dtype)
        if grad.device.type != "cpu" or grad != 1:  # a pass over the whole weight that training has no need of
            hidden_gradient, weight_gradient = (
                None if each is None else each * grad.to(each.dtype) for each in (hidden_gradient, weight_gradient)
            )
        return hidden_gradient, weight_gradient, *[None] * 6


def linear_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    scale: float = 1.0,
    where: torch.Tensor | None = None,
    token: TokenLoss = CROSS_ENTROPY,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`scale` times the losses in nats of softmax(hidden @ weight.T), summed; float64, with gradients.

    Beside it `scale` times the summed cross-entropy, unweighted and without gradients.

    Args:
        hidden: (tokens, d).
        weight: (vocabulary, d).
        labels: (tokens,), `IGNORED` where nothing is predicted.
        dtype: of the matrix products; that of `hidden` when None. Sums and gradients are float32 in any case.
        where: (predicted tokens,) the places of labels that are not `IGNORED`; looked for when None.
        token: the loss of a token.
        weights: (tokens,) float32 what each loss is multiplied by; None: all by 1.
    """
    if where is None:
        where = (labels != IGNORED).nonzero().squeeze(1)
    found = _LinearLosses.apply(hidden, weight, labels, where, dtype or hidden.dtype, scale, token, weights)  # type: ignore[no-untyped-call]
    return cast(tuple[torch.Tensor, torch.Tensor], found)


def logit_losses(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    scale: float = 1.0,
    token: TokenLoss = CROSS_ENTROPY,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `linear_losses`, of logits (tokens, vocabulary) that a model made itself, which are held whole."""
    scores = logits.float()
    if token == CROSS_ENTROPY and weights is None:
        loss = functional.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="sum").double() * scale
        return loss, loss.detach()
    nll = functional.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="none")
    fixed = nll.detach()
    values, rises = token.of(fixed, torch.expm1(-fixed).neg_())
    losses = values + rises * (nll - fixed)
    if token.smoothing:
        there = labels != IGNORED
        own = scores.gather(1, labels.clamp_min(0)[:, None]).squeeze(1)
        losses = losses + token.smoothing * there * (own - scores.mean(dim=1))
    if weights is not None:
        losses = losses * weights
    return losses.sum(dtype=torch.float64) * scale, fixed.sum(dtype=torch.float64) * scale


def has_plain_head(model: "PreTrainedModel") -> bool:
    """Whether the logits are the last hidden states times the output embeddings, and nothing else.

    Found out by trying, since some families scale or cap their logits: what goes into the head must be the last hidden
    states, and what a head gives (here numbers so large that no cap would leave them as they are) must be the logits.
    """
    head = model.get_output_embeddings()
    if getattr(head, "weight", None) is None or getattr(head, "bias", None) is not None:
        return False
    return trial.remembered(model, ("plain head",), lambda: _tried_head(model, head))


def _tried_head(model: "PreTrainedModel", head: torch.nn.Module) -> tuple[bool, bool]:
    """What `has_plain_head` says, and whether that goes for other weights, too."""
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
        return False, True
    plain = len(given) == 1 and torch.equal(given[0], states) and torch.equal(logits, wanted)
    return plain, bool(states.isfinite().all())


def _inputs(ids: torch.Tensor, positions: torch.Tensor | None) -> dict[str, Any]:
    return {"input_ids": ids, "use_cache": False} | ({} if positions is None else {"position_ids": positions})


def _head_dtype(states: torch.Tensor) -> torch.dtype:
    """Of the head's products: that of autocast where it is on."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


def summed_losses(
    model: "PreTrainedModel",
    ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    plain_head: bool,
    positions: torch.Tensor | None = None,
    scale: float = 1.0,
    where: torch.Tensor | None = None,
    token: TokenLoss = CROSS_ENTROPY,
    weights: torch.Tensor | None = None,
    beside: Beside | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`scale` times the losses in nats, summed over all predicted tokens, with gradients.

    Beside it `scale` times the summed cross-entropy, unweighted and without gradients.

    Args:
        ids: (rows, width) token ids.
        labels: (rows, width-1) what follows each token; `IGNORED` where nothing is predicted.
        plain_head: what `has_plain_head` said of the model.
        positions: (rows, width) position of each token in its text; when None, in its row.
        where: (predicted tokens,) their places in the flattened rows; looked for when None.
        token: the loss of a token.
        weights: (rows, width-1) float32 what the loss of each label is multiplied by; None: all by 1.
        beside: what it gives is added to the loss, as it is.
    """
    if not plain_head:
        logits = model(**_inputs(ids, positions)).logits[:, :-1].flatten(0, 1)
        each = None if weights is None else weights.flatten()
        loss, entropy = logit_losses(logits, labels.flatten(), scale=scale, token=token, weights=each)
        if beside is not None:
            more = beside(logits, None, (labels != IGNORED).flatten().nonzero().squeeze(1))
            loss = loss if more is None else loss + more
        return loss, entropy
    states = model.base_model(**_inputs(ids, positions)).last_hidden_state
    dtype, weight = _head_dtype(states), model.get_output_embeddings().weight
    every = functional.pad(labels, (0, 1), value=IGNORED).flatten()  # a slice of the states would have to be undone
    each = None if weights is None else functional.pad(weights, (0, 1)).flatten()
    with torch.autocast(ids.device.type, enabled=False):
        flat = states.flatten(0, 1)
        if where is None:
            where = (every != IGNORED).nonzero().squeeze(1)
        loss, entropy = linear_losses(
            flat, weight, every, dtype=dtype, scale=scale, where=where, token=token, weights=each
        )
        more = None if beside is None else beside(flat, weight, where)
        return loss if more is None else loss + more, entropy


def summed_loss(
    model: "PreTrainedModel",
    ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    plain_head: bool,
    positions: torch.Tensor | None = None,
    scale: float = 1.0,
) -> torch.Tensor:
    """The first that `summed_losses` gives, of the cross-entropy; arguments as there."""
    return summed_losses(model, ids, labels, plain_head=plain_head, positions=positions, scale=scale)[0]


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
        head, wanted = (
            model.get_output_embeddings().weight.to(dtype),
            functional.pad(labels, (0, 1), value=IGNORED).flatten(),
        )
        losses = torch.zeros(len(wanted), dtype=torch.float32, device=states.device)
        where, flat = (wanted != IGNORED).nonzero().squeeze(1), states.flatten(0, 1)
        if states.device.type == "cpu":
            for group in groups(where, head, dtype):
                losses[group] = _Softmax(flat[group].to(dtype), head, wanted[group], keep=False).losses
        else:  # which passes over logits fastest by one function of torch's
            for group in groups(where, head, torch.float32):
                logits = product_in_float32(flat[group].to(dtype), head.T)
                losses[group] = functional.cross_entropy(logits, wanted[group], reduction="none")
    return losses.view(states.shape[:2])[:, :-1]


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
def predictions(
    model: "PreTrainedModel", ids: torch.Tensor, *, plain_head: bool, positions: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What logits are made of: (rows, width-1, d) last hidden states and the head (vocabulary, d), of one dtype.

    Of a model whose head is not plain (rows, width-1, vocabulary) logits and None. Arguments as those of `summed_loss`.
    """
    if not plain_head:
        return model(**_inputs(ids, positions)).logits[:, :-1], None
    states = model.base_model(**_inputs(ids, positions)).last_hidden_state[:, :-1]
    dtype = _head_dtype(states)
    return states.to(dtype), model.get_output_embeddings().weight.to(dtype)


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
        for group in groups(where, head, torch.float32, DETAILED_BYTES, DETAILED_TOKENS):
            part = states[group].to(dtype)
            scores = product(filled(part), head.T)[: len(part)].float() if plain_head else part
            log_odds = torch.log_softmax(scores, dim=1, out=scores)
            top, best = log_odds.max(dim=1)
            values = {
                "nll": -log_odds.gather(1, wanted[group, None]).squeeze(1),
                "confidence": top.exp(),
                "hit": (best == wanted[group]).float(),
            }
            found = more(log_odds, before[group]) if more else {}
            odds = log_odds.exp()  # then in place, and last: each copy would be as large again
            entropy = -odds.mul_(log_odds.clamp_min_(torch.finfo(torch.float32).min)).sum(dim=1)
            details.append({**values, "entropy": entropy, **found})
    return {name: torch.cat([part[name] for part in details]) for name in details[0]}
