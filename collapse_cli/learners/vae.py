"""The learner `vae`: the convolutional variational autoencoder of the Nature paper's notebook.

Encoder: two convolutions (kernel 4, stride 2, padding 1; 64 and 128 channels) with ReLU, then two linear layers for the
mean and the log-variance of 20 latents. Decoder: a linear layer, two transposed convolutions with a ReLU between them, a
sigmoid. 647,081 parameters for 28x28 pixels. That the ReLUs stand there and nowhere else is UNCONFIRMED: the sources give
the layers. Trained on the sum over a batch of binary cross-entropy and beta times the KL divergence, by Adam.

A generation is trained on images that its parent's decoder gives for latents z ~ N(0, I): its MEANS, nothing is sampled
from the pixels. One thing differs from the notebook: that draws new latents for every batch, so its synthetic data are
without end and have no error of a finite sample; here a generation's synthetic images are one finite set, of as many
rows as its corpus has.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from collapse_cli.config.experiment import Experiment
from collapse_cli.data.dataset import Dataset, pinned, unchanged
from collapse_cli.data.images import load_images
from collapse_cli.errors import InputError
from collapse_cli.families.vae import VaeConfig
from collapse_cli.learners import nets
from collapse_cli.learners.family import Family, State, normals
from collapse_cli.learners.protocol import ALL, TEST, Facts, Fewer, Hints, Outcome, Resolved, Tell
from collapse_cli.learners.settings import Part, Settings

LATENTS = "latents.safetensors"  # encoder means of real images, of generation 0's encoder
KERNEL = (4, 2, 1)  # size, stride, padding of all convolutions


class Autoencoder(nn.Module):
    """The network; images are (rows, 1, height, width), both divisible by 4."""

    def __init__(self, height: int, width: int, channels: tuple[int, int], latent: int) -> None:
        super().__init__()
        first, second = channels
        self.size = (second, height // 4, width // 4)
        inner = second * (height // 4) * (width // 4)
        self.encode_1 = nn.Conv2d(1, first, *KERNEL)
        self.encode_2 = nn.Conv2d(first, second, *KERNEL)
        self.mean = nn.Linear(inner, latent)
        self.log_variance = nn.Linear(inner, latent)
        self.inner = nn.Linear(latent, inner)
        self.decode_1 = nn.ConvTranspose2d(second, first, *KERNEL)
        self.decode_2 = nn.ConvTranspose2d(first, 1, *KERNEL)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (rows, latent) each, of the latents of images."""
        hidden = functional.relu(self.encode_2(functional.relu(self.encode_1(x)))).flatten(1)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """(rows, 1, height, width) logits of the pixels."""
        hidden = self.inner(z).unflatten(1, self.size)
        logits: Tensor = self.decode_2(functional.relu(self.decode_1(hidden)))
        return logits


