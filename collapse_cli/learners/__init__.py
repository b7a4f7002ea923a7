"""Model families behind one protocol, found by name and imported when asked for."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from collapse_cli.data import Dataset, InputError, Text

LEARNERS = {"lm": "collapse_cli.learners.lm:LanguageModel"}


class Learner(Protocol):
    """A model family. Every verb takes its seed; what a verb found out about its work is left in `facts`.

    A learner is made from its settings (a plain tree), its hints (where things are on this machine) and `tell`,
    which moves the progress bar.
    """

    facts: dict[str, Any]

    def encode(self, text: Text, folder: Path) -> None:
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
