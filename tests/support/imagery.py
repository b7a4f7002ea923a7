"""Image families in tests: a workplace's worth of stages by hand, without loop and store."""

from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.learners import Facts, Hints, learner_class, silent


def experiment_of(
    learner: str, source: str = "digits", rows: int = 0, eval_rows: int = 0, **settings: Any
) -> Experiment:
    data = {"source": source, "rows": rows, "eval_rows": eval_rows}
    return Experiment.model_validate({"learner": learner, "data": data, learner: settings})


def made(learner: str, experiment: Experiment, encoded: Path | None = None) -> Any:
    """A learner of a stage that is none of data."""
    kind = learner_class(learner)
    return kind(kind.params(experiment, "train"), Hints(encoded=encoded), silent)


def encoded(learner: str, experiment: Experiment, folder: Path) -> Facts:
    """Real data in `folder`; the facts of the stage."""
    kind = learner_class(learner)
    resolved = kind.resolve(experiment)
    work = kind(kind.params(resolved.config, "data"), resolved.hints, silent)
    folder.mkdir(parents=True, exist_ok=True)
    return work.encode(folder, seed=0)


def prompts(data: Dataset, stream: np.ndarray | None = None) -> Dataset:
    """All rows as prompts, none to be shown only."""
    own = np.arange(len(data)) if stream is None else stream
    return Dataset({**data.arrays, "stream": own, "extra": np.zeros(len(data), bool)}, data.origin)


class Killed(Exception):  # noqa: N818
    """Stands for the end of the process."""


class KilledAfter:
    """A progress bar that ends the training after so many epochs."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def __call__(self, done: int, total: int, unit: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed
