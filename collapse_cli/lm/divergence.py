"""How far apart the next-token distributions of two models are, token by token, a tile of the vocabulary at a time.

Both models are in memory, and besides the forward passes of a batch `loss.HELD_BYTES` of the logits of both at most; on a CPU those
of `AT_ONCE` tokens.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.lm.arithmetic import product
from collapse_cli.lm.loss import HELD_BYTES, IGNORED, TILE_BYTES
from collapse_cli.lm.memory import halving
from collapse_cli.lm.packing import Batch, lay_out
from collapse_cli.lm.score import Scorer, places_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AT_ONCE = 128  # tokens on a CPU, so that tiles stay near its caches
NOTHING = -1e4  # nats: in the place of the logarithm of 0


@dataclass(frozen=True)
class Predicted:
    """What a model says of the next token at some places.

    Attributes:
        states: (tokens, d) its last hidden states; without a head, its logits (tokens, vocabulary).
        head: (vocabulary, d), of the dtype of the states; None where the logits are there.
    """

    states: torch.Tensor
    head: torch.Tensor | None = None

    @property
    def vocabulary(self) -> int:
        return self.states.shape[1] if self.head is None else len(self.head)

    def part(self, places: torch.Tensor) -> "Predicted":
        return Predicted(self.states[places], self.head)

    def tiles(self) -> list[torch.Tensor]:
        """The logits in tiles of equal edges for all models: (tokens, width) float32 each."""
        size = max(1, TILE_BYTES.get(self.states.device.type, TILE_BYTES["cuda"]) // 4)
        edges = [(first, min(first + size, self.vocabulary)) for first in range(0, self.vocabulary, size)]
        if self.head is None:
            return [self.states[:, first:last].float() for first, last in edges]
        return [product(self.states, self.head[first:last].T).float() for first, last in edges]


def jensen_shannon(one: Predicted, other: Predicted) -> torch.Tensor:
    """(tokens,) float64 Jensen-Shannon divergence in bits of two models' distributions at the same places; 0..1.

    Ids that only the larger vocabulary has are what the other model gives no probability. Logits and their differences are
    float32: divergences below about 1e-7 bits are rounding; models that are equal are at 0.
    """
    places = torch.arange(len(one.states), device=one.states.device)
    most = max(1, HELD_BYTES.get(places.device.type, HELD_BYTES["cpu"]) // (4 * (one.vocabulary + other.vocabulary)))
    if places.device.type == "cpu":
        most = min(most, AT_ONCE)
    found = torch.zeros(len(places), dtype=torch.float64, device=places.device)
    for group in places.chunk(max(1, -(-len(places) // most))):
        found[group] = _of_group(one.part(group), other.part(group))
    return found.clamp_(0, 1)


def _of_group(one: Predicted, other: Predicted) -> torch.Tensor:
    both = [side.tiles() for side in (one, other)]
    for tiles in both:
        mass = torch.stack([tile.logsumexp(1) for tile in tiles]).logsumexp(0)[:, None]
        for tile in tiles:
            tile.sub_(mass).clamp_(min=NOTHING)  # log-probabilities
    shared, alone = torch.zeros(2, len(one.states), dtype=torch.float64, device=one.states.device)
    level = both[0][0].new_zeros(1).exp().log1p()  # ln 2, rounded as what it is held against
    for number in range(max(map(len, both))):
        p, q = (tiles[number] if number < len(tiles) else both[0][0][:, :0] for tiles in both)
        width = min(p.shape[1], q.shape[1])
        for side in (p, q):
            alone += side[:, width:].exp().sum(1, dtype=torch.float64)
        log_p, log_q = p[:, :width], q[:, :width]
        difference = log_q - log_p
        near = difference.abs().neg_().exp_().log1p_()
        # ln (p + q) / p and ln (p + q) / q, exactly where one of p and q is far below the other
        of_p, of_q = near + difference.clamp_min(0), near + difference.clamp_max(0).neg_()
        terms = log_p.exp() * (level - of_p) + log_q.exp() * (level - of_q)
        shared += terms.sum(1, dtype=torch.float64)
    return cast(torch.Tensor, (shared / math.log(2) + alone) / 2)


def divergences(
    one: "PreTrainedModel",
    other: "PreTrainedModel",
    data: Dataset,
    tell: Callable[[int, int], None] = lambda done, total: None,
    dtype: str = "float32",
) -> np.ndarray:
    """Jensen-Shannon divergences of what two models predict at each token but the first of its row.

    Args:
        data: `tokens` and `lengths`, ids that mean the same to both models; where there is a mask, only the tokens in it count.
        dtype: `float32`, or `bfloat16` for matrix products in that.

    Returns:
        (rows, width-1) float64 in bits, NaN where nothing is predicted.
    """
    tokens, lengths, mask = data.arrays["tokens"], data.arrays["lengths"], data.arrays.get(MASK)
    found, done = np.full((len(data), max(0, tokens.shape[1] - 1)), np.nan), 0
    width = int(lengths.max(initial=1))
    with ExitStack() as stack:
        scorers = [stack.enter_context(Scorer(model, width, dtype)) for model in (one, other)]
        able = scorers[0].able.shared_with(scorers[1].able)
        at_once = min(scorer.rows_at_once for scorer in scorers) if able.together else 1

        def chunk(rows: int) -> None:
            part = slice(done, done + rows)
            some = None if mask is None else mask[part]
            for batch in lay_out(tokens[part], lengths[part], rows * width, one.device, able, mask=some):
                _, row, column = places_of(batch)
                found[done + row, column] = _of_batch(scorers, batch)

        while done < len(data):
            _, at_once = halving(chunk, at_once, "holding two models against each other")
            done = min(done + at_once, len(data))
            tell(done, len(data))
    return found


def _of_batch(scorers: "list[Scorer]", batch: Batch) -> np.ndarray:
    where = (batch.labels != IGNORED).flatten().nonzero().squeeze(1)
    made = [scorer.predicted(batch) for scorer in scorers]
    with torch.autocast(batch.ids.device.type, enabled=False):
        sides = [Predicted(states.flatten(0, 1)[where], head) for states, head in made]
        result: np.ndarray = jensen_shannon(*sides).cpu().numpy()
    return result
