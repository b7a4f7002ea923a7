"""Model families behind one protocol, found by name and imported when asked for."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.families import FAMILIES

LEARNERS = {name: family.learner for name, family in FAMILIES.items()}


@dataclass(frozen=True)
class Resolved:
    """A configuration with all that had to be looked up: hashes, revisions, dtypes; and what it says of the model.

    Attributes:
        tree: the configuration, filled in.
        hints: where the model, the tokenizer and the data are on this machine.
        parameters: all weights of the model.
        layer_parameters, head_parameters: those of the layers, and of the output head, for counting FLOPs.
        layers: how many layers there are.
        row_bytes, row_flops: of families that are no language models: what a row of data holds, and what fitting one
            costs, all epochs together; 0 for language models, whose costs follow from their parameters.
        notes: what the user should know before anything is computed.
    """

    tree: dict[str, Any]
    hints: dict[str, Any]
    parameters: int
    layer_parameters: int = 0
    head_parameters: int = 0
    layers: int = 1
    row_bytes: int = 0
    row_flops: float = 0.0
    notes: tuple[str, ...] = ()


class Learner(Protocol):
    """A model family. Every verb takes its seed; what a verb found out about its work is left in `facts`.

    A learner is made from its settings (a plain tree: the parameters of the stage at work), its hints (where things are
    on this machine) and `tell`, which moves the progress bar.

    Class attributes: `examines`, whether samples are measured under generation 0's model (`look_at_real`, `examine`);
    `block`, how many generations make a stage unless the configuration says so. What is asked of a family without its
    learner stands in `families`.
    """

    examines: ClassVar[bool]
    block: ClassVar[int]
    facts: dict[str, Any]

    @classmethod
    def resolve(cls, tree: Mapping[str, Any]) -> Resolved:
        """Find what a configuration names, and check that it fits together.

        Raises:
            InputError: for whatever is missing or does not fit.
        """

    @classmethod
    def params(cls, tree: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """What a stage of that kind (data, train, sample, eval, examine) depends on, of a resolved configuration."""

    @classmethod
    def drawn(cls, tree: Mapping[str, Any]) -> bool:
        """Whether each seed draws real rows of its own, because the source is a distribution."""

    @classmethod
    def trials(cls, tree: Mapping[str, Any]) -> int:
        """Independent experiments that lie side by side in every row, (rows, trials, ...); 1 where there is one alone."""

    @classmethod
    def with_tokenizer_of(cls, tree: Mapping[str, Any], encoded: Path) -> dict[str, Any]:
        """A configuration whose data are other ones, read as a fitted model of the run reads them.

        Args:
            encoded: the folder of the run's data stage, with the tokenizer that it made from its text, if it made one.

        Raises:
            InputError: when that is needed and gone.
        """

    @classmethod
    def about(cls, scored: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """Facts of the data that a model is scored on, with those of its `own` data that its measures refer to."""

    def encode(self, folder: Path, *, seed: int) -> None:
        """Turn real data into `train`, `test`, `reserve` and perhaps `valid` Datasets in `folder`."""

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> None: ...

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Dataset:
        """Make rows to train the next generation on: one row out for each row in.

        Args:
            prompts: the rows, `stream` (a number of its own for each), and `extra`: rows that are only to be shown, and
                do not count for `facts`.
        """

    def score(self, data: Dataset) -> np.ndarray:
        """(rows,) one loss per row; lower is better."""

    def measure(self, test: Dataset, first: Dataset | None = None) -> Dataset:
        """Score the test data; measures go to `facts`, per-row values are returned.

        Args:
            first: what this returned for generation 0, to compare with.
        """

    def look_at_real(self, folder: Path) -> None:
        """Leave in `folder` what samples are to be compared with: real rows as this model sees them."""

    def examine(
        self, samples: Dataset, shown: Dataset, prompts: Dataset, *, real: Path, first: Dataset | None
    ) -> Dataset:
        """Measure rows that another model made, with this model for a reference; as `measure` returns what it found.

        Args:
            samples, shown: what `sample` returned for rows of `prompts` (`row` says which), and for the rows to show.
            real: where `look_at_real` left what it did.
            first: what this returned for generation 0; None for that itself.
        """

    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...


def learner_class(name: str) -> Any:
    """The class of a learner.

    Raises:
        InputError: for an unknown name.
    """
    if name not in LEARNERS:
        raise InputError(f"there is no learner {name!r}; known: {', '.join(LEARNERS)}")
    module, _, attribute = LEARNERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def create(name: str, settings: Mapping[str, Any], hints: Mapping[str, Any], tell: Any) -> Learner:
    """A learner ready to work; its model is made or loaded when first needed."""
    learner: Learner = learner_class(name)(settings, hints, tell)
    return learner
