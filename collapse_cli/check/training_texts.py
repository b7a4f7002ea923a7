"""The texts that models are trained and scored on: none of the test rows stands in the others, or near one that does."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collapse_cli.check import documents
from collapse_cli.check.documents import Documents
from collapse_cli.check.word_counts import BUDGET, Counted, Vocabulary
from collapse_cli.errors import InputError, how_many
from collapse_cli.files import write_atomically
from collapse_cli.metrics.repetition import nearest_earlier


@dataclass(frozen=True)
class TrainingTexts:
    """Rows to train on and to test on.

    Attributes:
        left_out: of the real and of the synthetic text, how many rows are test rows, or near one.
    """

    real: Sequence[str]
    synthetic: Sequence[str]
    test: Sequence[str]
    left_out: tuple[int, int]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The real text, a folder with its splits, and the synthetic one; what is there already stays as it is."""
        real, synthetic = folder / "real", folder / "synthetic.jsonl"
        real.mkdir(parents=True, exist_ok=True)
        for path, rows in (
            (real / "train.jsonl", self.real),
            (real / "test.jsonl", self.test),
            (synthetic, self.synthetic),
        ):
            text = "".join(json.dumps({"text": row}) + "\n" for row in rows)
            if not path.exists() or path.read_bytes() != text.encode():
                write_atomically(path, text)
        return real, synthetic


def training_texts(real: Documents, synthetic: Documents, test: Documents | None, seed: int = 0) -> TrainingTexts:
    """What models are trained on.

    Args:
        test: as it is given; None: rows put aside of the real text, those that `documents.held_out` names.

    Raises:
        InputError: where nothing, or next to nothing, is left of a text.
    """
    aside = documents.held_out(real, seed)
    tested = test or real.take(aside)
    kept = [_apart(text, tested, seed) for text in (real, synthetic)]
    for text, rows in zip((real, synthetic), kept, strict=True):
        if len(rows) < documents.LEAST:
            raise InputError(
                f"{text.name} ({text.source}) has {how_many(len(rows), 'row')} beside those that are test rows, or near one; at least "
                f"{documents.LEAST} are needed to train on: give other test text (--test), or --quick to train nothing"
            )
    ours, theirs = (
        [text.rows[row] for row in rows.tolist()] for text, rows in zip((real, synthetic), kept, strict=True)
    )
    distinct = [tested.rows[row] for row in tested.distinct.tolist()]
    return TrainingTexts(ours, theirs, distinct, (len(real.rows) - len(ours), len(synthetic.rows) - len(theirs)))


def _apart(text: Documents, test: Documents, seed: int) -> np.ndarray:
    """(rows,) which rows of a text are no test rows, nor near one; near ones are looked for among `BUDGET` words."""
    free = ~np.isin(text.contents, test.contents)
    vocabulary = Vocabulary.of([text.measured])
    tested = vocabulary.count(test.measured, test.distinct, BUDGET)
    order = np.random.Generator(np.random.Philox(seed)).permutation(text.distinct)
    counted = vocabulary.count(text.measured, order[free[order]], BUDGET)
    if len(counted) and len(tested):
        free[np.isin(text.contents, text.contents[counted.index[_near(tested, counted)]])] = False
    return np.flatnonzero(free)


def _near(first: Counted, second: Counted) -> np.ndarray:
    """Rows of the second text whose nearest earlier row, in one list with the first, is or leads to one of the first."""
    earlier = nearest_earlier(first.beside(second).grams())
    for _ in range(8):  # ways lead back to earlier rows; eight steps at once reach 2^8 rows
        further = np.where(earlier >= 0, earlier[np.maximum(earlier, 0)], -1)
        earlier = np.where(further >= 0, further, earlier)
    late = earlier[len(first) :]
    return np.flatnonzero((late >= 0) & (late < len(first)))
