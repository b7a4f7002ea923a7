"""What a training step of a language model makes small: the losses of its tokens, each by the weight of its row, on
embeddings as they are and perturbed, and what holds the model to another one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from collapse_cli.config.tree import TrainConfig
from collapse_cli.errors import InputError
from collapse_cli.lm.loss import CROSS_ENTROPY, IGNORED, Beside, TokenLoss, summed_losses
from collapse_cli.lm.packing import Batch, to_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Inside = Callable[[], AbstractContextManager[Any]]


class Anchor(Protocol):
    """What holds a model to another one while it is trained.

    `scale` is what the losses of tokens are multiplied by: 1 over the predicted tokens of the step.
    """

    def beside(
        self, batch: Batch, states: torch.Tensor, head: torch.Tensor | None, where: torch.Tensor, *, scale: float
    ) -> torch.Tensor | None:
        """What is added to the loss of a batch, with gradients; None: nothing. Autocast is off where there is a head.

        Args:
            states: (tokens, d) last hidden states of the flattened rows; of models without a plain head logits.
            head: (vocabulary, d), whose products with the states are the logits; None: `states` are logits already.
            where: (predicted tokens,) their places among the states.
        """

    def after(self, weights: Sequence[torch.nn.Parameter]) -> torch.Tensor | None:
        """Once a step, when the gradients of all batches are there: adds its own to them, and returns its value."""


@dataclass(frozen=True)
class Objective:
    """What a step makes small, per predicted token.

    Attributes:
        token: the loss of a token.
        adversarial: size of the perturbation of the embeddings (`_perturbation`), on which the same loss is added; 0: none.
        anchor: what holds the model to another one; where the embeddings are as they are.
    """

    token: TokenLoss = CROSS_ENTROPY
    adversarial: float = 0.0
    anchor: Anchor | None = None

    @classmethod
    def of(cls, settings: TrainConfig, anchor: Anchor | None = None) -> "Objective":
        number = {"truncated": settings.truncate, "focal": settings.focusing, "smoothed": settings.smoothing}
        return cls(TokenLoss(settings.loss, number.get(settings.loss, 0.0)), settings.adversarial, anchor)

    @property
    def is_cross_entropy(self) -> bool:
        """Whether it is the cross-entropy of all tokens and nothing else, but for weights of rows."""
        return self == PLAIN

    def backward(
        self,
        model: "PreTrainedModel",
        batch: Batch,
        inside: Inside,
        *,
        plain_head: bool,
        scale: float,
        where: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Adds the gradients of `scale` times what is made small, summed over the predicted tokens of a batch.

        Args:
            inside: opens what forward passes need.
            plain_head: what `has_plain_head` said of the model.
            where: (predicted tokens,) their places in the flattened rows; looked for when None.

        Raises:
            InputError: for embeddings that are to be perturbed, of a model that does not read its tokens through one table.

        Returns:
            (2,) float64: `scale` times what is made small, and `scale` times the cross-entropy of the same tokens, unweighted.
        """

        def passed(beside: Beside | None = None) -> tuple[torch.Tensor, torch.Tensor]:
            return summed_losses(
                model,
                batch.ids,
                batch.labels,
                plain_head=plain_head,
                positions=batch.positions,
                scale=scale,
                where=where,
                token=self.token,
                weights=batch.weights,
                beside=beside,
            )

        held = None if self.anchor is None else partial(self.anchor.beside, batch, scale=scale)
        if not self.adversarial:
            with inside():
                loss, entropy = passed(held)
            loss.backward()  # type: ignore[no-untyped-call]
            return torch.stack([loss.detach(), entropy])
        with inside(), _embedded(model) as given:
            loss, entropy = passed(held)
        loss.backward()  # type: ignore[no-untyped-call]
        if [each.grad is None for each in given] != [False]:
            raise InputError(
                f"train.adversarial needs a model that reads its tokens through one table of embeddings, once a pass; "
                f"{model.config.model_type} models do not: leave it out"
            )
        with inside(), _embedded(model, _perturbation(given[0], batch, self.adversarial)):
            again, _ = passed()
        again.backward()  # type: ignore[no-untyped-call]
        return torch.stack([loss.detach() + again.detach(), entropy])


PLAIN = Objective()


@contextmanager
def _embedded(model: "PreTrainedModel", more: torch.Tensor | None = None) -> Iterator[list[torch.Tensor]]:
    """Inside, token embeddings are kept as the model makes them, and their gradients; or something is added to them."""
    made: list[torch.Tensor] = []

    def hook(_: torch.nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        if more is not None:
            return output + more
        if not output.requires_grad:  # frozen weights
            output = output.detach().requires_grad_()
        output.retain_grad()
        made.append(output)
        return output

    handle = model.get_input_embeddings().register_forward_hook(hook)
    try:
        yield made
    finally:
        handle.remove()


def _perturbation(embeddings: torch.Tensor, batch: Batch, size: float) -> torch.Tensor:
    """(rows, width, d): a step up the loss, along the gradient, for each text of the batch alone.

    Its length is `size` times the length of the text's embeddings, all tokens of a text one vector (Miyato, Dai and
    Goodfellow 2017, equations 4 and 5, who scale the embeddings to variance 1 for the same purpose).
    """
    gradient = embeddings.grad
    assert gradient is not None
    gradient, values = gradient.detach().float(), embeddings.detach().float()
    squares = torch.stack([gradient.square().sum(dim=2), values.square().sum(dim=2)])  # (2, rows, width)
    if batch.segments is None:
        there = torch.nn.functional.pad(batch.labels != IGNORED, (1, 0), value=True)
        if batch.masked:  # tokens without a label are of the text, too
            there = to_device(batch.owners >= 0, gradient.device)
        of_texts = (squares * there).sum(dim=2, keepdim=True)
    else:
        texts = batch.segments + 1  # padding is a text of its own, without a gradient
        sums = squares.new_zeros(2, int(batch.owners.max()) + 2)
        sums.index_add_(1, texts.flatten(), squares.flatten(1))
        of_texts = sums[:, texts]
    slope, length = of_texts.sqrt()
    step: torch.Tensor = gradient * (size * length / slope.clamp_min(torch.finfo(slope.dtype).tiny))[:, :, None]
    return step.to(embeddings.dtype)
