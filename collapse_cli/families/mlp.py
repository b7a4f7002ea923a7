"""A two-layer ReLU network on images and their labels."""

from typing import Literal

from pydantic import Field

from collapse_cli.families.description import SHARE, TEST_LOSS, Description, Grid, Headline, Measure
from collapse_cli.families.section import Section


class MlpConfig(Section):
    """The learner `mlp`: a two-layer ReLU network, fully trained, squared loss on one-hot labels."""

    width: int = Field(default=200, ge=1)
    """Hidden units."""
    epochs: int = Field(default=50, ge=1)
    """Passes over the corpus in training."""
    steps: int = Field(default=0, ge=0)
    """Steps of the optimizer, rounded to whole epochs (one at least), in place of `epochs`, so that a larger corpus is
    not trained on for longer. 0: `epochs`."""
    batch_size: int = Field(default=128, ge=1)
    """Images of one optimizer step."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of AdamW."""
    labels: Literal["soft", "hard"] = "soft"
    """Synthetic labels: the model's ten outputs as they are, or 1 for the largest and 0 for the others."""
    select: Literal["last", "valid"] = "last"
    """Weights to keep: the last, or those of the epoch with the lowest error on a tenth of the real training images that
    is put aside for it."""


MEASURES = (
    Measure(
        "error",
        "Test error",
        "squared",
        "Mean squared error on true one-hot labels of real test images.",
        "Confident and right counts little more than right.",
    ),
    Measure(
        "accuracy",
        "Test accuracy",
        SHARE,
        "Share of real test images whose largest output is the right class.",
        "Blind to how sure the model is.",
    ),
    TEST_LOSS,
)

HEADLINE = Headline("error", "squared test error", log=True)

MLP = Description(
    name="mlp",
    learner="collapse_cli.learners.mlp:Mlp",
    settings=MlpConfig,
    reads=("mlp", "sample.prompts"),
    rows="images",
    headline=HEADLINE,
    measures=MEASURES,
    numbers=frozenset({"epochs"}),
    grid=Grid(axes=("generator_rows", "size"), headline=HEADLINE, measures=MEASURES, labels_real=True, size="width"),
    light=False,
    unread=((("mlp.epochs",), lambda experiment: experiment.mlp.steps > 0, "mlp.steps is given in its place"),),
)
