"""What stands twice: within a text, between two, and of the test text in the synthetic one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from collapse_cli.check.documents import Documents
from collapse_cli.check.word_counts import Counted, Vocabulary
from collapse_cli.metrics.grams import Grams
from collapse_cli.metrics.repetition import NEAR, SHINGLE, jaccard
from collapse_cli.selection.scores.duplicates import Clusters, clusters, found

TELLING = 8  # words of a row that hardly stands in two texts by chance
OVERLAP = 13  # words of a passage by which test text is found in other text (Brown et al. 2020, appendix C)
SHOWN, CHARACTERS = 3, 300  # examples, and of each
LOOKS = 32  # real rows of its cluster that a synthetic row is held against, at most
AT_ONCE = 1_000  # rows


def repeats(text: Documents) -> dict[str, Any]:
    """Rows that are the same but for white space.

    Returns:
        `rows`; `repeats`, how many repeat an earlier one; `share`, of all rows; `repeated_rows`, how many different ones stand there more than
        once; `largest`, how often the most frequent row stands there; `shown`, the most frequent rows.
    """
    counts = np.unique(text.contents, return_counts=True)
    order = np.argsort(-counts[1], kind="stable")[:SHOWN]
    first = {int(text.contents[row]): int(row) for row in text.distinct}
    shown = [
        {"rows": int(counts[1][one]), "text": text.rows[first[int(counts[0][one])]][:CHARACTERS]}
        for one in order
        if counts[1][one] > 1
    ]
    again = len(text.rows) - len(text.distinct)
    repeated = counts[1][counts[1] > 1]
    return {
        "rows": len(text.rows),
        "repeats": again,
        "share": again / len(text.rows),
        "repeated_rows": len(repeated),
        "largest": int(counts[1].max(initial=0)),
        "shown": shown,
    }


def near(text: Documents, counted: Counted, seed: int = 0) -> dict[str, Any]:
    """Rows near an earlier one, among rows that are not the same; as `found` says, with texts in place of indices."""
    of = clusters(counted.tokens, counted.lengths, near=True, seed=seed)
    facts = found(of, counted.tokens, counted.lengths)
    facts["rows"] = len(counted)
    facts["shown"] = [
        {"rows": one["rows"], "texts": [text.measured[counted.index[row]][:CHARACTERS] for row in one["indices"]]}
        for one in facts["shown"]
    ]
    return facts


def between(real: Documents, synthetic: Documents, ours: Counted, theirs: Counted, both: Clusters) -> dict[str, Any]:
    """Rows of the synthetic text that stand in the real one, or near one that does.

    Args:
        ours, theirs: rows of either that are not the same, which `both` are the clusters of, the real ones first.

    Returns:
        `copies` and `copied_share` of all synthetic rows; `telling_copies`, those of them with `TELLING` words, and `copied`, a few of these; `near` and `near_share` of
        the rows of `theirs`, near a real row but not the same as one: near the cluster's first row or another of its first `LOOKS` real ones; `compared`, how many rows of either were looked at for that; `shown`.
    """
    same = np.isin(synthetic.contents, real.contents)
    long = np.array([row.count(" ") >= TELLING - 1 for row in synthetic.rows], bool)
    count = len(ours)
    grams = ours.beside(theirs).grams()
    late = np.arange(count, len(both.first))
    mine = late[(both.first[late] < count) & ~same[theirs.index]]
    partner = _near(grams, mine, both.first, count)
    close, partner = mine[partner >= 0], partner[partner >= 0]
    shown = [
        {
            "synthetic": synthetic.measured[theirs.index[row - count]][:CHARACTERS],
            "real": real.measured[ours.index[like]][:CHARACTERS],
        }
        for row, like in zip(close[:SHOWN], partner[:SHOWN], strict=True)
    ]
    return {
        "copies": int(same.sum()),
        "copied_share": float(same.mean()),
        "telling_copies": int((same & long).sum()),
        "copied": [synthetic.rows[row][:CHARACTERS] for row in np.flatnonzero(same & long)[:SHOWN]],
        "near": len(close),
        "near_share": len(close) / max(1, len(theirs)),
        "compared": [count, len(theirs)],
        "shown": shown,
    }


def _near(grams: Grams, rows: np.ndarray, first: np.ndarray, count: int) -> np.ndarray:
    """(rows,) the real row that each is near, or has all words of; -1 for none.

    A cluster holds rows that are like one another only by way of others, so each row is held against its real rows one by one.

    Args:
        first: (rows of both,) the cluster of each row.
        count: how many rows are real; they stand before all others.
    """
    sets = np.sort(grams.ids(SHINGLE), axis=1)
    sets[:, 1:][sets[:, 1:] == sets[:, :-1]] = -1
    real = np.argsort(first[:count], kind="stable")
    begin, end = (np.searchsorted(first[real], first[rows], side) for side in ("left", "right"))
    partner = np.full(len(rows), -1, np.int64)
    for look in range(LOOKS):
        left = np.flatnonzero((partner < 0) & (begin + look < end))
        for at in range(0, len(left), AT_ONCE):
            some = left[at : at + AT_ONCE]
            row, other = rows[some], real[begin[some] + look]
            near = jaccard(sets[row], sets[other]) >= NEAR
            near |= (grams.tokens[row] == grams.tokens[other]).all(axis=1)
            partner[some[near]] = other[near]
    return partner


def both_in_clusters(ours: Counted, theirs: Counted, seed: int = 0) -> Clusters:
    """The near clusters of two texts, whose rows of the first stand before those of the second."""
    both = ours.beside(theirs)
    return clusters(both.tokens, both.lengths, near=True, seed=seed)


def contamination(
    test: Documents, text: Documents, real: Documents, vocabulary: Vocabulary, seed: int = 0
) -> dict[str, Any]:
    """Test rows that stand in a text, as they are or by a passage.

    Args:
        real: the real text without the test rows, to compare with: rows of one source share passages.

    Returns:
        `rows` of the test text; `copies`, of which the whole row stands there (rows of `TELLING` words; `long_rows` have as many);
        `passages`, of which `OVERLAP` words in a row stand there, and `passage_rows`, how many are long enough; `alike`, the same of equally many rows
        (`alike_rows`) of the `text` and of the `real` text, drawn at random; `shown`.
    """
    there = set(text.contents.tolist())
    words = [vocabulary.pattern.findall(row) for row in test.measured]
    long = [len(row) >= TELLING for row in words]
    copied = [int(content) in there and telling for content, telling in zip(test.contents, long, strict=True)]
    hit = _sharing(words, [vocabulary.pattern.findall(row) for row in text.measured])
    random = np.random.Generator(np.random.Philox(seed))
    left = np.flatnonzero(~np.isin(real.contents, test.contents))
    left = left[np.sort(np.unique(real.contents[left], return_index=True)[1])]
    few = min(len(left), len(text.distinct))
    alike = {
        name: int(
            _sharing(
                words, [vocabulary.pattern.findall(of.measured[row]) for row in random.choice(rows, few, replace=False)]
            ).sum()
        )
        for name, of, rows in (("synthetic", text, text.distinct), ("real", real, left))
    }
    shown = [test.rows[row][:CHARACTERS] for row in range(len(words)) if copied[row]]
    shown += [test.rows[row][:CHARACTERS] for row in range(len(words)) if hit[row] and not copied[row]]
    return {
        "rows": len(test.rows),
        "long_rows": sum(long),
        "copies": sum(copied),
        "passage_rows": sum(len(row) >= OVERLAP for row in words),
        "passages": int(hit.sum()),
        "passage_words": OVERLAP,
        "alike_rows": few,
        "alike": alike,
        "shown": shown[:SHOWN],
    }


def _sharing(rows: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> np.ndarray:
    """(rows,) bool: whether a row has a passage that stands in one of the others."""
    own = [_passages(row) for row in rows]
    wanted = {passage for passages in own for passage in passages}
    there = {passage for row in others for passage in _passages(row) if passage in wanted}
    return np.array([not there.isdisjoint(passages) for passages in own], bool)


def _passages(words: Sequence[str]) -> list[int]:
    """The hashes of all passages of so many words; equal ones by chance once in 2^64 pairs."""
    return [hash(tuple(words[at : at + OVERLAP])) for at in range(len(words) - OVERLAP + 1)]
