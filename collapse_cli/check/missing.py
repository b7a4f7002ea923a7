"""Which frequent words and phrases of one text are missing in the other.

What is counted is rows that hold a phrase, not how often it stands there: a name comes again and again within one row. Of two texts of equally
many words, with rows drawn alike, each row with the phrase is as likely of the one as of the other: of a + b rows that hold it the number b
in the second is binomial with probability one half. What is called missing is so rare that this has less chance than 5%, divided by the number
of phrases that were looked at in either direction.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from collapse_cli.check.word_counts import Counted, Vocabulary
from collapse_cli.metrics.grams import Grams
from collapse_cli.metrics.intervals import LEVEL

ORDERS = (1, 2, 3)  # words of a phrase
RARE = 0.25  # of what is expected, at most, to be called missing
GONE = 0.05  # of what is expected, at most, to be named before what is only rare
SAME = 0.5  # Jaccard similarity of the rows of two phrases from which on one of them stands for both
NEARLY = 0.9  # of the rows of a phrase, at least, that a longer one stands in that is named for it
SHOWN = 12


@dataclass(frozen=True)
class _Held:
    """The phrases of `n` words, by number, and the rows of both texts that hold them.

    Attributes:
        ids: (rows, places) the number of the phrase at each place; -1 where none is counted.
        begin: (phrases + 1,) where the rows of each begin in `rows`.
        rows: the rows of all phrases, one phrase behind the other; ascending within a phrase.
        a, b: (phrases,) in how many rows of the first and of the second text each stands.
    """

    n: int
    ids: np.ndarray
    begin: np.ndarray
    rows: np.ndarray
    a: np.ndarray
    b: np.ndarray

    @staticmethod
    def of(n: int, grams: Grams, signs: np.ndarray | None, first: int) -> "_Held":
        """`signs`: which words are signs, to leave out phrases across one; `first`: how many rows are of the first text."""
        ids = grams.ids(n)
        there = ids >= 0
        if n > 1 and signs is not None:
            there &= ~np.any([signs[grams.tokens[:, at : at + ids.shape[1]]] for at in range(n)], axis=0)
        row, column = np.nonzero(there)
        pairs = np.unique(ids[row, column] * np.int64(len(grams)) + row)
        gram, holder = np.divmod(pairs, len(grams))
        size = int(ids.max(initial=-1)) + 1
        begin = np.searchsorted(gram, np.arange(size + 1))
        a, b = (np.bincount(gram[of], minlength=size) for of in (holder < first, holder >= first))
        return _Held(n, np.where(there, ids, -1), begin, holder, a, b)

    def of_phrase(self, one: int) -> np.ndarray:
        """The rows that hold a phrase."""
        return self.rows[self.begin[one] : self.begin[one + 1]]

    def words(self, one: int, grams: Grams) -> list[int]:
        """The words of a phrase, as numbers."""
        row = int(self.of_phrase(one)[0])
        column = int(np.argmax(self.ids[row] == one))
        return [int(word) for word in grams.tokens[row, column : column + self.n]]


@dataclass(frozen=True)
class _Missing:
    """A phrase that one text has and the other lacks: in how many rows of either, by what chance, and the rows of the one."""

    has: int
    lacks: int
    chance: float
    held: _Held
    one: int
    rows: np.ndarray


def missing(real: Counted, synthetic: Counted, vocabulary: Vocabulary) -> dict[str, Any]:
    """Words and phrases of either text that the other lacks; both have equally many words.

    Returns:
        `tested`, how many phrases; `level`, by chance; `of_real` and `of_synthetic`: how many of one text are missing in the other (`count`), and
        some as `shown`: `phrase`, `words`, `expected` rows (as many as hold it in the text that has it), `seen` rows, `chance`. First come those that are
        gone, or nearly so, then those that are rare, the most frequent first; of those that stand in much the same rows one is shown for all.
        `kept_by_rows`: of words that stand in 1, 2 to 4, … rows of the real text how many the synthetic one has.
    """
    from scipy.stats import binom

    both = real.beside(synthetic).grams()
    signs = (
        None if vocabulary.signs else vocabulary.are_signs()
    )  # a phrase across the end of a sentence says nothing by itself
    held = [_Held.of(n, both, signs, len(real)) for n in ORDERS]
    least = 8  # rows in both texts: fewer can never be beyond chance, as 2^-8 is above 5% of a few phrases
    tested = sum(int((of.a + of.b >= least).sum()) for of in held)
    level = (1 - LEVEL) / max(1, 2 * tested)
    told: dict[str, Any] = {"tested": 2 * tested, "level": level}
    for name, swap in (("of_real", False), ("of_synthetic", True)):
        gone = []
        for of in held:
            has, lacks = (of.b, of.a) if swap else (of.a, of.b)
            some = np.flatnonzero((has + lacks >= least) & (lacks <= RARE * has))
            chance = binom.cdf(lacks[some], has[some] + lacks[some], 0.5)
            sure = chance <= level
            for one, p in zip(some[sure].tolist(), chance[sure].tolist(), strict=True):
                rows = of.of_phrase(one)
                own = rows[(rows >= len(real)) == swap]
                gone.append(_Missing(int(has[one]), int(lacks[one]), float(p), of, one, own))
        told[name] = {"count": len(gone), "shown": _shown(gone, both, vocabulary)}
    told["kept_by_rows"] = _kept(held[0].a, held[0].b)
    return told


def _shown(gone: list[_Missing], grams: Grams, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Of what is missing a few phrases: of those that stand in much the same rows the longest that stands in nearly as many.

    A common word would say little: it is left out where half of its rows hold a longer phrase with it that is missing, too.
    """
    from scipy.sparse import csr_array

    if not gone:
        return []
    sizes = np.array([one.has for one in gone])
    held = csr_array(
        (np.ones(sizes.sum(), np.int32), np.concatenate([one.rows for one in gone]), np.append(0, np.cumsum(sizes))),
        shape=(len(gone), len(grams)),
    )
    words = [tuple(one.held.words(one.one, grams)) for one in gone]
    longer: dict[int, list[int]] = {}
    for at, phrase in enumerate(words):
        for word in phrase if len(phrase) > 1 else ():
            longer.setdefault(word, []).append(at)
    left = np.ones(len(gone), bool)
    shown: list[int] = []
    order = sorted(range(len(gone)), key=lambda at: (gone[at].lacks > GONE * gone[at].has, -gone[at].has))
    for at in order:
        if len(shown) == SHOWN:
            break
        if not left[at]:
            continue
        alike = _alike(held, sizes, gone[at].rows) & left & (sizes >= NEARLY * sizes[at])
        best = max(np.flatnonzero(alike).tolist(), key=lambda other: (len(words[other]), sizes[other]))
        if len(words[best]) == 1 and (others := longer.get(words[best][0])):
            covered = np.unique(np.concatenate([gone[other].rows for other in others]))
            if 2 * len(covered) >= sizes[best]:
                continue
        shown.append(best)
        left &= ~_alike(held, sizes, gone[best].rows)
        left[[_within(words[best], other) or _within(other, words[best]) for other in words]] = False
    return [
        {
            "phrase": vocabulary.written(words[at])[:100],
            "words": len(words[at]),
            "expected": gone[at].has,
            "seen": gone[at].lacks,
            "chance": gone[at].chance,
        }
        for at in shown
    ]


def _within(part: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a phrase stands in another one."""
    return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))


def _alike(held: Any, sizes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(phrases,) bool: which of them stand in much the same rows as one that stands in these; that one among them."""
    there = np.zeros(held.shape[1], np.int32)
    there[rows] = 1
    shared = held @ there
    similar: np.ndarray = shared >= SAME * (sizes + len(rows) - shared)
    return similar


def _kept(real: np.ndarray, synthetic: np.ndarray) -> list[dict[str, Any]]:
    """Of words by how many rows of the real text hold them: how many there are, and how many the synthetic text has at all."""
    kept = []
    for low, high in ((1, 1), (2, 4), (5, 9), (10, 99), (100, 1 << 60)):
        these = (real >= low) & (real <= high)
        if these.any():
            kept.append(
                {
                    "rows": [low, high if high < 1 << 60 else None],
                    "words": int(these.sum()),
                    "kept": int((synthetic[these] > 0).sum()),
                }
            )
    return kept
