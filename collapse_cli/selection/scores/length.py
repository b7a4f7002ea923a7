"""How long a row is."""

import numpy as np

from collapse_cli.config.selection import Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.selection.score import Material, Scored


class Length:
    """Tokens of a row; of a dialogue those of its last answer."""

    def __init__(self, step: Step, material: Material) -> None:
        pass

    def score(self, rows: Dataset) -> Scored:
        return Scored(rows.answers().arrays["lengths"].astype(np.float64))
