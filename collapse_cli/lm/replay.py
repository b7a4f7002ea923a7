"""Replay: real rows in every batch, beside the rows of the corpus (experience replay, Rolnick et al. 2019)."""

from collections.abc import Callable

import numpy as np

from collapse_cli.data.dataset import MASK, Dataset


class Replay:
    """A share of each batch, of rows that are gone through in one shuffled order after another.

    Which rows a step gets follows from its number alone.

    Attributes:
        rows: what is replayed.
        here: rows of the corpus in a full batch.
    """

    def __init__(
        self, rows: Dataset, replayed: int, batch: int, corpus_rows: int, order: Callable[[int], np.ndarray]
    ) -> None:
        """`replayed` of the `batch` rows of a batch; `order`: that of the rows, each time they are gone through."""
        assert 0 < replayed < batch
        self.rows, self.replayed, self.here, self.order = rows, replayed, batch - replayed, order
        steps, last = divmod(corpus_rows, self.here)
        self.in_an_epoch = steps * replayed + self._beside(last)

    def _beside(self, rows: int) -> int:
        """How many replayed rows go with so many of the corpus: the same share in a batch that is not full."""
        return round(rows * self.replayed / self.here)

    def at(self, epoch: int, within: int, rows: int) -> np.ndarray:
        """The numbers of the replayed rows that go with `rows` rows of the corpus, at step `within` of an epoch."""
        first = epoch * self.in_an_epoch + within * self.replayed
        last = first + self._beside(rows)
        turns = range(first // len(self.rows), -(-last // len(self.rows)))
        if not turns:
            return np.zeros(0, np.int64)
        numbers = np.concatenate([self.order(turn) for turn in turns])
        begin = first - turns[0] * len(self.rows)
        return np.sort(numbers[begin : begin + last - first])

    def beside(self, corpus: Dataset, numbers: np.ndarray) -> Dataset:
        """Rows of the corpus, and after them replayed ones, which count as the mean row of a corpus with weights does."""
        tokens = {name: corpus.arrays[name] for name in ("tokens", "lengths", "weights", MASK) if name in corpus.arrays}
        more = self.rows.take(numbers)
        added = {name: more.arrays[name] for name in ("tokens", "lengths", MASK) if name in tokens}
        if "weights" in tokens:
            added["weights"] = np.ones(len(more), tokens["weights"].dtype)
        return Dataset.concat([Dataset(tokens, corpus.origin), Dataset(added, more.origin)])

    def counted(self, epochs: int) -> dict[str, int]:
        """What a training of so many epochs replays: `replay_rows` and `replay_tokens`, each as often as it is met."""
        count = epochs * self.in_an_epoch
        turns, rest = divmod(count, len(self.rows))
        lengths = self.rows.arrays["lengths"].astype(np.int64)
        tokens = turns * int(lengths.sum()) + int(lengths[self.order(turns)[:rest]].sum())
        return {"replay_rows": count, "replay_tokens": tokens}
