"""Clusters of like rows, against a plain search through all pairs."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from support.ragged import arrays, ragged, slices

from collapse_cli.metrics import repetition
from collapse_cli.selection.scores import duplicates


def plainly_near(first: Sequence[int], second: Sequence[int]) -> bool:
    if list(first) == list(second):
        return True
    one, other = set(slices(first, 3)), set(slices(second, 3))
    return bool(one or other) and len(one & other) / len(one | other) >= 0.8


@given(ragged)
def test_the_first_of_equal_rows_is_kept_and_the_others_are_counted(rows: list[list[int]]) -> None:
    found = duplicates.clusters(*arrays(rows), near=False)
    assert found.first.tolist() == [rows.index(row) for row in rows]
    assert found.place.tolist() == [rows[:index].count(row) for index, row in enumerate(rows)]
    count = Counter(map(tuple, rows))
    assert found.sizes.tolist() == [count[tuple(r)] if rows.index(r) == i else 0 for i, r in enumerate(rows)]


def edited(seed: int, originals: int, copies: int, width: int) -> list[list[int]]:
    """Rows, then copies of them with a few tokens changed, in an order of chance."""
    random = np.random.default_rng(seed)
    base = random.integers(0, 1000, (originals, width))
    rows = [row.tolist() for row in base]
    for _ in range(copies):
        row = base[random.integers(originals)].copy()
        for place in random.integers(0, width, random.integers(0, 6)):
            row[place] = random.integers(0, 1000)
        rows.append(row.tolist())
    random.shuffle(rows)
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_are_kept_are_near_no_earlier_row_and_all_others_are(seed: int) -> None:
    rows = edited(seed, 20, 100, 60)
    found = duplicates.clusters(*arrays(rows), near=True)
    for index, row in enumerate(rows):
        earlier = [other for other in range(index) if plainly_near(rows[other], row)]
        assert (found.place[index] == 0) == (not earlier)
        if earlier:
            assert found.first[index] in {found.first[other] for other in earlier}
    assert (found.place > 0).sum() > 40


def test_what_is_thrown_away_is_what_the_measure_counts() -> None:
    """`near_duplicate_rate` of metrics.jsonl and the share that the selection removes are one number."""
    tokens, lengths = arrays(edited(7, 30, 90, 50))
    from collapse_cli.metrics.grams import Grams

    rate = repetition.near_duplicates(Grams(tokens, lengths)).mean()
    of = duplicates.clusters(tokens, lengths, near=True)
    assert duplicates.found(of, tokens, lengths)["removed_share"] == rate > 0


def test_templates_are_merged_by_way_of_others_and_that_is_told() -> None:
    """A chain of rows, each like the one before: one cluster, of which few are like the row that is kept."""
    row, chain = list(range(100)), []
    for step in range(30):
        row = [*row[3:], *range(1000 + 3 * step, 1003 + 3 * step)]
        chain.append(row)
    alone = [[5000 + 40 * one + place for place in range(40)] for one in range(4)]
    tokens, lengths = arrays([*chain, *alone, alone[0]])
    of = duplicates.clusters(tokens, lengths, near=True)
    facts = duplicates.found(of, tokens, lengths)
    assert (facts["clusters"], facts["largest_cluster"]) == (5, 30)
    assert facts["removed_share"] == pytest.approx(30 / 35)
    unlike = [not plainly_near(chain[0], other) for other in chain[1:]]
    assert facts["largest_unlike_share"] == pytest.approx(np.mean(unlike))
    assert np.mean(unlike) > 0.8
    assert facts["shown"][0]["rows"] == 30
    assert facts["shown"][0]["indices"][0] == 0
    assert not plainly_near(chain[0], chain[facts["shown"][0]["indices"][1]]), "the least like it is shown"
    assert facts["shown"][1] == {"rows": 2, "indices": [30, 34]}


@given(ragged)
@settings(max_examples=50)
def test_any_rows_are_clustered(rows: list[list[int]]) -> None:
    tokens, lengths = arrays(rows)
    of = duplicates.clusters(tokens, lengths, near=True)
    facts = duplicates.found(of, tokens, lengths)
    assert of.sizes.sum() == len(rows)
    assert facts["clusters"] == (of.place == 0).sum()
    assert (of.first <= np.arange(len(rows))).all()
    assert (of.place[of.first] == 0).all()


def test_of_no_rows_nothing_is_found() -> None:
    tokens, lengths = np.zeros((0, 5), np.int32), np.zeros(0, np.int32)
    facts = duplicates.found(duplicates.clusters(tokens, lengths, near=True), tokens, lengths)
    assert facts["clusters"] == facts["largest_cluster"] == facts["removed_share"] == 0
