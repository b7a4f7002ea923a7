"""Training: AdamW over rows of tokens, in a loop of our own that can be killed and taken up again at any step."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from collapse_cli.config.tree import TrainConfig
from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.engine import checkpoint as checkpoints
from collapse_cli.errors import InputError
from collapse_cli.lm import recorded
from collapse_cli.lm.architecture import vocabulary
from collapse_cli.lm.arithmetic import OwnRows, fast_products
from collapse_cli.lm.attention import MATH_WIDTH, Causal, attending
from collapse_cli.lm.devices import Group
from collapse_cli.lm.loss import has_plain_head, token_losses
from collapse_cli.lm.memory import free_bytes, halving, is_out_of_memory, warn_once
from collapse_cli.lm.objective import PLAIN, Anchor, Objective
from collapse_cli.lm.packing import Abilities, Batch, abilities, attention_for, lay_out
from collapse_cli.lm.recorded import Recorded, can_record, record
from collapse_cli.lm.replay import Replay
from collapse_cli.lm.score import score_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_AT_ONCE = 4096  # in one forward pass on a CPU; larger batches are accumulated
MOST_AT_ONCE = 32768  # the same on a GPU, where memory allows
LOGITS_BYTES = 512 << 20  # the same in float32 logits, for models whose loss needs all of them at once
NO_VALIDATION = "train.select = valid, but the data have no validation text; say --set data.valid=FILE"
CHECKPOINT_SHARE = 0.05  # of the time at most goes into checkpoints


class TrainError(InputError):
    """Training went wrong in a way that another setting mends."""


def fit(
    model: "PreTrainedModel",
    data: Dataset,
    settings: TrainConfig,
    *,
    seed: int,
    scratch: Path,
    valid: Dataset | None = None,
    replay: Dataset | None = None,
    anchor: Anchor | None = None,
    group: Group | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Train `model` in place on the rows of `data`: the weights of it that want gradients.

    Args:
        data: rows; where they have `weights` (rows,), the losses of each row's tokens are multiplied by its own, in units of
            their mean over the predicted tokens; where they have a mask, only the tokens in it are predicted.
        settings: with `dtype` resolved.
        seed: of the order of rows and of dropout.
        scratch: where checkpoints are kept; a checkpoint found there is taken up.
        valid: rows to choose the best epoch by, for `select = "valid"`.
        replay: rows of which each batch has the share `settings.replay`; an epoch goes through `data` once all the same.
        anchor: what holds the model to another one.
        group: the devices that train it together, each with a model and all rows of its own; None: one alone. The first of them
            writes and reads checkpoints, and has the model in the end; the others may take up nothing and leave nothing behind.

    Returns:
        `train_loss` (nats per predicted token, mean of the last epoch: the cross-entropy, unweighted, whatever was made
        small), `epoch_losses`, `steps`, `train_tokens`; `train_objective` where something else than that was made
        small, the same mean of it; and where rows are replayed, which all of these count, what `Replay.counted` says. `devices`
        where there are several.

    Raises:
        TrainError: when the loss is not finite, or the weights did not change.
        GroupError: when another device is gone.
    """
    rows, batch = len(data), settings.batch_size
    if rows == 0:
        raise InputError("there are no rows to train on")
    if not data.predicted.any():
        raise TrainError(
            "no row has two tokens, so there is nothing to predict; raise sample.decode.min_new_tokens or "
            "sample.new_tokens, or set train.target = full"
        )
    replayed = None
    if settings.replay:
        assert replay is not None
        replayed = Replay(
            replay,
            settings.replayed_rows,
            batch,
            rows,
            lambda turn: _generator(seed, "replay", turn).permutation(len(replay)),
        )
    per_step = replayed.here if replayed else batch
    steps_per_epoch = math.ceil(rows / per_step)
    total = settings.steps or settings.epochs * steps_per_epoch
    epochs = math.ceil(total / steps_per_epoch)
    optimizer = torch.optim.AdamW(trained(model), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    before = _fingerprint(model)
    data = _with_mean_weight_one(data)
    objective = Objective.of(settings, anchor)
    longest = [data, *([replayed.rows] if replayed else [])]
    width = max(int(each.arrays["lengths"].max()) for each in longest)
    work, first = _Work(model, settings, width, objective, group), group is None or group.is_first
    # what is recorded predicts as many tokens each time
    if (
        group is None
        and MASK not in data.arrays
        and epochs * (rows // per_step) >= recorded.WORTH
        and work.plain_head
        and work.able.together
        and can_record(model)
    ):
        work.rows_recorded = batch
    checkpoint = Checkpoint(scratch / "checkpoint.safetensors", model, optimizer)
    state = (checkpoint.load() if first else None) or {"step": 0, "losses": [[0.0, 0]] * epochs, "best": None}
    state.setdefault("rows_at_once", work.rows_at_once)
    if group:
        _begin_alike(group, work, optimizer, state)
    step, losses, best = state["step"], [tuple(loss) for loss in state["losses"]], state["best"]
    objectives = state.get("objectives", [0.0] * epochs)
    work.rows_at_once = state["rows_at_once"]  # other sums would be rounded otherwise

    model.train()
    with work.ready():
        while step < total:
            epoch, within = divmod(step, steps_per_epoch)
            if within == 0 or step == state["step"]:
                order = _generator(seed, "order", epoch).permutation(rows)
            chosen = np.sort(order[within * per_step : (within + 1) * per_step])
            taken, again = data.take(chosen), np.zeros(0, np.int64)
            if replayed:
                again = replayed.at(epoch, within, len(chosen))
                taken = replayed.beside(taken, again)
            for weights_alike in optimizer.param_groups:
                weights_alike["lr"] = learning_rate(settings, step, total, steps_per_epoch)
            dropout = int(_generator(seed, "dropout", step).integers(2**63))
            summed, loss, predicted = _step(work, optimizer, taken, dropout)
            if not math.isfinite(summed):
                advice = "lower train.lr or set train.dtype = float32"
                if step == 0:  # the learning rate had no part in it yet
                    mended = "set train.dtype = float32" if work.bf16 else "give a model whose weights are sound"
                    advice = f"no weight was changed before; {mended}"
                where = work.bad_rows(taken, chosen, again) if first else "as the first device says"
                raise TrainError(f"the loss is {summed} at step {step + 1} of {total}; {advice} ({where})")
            losses[epoch] = (losses[epoch][0] + loss, losses[epoch][1] + predicted)
            objectives[epoch] += summed
            step += 1
            if not first:
                continue
            if settings.select == "valid" and step % steps_per_epoch == 0:
                best = _keep_best(model, valid, best, scratch / "best.safetensors")
            checkpoint.save_sometimes(
                {
                    "step": step,
                    "losses": losses,
                    "objectives": objectives,
                    "best": best,
                    "rows_at_once": work.rows_at_once,
                }
            )
            tell(step, total)
    if group and not group.agree(_fingerprint(model)):
        raise RuntimeError(f"{group.count} devices trained one model, and ended with different weights")
    if best is not None:
        _restore(model, scratch / "best.safetensors")
    after = _fingerprint(model)
    if not all(map(math.isfinite, after)):
        raise TrainError("after training some weights are not finite; lower train.lr or set train.dtype = float32")
    if after == before:
        raise TrainError("training left every weight as it was; raise train.lr or train.epochs")
    model.eval()
    epoch_losses = [summed / count for summed, count in losses]
    seen, lengths = (total - (epochs - 1) * steps_per_epoch) * per_step, data.arrays["lengths"].astype(np.int64)
    last = _generator(seed, "order", epochs - 1).permutation(rows)[
        :seen
    ]  # of the last epoch, which steps may cut short
    facts: dict[str, Any] = {
        "train_loss": epoch_losses[-1],
        "epoch_losses": epoch_losses,
        "steps": total,
        "train_tokens": (epochs - 1) * int(lengths.sum()) + int(lengths[last].sum()),
    }
    if replayed:
        counted = replayed.counted(epochs)
        facts |= counted | {"train_tokens": facts["train_tokens"] + counted["replay_tokens"]}
    if not objective.is_cross_entropy or "weights" in data.arrays:
        facts["train_objective"] = objectives[-1] / losses[-1][1]
    return facts | ({"devices": group.count} if group else {})


def _begin_alike(group: Group, work: "_Work", optimizer: torch.optim.AdamW, state: dict[str, Any]) -> None:
    """All devices begin with what the first one has: its step, how it goes about its work, weights and Adam's moments."""
    able = [*astuple(work.able), work.plain_head]
    known = [int(weight in optimizer.state) for weight in work.weights]
    numbers = torch.tensor([state["step"], state["rows_at_once"], *able, *known], dtype=torch.int64)
    group.take(numbers)
    state["step"], state["rows_at_once"], *flags = numbers.tolist()
    *ways, work.plain_head = map(bool, flags[: len(able)])
    work.able = Abilities(*ways)
    tensors: list[torch.Tensor] = [weight.detach() for weight in work.weights]
    for weight, there in zip(work.weights, flags[-len(known) :], strict=True):
        if there:
            if weight not in optimizer.state:
                one = torch.zeros((), dtype=torch.float32, device=weight.device)
                moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[weight] = {"step": one, **moments}
            tensors += [optimizer.state[weight][name] for name in ("step", "exp_avg", "exp_avg_sq")]
    group.take(*tensors)


def _with_mean_weight_one(data: Dataset) -> Dataset:
    """The rows, their weights in units of the mean over all predicted tokens.

    So a step's loss is an unbiased estimate of the weighted mean over the corpus: weights are not evened out batch by batch.
    """
    weights = data.arrays.get("weights")
    if weights is None:
        return data
    predicted = data.predicted
    mean = float(weights.astype(np.float64) @ predicted) / float(predicted.sum())
    if not (weights >= 0).all() or not 0 < mean < math.inf:
        raise TrainError("the weights of the rows must be numbers from 0 on, and not all 0")
    return Dataset({**data.arrays, "weights": (weights / mean).astype(np.float32)}, data.origin)


def named_trained(model: "PreTrainedModel") -> list[tuple[str, torch.nn.Parameter]]:
    """The weights that training changes, by name: all, or those of an adapter."""
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def trained(model: "PreTrainedModel") -> list[torch.nn.Parameter]:
    """The weights that training changes."""
    return [weight for _, weight in named_trained(model)]


def learning_rate(settings: TrainConfig, step: int, total: int, steps_per_epoch: int) -> float:
    """The learning rate of step `step` (from 0) of `total`.

    `cosine-epoch` is torch's CosineAnnealingLR(T_max=epochs) stepped once an epoch, as in the Nature code.
    """
    lr, low = settings.lr, settings.min_lr
    warm = int(settings.warmup * total)
    if step < warm:
        return lr * (step + 1) / (warm + 1)
    if settings.schedule == "constant":
        return lr
    if settings.schedule == "cosine-epoch":
        part = (step // steps_per_epoch) / (total // steps_per_epoch)
    else:
        part = (step - warm) / max(1, total - warm)
    fall = part if settings.schedule == "linear" else (1 - math.cos(math.pi * part)) / 2
    return lr + (low - lr) * fall


class _Work:
    """How a model is trained: what it can do, in which precision, and how much of a step at once.

    Attributes:
        rows_at_once: how many rows of full width one forward pass takes, on CPUs of all devices together; less from where memory
            ran out.
        rows_recorded: steps of so many rows, all of full width, are recorded on a GPU; 0: none are.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        settings: TrainConfig,
        width: int,
        objective: Objective = PLAIN,
        group: Group | None = None,
    ) -> None:
        """`width`: the longest row, in tokens; `group`: the devices that share the rows of each step."""
        self.model, self.objective, self.width, self.clip = model, objective, width, settings.clip
        self.group = group
        self.weights = trained(model)
        self.bf16 = settings.dtype == "bfloat16"
        self.plain_head, self.able = has_plain_head(model), abilities(model, width, gradients=True)
        tokens = TOKENS_AT_ONCE if model.device.type == "cpu" else _tokens_that_fit(model)
        if not self.plain_head:
            tokens = min(tokens, LOGITS_BYTES // (4 * vocabulary(model.config)))
        self.rows_at_once, self.rows_recorded = max(1, tokens // width), 0
        self._recorded: Recorded | None = None

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Inside, steps can be made; outside, the model and the global random numbers are as they were."""
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng())
            if self.able.attends:
                stack.enter_context(attending(self.model, Causal(None, self.width)))
            yield

    def gradients(self, chosen: Dataset, seed: int, rows_at_once: int) -> tuple[list[torch.Tensor], int]:
        """Gradients of the objective, per predicted token.

        Returns:
            (2,) tensors whose sum is the mean of the objective and of the cross-entropy, and the predicted tokens.

        Args:
            seed: of dropout.
        """
        device = self.model.device
        for weight in self.weights:
            weight.grad = None  # of a try for which memory did not suffice
        lengths = chosen.arrays["lengths"]
        predicted = int(chosen.predicted.sum())
        weights, mask = chosen.arrays.get("weights"), chosen.arrays.get(MASK)
        group = self.group
        if group and device.type != "cpu":
            rows_at_once *= group.count
        batches = lay_out(chosen.arrays["tokens"], lengths, rows_at_once * self.width, device, self.able, weights, mask)
        if group:
            return self._own_gradients(group, [*batches], predicted, seed), predicted
        if len(chosen) == self.rows_recorded <= rows_at_once and lengths.min() == self.width:
            (batch,) = batches
            if self._recorded is None:
                self._recorded = record(self.weights, self._pass, batch, self.model.config.model_type)
            if self._recorded is not None:
                _seed_dropout(device, seed)
                return [self._recorded.play(batch)], predicted
            self.rows_recorded, batches = 0, iter([batch])
        _seed_dropout(device, seed)
        # one context for all batches, so that the weights are cast once
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            losses = [self._backward(batch, 1 / max(1, predicted)) for batch in batches]
        return losses, predicted

    def _own_gradients(self, group: Group, batches: list[Batch], predicted: int, seed: int) -> list[torch.Tensor]:
        """What this device's rows of the batches have in `gradients`, which is of all predicted tokens."""
        device = self.model.device
        alike = self._drops_alike
        if not alike:
            if self._dropped and group.is_first:
                warn_once(
                    f"{', '.join(self._dropped)}: each of the {group.count} devices draws random numbers of its own here, so another "
                    "number of devices gives other results, by more than rounding"
                )
            if group.rank:
                seed = int(_generator(seed, "device", group.rank).integers(2**63))
        _seed_dropout(device, seed)
        losses, scale = list[torch.Tensor](), 1 / max(1, predicted)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            for number, batch in enumerate(batches):
                part = group.part(number, len(batch.ids))
                if part.first < part.last:
                    losses.append(self._backward(batch.part(part), scale, part=part if alike else None))
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

    def agreed_gradients(self, chosen: Dataset, seed: int, rows_at_once: int) -> tuple[list[torch.Tensor], int]:
        """As `gradients`; of several devices the sum over all.

        Raises:
            MemoryError: on each device, when memory ran out on one of them.
        """
        group = self.group
        if group is None:
            return self.gradients(chosen, seed, rows_at_once)
        losses, predicted, failed = list[torch.Tensor](), 0, False
        try:
            losses, predicted = self.gradients(chosen, seed, rows_at_once)
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

    def _backward(
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
        with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self._backward(batch, 1 / len(where), where)

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


def _tokens_that_fit(model: "PreTrainedModel") -> int:
    """Tokens of one forward pass on a GPU: by a rough count of what is kept for the backward pass, half of the memory."""
    config = model.config.get_text_config()
    kept = 4 * 40 * int(config.hidden_size) * (int(config.num_hidden_layers) + 2)  # bytes a token
    return max(1, min(MOST_AT_ONCE, free_bytes(model.device) // 2 // kept))


def _step(work: _Work, optimizer: torch.optim.Optimizer, chosen: Dataset, seed: int) -> tuple[float, float, int]:
    """One optimizer step over all rows of `chosen`, none when the loss is not finite.

    Returns:
        The summed objective and the summed cross-entropy in nats, and the predicted tokens.
    """
    (losses, predicted), work.rows_at_once = halving(
        lambda rows: work.agreed_gradients(chosen, seed, rows), work.rows_at_once, "training"
    )
    ahead = work.model.device.type == "cuda"
    if ahead:  # what comes next is handed over before the loss is waited for, and does nothing when it is not finite
        means = torch.stack(losses).sum(dim=0)
        optimizer.found_inf = (~means.isfinite().all()).float()  # type: ignore[attr-defined]
    else:
        summed, entropy = (sum(parts) * predicted for parts in zip(*map(torch.Tensor.tolist, losses), strict=True))
        if not math.isfinite(summed):
            return summed, entropy, predicted
    if work.objective.anchor is not None and (held := work.objective.anchor.after(work.weights)) is not None:
        if ahead:
            means = means + torch.stack([held, torch.zeros_like(held)])
        else:
            summed += float(held) * predicted
    if work.clip > 0:
        weights = [weight for weight in work.weights if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(
            [weight.grad for weight in weights if weight.grad is not None], foreach=True
        )
        if ahead or norm > work.clip:  # otherwise it would be a multiplication of everything by one
            torch.nn.utils.clip_grads_with_norm_(weights, work.clip, norm, foreach=True)
    optimizer.step()
    for weight in work.weights:
        weight.grad = None
    if ahead:
        summed, entropy = (mean * predicted for mean in means.tolist())
    return summed, entropy, predicted


def _seed_dropout(device: torch.device, seed: int) -> None:
    """As `torch.manual_seed`, which seeds every kind of device torch has ever heard of, at a cost."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _generator(seed: int, *stream: str | int) -> np.random.Generator:
    """Random numbers of their own for each purpose and step, so that none need be saved in a checkpoint."""
    words = [int.from_bytes(part.encode(), "big") if isinstance(part, str) else part for part in stream]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *words])))


class Checkpoint:
    """Weights, optimizer and position of a training in one file, replaced whole."""

    def __init__(self, path: Path, model: "PreTrainedModel", optimizer: torch.optim.AdamW) -> None:
        self.path, self.model, self.optimizer = path, model, optimizer
        self.due = time.monotonic() + checkpoints.seconds_between()

    def save_sometimes(self, state: Mapping[str, Any]) -> None:
        start = time.monotonic()
        if start < self.due:
            return
        tensors = {}
        for name, weight in named_trained(self.model):
            tensors[f"weight.{name}"] = weight.detach()
            for key, value in self.optimizer.state[weight].items():
                tensors[f"{key}.{name}"] = value
        attempt = self.path.with_suffix(".tmp")
        save_file(
            {name: value.contiguous() for name, value in tensors.items()},
            attempt,
            {"state": json.dumps(state), **checkpoints.UNSEALED},
        )
        checkpoints.put(attempt, self.path)
        took = time.monotonic() - start
        self.due = time.monotonic() + max(checkpoints.seconds_between(), took / CHECKPOINT_SHARE if took > 1 else 0)

    def load(self) -> dict[str, Any] | None:
        """Put the saved weights and optimizer state in place; None when there is no checkpoint."""
        self.path.with_suffix(".tmp").unlink(missing_ok=True)
        if not checkpoints.is_sound(self.path):
            return None
        with safe_open(self.path, "pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()["state"])
            if state["best"] is not None and not checkpoints.is_sound(self.path.with_name("best.safetensors")):
                return None
            names = set(file.keys())
            for name, weight in named_trained(self.model):
                weight.data.copy_(file.get_tensor(f"weight.{name}"))
                self.optimizer.state[weight] = {
                    key: file.get_tensor(f"{key}.{name}").to(weight.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{key}.{name}" in names
                }
        return state


def _keep_best(model: "PreTrainedModel", valid: Dataset | None, best: float | None, path: Path) -> float:
    if valid is None:
        raise InputError(NO_VALIDATION)
    nll, predicted = score_blocks(model, valid)
    model.train()
    loss = float(nll.sum() / predicted.sum())
    if best is not None and best <= loss:
        return best
    attempt = path.with_suffix(".tmp")
    save_file(
        {name: weight.detach().contiguous() for name, weight in named_trained(model)},
        attempt,
        dict(checkpoints.UNSEALED),
    )
    checkpoints.put(attempt, path)
    return loss


def _restore(model: "PreTrainedModel", path: Path) -> None:
    with safe_open(path, "pt") as file:
        for name, weight in named_trained(model):
            weight.data.copy_(file.get_tensor(name))


def _fingerprint(model: "PreTrainedModel") -> list[float]:
    """A number per tensor that any training step changes."""
    weights = [weight.detach() for weight in trained(model)]
    sums = [
        torch.linalg.vector_norm(weight, dtype=torch.float64) + weight.sum(dtype=torch.float64) for weight in weights
    ]
    return [float(each) for each in sums]
