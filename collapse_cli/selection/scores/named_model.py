"""How unlikely texts are under a model that the user names, read with its own tokenizer."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from collapse_cli.data.dataset import Dataset, unchanged
from collapse_cli.learners.protocol import Tell
from collapse_cli.lm import architecture, folders
from collapse_cli.lm import model as models
from collapse_cli.lm import score as scoring
from collapse_cli.lm import text as texts

WHAT = "select.model"


def find(source: str) -> tuple[Path, str]:
    """The folder of a causal language model with its tokenizer, and the hash of both.

    Raises:
        InputError: when there is none, or it is none that can be loaded.
    """
    folder, _ = folders.find_folder(source, "", WHAT)
    weights = folders.check_weights(folder, WHAT)
    models.check_complete(folder)
    texts.read_tokenizer(folder)
    tokenizer = folders.hash_tokenizer(folder)
    return folder, hashlib.sha256(f"{weights} {tokenizer}".encode()).hexdigest()


class NamedModel:
    """A model at work.

    Args:
        source, sha256: its folder or Hub id, and the hash that it must have.
        text: rows as text.

    Raises:
        InputError: when it is not there, or not what it was when the run was planned.
    """

    def __init__(self, source: str, sha256: str, text: Callable[[Dataset], Sequence[str]], tell: Tell) -> None:
        folder, found = find(source)
        unchanged(sha256, found, f"{WHAT} {source}")
        self.model, (self.tokenizer, _) = models.load(folder), texts.read_tokenizer(folder)
        self.text, self.tell = text, tell

    def losses(self, rows: Dataset) -> np.ndarray:
        """(rows,) nats per predicted token of its own tokenizer; NaN of a row without one. Of longer rows the beginning is read."""
        coded = [texts.encode(self.tokenizer, [words], line_bos=False) for words in self.text(rows)]
        most = architecture.positions(self.model) or max(map(len, coded), default=0)
        data = Dataset.of_tokens([ids[:most] for ids in coded])
        nll, predicted = scoring.score_blocks(self.model, data, lambda done, total: self.tell(done, total, "rows"))
        return np.asarray(np.where(predicted > 0, nll / np.maximum(predicted, 1), np.nan))
