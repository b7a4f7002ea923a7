"""What samples repeat: within themselves, of each other, and of their prompts."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from collapse_cli.metrics.grams import Grams

ROWS_AT_ONCE = 1024  # of the search for repeated phrases: what it works on stays in the processor's cache
PHRASE, PHRASES = 8, 10  # tokens of a frequent phrase, and how many of them are told
SHINGLE, NEAR = 3, 0.8  # tokens of a shingle, and the Jaccard similarity from which on two samples are near
SLOTS = 126  # of the MinHash
# Slots of a band, and with how many earlier samples of the same bucket a sample is compared, nearest in order first.
# Two samples at Jaccard 0.8 share one of the 21 bands of 6 slots with probability 0.998, at 0.5 with 0.28.
LOOKS = {12: 32, 6: 16}
# Where less like samples are wanted: at 0.5 two share one of the 31 bands of 4 slots with probability 0.86.
FURTHER = LOOKS | {4: 8}
MARGIN = 0.15  # candidates whose MinHash estimate is this far below what is asked for (4 standard errors) are not looked at further


def repetition(grams: Grams, n: int) -> np.ndarray:
    """rep-n of each sample, 0..1: 1 - distinct n-grams / n-grams within it (Welleck et al. 2020).

    Returns:
        (rows,) float64; NaN where a sample is too short to hold an n-gram.
    """
    ids = np.sort(grams.ids(n), axis=1)
    new = ids >= 0
    total = new.sum(axis=1)
    new[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    return np.where(total > 0, 1 - new.sum(axis=1) / np.maximum(total, 1), np.nan)


def prompt_overlap(
    prompts: tuple[np.ndarray, np.ndarray], samples: tuple[np.ndarray, np.ndarray], n: int
) -> np.ndarray:
    """Share of the n-grams of each sample, every place counted, that also occur in its prompt: 1 - the share of novel n-grams
    (See, Liu and Manning 2017, arXiv 1704.04368, figure 6, of summaries and their sources). None crosses from the prompt into the sample.

    Args:
        prompts, samples: each `tokens` (rows, width) int and `lengths` (rows,) of how many count.

    Returns:
        (rows,) float64, 0..1; NaN where the sample or its prompt is too short to hold an n-gram.
    """
    shares = np.full(len(samples[0]), np.nan)
    for start in range(0, len(shares), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        (before, there), (after, made) = ((tokens[part], lengths[part]) for tokens, lengths in (prompts, samples))
        width = max(before.shape[1], after.shape[1])
        stacked = np.concatenate([np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in (before, after)])
        ids = Grams(stacked, np.concatenate([there, made])).ids(n).astype(np.int64)
        own = (
            ids + (np.arange(len(ids)) % len(before) * (ids.max(initial=0) + 1))[:, None]
        )  # those of other rows are others
        of_prompt, of_sample = np.split(np.where(ids >= 0, own, -1), 2)
        count = (of_sample >= 0).sum(axis=1)
        copied = (np.isin(of_sample, of_prompt) & (of_sample >= 0)).sum(axis=1)
        known = (count > 0) & (of_prompt >= 0).any(axis=1)
        shares[part][known] = copied[known] / count[known]
    return shares


def longest_repeat(grams: Grams) -> np.ndarray:
    """(rows,) int64: tokens of the longest phrase that occurs at least twice in a sample; its two places may overlap.

    The work grows with rows × width².
    """
    rows, width = grams.tokens.shape
    best = np.zeros(rows, np.int64)
    kind = np.int16 if width < np.iinfo(np.int16).max else np.int32
    for start in range(0, rows, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        columns = np.ascontiguousarray(grams.tokens[part].T)
        behind = np.arange(width)[:, None] >= grams.lengths[part]
        columns = np.where(behind, -1 - np.arange(width, dtype=np.int32)[:, None], columns)  # junk equals nothing
        # run[s]: over how many tokens up to the present one the row equals itself shifted by s + 1
        run = np.zeros((max(width - 1, 0), columns.shape[1]), kind)
        most = np.zeros(columns.shape[1], kind)
        for place in range(1, width):
            now = run[:place]
            now += 1
            now *= columns[place - 1 :: -1] == columns[place]
            np.maximum(most, now.max(axis=0), out=most)
        best[part] = most
    return best


def frequent_phrases(grams: Grams, n: int = PHRASE, most: int = PHRASES) -> list[dict[str, Any]]:
    """The most frequent n-grams that occur more than once.

    Returns:
        Dictionaries of `tokens`, `count` (overlapping places counted) and `samples` (how many hold it), by falling
        count; of equal ones the lower token ids come first.
    """
    ids = grams.ids(n)
    counts = np.bincount(grams.all(n))
    chosen = np.argsort(-counts, kind="stable")[:most]
    phrases = []
    for number in chosen[counts[chosen] > 1]:
        places = ids == number
        row, column = np.unravel_index(places.argmax(), ids.shape)
        tokens = grams.tokens[row, column : column + n].tolist()
        phrases.append({"tokens": tokens, "count": int(counts[number]), "samples": int(places.any(axis=1).sum())})
    return phrases


def exact_duplicates(grams: Grams) -> np.ndarray:
    """(rows,) bool: whether a sample is the same as an earlier one. All empty samples are the same."""
    return same_as_earlier(grams) >= 0


def same_as_earlier(grams: Grams) -> np.ndarray:
    """(rows,) int64: the first sample that each is the same as; -1 for that itself."""
    earlier_one = np.full(len(grams), -1, np.int64)
    if grams.tokens.shape[1] == 0:
        earlier_one[1:] = 0
        return earlier_one
    whole = np.ascontiguousarray(grams.tokens)
    _, first, kind = np.unique(
        whole.view(np.dtype((np.void, whole.strides[0]))).ravel(), return_index=True, return_inverse=True
    )
    again = first[kind] < np.arange(len(grams))
    earlier_one[again] = first[kind][again]
    return earlier_one


def near_duplicates(grams: Grams, seed: int = 0) -> np.ndarray:
    """(rows,) bool: whether a sample is near an earlier one, or the same, as `nearest_earlier` says."""
    return nearest_earlier(grams, seed) >= 0


def nearest_earlier(grams: Grams, seed: int = 0, least: float = NEAR) -> np.ndarray:
    """(rows,) int64: an earlier sample that each is near, or the same as; -1 where there is none.

    Near: the Jaccard similarity of their sets of 3-token shingles is at least 0.8 (`least`). Candidates share a band of a MinHash
    (Broder 1997; datasketch); their similarity is then computed exactly, so none is called near that is not. Missed
    are 0.2% of single pairs at exactly 0.8 (fewer above; 14% at 0.5 where that is asked for), and samples whose candidates before the nearest are too many.
    Samples of fewer than 3 tokens are near only to the same. Of several it is one, always the same.
    """
    earlier_one = same_as_earlier(grams)
    rows = np.flatnonzero((earlier_one < 0) & (grams.lengths >= SHINGLE))
    if len(rows) < 2:
        return earlier_one
    signatures = minhash(grams.ids(SHINGLE)[rows], seed)
    sets = np.sort(grams.ids(SHINGLE)[rows], axis=1)
    sets[:, 1:][sets[:, 1:] == sets[:, :-1]] = -1
    open_ = np.ones(len(rows), bool)
    looked = np.zeros(0, np.int64)
    for pairs in _candidates(signatures, open_, LOOKS if least >= NEAR else FURTHER):
        pairs = np.setdiff1d(pairs, looked, assume_unique=True)
        looked = np.concatenate([looked, pairs])
        later, earlier = np.divmod(pairs, len(rows))
        alike = (signatures[later] == signatures[earlier]).mean(axis=1) >= least - MARGIN
        later, earlier = later[alike], earlier[alike]
        near = jaccard(sets[later], sets[earlier]) >= least
        earlier_one[rows[later[near]]] = rows[earlier[near]]
        open_[later[near]] = False
    return earlier_one


def minhash(shingles: np.ndarray, seed: int) -> np.ndarray:
    """(rows, 126) uint32 signatures of sets given as (rows, width) numbers, -1 for none."""
    from datasketch import MinHash

    lists = (row[row >= 0].tolist() for row in shingles)
    made = MinHash.generator(lists, num_perm=SLOTS, seed=seed + 1, hashfunc=int, scheme="affine32")
    signatures = np.empty((len(shingles), SLOTS), np.uint32)
    for row, sketch in enumerate(made):
        signatures[row] = sketch.hashvalues
    return signatures


def jaccard(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(pairs,) Jaccard similarities of sets given as (pairs, width) distinct numbers, -1 for none."""
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    shared = ((both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)).sum(axis=1)
    united: np.ndarray = (both >= 0).sum(axis=1) - shared
    return np.asarray(shared / np.maximum(united, 1))


