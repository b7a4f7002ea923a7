"""What a score of rows is, and a change of rows: what they are given, and what they give."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from collapse_cli.config.selection import Need, Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import ConfigError
from collapse_cli.learners.protocol import Facts, Learner, Tell


@dataclass(frozen=True)
class Material:
    """What a step may look at besides the rows that it is given.

    Attributes:
        real: the original corpus.
        held: real rows that no model of the run was fitted on, cut to the length of the candidates; for judging, never for fitting.
        needed: how many rows of those that are chosen among are needed in the end. Of rows that one model made, candidate j of place i
            is row i + j * needed: all candidates of a place continue one prompt.
        generation: whose corpus the rows are for.
        model: a model at work, loaded when it is asked for; only those that the step needs (`config.selection.Kind.needs`).
        text: rows as text; None where they are none.
        folders: of further inputs of the stage, by name (`config.selection.Input`).
        detector: where a detector that was made elsewhere is on this machine; "" where there is none.
        judges: by hash, where the models are that steps name.
        encoded, about: the folder of the data stage, and its facts.
        seed: of this step alone.
        scratch: a folder for what should survive a kill.
        tell: moves the progress bar.
    """

    real: Dataset
    held: Dataset
    needed: int
    generation: int
    model: Callable[[Need], Learner]
    text: Callable[[Dataset], Sequence[str]] | None
    encoded: Path
    about: Mapping[str, Any]
    seed: int
    scratch: Path
    tell: Tell
    folders: Mapping[str, Path] = field(default_factory=dict)
    detector: str = ""
    judges: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """One number a row, and what there is to say of them.

    Attributes:
        values: (rows,) float64; NaN of a row that cannot be judged: it never stays.
        facts: as JSON, for the audit.
    """

    values: np.ndarray
    facts: Facts = field(default_factory=dict)


class Score(Protocol):
    """One number for each row."""

    def __init__(self, step: Step, material: Material) -> None: ...

    def score(self, rows: Dataset) -> Scored:
        """Asked once of all rows that are chosen among, and once of `material.held`."""
        ...


class Change(Protocol):
    """Other rows in the place of those that are given: as many, in the same order."""

    def __init__(self, step: Step, material: Material) -> None: ...

    def change(self, rows: Dataset) -> tuple[Dataset, Facts]:
        """The rows, their origins as before; and what there is to say, `changed_rows` among it."""
        ...


def score_of(step: Step, material: Material) -> Score:
    """The score that a step names.

    Raises:
        ConfigError: when it takes text, and the rows are none.
    """
    return cast(Score, _class_of(step, material)(step, material))


def change_of(step: Step, material: Material) -> Change:
    """The change that a step names; raises as `score_of` does."""
    return cast(Change, _class_of(step, material)(step, material))


def _class_of(step: Step, material: Material) -> Any:
    if step.kind.text and material.text is None:
        raise ConfigError(
            f"select: {step.name} takes rows of text, and those of this learner are numbers; name another score"
        )
    module, _, attribute = step.kind.where.partition(":")
    return getattr(importlib.import_module(module), attribute)
