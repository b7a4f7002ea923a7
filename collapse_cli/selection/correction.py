"""The correction step: the next corpus is of (p + gamma p*) / (1 + gamma) (Gillman et al., arXiv 2402.07087, equation 4).

p is what the newest model makes, p* is what is to be held on to. It is a mixture of rows: each row is left as it is with probability
1 / (1 + gamma), else a row that is drawn from p* stands in its place. So it is exact for every learner, whatever its rows are.
"""

import numpy as np

from collapse_cli.config.selection import Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.learners.protocol import Facts
from collapse_cli.selection.score import Material

FIRST = "rows.safetensors"  # of the stage that made the rows of generation 0


def corrected(rows: Dataset, reference: Dataset, gamma: float, seed: int) -> tuple[Dataset, np.ndarray]:
    """Rows of the mixture.

    Args:
        rows: of p.
        reference: of p*: the original corpus, or rows that generation 0 made; drawn with replacement. Must have the arrays of `rows`, and may
            have more.
        gamma: how much p* counts, 0 or more.
        seed: of the choice. Each place has its own random numbers: of more rows the first are treated alike.

    Returns:
        The rows, those of p* with their own origin, and (rows,) bool which are of p*.
    """
    drawn = np.random.Generator(np.random.Philox(seed)).random((len(rows), 2))
    replaced = drawn[:, 0] < gamma / (1 + gamma)
    chosen = np.minimum((drawn[:, 1] * len(reference)).astype(np.int64), len(reference) - 1)[replaced]
    both = Dataset.concat(
        [rows, Dataset({name: reference.arrays[name][chosen] for name in rows.arrays}, reference.origin[chosen])]
    )
    take = np.arange(len(rows))
    take[replaced] = len(rows) + np.arange(int(replaced.sum()))
    return both.take(take), replaced


class Correct:
    """The correction step towards the original corpus (`real`), or towards what generation 0 made (`gen0`)."""

    def __init__(self, step: Step, material: Material) -> None:
        self.gamma, self.seed = step.gamma, material.seed
        self.reference = material.real
        if step.toward == "gen0":
            self.reference = Dataset.load(material.folders["first"] / FIRST)

    def change(self, rows: Dataset) -> tuple[Dataset, Facts]:
        mixed, replaced = corrected(rows, self.reference, self.gamma, self.seed)
        real = int((mixed.origin[replaced] == 0).sum())
        return mixed, {"changed_rows": int(replaced.sum()), "real_rows": real}