def loss_terms(logits: Tensor, x: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """(rows,) each, in nats: binary cross-entropy summed over pixels, and KL(N(mean, var) | N(0, I))."""
    error = functional.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    return error, kl


@dataclass(frozen=True)
class VaeImages:
    """Which images of a source are used: its hash, and how many to train and to test on."""

    sha256: str
    rows: int
    eval_rows: int


class VaeSettings(Settings):
    """`data` of the stage of real data; `model` of all others."""

    model = Part(VaeConfig)
    data = Part(VaeImages)


class Vae(Family):
    """Datasets hold `x`, (rows, height, width) float32 in 0..1; labels are not used."""

    section = "vae"
    examines = True

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        super().__init__(params, hints, tell)
        self.settings = VaeSettings(params)
        self._net: Autoencoder | None = None
        self._pixels = (0, 0)
        self._terms = np.empty((0, 2))

    @classmethod
    def resolve(cls, config: Experiment) -> Resolved:
        data = config.data
        model: VaeConfig = config.vae
        images = load_images(data.source)
        filled = data.model_copy(update={"sha256": pinned(data.sha256, "data.sha256", images.sha256)})
        height, width = images.x.shape[1:]
        if height % 4 or width % 4:
            raise InputError(
                f"data.source = {data.source!r} has images of {height} x {width} pixels; the learner vae takes those "
                "that 4 divides"
            )
        images.parts(data.rows, data.eval_rows)
        first, second = model.channels
        with torch.device("meta"):
            net = Autoencoder(height, width, (first, second), model.latent)
        # encoder and decoder alike: both convolutions at a half and a quarter of the height, and linear layers
        macs = 2 * 16 * first * (height * width // 4 + second * height * width // 16)
        macs += 3 * second * (height * width // 16) * model.latent
        return Resolved(
            config.model_copy(update={"data": filled}),
            Hints(images=data.source),
            sum(weight.numel() for weight in net.parameters()),
            row_bytes=4 * height * width,
            # by measurement about a third of the 6 that training nominally takes, in units of a nominal 35 GFLOP/s
            row_flops=2.0 * macs * model.epochs,
            notes=images.notes,
        )

    @classmethod
    def passes(cls, config: Experiment, rows: int) -> float:
        model: VaeConfig = config.vae
        return float(model.epochs)

    @classmethod
    def in_one_pass(cls, config: Experiment, fewer: Fewer = ALL) -> Experiment:
        model: VaeConfig = config.vae
        return config.model_copy(update={cls.section: model.model_copy(update={"epochs": 1})})

    @classmethod
    def data_params(cls, config: Experiment) -> dict[str, Any]:
        data = config.data
        return {"data": vars(VaeImages(data.sha256, data.rows, data.eval_rows))}

    def real(self, seed: int) -> tuple[dict[str, Dataset], list[str]]:
        """Images of the source; nothing is drawn, so `seed` is without meaning."""
        images, data = load_images(self.hints.images), self.settings.data
        unchanged(data.sha256, images.sha256, "the images")
        parts = {
            name: Dataset({"x": images.x[rows]}, np.zeros(len(rows), np.int32))
            for name, rows in images.parts(data.rows, data.eval_rows).items()
        }
        return parts, []  # what is to be said of the images was said when they were looked up

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts:
        """Train with new weights from `seed`, or on from those restored; order, noise and weights are the seed's.

        `train_loss` and `epoch_losses` are in nats an image, as met in training (with one draw of the latents).
        """
        model, (height, width) = self.settings.model, data.arrays["x"].shape[1:]
        if self._net is None:
            self._pixels = (height, width)
            self._net = nets.start(self._make(model.channels, model.latent), seed)
        net = self._net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.from_numpy(data.arrays["x"]).unsqueeze(1).to(nets.device())
        weights = nets.row_weights(data)
        beta, latent, low = model.beta, model.latent, model.dtype == "bfloat16"

        def loss(chosen: Tensor, random: torch.Generator) -> Tensor:
            x = images[chosen.to(images.device)].contiguous(memory_format=torch.channels_last)
            noise = torch.randn((len(chosen), latent), generator=random).to(images.device)
            with torch.autocast(images.device.type, torch.bfloat16, enabled=low):
                mean, log_variance = (part.float() for part in net.encode(x))
                logits = net.decode(mean + noise * (0.5 * log_variance).exp())
            error, kl = loss_terms(logits.float(), x, mean, log_variance)
            terms: Tensor = error + beta * kl
            return (terms if weights is None else terms * weights[chosen.to(weights.device)]).sum()

        training = nets.Training(
            net,
            torch.optim.Adam(net.parameters(), lr=model.lr, weight_decay=model.weight_decay, fused=True),
            loss,
            rows=len(data),
            epochs=model.epochs,
            batch_size=model.batch_size,
            averaged=False,
            name=self.section,
        )
        losses = training.run(seed, scratch, self._tell)
        # as it is when loaded: how weights lie decides how some processors round
        net.to(memory_format=torch.contiguous_format)
        return {"train_loss": losses[-1], "epoch_losses": losses}

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Outcome:
        """The decoder's means for one z ~ N(0, I) a row; of the prompts only `stream` and `extra` are read."""
        net = self._restored
        latent = net.mean.out_features
        z = torch.from_numpy(normals(prompts, (latent,), seed).astype(np.float32))
        x = nets.in_pieces(z, lambda piece: net.decode(piece).sigmoid().squeeze(1))
        facts = {"sample_rows": int((~prompts.arrays["extra"]).sum())}
        return Outcome(Dataset({"x": x}, np.zeros(len(x), np.int32)), facts)

    def score(self, data: Dataset) -> np.ndarray:
        """(rows,) reconstruction + beta KL in nats, the latents at their means: no draw, so no noise from one.

        It is a little below the negative ELBO, which averages the reconstruction over draws.
        """
        net = self._restored

        def terms(x: Tensor) -> Tensor:
            mean, log_variance = net.encode(x)
            return torch.stack(loss_terms(net.decode(mean), x, mean, log_variance), 1)

        self._terms = nets.in_pieces(torch.from_numpy(data.arrays["x"]).unsqueeze(1), terms).astype(np.float64)
        losses: np.ndarray = self._terms @ np.array([1.0, self.settings.model.beta])
        return losses

    @property
    def width(self) -> tuple[int, ...]:
        return self._pixels

    def own_measures(self, test: Dataset, first: Dataset | None) -> Facts:
        """`reconstruction` and `kl`, the terms of `test_loss`, which `score` was just asked for."""
        reconstruction, kl = self._terms.mean(0)
        return {"reconstruction": float(reconstruction), "kl": float(kl)}

    def look_at_real(self, folder: Path) -> Facts:
        """Encoder means of `vae.measured` real test images, evenly spaced."""
        test = Dataset.load(self.hints.real(TEST))
        count = min(self.settings.model.measured, len(test))
        rows = test.take(np.linspace(0, len(test) - 1, count).round().astype(int))
        latents = self._means(rows)
        Dataset({"latents": latents}, rows.origin).save(folder / LATENTS)
        return {"rows": count}

    def examine(
        self, samples: Dataset, shown: Dataset, prompts: Dataset, *, real: Path, first: Dataset | None
    ) -> Outcome:
        """How widely the first `vae.measured` images spread in the latents of this model's encoder, generation 0's.

        `latent_spread`: standard deviation over images of each latent's encoder mean, averaged over latents;
        `latent_spread_scatter`: its standard error for normal, independent latents. `latent_std_all`: standard deviation of
        all those means together; `latent_mean`: their mean. All divide by n. Which of the two spreads the paper's figure
        shows is UNCONFIRMED. `latent_spread_real` and `latent_std_all_real`: the same of real test images. `pictures`:
        the rows to show, as base64 of their bytes (0 black, 255 white), row by row from the top.
        """
        measured = samples.take(np.arange(min(self.settings.model.measured, len(samples))))
        latents = self._means(measured)
        of_real = Dataset.load(real / LATENTS).arrays["latents"]
        each = latents.std(0, dtype=np.float64)
        pixels = np.rint(shown.arrays["x"].clip(0, 1) * 255).astype(np.uint8)
        facts = {
            "sample_rows": len(samples),
            "latent_spread": float(each.mean()),
            "latent_spread_scatter": float(np.sqrt((each**2).sum() / (2 * max(1, len(latents) - 1))) / len(each)),
            "latent_std_all": float(latents.std(dtype=np.float64)),
            "latent_mean": float(latents.mean(dtype=np.float64)),
            "latent_spread_real": float(of_real.std(0, dtype=np.float64).mean()),
            "latent_std_all_real": float(of_real.std(dtype=np.float64)),
            "pictures": {
                "height": pixels.shape[1],
                "width": pixels.shape[2],
                "rows": [base64.b64encode(picture.tobytes()).decode("ascii") for picture in pixels],
            },
        }
        return Outcome(Dataset({"latents": latents}, measured.origin), facts)

    def state(self) -> State:
        return {"pixels": np.array(self._pixels, np.int64), **nets.weights(self._restored)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        height, width = (int(size) for size in state["pixels"])
        self._pixels = (height, width)
        latent, second = len(state["mean.bias"]), len(state["encode_2.bias"])
        make = self._make((len(state["encode_1.bias"]), second), latent)
        arrays = {name: array for name, array in state.items() if name != "pixels"}
        self._net = nets.with_weights(make, arrays).eval()

    def _make(self, channels: tuple[int, int], latent: int) -> Callable[[], Autoencoder]:
        height, width = self._pixels
        return lambda: Autoencoder(height, width, channels, latent)

    @property
    def _restored(self) -> Autoencoder:
        if self._net is None:
            raise RuntimeError("no model was fitted or restored")
        return self._net

    def _means(self, images: Dataset) -> np.ndarray:
        """(rows, latent) encoder means."""
        net = self._restored
        return nets.in_pieces(torch.from_numpy(images.arrays["x"]).unsqueeze(1), lambda x: net.encode(x)[0])
