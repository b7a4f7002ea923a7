"""Which frequent words and phrases of one text are missing in the other.

What is counted is rows that hold a phrase, not how often it stands there: a name comes again and again within one row. Of two texts of equally
many words, with rows drawn alike, each row with the phrase is as likely of the one as of the other: of a + b rows that hold it the number b
in the second is binomial with probability one half. What is called missing is so rare that this has less chance than 5%, divided by the number
of phrases that were looked at in either direction.
"""

from typing import Any

import numpy as np

from collapse_cli.check.word_counts import Counted, Vocabulary
from collapse_cli.metrics.grams import Grams
from collapse_cli.metrics.intervals import LEVEL

ORDERS = (1, 2, 3)  # words of a phrase
RARE = 0.25  # of what is expected, at most, to be called missing
SHOWN = 12
BANDS = 10


def missing(real: Counted, synthetic: Counted, vocabulary: Vocabulary) -> dict[str, Any]:
    """Words and phrases of either text that the other lacks; both have equally many words.

    Returns:
        `tested`, how many phrases; `level`, by chance; `of_real` and `of_synthetic`: how many of one text are missing in the other (`count`), and the
        most frequent as `shown`: `phrase`, `words`, `expected` rows (as many as hold it in the text that has it), `seen` rows, `chance`. A phrase of
        which a part is shown already is left out. `words_lost`: of words that stand in 1, 2 to 4, … rows of the real text how many the synthetic one has.
    """
    from scipy.stats import binom

    counts: list[tuple[int, np.ndarray, np.ndarray, Grams]] = []
    signs = vocabulary.are_signs()
    both = real.beside(synthetic).grams()
    late = np.arange(len(both)) >= len(real)
    for n in ORDERS:
        ids = both.ids(n)
        there = ids >= 0
        if n > 1 and not vocabulary.signs:  # a phrase across the end of a sentence says nothing by itself
            width = ids.shape[1]
            there &= ~np.any([signs[both.tokens[:, at : at + width]] for at in range(n)], axis=0)
        row, column = np.nonzero(there)
        pairs = np.unique(ids[row, column] * np.int64(len(both)) + row)
        gram, holder = np.divmod(pairs, len(both))
        size = int(ids.max(initial=-1)) + 1
        a = np.bincount(gram[~late[holder]], minlength=size)
        b = np.bincount(gram[late[holder]], minlength=size)
        counts.append((n, a, b, both))
    least = 8  # rows in both texts: fewer can never be beyond chance, as 2^-8 is above 5% of a few phrases
    tested = sum(int((a + b >= least).sum()) for _, a, b, _ in counts)
    level = (1 - LEVEL) / max(1, 2 * tested)
    told: dict[str, Any] = {"tested": 2 * tested, "level": level}
    for name, swap in (("of_real", False), ("of_synthetic", True)):
        gone = []
        for n, a, b, grams in counts:
            has, lacks = (b, a) if swap else (a, b)
            some = np.flatnonzero((has + lacks >= least) & (lacks <= RARE * has))
            chance = binom.cdf(lacks[some], has[some] + lacks[some], 0.5)
            sure = some[chance <= level]
            gone += [
                (int(has[one]), int(lacks[one]), n, float(p), one, grams)
                for one, p in zip(sure.tolist(), chance[chance <= level].tolist(), strict=True)
            ]
        gone.sort(key=lambda one: (-one[0], one[2], one[4]))
        told[name] = {"count": len(gone), "shown": _shown(gone, vocabulary)}
    told["kept_by_rows"] = _kept(counts[0][1], counts[0][2])
    return told


def _shown(gone: list[tuple[int, int, int, float, int, Grams]], vocabulary: Vocabulary) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    taken: list[str] = []
    for has, lacks, n, chance, one, grams in gone:
        ids = grams.ids(n)
        place = int(np.argmax(ids == one))
        row, column = divmod(place, ids.shape[1])
        phrase = vocabulary.written(grams.tokens[row, column : column + n].tolist())
        if any(phrase in other or other in phrase for other in taken):
            continue
        taken.append(phrase)
        shown.append({"phrase": phrase[:100], "words": n, "expected": has, "seen": lacks, "chance": chance})
        if len(shown) == SHOWN:
            break
    return shown


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
