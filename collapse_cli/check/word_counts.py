"""Rows of text as numbers of words: what is counted, and equally much of each text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collapse_cli.data.dataset import Dataset
from collapse_cli.metrics.grams import Grams

WIDTH = 512  # words of a row that count; of longer rows the first
BUDGET = 400_000  # words of each text that are compared
GROUPS = 10
LONG_WORD = 12.0  # characters of a mean word, from which on white space and signs part no words
# A word is a run of letters, digits and marks; a character of Chinese or Japanese; or any other sign by itself.
WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+|[^\w\s]"
)
SIGN = re.compile(r"\S")


@dataclass(frozen=True)
class Counted:
    """Rows of a text as numbers of words.

    Attributes:
        index: (rows,) which rows of the text they are.
        tokens: (rows, width) int32, 0 behind a row's end.
        lengths: (rows,) int32, how many words count, `WIDTH` at most; above 0.
        whole: (rows,) int32, how many there are.
    """

    index: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    whole: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @property
    def total(self) -> int:
        """Words that count."""
        return int(self.lengths.sum())

    def take(self, rows: np.ndarray, lengths: np.ndarray | None = None) -> "Counted":
        """Some rows, cut to `lengths` where given."""
        used = self.lengths[rows] if lengths is None else lengths.astype(np.int32)
        return Counted(self.index[rows], self.tokens[rows], used, self.whole[rows])

    def beside(self, other: "Counted") -> "Counted":
        """These rows, then those of another text."""
        return joined([self, other])

    def grams(self) -> Grams:
        return Grams(self.tokens, self.lengths)

    def dataset(self) -> Dataset:
        """As rows that a detector reads."""
        return Dataset({"tokens": self.tokens, "lengths": self.lengths}, np.zeros(len(self), np.int32))


def joined(texts: Sequence[Counted]) -> Counted:
    """The rows of several texts, or groups, one behind the other."""
    width = max(text.tokens.shape[1] for text in texts)
    tokens = [np.pad(text.tokens, ((0, 0), (0, width - text.tokens.shape[1]))) for text in texts]
    index, lengths, whole = (
        np.concatenate([getattr(text, name) for text in texts]) for name in ("index", "lengths", "whole")
    )
    return Counted(index, np.concatenate(tokens), lengths, whole)


class Vocabulary:
    """The words of all texts that are compared, numbered from 1 on as they come."""

    def __init__(self, *, signs: bool = False) -> None:
        """`signs`: each character is a word, for text whose words no white space parts."""
        self.pattern = SIGN if signs else WORD
        self.signs = signs
        self.numbers: dict[str, int] = {}
        self._names: list[str] = []

    @staticmethod
    def of(texts: Sequence[Sequence[str]]) -> "Vocabulary":
        """The one that fits: by words, or by characters where what stands between white space and signs is too long for words."""
        some = [row for rows in texts for row in rows[:200]]
        words = [word for row in some for word in WORD.findall(row[:2_000])]
        return Vocabulary(signs=bool(words) and float(np.mean([len(word) for word in words])) > LONG_WORD)

    def count(self, rows: Sequence[str], index: np.ndarray, most: int | None = None) -> Counted:
        """Rows with these indices, in this order, until they hold `most` words; those without a word are left out."""
        kept, ids, whole, total = [], [], [], 0
        for row in index.tolist():
            words = self.pattern.findall(rows[row])
            if not words:
                continue
            numbers = [self.numbers.setdefault(word, len(self.numbers) + 1) for word in words[:WIDTH]]
            kept.append(row)
            ids.append(numbers)
            whole.append(len(words))
            total += len(numbers)
            if most is not None and total >= most:
                break
        counted = Dataset.of_tokens(ids).arrays
        return Counted(np.array(kept, np.int64), counted["tokens"], counted["lengths"], np.array(whole, np.int32))

    def written(self, numbers: Sequence[int]) -> str:
        """Words as text, parted by blanks; characters as they are."""
        if len(self._names) != len(self.numbers):
            self._names = list(self.numbers)
        return ("" if self.signs else " ").join(self._names[number - 1] for number in numbers)

    def are_signs(self) -> np.ndarray:
        """(words + 1,) bool by number: what is neither a word nor a figure."""
        return np.array([False, *(not any(map(str.isalnum, word)) for word in self.numbers)], bool)


def in_groups(text: Counted, words: int, groups: int = GROUPS) -> list[Counted]:
    """Disjoint groups of rows with equally many words each: row after row, the last of each group cut to fit.

    Rows are independent of each other as far as their order is random; then so are groups.
    """
    made: list[Counted] = []
    start, total, lengths = 0, 0, text.lengths.astype(np.int64)
    for row in range(len(text)):
        total += int(lengths[row])
        if total >= words:
            cut = lengths[start : row + 1].copy()
            cut[-1] -= total - words
            made.append(text.take(np.arange(start, row + 1), cut))
            start, total = row + 1, 0
            if len(made) == groups:
                break
    return made


def equal(texts: Sequence[Counted], groups: int = GROUPS) -> tuple[int, list[list[Counted]]]:
    """Each text in so many groups of equally many words, and how many those are: as many as the smaller text allows.

    A cut row loses its rest, so that a group costs up to a row more than it counts.
    """
    words = min(text.total for text in texts) // groups
    while words > 0:
        made = [in_groups(text, words, groups) for text in texts]
        if all(len(parts) == groups for parts in made):
            return words, made
        words = words * 19 // 20
    return 0, [[] for _ in texts]
