"""Steps of a training on several devices, each with a model of its own: the batches of one device, and its steps."""

from collections.abc import Sequence
from dataclasses import astuple
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from collapse_cli.config.tree import TrainConfig
from collapse_cli.data.dataset import Dataset
from collapse_cli.lm.arithmetic import OwnRows, fast_products
from collapse_cli.lm.attention import MATH_WIDTH
from collapse_cli.lm.devices import Group
from collapse_cli.lm.memory import is_out_of_memory, warn_once
from collapse_cli.lm.objective import Objective
from collapse_cli.lm.packing import Abilities, Batch, attention_for
from collapse_cli.lm.step import Work, random_numbers, seed_dropout

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SharedWork(Work):
    """`Work` of which this device does its part. On CPUs `rows_at_once` is of all devices together."""

    def __init__(
        self, model: "PreTrainedModel", settings: TrainConfig, width: int, objective: Objective, group: Group
    ) -> None:
        super().__init__(model, settings, width, objective)
        self.group = group

    def begin_alike(self, optimizer: torch.optim.AdamW, state: dict[str, Any]) -> None:
        """All devices begin with what the first one has: its step, how it goes about its work, weights and Adam's moments."""
        able = [*astuple(self.able), self.plain_head]
        known = [int(weight in optimizer.state) for weight in self.weights]
        numbers = torch.tensor([state["step"], state["rows_at_once"], *able, *known], dtype=torch.int64)
        self.group.take(numbers)
        state["step"], state["rows_at_once"], *flags = numbers.tolist()
        *ways, self.plain_head = map(bool, flags[: len(able)])
        self.able = Abilities(*ways)
        tensors: list[torch.Tensor] = [weight.detach() for weight in self.weights]
        for weight, there in zip(self.weights, flags[-len(known) :], strict=True):
            if there:
                if weight not in optimizer.state:
                    one = torch.zeros((), dtype=torch.float32, device=weight.device)
                    moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
                    optimizer.state[weight] = {"step": one, **moments}
                tensors += [optimizer.state[weight][name] for name in ("step", "exp_avg", "exp_avg_sq")]
        self.group.take(*tensors)

    def gradients(self, chosen: Dataset, seed: int, rows_at_once: int) -> tuple[list[torch.Tensor], int]:
        """As `Work.gradients`, the sum over all devices.

        Raises:
            MemoryError: on each device, when memory ran out on one of them.
        """
        group, cpu = self.group, self.model.device.type == "cpu"
        losses, predicted, failed = list[torch.Tensor](), 0, False
        try:
            batches, predicted = self.laid_out(chosen, rows_at_once * (1 if cpu else group.count))
            losses = self._own_gradients([*batches], predicted, seed)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        said = torch.tensor([failed, *(weight.grad is not None for weight in self.weights)], dtype=torch.int64)
        group.add(said)
        if said[0]:
            raise MemoryError("memory ran out on one of the devices")
        gradients = list[torch.Tensor]()
        for weight, there in zip(self.weights, said[1:].tolist(), strict=True):
            if there:  # a weight without gradients anywhere is left as it is, as on one device
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                gradients.append(weight.grad)
        means = torch.zeros(2, dtype=torch.float64, device=self.model.device)
        for loss in losses:
            means += loss
        group.add(means)
        group.add_all(gradients)
        return [means], predicted

    def _own_gradients(self, batches: Sequence[Batch], predicted: int, seed: int) -> list[torch.Tensor]:
        """What this device's rows of the batches have in `gradients`, which is of all predicted tokens."""
        device, group = self.model.device, self.group
        alike = self._drops_alike
        if not alike:
            if self._dropped and group.is_first:
                warn_once(
                    f"{', '.join(self._dropped)}: each of the {group.count} devices draws random numbers of its own here, so another "
                    "number of devices gives other results, by more than rounding"
                )
            if group.rank:
                seed = int(random_numbers(seed, "device", group.rank).integers(2**63))
        seed_dropout(device, seed)
        losses, scale = list[torch.Tensor](), 1 / max(1, predicted)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            for number, batch in enumerate(batches):
                part = group.part(number, len(batch.ids))
                if part.first < part.last:
                    losses.append(self.backward(batch.part(part), scale, part=part if alike else None))
                elif alike and self._dropped and number + 1 < len(batches):
                    self._draw(batch)
        return losses

    @torch.no_grad()
    def _draw(self, batch: Batch) -> None:
        """Draws the random numbers of a batch of which no row is this device's, so that those of the next are the same on all."""
        part = OwnRows(0, 1, len(batch.ids))
        first = batch.part(part)
        positions = {} if first.positions is None else {"position_ids": first.positions}
        model: Any = self.model.base_model if self.plain_head else self.model
        for _ in range(2 if self.objective.adversarial else 1):
            with attention_for(self.model, self.able, first), fast_products(first.ids.device, part=part):
                model(input_ids=first.ids, use_cache=False, **positions)

    @cached_property
    def _dropped(self) -> list[str]:
        """The settings by which a model leaves out parts of its work by chance, while it is trained."""
        settings = self.model.config.get_text_config().to_dict()
        others = ("summary", "classifier")  # of heads that are no language model's
        return [name for name, value in settings.items() if "drop" in name and value and not name.startswith(others)]

    @cached_property
    def _drops_alike(self) -> bool:
        """Whether a row's dropout can be the same on any number of devices: not on GPUs, nor where torch's own attention draws it."""
        inside = [name for name in self._dropped if name.startswith("att") or not self.able.attends]
        wide = self.width > MATH_WIDTH or not self.able.attends
        return self.model.device.type == "cpu" and not (inside and wide)
