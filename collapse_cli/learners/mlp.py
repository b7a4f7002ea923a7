"""The learner `mlp`: a two-layer ReLU network, all weights trained, on images with one-hot labels.

As in "Strong Model Collapse" (arXiv 2410.04840), section 4's images: synthetic rows are images that another network has
labelled. UNCONFIRMED, because the paper has no public code and the notes do not say: whether its synthetic labels are the
network's outputs (`labels = "soft"`, the default: what its theory's regression does) or one-hot again, the optimizer, and
how long is trained. Loss and error are squared, and averaged over rows and the ten classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from collapse_cli.config.experiment import Experiment
from collapse_cli.data.dataset import Dataset, pinned, unchanged
from collapse_cli.data.images import load_images
from collapse_cli.errors import InputError
from collapse_cli.families.mlp import MlpConfig
from collapse_cli.learners import nets
from collapse_cli.learners.family import Family, State
from collapse_cli.learners.protocol import ALL, VALID, Facts, Fewer, Hints, Outcome, Resolved, Tell
from collapse_cli.learners.settings import Part, Settings

CLASSES = 10
VALID_SHARE = 0.1  # of the training images, for `select = "valid"`


class TwoLayers(nn.Module):
    """outputs = relu(x W1 + b1) W2 + b2, for (rows, pixels)."""

    def __init__(self, pixels: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(pixels, width)
        self.output = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.output(self.hidden(x).relu_())
        return outputs


@dataclass(frozen=True)
class MlpImages:
    """Which images of a source are used: its hash, rows to train and to test on, and the share put aside to choose by."""

    sha256: str
    rows: int
    eval_rows: int
    valid: float


class MlpSettings(Settings):
    """`data` of the stage of real data; `model` of all others."""

    model = Part(MlpConfig)
    data = Part(MlpImages)


class Mlp(Family):
    """Datasets hold `x`, (rows, pixels) float32 in 0..1, and `y`, (rows, 10) float32: one-hot, or as a model labelled."""

    section = "mlp"

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        super().__init__(params, hints, tell)
        self.settings = MlpSettings(params)
        self._net: TwoLayers | None = None

    @classmethod
    def sized(cls, config: Experiment, size: int) -> Experiment:
        """The configuration with so many hidden units."""
        return config.model_copy(update={cls.section: cls._own(config).model_copy(update={"width": size})})

    @classmethod
    def _own(cls, config: Experiment) -> MlpConfig:
        section: MlpConfig = config.mlp
        return section

    @classmethod
    def resolve(cls, config: Experiment) -> Resolved:
        data, model = config.data, cls._own(config)
        images = load_images(data.source)
        filled = data.model_copy(update={"sha256": pinned(data.sha256, "data.sha256", images.sha256)})
        if images.labels.max() >= CLASSES:
            raise InputError(
                f"data.source = {data.source!r} has a label {images.labels.max()}; the learner mlp takes 0..{CLASSES - 1}"
            )
        rows = images.parts(data.rows, data.eval_rows, _aside(model))["train"]
        pixels, epochs = images.x[0].size, _epochs(model, len(rows))
        weights = model.width * (pixels + 1) + CLASSES * (model.width + 1)
        return Resolved(
            config.model_copy(update={"data": filled}),
            Hints(images=data.source),
            weights,
            row_bytes=4 * (pixels + CLASSES),
            # measured with batches of 128 to 256: an epoch is bound by the weights' updates as much as by products
            row_flops=4.0 * weights * epochs,
            notes=images.notes,
        )

    @classmethod
    def passes(cls, config: Experiment, rows: int) -> float:
        return float(_epochs(cls._own(config), rows))

    @classmethod
    def in_one_pass(cls, config: Experiment, fewer: Fewer = ALL) -> Experiment:
        once = cls._own(config).model_copy(update={"epochs": 1, "steps": 0})
        return config.model_copy(update={cls.section: once})

    @classmethod
    def data_params(cls, config: Experiment) -> dict[str, Any]:
        data = config.data
        images = MlpImages(data.sha256, data.rows, data.eval_rows, _aside(cls._own(config)))
        return {"data": vars(images)}

    def real(self, seed: int) -> tuple[dict[str, Dataset], list[str]]:
        """Images of the source; nothing is drawn, so `seed` is without meaning. `valid` only for `select = "valid"`."""
        images, data = load_images(self.hints.images), self.settings.data
        unchanged(data.sha256, images.sha256, "the images")
        one_hot = np.eye(CLASSES, dtype=np.float32)
        parts = {
            name: Dataset(
                {"x": images.x[rows].reshape(len(rows), images.x[0].size), "y": one_hot[images.labels[rows]]},
                np.zeros(len(rows), np.int32),
            )
            for name, rows in images.parts(data.rows, data.eval_rows, data.valid).items()
        }
        return parts, []  # what is to be said of the images was said when they were looked up

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts:
        """Train with new weights from `seed`, or on from those restored.

        `train_loss` is the mean squared error as it was met in the last epoch.
        """
        model, pixels = self.settings.model, data.arrays["x"].shape[1]
        if self._net is None:
            self._net = nets.start(lambda: TwoLayers(pixels, model.width), seed)
        net = self._net
        x, y = (torch.from_numpy(data.arrays[name]).to(nets.device()) for name in ("x", "y"))
        weights = nets.row_weights(data)

        def loss(chosen: Tensor, random: torch.Generator) -> Tensor:
            rows = chosen.to(x.device)
            errors: Tensor = (net(x[rows]) - y[rows]).square().mean(1)
            return (errors if weights is None else errors * weights[rows]).sum()

        training = nets.Training(
            net,
            torch.optim.AdamW(net.parameters(), lr=model.lr, weight_decay=model.weight_decay, fused=True),
            loss,
            rows=len(data),
            epochs=_epochs(model, len(data)),
            batch_size=model.batch_size,
            averaged=True,
            name=self.section,
            select=self._valid_error() if model.select == "valid" else None,
        )
        losses = training.run(seed, scratch, self._tell)
        return {"train_loss": losses[-1], "epochs": len(losses)}

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Outcome:
        """The prompts' images with this network's labels. Nothing is drawn."""
        outputs = self._outputs(prompts)
        if self.settings.model.labels == "hard":
            outputs = np.eye(CLASSES, dtype=np.float32)[outputs.argmax(1)]
        return Outcome(
            Dataset({"x": prompts.arrays["x"], "y": outputs}, prompts.origin),
            {"sample_rows": int((~prompts.arrays["extra"]).sum())},
        )

    def score(self, data: Dataset) -> np.ndarray:
        """(rows,) squared error, averaged over the classes."""
        errors: np.ndarray = ((self._outputs(data) - data.arrays["y"]).astype(np.float64) ** 2).mean(1)
        return errors

    def own_measures(self, test: Dataset, first: Dataset | None) -> Facts:
        """`error`, the mean of `score` (test labels are one-hot), and the share of rows whose largest output is right."""
        outputs, y = self._outputs(test), test.arrays["y"]
        error = ((outputs - y).astype(np.float64) ** 2).mean()
        return {"error": float(error), "accuracy": float((outputs.argmax(1) == y.argmax(1)).mean())}

    @property
    def width(self) -> tuple[int, ...]:
        return (self._restored.hidden.in_features,)

    def state(self) -> State:
        return nets.weights(self._restored)

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        width, pixels = state["hidden.weight"].shape
        self._net = nets.with_weights(lambda: TwoLayers(pixels, width), state).eval()

    def _valid_error(self) -> Callable[[], float]:
        path = self.hints.encoded and self.hints.encoded / VALID
        if path is None or not path.is_file():
            raise InputError("mlp.select = valid, but no validation images were put aside; set mlp.select = last")
        valid = Dataset.load(path)
        return lambda: float(self.score(valid).mean())

    def _outputs(self, data: Dataset) -> np.ndarray:
        net = self._restored
        return nets.in_pieces(torch.from_numpy(data.arrays["x"]), net)

    @property
    def _restored(self) -> TwoLayers:
        if self._net is None:
            raise RuntimeError("no model was fitted or restored")
        return self._net


def _epochs(model: MlpConfig, rows: int) -> int:
    """Passes over so many rows."""
    if not model.steps:
        return model.epochs
    return max(1, round(model.steps / max(1, -(-rows // model.batch_size))))


def _aside(model: MlpConfig) -> float:
    return VALID_SHARE if model.select == "valid" else 0.0
