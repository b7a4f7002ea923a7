"""Scores that need no training, held against slow code; and the audit of what steps did."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collapse_cli.config.selection import Step
from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.learners import silent
from collapse_cli.selection import audit
from collapse_cli.selection.score import Material, Scored, score_of
from collapse_cli.selection.steps import survivors


def rows_of(lengths: np.ndarray, tokens: np.ndarray, origin: int = 1) -> Dataset:
    arrays = {"tokens": tokens.astype(np.int32), "lengths": lengths.astype(np.int32)}
    return Dataset(arrays, np.full(len(lengths), origin, np.int32))


def random_rows(rows: int, seed: int = 0, words: int = 2) -> Dataset:
    """Short rows of few words, many of them equal; junk behind their ends."""
    random = np.random.default_rng(seed)
    return rows_of(random.integers(0, 5, rows), random.integers(0, words, (rows, 6)))


class Model:
    """A learner whose loss of a row is its first token."""

    def score(self, data: Dataset) -> np.ndarray:
        return data.arrays["tokens"][:, 0].astype(np.float64)


def material(rows: int = 0, **more: Any) -> Material:
    none = random_rows(0)
    given: dict[str, Any] = {"real": none, "held": none, "needed": rows, "generation": 1, "model": lambda need: Model()}
    given |= {"text": lambda rows: [f"{ids.tolist()}" for ids in rows.arrays["tokens"]]}
    given |= {"encoded": Path(), "about": {}, "seed": 0, "scratch": Path(), "tell": silent}
    return Material(**given | more)


def used(rows: Dataset) -> list[tuple[int, ...]]:
    return [
        tuple(ids[:length]) for ids, length in zip(rows.arrays["tokens"].tolist(), rows.arrays["lengths"], strict=True)
    ]


@pytest.mark.parametrize("rows", [0, 1, 60])
def test_duplicates_counts_the_earlier_rows_that_are_the_same(rows: int) -> None:
    there, seen, slow = random_rows(rows), dict[tuple[int, ...], int](), []
    for row in used(there):
        slow.append(seen.get(row, 0))
        seen[row] = slow[-1] + 1
    scored = score_of(Step(by="duplicates"), material()).score(there)
    assert scored.values.tolist() == slow
    if rows:
        assert scored.facts["largest_cluster"] == max(seen.values())
        assert scored.facts["removed_share"] == pytest.approx(sum(one > 0 for one in slow) / rows)


@pytest.mark.parametrize("gram", [1, 2, 3])
def test_repetition_is_the_share_of_phrases_that_came_before(gram: int) -> None:
    there = random_rows(40)
    found = score_of(Step(by="repetition", gram=gram), material()).score(there).values
    for value, row in zip(found, used(there), strict=True):
        grams = [row[start : start + gram] for start in range(len(row) - gram + 1)]
        if grams:
            assert value == pytest.approx(1 - len(set(grams)) / len(grams))
        else:
            assert np.isnan(value), "too short for a phrase"


def test_length_counts_tokens() -> None:
    there = random_rows(20)
    assert score_of(Step(by="length"), material()).score(there).values.tolist() == [len(row) for row in used(there)]


@pytest.mark.parametrize(("by", "need"), [("perplexity", "reference"), ("surprise", "maker")])
def test_a_loss_is_that_of_the_model_that_is_meant_and_rows_without_a_prediction_have_none(by: str, need: str) -> None:
    asked, there = [], random_rows(30)

    def model(which: str) -> Model:
        asked.append(which)
        return Model()

    values = score_of(Step(by=by), material(model=model)).score(there).values
    assert asked == [need]
    short = there.arrays["lengths"] < 2
    assert (np.isnan(values) == short).all()
    assert (values[~short] == there.arrays["tokens"][~short, 0]).all()


def test_steps_hand_on_what_stays_and_the_audit_says_who_threw_what_away() -> None:
    """First the repeated rows go, then the longest: a row's number in the audit is that of the step that threw it away."""
    there, held = random_rows(50, words=4), random_rows(20, seed=1, words=4)
    steps = (
        Step(by="duplicates", keep="threshold", threshold=0.0, side="below"),
        Step(by="length", keep="lowest"),
    )
    left = survivors(there, steps, 10, np.arange(50), material(10, held=held))
    again = [row in used(there)[:place] for place, row in enumerate(used(there))]
    once = [place for place in range(50) if not again[place]]
    shortest = sorted(sorted(once, key=lambda place: (len(used(there)[place]), place))[:10])
    assert left.chosen.tolist() == shortest
    assert used(left.rows) == [used(there)[place] for place in shortest]
    first, second = left.facts["selection"]["steps"]
    assert (first["rows"], first["kept"], second["rows"], second["kept"]) == (50, len(once), len(once), 10)
    most = max(len(row) for row in used(left.rows))
    assert second["after"][-1] == most <= second["before"][-1]
    # of the held-out rows: the first of each kind, and of those the ones that are no longer
    kinds, share = used(held), second["kept"] - sum(len(row) < most for row in used(left.rows))
    at_border = share / sum(len(used(there)[place]) == most for place in once)
    stay = [
        (row not in kinds[:place]) * (len(row) < most or (len(row) == most) * at_border)
        for place, row in enumerate(kinds)
    ]
    assert left.facts["select_false_rejects"] == pytest.approx(1 - sum(stay) / 20)
    assert {one["step"] for one in left.facts["selection"]["thrown"]} == {1, 2}
    assert {one["step"] for one in left.facts["selection"]["kept"]} == {0}


def test_a_score_with_another_number_of_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from collapse_cli.selection.scores.length import Length

    monkeypatch.setattr(Length, "score", lambda self, rows: Scored(np.zeros(len(rows) + 1)))
    with pytest.raises(InputError, match="length gives 31 numbers for 30 rows"):
        survivors(random_rows(30), (Step(by="length", keep="lowest"),), 3, np.arange(30), material(3))


def test_examples_are_bounded_in_number_and_length_and_numbers_are_written_short() -> None:
    values = np.arange(100.0)
    there = Dataset({"x": np.arange(1200.0).reshape(100, 12) / 7}, np.ones(100, np.int32))
    found = audit.Audit.of(100, 0)
    found.score[:] = values
    found.left_at[50:] = 1
    thrown, kept = audit.examples(there, found, None)
    assert [one["score"] for one in kept] == [0, 5, 11, 16, 22, 27, 33, 38, 44, 49]
    assert len(thrown) == 10
    assert kept[0]["text"] == "0 0.1429 0.2857 0.4286 0.5714 0.7143 0.8571 1 …"
    long, _ = audit.examples(there, found, lambda rows: ["é" * 10_000] * len(rows))
    assert {len(one["text"]) for one in long} == {audit.CHARACTERS}
