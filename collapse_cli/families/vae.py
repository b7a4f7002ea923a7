"""The convolutional variational autoencoder of the Nature paper's notebook."""

from typing import Literal

from pydantic import Field

from collapse_cli.families.description import TEST_LOSS, Description, Headline, Measure
from collapse_cli.families.section import Section


class VaeConfig(Section):
    """The learner `vae`: the convolutional variational autoencoder of the Nature paper's notebook."""

    latent: int = Field(default=20, ge=1)
    """Dimensions of the latent space."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of the KL term."""
    channels: tuple[int, int] = (64, 128)
    """Channels of the two convolutions."""
    batch_size: int = Field(default=256, ge=1)
    """Images of one optimizer step."""
    epochs: int = Field(default=30, ge=1)
    """Passes over the corpus in training."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate."""
    weight_decay: float = Field(default=1e-5, ge=0)
    """Weight decay of the optimizer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of training; weights, losses, sampling and scoring stay float32."""
    measured: int = Field(default=100, ge=2)
    """Generated images whose latents are measured, as in the notebook."""


MEASURES = (
    Measure(
        "latent_spread",
        "Spread of latents",
        "std",
        "How far apart generation 0's encoder finds the images that were generated; falling: they become alike.",
        "Seen by that encoder alone: what it cannot tell apart does not count.",
        zero=True,
    ),
    Measure(
        "latent_std_all",
        "Spread of all latents together",
        "std",
        "Standard deviation of all latents of all generated images at once; which of the two spreads the paper shows is "
        "UNCONFIRMED.",
        "Latents with different means look spread though images are alike.",
        zero=True,
    ),
    Measure(
        "reconstruction",
        "Reconstruction of real images",
        "nats an image",
        "What is lost of a real test image on the way through the latents; rising as the model forgets what real ones are.",
        "Blurred averages reconstruct well.",
    ),
    Measure(
        "kl",
        "Information in the latents",
        "KL, nats",
        "How much an image says about its latents; near 0 the decoder no longer listens.",
        "Not a quality by itself.",
        zero=True,
    ),
    TEST_LOSS,
)


VAE = Description(
    name="vae",
    learner="collapse_cli.learners.vae:Vae",
    settings=VaeConfig,
    reads=("vae",),
    rows="images",
    headline=Headline("latent_spread", "spread of latents under generation 0's encoder", better="more"),
    measures=MEASURES,
    numbers=frozenset({"latent_std_all", "latent_spread_real", "latent_spread_scatter", "latent_std_all_real"}),
    light=False,
)
