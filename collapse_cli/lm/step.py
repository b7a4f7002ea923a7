"""One step of a training: the gradients of its rows, as many rows at once as memory allows, and what becomes of the weights."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from collapse_cli.config.tree import TrainConfig
from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.lm.architecture import vocabulary
from collapse_cli.lm.arithmetic import OwnRows, fast_products
from collapse_cli.lm.attention import Causal, attending
from collapse_cli.lm.half_layers import HalfLayers
from collapse_cli.lm.loss import has_plain_head, token_losses
from collapse_cli.lm.memory import free_bytes, halving
from collapse_cli.lm.objective import PLAIN, Objective
from collapse_cli.lm.packing import Batch, abilities, attention_for, lay_out
from collapse_cli.lm.recorded import Recorded, record

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_AT_ONCE = 4096  # in one forward pass on a CPU; larger batches are accumulated
MOST_AT_ONCE = 32768  # the same on a GPU, where memory allows
LOGITS_BYTES = 512 << 20  # the same in float32 logits, for models whose loss needs all of them at once


class Work:
    """How a model is trained: what it can do, in which precision, and how much of a step at once.

    Attributes:
        rows_at_once: how many rows of full width one forward pass takes; less from where memory ran out.
        rows_recorded: steps of so many rows, all of full width, are recorded on a GPU; 0: none are.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        settings: TrainConfig,
        width: int,
        objective: Objective = PLAIN,
    ) -> None:
        """`width`: the longest row, in tokens."""
        self.model, self.objective, self.width, self.clip = model, objective, width, settings.clip
        self.weights = trained(model)
        self.bf16 = settings.dtype == "bfloat16"
        self.plain_head, self.able = has_plain_head(model), abilities(model, width, gradients=True)
        tokens = TOKENS_AT_ONCE if model.device.type == "cpu" else tokens_that_fit(model)
        if not self.plain_head:
            tokens = min(tokens, LOGITS_BYTES // (4 * vocabulary(model.config)))
        self.rows_at_once, self.rows_recorded = max(1, tokens // width), 0
        self._recorded: Recorded | None = None
        self._layers = HalfLayers()
        # on a GPU 1.0 as soon as a loss was not finite: no step changes weights from then on
        self.spoiled: torch.Tensor | None = None

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Inside, steps can be made; outside, the model and the global random numbers are as they were."""
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng())
            if self.able.attends:
                stack.enter_context(attending(self.model, Causal(None, self.width)))
            yield

    def laid_out(self, chosen: Dataset, rows_at_once: int) -> tuple[Iterator[Batch], int]:
        """The rows of a step in batches, and how many of their tokens are predicted. No weight has gradients then."""
        for weight in self.weights:
            weight.grad = None  # of a try for which memory did not suffice
        tokens, lengths, device = chosen.arrays["tokens"], chosen.arrays["lengths"], self.model.device
        weights, mask = chosen.arrays.get("weights"), chosen.arrays.get(MASK)
        batches = lay_out(tokens, lengths, rows_at_once * self.width, device, self.able, weights, mask)
        return batches, int(chosen.predicted.sum())

    def gradients(self, chosen: Dataset, seed: int, rows_at_once: int) -> tuple[list[torch.Tensor], int]:
        """Gradients of the objective, per predicted token.

        Returns:
            (2,) tensors whose sum is the mean of the objective and of the cross-entropy, and the predicted tokens.

        Args:
            seed: of dropout.
        """
        batches, predicted = self.laid_out(chosen, rows_at_once)
        device, lengths = self.model.device, chosen.arrays["lengths"]
        if len(chosen) == self.rows_recorded <= rows_at_once and lengths.min() == self.width:
            (batch,) = batches
            if self._recorded is None:
                self._recorded = record(self.weights, self._pass, batch, self.model.config.model_type)
            if self._recorded is not None:
                seed_dropout(device, seed)
                return [self._recorded.play(batch)], predicted
            self.rows_recorded, batches = 0, iter([batch])
        seed_dropout(device, seed)
        # one context for all batches, so that the weights are cast once
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            losses = [self.backward(batch, 1 / max(1, predicted)) for batch in batches]
        # of a batch of rows of one token each, in which nothing is predicted, there is no pass
        return losses or [torch.zeros(2, dtype=torch.float64, device=device)], predicted

    def backward(
        self, batch: Batch, scale: float, where: torch.Tensor | None = None, part: OwnRows | None = None
    ) -> torch.Tensor:
        """Adds the gradients of `scale` times the summed objective. Returns (2,) that and the cross-entropy, both scaled.

        Args:
            part: which rows of a batch these are, whose dropout is that of the whole batch.
        """

        @contextmanager
        def inside() -> Iterator[None]:
            with attention_for(self.model, self.able, batch), fast_products(self.model.device, part=part):
                yield

        return self.objective.backward(self.model, batch, inside, plain_head=self.plain_head, scale=scale, where=where)

    def _pass(self, batch: Batch, where: torch.Tensor) -> torch.Tensor:
        """What is recorded: a whole step."""
        with ExitStack() as stack:
            if self.bf16:
                stack.enter_context(torch.autocast(batch.ids.device.type, dtype=torch.bfloat16))
                stack.enter_context(self._layers.used())
            return self.backward(batch, 1 / len(where), where)

    def bad_rows(self, chosen: Dataset, numbers: np.ndarray, replayed: np.ndarray) -> str:
        """Which of the rows has a loss of its own that is not finite, in words.

        Args:
            numbers, replayed: of the rows, from 0: in the corpus, and after these among those that are replayed.
        """
        self.model.eval()
        lengths, bad = chosen.arrays["lengths"], []
        names = [
            *(f"row {number} of the training rows" for number in numbers),
            *(f"row {number} of the original rows, which are replayed" for number in replayed),
        ]
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            for row, name in enumerate(names):
                row_alone = chosen.arrays["tokens"][row : row + 1], lengths[row : row + 1]
                for batch in lay_out(*row_alone, 1, self.model.device, replace(self.able, packs=False)):
                    with attention_for(self.model, self.able, batch):
                        losses = token_losses(self.model, batch.ids, batch.labels, plain_head=self.plain_head)
                    if not losses.isfinite().all():
                        bad.append(name)
        if not bad:
            return "no single row has such a loss without dropout"
        first = f"{bad[0]}, counted from 0,"
        if len(bad) == len(names):
            return f"the loss of each of its {len(bad)} rows is not finite; {first} is the first"
        return f"{first} is the first of {len(bad)} with such a loss"


def tokens_that_fit(model: "PreTrainedModel") -> int:
    """Tokens of one forward pass on a GPU: by a rough count of what is kept for the backward pass, half of the memory."""
    config = model.config.get_text_config()
    kept = 4 * 40 * int(config.hidden_size) * (int(config.num_hidden_layers) + 2)  # bytes a token
    return max(1, min(MOST_AT_ONCE, free_bytes(model.device) // 2 // kept))


# reads the summed objective and the summed cross-entropy of a step in nats, and its predicted tokens
Read = Callable[[], tuple[float, float, int]]


def make_step(work: Work, optimizer: torch.optim.Optimizer, chosen: Dataset, seed: int) -> Read:
    """One optimizer step over all rows of `chosen`, none when the loss is not finite.

    On a GPU the step is handed over, and waited for when its losses are read. After a loss that is not finite no later step changes
    anything.
    """
    (losses, predicted), work.rows_at_once = halving(
        lambda rows: work.gradients(chosen, seed, rows), work.rows_at_once, "training"
    )
    if work.model.device.type == "cuda":
        means = torch.stack(losses).sum(dim=0)
        finite = means.isfinite().all()
        work.spoiled = (~finite).float() if work.spoiled is None else work.spoiled.maximum((~finite).float())
        optimizer.found_inf = work.spoiled  # type: ignore[attr-defined]
        if (held := _held(work)) is not None:
            means = means + torch.stack([held, torch.zeros_like(held)])
        if work.clip > 0:  # the step divides by it
            optimizer.grad_scale = ((_norm(work) + 1e-6) / work.clip).clamp_min(1)  # type: ignore[attr-defined]
        _changed(work, optimizer)

        def read() -> tuple[float, float, int]:
            summed, entropy = (mean * predicted for mean in means.tolist())
            return summed, entropy, predicted

        return read
    summed, entropy = (sum(parts) * predicted for parts in zip(*map(torch.Tensor.tolist, losses), strict=True))
    if math.isfinite(summed):
        if (held := _held(work)) is not None:
            summed += float(held) * predicted
        # where the norm is smaller it would be a multiplication of everything by one
        if work.clip > 0 and (norm := _norm(work)) > work.clip:
            weights = [weight for weight in work.weights if weight.grad is not None]
            torch.nn.utils.clip_grads_with_norm_(weights, work.clip, norm, foreach=True)
        _changed(work, optimizer)
    return lambda: (summed, entropy, predicted)


def _held(work: Work) -> torch.Tensor | None:
    """What an anchor adds to the objective, its gradients added to those that are there."""
    return None if work.objective.anchor is None else work.objective.anchor.after(work.weights)


def _norm(work: Work) -> torch.Tensor:
    """The length of all gradients, as one vector."""
    return torch.nn.utils.get_total_norm(
        [weight.grad for weight in work.weights if weight.grad is not None], foreach=True
    )


def _changed(work: Work, optimizer: torch.optim.Optimizer) -> None:
    optimizer.step()
    for weight in work.weights:
        weight.grad = None


def named_trained(model: "PreTrainedModel") -> list[tuple[str, torch.nn.Parameter]]:
    """The weights that training changes, by name: all, or those of an adapter."""
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def trained(model: "PreTrainedModel") -> list[torch.nn.Parameter]:
    """The weights that training changes."""
    return [weight for _, weight in named_trained(model)]


def seed_dropout(device: torch.device, seed: int) -> None:
    """As `torch.manual_seed`, which seeds every kind of device torch has ever heard of, at a cost."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def random_numbers(seed: int, *stream: str | int) -> np.random.Generator:
    """Random numbers of their own for each purpose and step, so that none need be saved in a checkpoint."""
    words = [int.from_bytes(part.encode(), "big") if isinstance(part, str) else part for part in stream]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words])))
