"""What is said of a selection, from rows of metrics.jsonl: also of damaged and hostile ones."""

from typing import Any

from collapse_cli.findings.selection import selection_said, selections
from collapse_cli.records.row import Row
from collapse_cli.where import Where

STEP = {
    "name": "surprise",
    "rule": "highest",
    "unit": "nats/token",
    "rows": 300,
    "kept": 200,
    "before": [1.0],
    "after": [2.0],
}


def row(generation: int, seed: int = 0, policy: str = "keep-10", **more: Any) -> Row:
    numbers = {"select_candidates": 300, "select_kept": 200, "select_kept_real": 0, "select_filled": 0}
    numbers |= {"select_held_out": 50, "select_false_rejects": 0.25, "real_share": 0.1}
    return Row.at(Where(policy, seed, generation), numbers | {"selection": {"steps": [STEP]}} | more)


def test_the_last_generation_is_told_with_the_mean_of_its_seeds() -> None:
    rows = [row(1), row(2), row(2, seed=1, select_false_rejects=0.35), Row.at(Where("keep-100", 0, 2), {"nll": 1.0})]
    (one,) = selections(rows)
    assert (str(one.arm), one.generation, one.seeds, one.candidates, one.kept) == ("keep-10", 2, 2, 300, 200)
    assert one.false_rejects is not None
    assert abs(one.false_rejects.mean - 0.3) < 1e-12
    (said,) = selection_said([one])
    assert said == (
        "Selection (surprise highest) for generation 2 of keep-10, mean of 2 seeds: 200 of 300 rows stay; of 50 real rows that no "
        "model was fitted on, it would throw away 30%; the corpus is 10% real."
    )


def test_real_rows_that_stay_or_stand_in_are_told() -> None:
    (said,) = selection_said(selections([row(1, select_kept_real=7, select_filled=3, select_false_rejects=None)]))
    assert "7 of them real" in said
    assert "3 real rows stand in for what was missing" in said
    assert "no real rows were there to try it on" in said


def test_a_run_without_a_selection_says_nothing() -> None:
    assert selections([Row.at(Where("keep-0", 0, 3), {"nll": 2.0})]) == []


def test_damage_is_left_out_and_what_is_shown_is_bounded() -> None:
    judged = [{"text": "a", "score": float("inf"), "origin": "x", "step": None}, {"text": 3}, "no table"] * 20
    damaged = row(1, selection={"steps": [{"name": 3, "before": "no list"}, None] * 20, "kept": judged, "thrown": 5})
    found = damaged.selection
    assert len(found.steps) == 16
    assert (found.steps[0].name, found.steps[0].before, found.steps[0].rows) == ("", [], None)
    assert len(found.kept) == 10
    assert (found.kept[0].score, found.kept[0].origin, found.kept[0].step) == (None, None, 0)
    assert found.thrown == []
    assert list(row(1, selection="text").malformed()) == ["selection"]
    assert list(row(1, select_kept="many").malformed()) == ["select_kept"]
    assert list(row(1).malformed()) == []
