"""What holds a model to another one, its anchor, while it is trained: what the anchor predicts, or its weights.

Every token of the corpus that is predicted counts alike, whatever the weight of its row. Of p, the model's distribution of a
token, and q, the anchor's, after the same tokens of the corpus:

| anchor | added to the mean loss per predicted token | source |
|---|---|---|
| `kl` | weight · KL(p ‖ q), the mean over tokens | the penalty of reinforcement learning from feedback: Jaques et al. 2017, arXiv 1611.02796 |
| `distill` | weight · T² · cross-entropy of q_T and p_T, where r_T is the softmax of logits / T | Hinton, Vinyals and Dean 2015, arXiv 1503.02531, section 2 |
| `ewc` | weight / 2 · Σ F_i (θ_i - a_i)², F the diagonal of the anchor's Fisher information per token | Kirkpatrick et al. 2017, PNAS 114, equation 3 |
| `l2` | weight / 2 · Σ (θ_i - a_i)² | L2-SP: Li, Grandvalet and Davoine 2018, arXiv 1802.01483, equation 2 |

Near the anchor ½ Σ F_i (θ_i - a_i)² is the Kullback-Leibler divergence per token, as far as the diagonal says it: weights of `kl` and
`ewc` mean the same there.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from torch.nn import functional

from collapse_cli.config.tree import TrainConfig
from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.engine import checkpoint as checkpoints
from collapse_cli.errors import InputError
from collapse_cli.lm import loss as losses
from collapse_cli.lm.arithmetic import fast_products, product, transposed_product
from collapse_cli.lm.objective import Anchor
from collapse_cli.lm.packing import Abilities, Batch, abilities, attention_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def anchor_of(
    settings: TrainConfig,
    model: "PreTrainedModel",
    other: "PreTrainedModel",
    *,
    width: int,
    rows: Callable[[], Dataset],
    seed: int,
    scratch: Path,
) -> Anchor:
    """What `settings.anchor` holds `model` to `other` by, a model of the same architecture.

    Args:
        width: the longest row that is trained on, in tokens.
        rows: gives the rows that the Fisher information is estimated on.
        seed: of the labels it is estimated with.
        scratch: where an estimate is kept, so that a training which was killed need not make it again.
    """
    other.requires_grad_(requires_grad=settings.anchor == "ewc").eval()
    if settings.anchor in ("kl", "distill"):
        able = abilities(model, width, gradients=True)  # as the batches of training are laid out
        temperature = settings.anchor_temperature if settings.anchor == "distill" else None
        bf16 = settings.dtype == "bfloat16"
        return PredictionAnchor(other, able, settings.anchor_weight, temperature, bf16=bf16)
    centers = [weight.detach() for weight in other.parameters()]
    importance = fisher(other, rows(), settings.anchor_rows, seed, scratch) if settings.anchor == "ewc" else None
    return WeightAnchor(centers, importance, settings.anchor_weight)


class PredictionAnchor(Anchor):
    """Holds what a model predicts to what its teacher does: `kl` without a temperature, `distill` with one."""

    def __init__(
        self,
        teacher: "PreTrainedModel",
        able: Abilities,
        weight: float = 1.0,
        temperature: float | None = None,
        *,
        bf16: bool = False,
    ) -> None:
        """`able`: how batches are laid out; `bf16`: whether the teacher's products are in bfloat16, as the model's."""
        self.teacher, self.able, self.weight, self.temperature, self.bf16 = teacher, able, weight, temperature, bf16

    def beside(
        self, batch: Batch, states: torch.Tensor, head: torch.Tensor | None, where: torch.Tensor, *, scale: float
    ) -> torch.Tensor | None:
        factor = scale * self.weight
        if head is None:
            logits = self._theirs(self.teacher, batch).logits[:, :-1].flatten(0, 1)
            return factor * _summed(states[where].float(), logits[where].float(), self.temperature)
        theirs = self._theirs(self.teacher.base_model, batch).last_hidden_state.flatten(0, 1)
        dtype = torch.bfloat16 if self.bf16 else states.dtype
        made: torch.Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]
            states, head, theirs, self.teacher.get_output_embeddings().weight, where, dtype, factor, self.temperature
        )
        return made

    @torch.no_grad()
    def _theirs(self, part: Any, batch: Batch) -> Any:
        positions = {} if batch.positions is None else {"position_ids": batch.positions}
        with (
            attention_for(self.teacher, self.able, batch),
            torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=self.bf16),
        ):
            return part(input_ids=batch.ids, use_cache=False, **positions)

    def after(self, weights: Sequence[torch.nn.Parameter]) -> torch.Tensor | None:
        return None


def _summed(own: torch.Tensor, theirs: torch.Tensor, temperature: float | None) -> torch.Tensor:
    """The divergence (or T² times the cross-entropy at a temperature T) of logits (tokens, vocabulary), summed over tokens; float64."""
    if temperature is None:
        log_p, log_q = own.log_softmax(1), theirs.log_softmax(1)
        return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dtype=torch.float64)
    log_p, q = (own / temperature).log_softmax(1), (theirs / temperature).softmax(1)
    return -(temperature**2) * (q * log_p).sum(dtype=torch.float64)


class _Divergence(torch.autograd.Function):
    """`_summed` of two heads' logits, a tile of the vocabulary at a time; gradients are made on the way forward.

    Besides inputs and gradients it holds `loss.HELD_BYTES` of both models' logits, whatever the number of tokens.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        theirs: torch.Tensor,
        their_weight: torch.Tensor,
        where: torch.Tensor,
        dtype: torch.dtype,
        factor: float,
        temperature: float | None,
    ) -> torch.Tensor:
        """`factor` times the sum over the tokens at `where`.

        Args:
            hidden, theirs: (tokens, d) last hidden states; `weight`, `their_weight`: (vocabulary, d).
            dtype: of the matrix products; sums and gradients are float32.
        """
        heat = temperature or 1.0
        rows, head, their_head = hidden.detach(), weight.detach().to(dtype), their_weight.detach().to(dtype)
        hidden_wanted, weight_wanted = ctx.needs_input_grad[:2]
        hidden_gradient = torch.zeros(rows.shape, dtype=torch.float32, device=rows.device) if hidden_wanted else None
        weight_gradient = (
            torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if weight_wanted else None
        )
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        size = max(1, losses.TILE_BYTES.get(rows.device.type, losses.TILE_BYTES["cuda"]) // 4)
        edges = [(first, min(first + size, len(head))) for first in range(0, len(head), size)]
        for group in losses.groups(where, head, torch.float64):  # two numbers of four bytes for each token and entry
            states, others = rows[group].to(dtype), theirs[group].to(dtype)
            own = [product(states, head[first:last].T).float() for first, last in edges]
            their = [product(others, their_head[first:last].T).float() for first, last in edges]
            if heat != 1.0:
                for tile in (*own, *their):
                    tile.div_(heat)
            masses = [torch.stack([tile.logsumexp(1) for tile in tiles]).logsumexp(0) for tiles in (own, their)]
            value = torch.zeros_like(masses[0])
            for z, y in zip(own, their, strict=True):
                z.sub_(masses[0][:, None])  # log p
                y.sub_(masses[1][:, None])  # log q
                if temperature is None:
                    y.sub_(z).neg_()
                    z.exp_()
                    y.mul_(z)  # p (log p - log q)
                    value += y.sum(1)
                else:
                    y.exp_()
                    value -= (y * z).sum(1)
                    z.exp_().sub_(y)  # p - q
            total += value.sum(dtype=torch.float64) * (heat**2)
            slope = torch.zeros(states.shape, dtype=torch.float32, device=rows.device)
            for (first, last), z, y in zip(edges, own, their, strict=True):
                if temperature is None:
                    z = y.addcmul_(z, value[:, None], value=-1)  # p (log p - log q - KL)
                z = z.mul_(factor * heat).to(dtype)
                if hidden_wanted:
                    slope += product(z, head[first:last]).float()
                if weight_gradient is not None:
                    weight_gradient[first:last] += transposed_product(z, states)
            if hidden_gradient is not None:
                hidden_gradient[group] = slope
        ctx.save_for_backward(hidden_gradient, None if weight_gradient is None else weight_gradient.to(weight.dtype))
        ctx.hidden_dtype = hidden.dtype
        return total * factor

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_gradient, weight_gradient = (
            None if each is None else each * grad.to(each.dtype) for each in ctx.saved_tensors
        )
        if hidden_gradient is not None:
            hidden_gradient = hidden_gradient.to(ctx.hidden_dtype)
        return hidden_gradient, weight_gradient, *[None] * 6


class WeightAnchor(Anchor):
    """Holds weights to those of another model: `l2`, and `ewc` where it is known how much each one matters."""

    def __init__(
        self, centers: Sequence[torch.Tensor], importance: Sequence[torch.Tensor] | None, weight: float
    ) -> None:
        """`centers`: the other model's weights, in their order; `importance`: of each, as many numbers; None: all 1."""
        self.centers, self.importance, self.weight = centers, importance, weight

    def beside(
        self, batch: Batch, states: torch.Tensor, head: torch.Tensor | None, where: torch.Tensor, *, scale: float
    ) -> torch.Tensor | None:
        return None

    @torch.no_grad()
    def after(self, weights: Sequence[torch.nn.Parameter]) -> torch.Tensor | None:
        total = torch.zeros((), dtype=torch.float64, device=self.centers[0].device)
        for number, (weight, center) in enumerate(zip(weights, self.centers, strict=True)):
            away = weight - center
            slope = self.weight * away if self.importance is None else self.importance[number] * away * self.weight
            total += (slope * away).sum(dtype=torch.float64) / 2
            weight.grad = slope if weight.grad is None else weight.grad.add_(slope)
        return total


def fisher(model: "PreTrainedModel", data: Dataset, most: int, seed: int, scratch: Path) -> list[torch.Tensor]:
    """The diagonal of a model's Fisher information per predicted token, at its weights: one tensor for each of them.

    The mean over tokens of E (d log p(y) / d θ_i)², where y is drawn from what the model predicts after the real tokens before it
    (not the real next token: Kunstner, Hennig and Balles 2019, arXiv 1905.12558, on what that is). One label is drawn for each token, and
    a row's gradients are squared as one: what different tokens have in common is 0 in the mean.

    Args:
        most: of the rows at most, evenly spaced.
        seed: of the labels.
        scratch: where the estimate is kept.
    """
    named = dict(model.named_parameters())
    chosen = np.unique(np.linspace(0, len(data) - 1, min(most, len(data))).round().astype(np.int64))
    path = scratch / "fisher.safetensors"
    done, tokens, sums = _kept(path, named)
    predicted = data.predicted
    written = time.monotonic()
    with fast_products(model.device):
        for number in range(done, len(chosen)):
            length = int(data.arrays["lengths"][chosen[number]])
            if length < 2:
                continue
            row = torch.from_numpy(data.arrays["tokens"][chosen[number], :length].astype(np.int64))[None].to(
                model.device
            )
            logits = model(input_ids=row, use_cache=False).logits[0, :-1].float()
            drawn = _drawn(logits.detach(), _numbers(seed, number, length - 1))
            if MASK in data.arrays:
                there = torch.from_numpy(data.arrays[MASK][chosen[number], 1:length]).to(model.device)
                drawn = torch.where(there, drawn, losses.IGNORED)
            functional.cross_entropy(logits, drawn, reduction="sum").backward()  # type: ignore[no-untyped-call]
            for name, weight in named.items():
                if weight.grad is not None:
                    sums[name].addcmul_(weight.grad, weight.grad)
                    weight.grad = None
            tokens += int(predicted[chosen[number]])
            if time.monotonic() - written >= checkpoints.seconds_between():
                _keep(path, number + 1, tokens, sums)
                written = time.monotonic()
    if tokens == 0:
        raise InputError(
            "train.anchor = ewc: no row of the original corpus has two tokens, so its Fisher information is unknown"
        )
    if done < len(chosen):
        _keep(path, len(chosen), tokens, sums)
    model.requires_grad_(requires_grad=False)
    return [sums[name] / tokens for name in named]


def _numbers(seed: int, row: int, count: int) -> np.ndarray:
    """(count,) numbers from 0 to 1, of a stream of their own for each row."""
    words = [seed, int.from_bytes(b"fisher", "big"), row]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words))).random(count)


def _drawn(logits: torch.Tensor, uniform: np.ndarray) -> torch.Tensor:
    """(tokens,) labels by inverting the distribution of each of the logits (tokens, vocabulary)."""
    reached = logits.double().softmax(1).cumsum(1)
    wanted = torch.from_numpy(uniform).to(logits.device)[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, wanted, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)


def _keep(path: Path, done: int, tokens: int, sums: dict[str, torch.Tensor]) -> None:
    checkpoints.put_tensors(path, sums, [done, tokens])


def _kept(path: Path, named: dict[str, torch.nn.Parameter]) -> tuple[int, int, dict[str, torch.Tensor]]:
    """How many rows and tokens an estimate already has, and its sums."""
    if not checkpoints.is_sound(path):
        return 0, 0, {name: torch.zeros_like(weight, requires_grad=False) for name, weight in named.items()}
    with safe_open(path, "pt") as file:
        done, tokens = json.loads(file.metadata()["state"])
        return done, tokens, {name: file.get_tensor(name).to(weight.device) for name, weight in named.items()}
