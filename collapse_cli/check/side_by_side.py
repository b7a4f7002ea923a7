"""All that is found out about a real and a synthetic text without training, as one record."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from collapse_cli.check import by_groups, copies, documents, missing, telling
from collapse_cli.check.documents import Documents
from collapse_cli.check.word_counts import BUDGET, GROUPS, WIDTH, Vocabulary, equal, joined

VERSION = 4  # of the record; raised where a body gives other results
LEAST_WORDS = 100  # of a group

Tell = Callable[[str], None]


def examine(
    real: Documents, synthetic: Documents, test: Documents | None, *, seed: int = 0, tell: Tell = lambda what: None
) -> dict[str, Any]:
    """What is known of two texts, as JSON.

    Args:
        test: the test text; None: rows that are put aside of the real one.
        tell: called with what is done next.

    Returns:
        See docs/metrics.md, "collapse check". Rows that repeat an earlier row of their text count for `repeats` and `between` alone; all else is
        of rows that differ, and at equal numbers of words.
    """
    start = time.perf_counter()
    given = test is not None
    aside = np.zeros(0, np.int64) if given else documents.held_out(real, seed)
    test = test or real.take(aside)
    tell("reading")
    vocabulary = Vocabulary.of([real.measured, synthetic.measured])
    random = np.random.Generator(np.random.Philox(seed))
    ours, theirs = (
        vocabulary.count(text.measured, random.permutation(text.distinct), BUDGET) for text in (real, synthetic)
    )
    tell("duplicates")
    both = copies.both_in_clusters(ours, theirs, seed)
    record: dict[str, Any] = {
        "version": VERSION,
        "texts": documents.sources({"real": real, "synthetic": synthetic} | ({"test": test} if given else {})),
        "unit": "characters" if vocabulary.signs else "words",
        "counted": {"real": len(ours), "synthetic": len(theirs), "width": WIDTH},
        "repeats": {"real": copies.repeats(real), "synthetic": copies.repeats(synthetic)},
        "near": {"real": copies.near(real, ours, seed), "synthetic": copies.near(synthetic, theirs, seed)},
        "between": copies.between(real, synthetic, ours, theirs, both),
        "lengths": {"real": by_groups.lengths(ours), "synthetic": by_groups.lengths(theirs)},
    }
    tell("test text")
    record["test"] = {"held_out": not given, **copies.contamination(test, synthetic, real, vocabulary, seed)}
    tell("diversity, repetition, length")
    words, groups = equal([ours, theirs])
    record["equal_words"] = words * GROUPS
    record["measures"] = by_groups.compare(groups[0], groups[1], vocabulary) if words >= LEAST_WORDS else []
    tell("what is missing")
    record["missing"] = (
        missing.missing(joined(groups[0]), joined(groups[1]), vocabulary) if words >= LEAST_WORDS else None
    )
    one, other = equal([ours.take(rows) for rows in telling.two_parts(ours)])[1]
    record["missing_halves"] = missing.missing(joined(one), joined(other), vocabulary) if one and other else None
    tell("telling them apart")
    record["telling"] = telling.tell_apart(ours, theirs, seed)
    record["halves"] = telling.halves(ours, seed)
    record["seconds"] = time.perf_counter() - start
    return record
