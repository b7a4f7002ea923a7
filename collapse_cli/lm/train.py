"""Training: AdamW over rows of tokens, in a loop of our own that can be killed and taken up again at any step."""

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from collapse_cli.config.tree import TrainConfig
from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.errors import InputError
from collapse_cli.lm import recorded
from collapse_cli.lm.devices import Group
from collapse_cli.lm.objective import Anchor, Objective
from collapse_cli.lm.recorded import can_record
from collapse_cli.lm.replay import Replay
from collapse_cli.lm.shared_step import SharedWork
from collapse_cli.lm.step import Read, Work, make_step, random_numbers, trained
from collapse_cli.lm.training_state import Checkpoint, keep_best, restore

if TYPE_CHECKING:
    from transformers import PreTrainedModel


AHEAD = {False: 0, True: 1}  # steps whose losses are not waited for yet: a GPU would be idle in the meantime


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
            lambda turn: random_numbers(seed, "replay", turn).permutation(len(replay)),
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
    first = group is None or group.is_first
    shared = SharedWork(model, settings, width, objective, group) if group else None
    work = shared or Work(model, settings, width, objective)
    # what is recorded predicts as many tokens each time
    if (
        shared is None
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
    if shared:
        shared.begin_alike(optimizer, state)
    known, best = _Losses(state, epochs), state["best"]
    step: int = state["step"]
    work.rows_at_once = state["rows_at_once"]  # other sums would be rounded otherwise

    model.train()
    with work.ready():
        while step < total:
            epoch, within = divmod(step, steps_per_epoch)
            if within == 0 or step == state["step"]:
                order = random_numbers(seed, "order", epoch).permutation(rows)
            chosen = np.sort(order[within * per_step : (within + 1) * per_step])
            taken, again = data.take(chosen), np.zeros(0, np.int64)
            if replayed:
                again = replayed.at(epoch, within, len(chosen))
                taken = replayed.beside(taken, again)
            for weights_alike in optimizer.param_groups:
                weights_alike["lr"] = learning_rate(settings, step, total, steps_per_epoch)
            dropout = int(random_numbers(seed, "dropout", step).integers(2**63))

            def refused(
                summed: float, step: int = step, taken: Dataset = taken, rows: tuple[np.ndarray, ...] = (chosen, again)
            ) -> TrainError:
                advice = "lower train.lr or set train.dtype = float32"
                if step == 0:  # the learning rate had no part in it yet
                    mended = "set train.dtype = float32" if work.bf16 else "give a model whose weights are sound"
                    advice = f"no weight was changed before; {mended}"
                where = work.bad_rows(taken, *rows) if first else "as the first device says"
                return TrainError(f"the loss is {summed} at step {step + 1} of {total}; {advice} ({where})")

            known.add(epoch, make_step(work, optimizer, taken, dropout), refused)
            step += 1
            ends_epoch = settings.select == "valid" and step % steps_per_epoch == 0
            saves = first and checkpoint.is_due()
            known.settle(0 if ends_epoch or saves or step == total else AHEAD[model.device.type == "cuda"])
            if not first:
                continue
            if ends_epoch:
                best = keep_best(model, valid, best, scratch / "best.safetensors")
            if saves:
                state = {"step": step, "losses": known.losses, "objectives": known.objectives, "best": best}
                checkpoint.save(state | {"rows_at_once": work.rows_at_once})
            tell(step, total)
    losses, objectives = known.losses, known.objectives
    if group and not group.agree(_fingerprint(model)):
        raise RuntimeError(f"{group.count} devices trained one model, and ended with different weights")
    if best is not None:
        restore(model, scratch / "best.safetensors")
    after = _fingerprint(model)
    if not all(map(math.isfinite, after)):
        raise TrainError("after training some weights are not finite; lower train.lr or set train.dtype = float32")
    if after == before:
        raise TrainError("training left every weight as it was; raise train.lr or train.epochs")
    model.eval()
    if not losses[-1][1]:
        raise TrainError(
            "the last epoch, which train.steps cuts short, met no row with two tokens, so it has no loss; raise train.steps, or "
            "sample.decode.min_new_tokens"
        )
    epoch_losses = [summed / count for summed, count in losses]
    seen, lengths = (total - (epochs - 1) * steps_per_epoch) * per_step, data.arrays["lengths"].astype(np.int64)
    last = random_numbers(seed, "order", epochs - 1).permutation(rows)[
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


class _Losses:
    """The losses of a training's steps, epoch by epoch; on a GPU they are read when later steps have been handed over.

    Attributes:
        losses: by epoch, the summed cross-entropy in nats and the predicted tokens.
        objectives: by epoch, the sum of what was made small.
    """

    def __init__(self, state: dict[str, Any], epochs: int) -> None:
        self.losses: list[tuple[float, int]] = [tuple(loss) for loss in state["losses"]]
        self.objectives: list[float] = state.get("objectives", [0.0] * epochs)
        self._waiting: deque[tuple[int, Read, Callable[[float], TrainError]]] = deque()

    def add(self, epoch: int, read: Read, refused: Callable[[float], TrainError]) -> None:
        """A step of this epoch; `refused` says what is wrong with a sum that is not finite."""
        self._waiting.append((epoch, read, refused))

    def settle(self, most: int) -> None:
        """Read the losses of all steps but the last `most`.

        Raises:
            TrainError: when one is not finite.
        """
        while len(self._waiting) > most:
            epoch, read, refused = self._waiting.popleft()
            summed, loss, predicted = read()
            if not math.isfinite(summed):
                raise refused(summed)
            before, count = self.losses[epoch]
            self.losses[epoch] = before + loss, count + predicted
            self.objectives[epoch] += summed


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


def _fingerprint(model: "PreTrainedModel") -> list[float]:
    """A number per tensor that any training step changes."""
    weights = [weight.detach() for weight in trained(model)]
    sums = [
        torch.linalg.vector_norm(weight, dtype=torch.float64) + weight.sum(dtype=torch.float64) for weight in weights
    ]
    return [float(each) for each in sums]