def _candidates(signatures: np.ndarray, open_: np.ndarray, all_looks: Mapping[int, int]) -> Iterator[np.ndarray]:
    """Pairs that share a band, as later × rows + earlier, of the rows that are still `open_` when they are asked for.

    First each sample with the one before it in its bucket, then with the one before that, and so on: where samples are
    alike in thousands, most are near one of the first they are compared with, and pairs do not grow with their square.
    Wide bands come first, since in them samples are likeliest near.
    """
    count = len(signatures)
    for band, looks in all_looks.items():
        orders, places = [], []
        for start in range(0, SLOTS - band + 1, band):
            key = np.ascontiguousarray(signatures[:, start : start + band])
            _, bucket = np.unique(key.view(np.dtype((np.void, key.strides[0]))).ravel(), return_inverse=True)
            order = np.argsort(bucket, kind="stable")  # within a bucket in the order of the samples
            ordered = bucket[order]
            begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
            orders.append(order)
            places.append(np.arange(count) - np.repeat(begins, np.diff(np.concatenate([begins, [count]]))))
        for back in range(1, looks + 1):
            pairs = []
            for order, place in zip(orders, places, strict=True):
                here = np.flatnonzero((place >= back) & open_[order])
                pairs.append(order[here] * count + order[here - back])
            candidates = np.unique(np.concatenate(pairs))
            if len(candidates) == 0:
                break
            yield candidates
