"""Rules of a selection, held against slow code that is plainly right."""

import numpy as np
import pytest

from collapse_cli.config.selection import Step
from collapse_cli.errors import InputError
from collapse_cli.selection.rules import Choice, by_reward, choose, drawn

SCORES = np.array([3.0, 1.0, np.nan, 2.0, 3.0, 0.5, 2.0, 2.0, 9.0])
TURN = np.arange(len(SCORES))


def chosen(step: Step, scores: np.ndarray = SCORES, wanted: int = 4, *, last: bool = True) -> list[int]:
    turn = np.arange(len(scores))
    rows: list[int] = choose(step, scores, wanted, turn, 0, last=last).rows.tolist()
    return rows


def slow(keep: str, scores: list[float], wanted: int, turn: list[int]) -> list[int]:
    """Rows sorted one by one, from the best on."""
    judged = [row for row in range(len(scores)) if scores[row] == scores[row]]
    sign = -1 if keep == "highest" else 1
    judged.sort(key=lambda row: (sign * scores[row], turn[row]))
    wanted = min(wanted, len(judged))
    start = (len(judged) - wanted) // 2 if keep == "middle" else 0
    return sorted(judged[start : start + wanted])


@pytest.mark.parametrize("keep", ["highest", "lowest", "middle"])
@pytest.mark.parametrize("wanted", [0, 1, 3, 8, 20])
def test_so_many_rows_stay_as_sorting_says(keep: str, wanted: int) -> None:
    random = np.random.default_rng(wanted)
    for _ in range(20):
        scores = random.integers(0, 5, 13).astype(float)  # many are equal
        scores[random.integers(0, 13, 2)] = np.nan
        turn = random.permutation(13)
        found = choose(Step(by="length", keep=keep), scores, wanted, turn, 0, last=True).rows.tolist()
        assert found == slow(keep, scores.tolist(), wanted, turn.tolist())


def test_before_the_last_step_a_share_stays() -> None:
    assert chosen(Step(by="length", keep="lowest", share=0.3), last=False) == [1, 3, 5], "3 of 9, rounded up"


def test_one_side_of_a_threshold_stays_with_the_rows_at_it() -> None:
    above = Step(by="length", keep="threshold", threshold=2.0, side="above")
    assert chosen(above, last=False) == [0, 3, 4, 6, 7, 8]
    assert chosen(above.model_copy(update={"side": "below"}), last=False) == [1, 3, 5, 6, 7]
    assert chosen(above, wanted=4) == [0, 3, 4, 6], "of more than are needed, those whose turn is first"


@pytest.mark.parametrize("keep", ["highest", "lowest", "middle"])
def test_what_the_same_rule_would_do_with_other_rows_is_what_it_did_with_its_own(keep: str) -> None:
    """Of the candidates themselves it says, added up, how many stayed; one beyond the border it would throw away."""
    choice = choose(Step(by="length", keep=keep), SCORES, 4, TURN, 0, last=True)
    assert choice.keeps(SCORES).sum() == pytest.approx(4)
    below, above = {"highest": (0, 1), "lowest": (1, 0), "middle": (0, 0)}[keep]
    assert choice.keeps(np.array([-1.0, 100.0, np.nan])).tolist() == [below, above, 0]


def one_by_one(
    scores: np.ndarray, wanted: int, bias: float, max_repeats: int, random: np.random.Generator
) -> np.ndarray:
    """How often each row is drawn, one draw after the other from a list that holds each `max_repeats` times."""
    left = np.repeat(np.arange(len(scores)), max_repeats).tolist()
    counts = np.zeros(len(scores))
    for _ in range(wanted):
        weights = np.array([(1 - scores[row]) ** bias for row in left])
        at = random.choice(len(left), p=weights / weights.sum())
        counts[left.pop(at)] += 1
    return counts


@pytest.mark.parametrize(("bias", "max_repeats"), [(1.0, 1), (3.0, 2), (10.0, 4)])
def test_resampling_draws_each_row_as_often_as_draws_one_by_one(bias: float, max_repeats: int) -> None:
    scores, wanted, times = np.array([0.05, 0.2, 0.4, 0.5, 0.8, 0.95]), 5, 1500
    random = np.random.default_rng(0)
    plain = np.mean([one_by_one(scores, wanted, bias, max_repeats, random) for _ in range(times)], axis=0)
    ours = np.array(
        [np.bincount(drawn(scores, wanted, bias, max_repeats, seed).rows, minlength=6) for seed in range(times)]
    )
    assert (ours.sum(axis=1) == wanted).all()
    assert ours.max() <= max_repeats
    # a count's variance is at most that of max_repeats draws at once
    error = 4 * max_repeats * np.sqrt(0.25 * 2 / times)
    assert np.abs(ours.mean(axis=0) - plain).max() < error
    assert np.abs(ours.mean(axis=0) - wanted / 6).max() > 2 * error, "even draws would be told apart"


def test_the_chance_of_another_row_is_that_of_a_candidate_of_its_score() -> None:
    scores = np.linspace(0, 1, 400)
    choice = drawn(scores, 150, 2.0, 1, seed=3)
    there = np.isin(np.arange(400), choice.rows).astype(float)
    said = choice.keeps(scores)
    assert abs(said.sum() - 150) < 4 * np.sqrt((said * (1 - said)).sum())
    for part in np.split(np.arange(400), 4):
        assert abs(there[part].mean() - said[part].mean()) < 4 * np.sqrt(0.25 / 100)
    assert said[0] > 0.7
    assert said[-1] == 0


def test_weights_smaller_than_any_float_still_order_the_rows() -> None:
    scores = np.array([0.999, 0.9999, 0.5, 0.99])
    assert drawn(scores, 2, 1000.0, 1, seed=0).rows.tolist() == [2, 3]


def test_a_row_of_no_weight_is_never_drawn_and_too_few_are_all_there_are() -> None:
    choice: Choice = drawn(np.array([1.0, 0.2, np.nan, 1.0]), 5, 1.0, 2, seed=0)
    assert choice.rows.tolist() == [1, 1]
    assert choice.keeps(np.array([0.3, 1.0, np.nan])).tolist() == [1, 0, 0]


def test_scores_that_are_no_shares_have_no_weight() -> None:
    with pytest.raises(InputError, match=r"from 0 to 1, and length gives 0\.5 to 9"):
        choose(Step(by="length", weight="power"), SCORES, 3, TURN, 0, last=True)


@pytest.mark.parametrize(
    ("others", "chances"),
    [
        ([np.nan, np.nan], [0, 0]),
        ([], []),
        ([1000.0, 0.0, 1.0, -1000.0, np.nan], [1, (1 / (1 + np.e) + 1) / 2, 0.75, 0.5, 0]),
    ],
)
def test_the_chance_of_another_row_by_reward_is_a_number_whatever_the_rewards(
    others: list[float], chances: list[float]
) -> None:
    """One rival has the reward 1, the other has none. The tests take a warning of numpy's for an error here."""
    choice = by_reward(np.array([5.0, 5.0, 1.0, np.nan]), 2, 1.0, 0)
    with np.errstate(all="raise", under="ignore"):
        assert choice.keeps(np.array(others)) == pytest.approx(chances)
