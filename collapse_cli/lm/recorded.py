"""A training step's forward and backward pass recorded once on a GPU, and played again for each step.

A step of a model like OPT-125m is over a thousand small kernels. A processor hands them over one by one, which takes
longer than the GPU works on them; a recorded graph is handed over at once.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from collapse_cli.lm.loss import IGNORED
from collapse_cli.lm.memory import is_out_of_memory, warn_once
from collapse_cli.lm.packing import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WORTH = 50  # full steps of a training from which on recording one pays
# a batch, and (predicted tokens,) where in its flattened rows something is predicted; to the losses
Pass = Callable[[Batch, torch.Tensor], torch.Tensor]


def can_record(model: "PreTrainedModel") -> bool:
    """Whether a model's forward pass is the same work each time; layers that are left out by chance would not be."""
    settings = model.config.to_dict()
    return model.device.type == "cuda" and not any(value for name, value in settings.items() if "layerdrop" in name)


class Recorded:
    """The forward and backward pass over batches of one shape, in which each row is one text of full length.

    Attributes:
        shape: (rows, width) of its batches.
    """

    def __init__(self, weights: list[torch.nn.Parameter], work: Pass, batch: Batch) -> None:
        """Record `work`, which leaves gradients in `weights`. Random numbers are drawn, and the gradients are lost."""
        self.weights, self.shape = weights, batch.ids.shape
        weighted = None if batch.weights is None else batch.weights.clone()
        self.batch = replace(batch, ids=batch.ids.clone(), labels=batch.labels.clone(), weights=weighted)
        width = batch.ids.shape[1]
        every = torch.nn.functional.pad(self.batch.labels, (0, 1), value=IGNORED)
        self.where = (every != IGNORED).flatten().nonzero().squeeze(1)
        assert len(self.where) == len(batch.ids) * (width - 1)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work(self.batch, self.where)  # sets up what libraries set up once
            self._forget()
            with _no_waiting():
                work(self.batch, self.where)
        torch.cuda.current_stream().wait_stream(side)
        self._forget()  # they are made anew while recording, where the recording finds them again
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = work(self.batch, self.where)
        self.gradients = [weight.grad for weight in weights]

    def _forget(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def play(self, batch: Batch) -> torch.Tensor:
        """The losses of a batch; its gradients are in the weights, until the next is played."""
        self.batch.ids.copy_(batch.ids)
        self.batch.labels.copy_(batch.labels)
        if self.batch.weights is not None:
            assert batch.weights is not None
            self.batch.weights.copy_(batch.weights)
        self.graph.replay()
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient
        return self.loss


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Inside, work that waits for the GPU is an error, and models are told that they are recorded: some then leave out what waits.

    In a recording it would be an error as well, but after that torch draws no random numbers any more.
    """
    before, asked = torch.cuda.get_sync_debug_mode(), torch.cuda.is_current_stream_capturing
    torch.cuda.is_current_stream_capturing = lambda: True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that this way of finding it out is experimental
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
        torch.cuda.is_current_stream_capturing = asked


def record(weights: list[torch.nn.Parameter], work: Pass, batch: Batch, kind: str) -> Recorded | None:
    """A recording for batches like this one; None, said once, where the model's work cannot be recorded."""
    try:
        return Recorded(weights, work, batch)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        warn_once(f"{kind} models are trained kernel by kernel, which is slower: a step cannot be recorded ({reason})")
        return None
