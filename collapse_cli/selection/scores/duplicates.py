"""The scores `duplicates` and `near-duplicates`: which row of a cluster of like rows a row is; the first of each has 0.

Rows are like each other where they are the same, or, for near duplicates, where the Jaccard similarity of their 3-token shingles is
at least 0.8 (`metrics.repetition`). A row joins the cluster of an earlier row that it is like, so a cluster may hold rows that are
like one another only by way of others. Templated text is merged far too widely by that: public threads report one cluster of
743,779 rows, and 53 to 90% removed. So what was found says how large the largest cluster is, and how many of its rows are
not like the row that is kept.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from collapse_cli.config.selection import Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.metrics.grams import Grams
from collapse_cli.metrics.repetition import NEAR, SHINGLE, jaccard, nearest_earlier, same_as_earlier
from collapse_cli.selection.row_contents import numbers
from collapse_cli.selection.score import Material, Scored

SHOWN_CLUSTERS, SHOWN_ROWS = 3, 3  # of the largest clusters, and of the rows of each
CHARACTERS = 300  # of each
SEEDS = 2**31  # that a MinHash can have


@dataclass(frozen=True)
class Clusters:
    """Rows in clusters.

    Attributes:
        first: (rows,) the earliest row of each row's cluster.
        place: (rows,) a row's place in its cluster, in the order of the rows; 0 for the one that is kept.
    """

    first: np.ndarray
    place: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """(rows,) how many rows the cluster has that begins with each row; 0 for rows that begin none."""
        return np.bincount(self.first, minlength=len(self.first))


def clusters(tokens: np.ndarray, lengths: np.ndarray, *, near: bool, seed: int = 0, least: float = NEAR) -> Clusters:
    """Clusters of rows that are the same (`near` false), or near each other.

    Args:
        tokens, lengths: (rows, width) and (rows,), as `Grams` has them. A row that is to be kept before others stands before them.
        seed: of the MinHash, which takes 32 bits of it.
        least: the Jaccard similarity from which on two rows are near.
    """
    grams = Grams(tokens, lengths)
    first = nearest_earlier(grams, seed % SEEDS, least) if near else same_as_earlier(grams)
    own = first < 0
    first[own] = np.flatnonzero(own)
    while not np.array_equal(first, first[first]):  # each goes to where the earlier one went
        first = first[first]
    order = np.argsort(first, kind="stable")
    begins = np.flatnonzero(np.diff(first[order], prepend=-1))
    place = np.empty(len(first), np.int64)
    place[order] = np.arange(len(first)) - np.repeat(begins, np.diff(np.append(begins, len(first))))
    return Clusters(first, place)


def found(of: Clusters, tokens: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    """What the user should know of clusters, before rows are thrown away for them; can be written as JSON.

    Returns:
        `clusters`, how many there are, those of one row with them; `largest_cluster`, its rows; `removed_share` of all rows, when one of
        each is kept; `largest_unlike_share`: of the other rows of the largest cluster, how many are not near the row that is kept;
        `shown`: of the largest clusters `rows`, and `indices` of the kept one and of some that go, the least like it among them.
    """
    sizes = of.sizes
    count = len(sizes)
    facts: dict[str, Any] = {
        "clusters": int((sizes > 0).sum()),
        "largest_cluster": int(sizes.max(initial=0)),
        "removed_share": float((of.place > 0).mean()) if count else 0.0,
        "largest_unlike_share": None,
        "shown": [],
    }
    if not count:
        return facts
    grams = Grams(tokens, lengths)
    for first in np.argsort(-sizes, kind="stable")[:SHOWN_CLUSTERS]:
        if sizes[first] < 2:
            break
        others = np.flatnonzero((of.first == first) & (of.place > 0))
        alike = likeness(grams, int(first), others)
        if not facts["shown"]:
            facts["largest_unlike_share"] = float((alike < NEAR).mean())
        shown = others[np.argsort(alike, kind="stable")[: SHOWN_ROWS - 1]]
        facts["shown"].append({"rows": int(sizes[first]), "indices": [int(first), *shown.tolist()]})
    return facts


def likeness(grams: Grams, first: int, others: np.ndarray) -> np.ndarray:
    """(others,) the Jaccard similarity of one row's shingles and those of others; 1 for rows that are the same."""
    sets = np.sort(grams.ids(SHINGLE), axis=1)
    same = (grams.tokens[others] == grams.tokens[first]).all(axis=1)
    if sets.shape[1] == 0:
        return np.asarray(same, np.float64)
    sets = sets[np.append(others, first)]
    sets[:, 1:][sets[:, 1:] == sets[:, :-1]] = -1
    alike = jaccard(sets[:-1], np.broadcast_to(sets[-1:], sets[:-1].shape))
    return np.asarray(np.where(same, 1.0, alike))


class Duplicates:
    """How many earlier rows are the same: 0 of the first of its kind, then 1, 2 and so on. Real rows come before others."""

    near = False

    def __init__(self, step: Step, material: Material) -> None:
        self.text, self.seed = material.text, material.seed

    def score(self, rows: Dataset) -> Scored:
        order = np.argsort(rows.origin > 0, kind="stable")
        ordered = rows.take(order)
        if "tokens" in ordered.arrays:
            # prompts begin alike, with what tells a model who it is
            said = (ordered.answers() if self.near else ordered).arrays
            tokens, lengths = said["tokens"], said["lengths"]
        else:  # a row of numbers is one token, whose id says which numbers they are
            _, kind = np.unique(numbers(ordered), axis=0, return_inverse=True)
            tokens, lengths = kind.reshape(-1, 1).astype(np.int32), np.ones(len(rows), np.int32)
        of = clusters(tokens, lengths, near=self.near, seed=self.seed)
        place = np.empty(len(rows))
        place[order] = of.place
        facts = found(of, tokens, lengths)
        facts["shown"] = [
            {"rows": one["rows"], "texts": self._texts(ordered.take(np.array(one["indices"])))}
            for one in facts["shown"]
        ]
        return Scored(place, facts)

    def _texts(self, rows: Dataset) -> list[str]:
        if self.text is None:
            return [" ".join(f"{number:.4g}" for number in row)[:CHARACTERS] for row in numbers(rows)]
        return [text[:CHARACTERS] for text in self.text(rows)]


class NearDuplicates(Duplicates):
    """The same of rows that are near an earlier one, or the same; of dialogues of their last answers."""

    near = True
