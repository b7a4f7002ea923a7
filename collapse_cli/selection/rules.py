"""From scores to rows: which stay, and how often. Pure functions of numbers and a seed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from collapse_cli.config.selection import RULES, Step
from collapse_cli.errors import InputError
from collapse_cli.selection.choice import one_of_each

Keeps = Callable[[np.ndarray], np.ndarray]
RIVALS = 200  # places whose rivals a held-out row is compared with


@dataclass(frozen=True)
class Choice:
    """What a rule chose.

    Attributes:
        rows: (kept,) int64 indices of the rows that stay, in order; one stands there as often as it was drawn.
        keeps: of any scores, the probability that a row of that score would have stayed, had it been judged by the same border;
            0 of NaN.
    """

    rows: np.ndarray
    keeps: Keeps


def choose(step: Step, scores: np.ndarray, wanted: int, turn: np.ndarray, seed: int, *, last: bool) -> Choice:
    """The rows that a step keeps. A row whose score is NaN never stays.

    Args:
        scores: (rows,) float64.
        wanted: how many rows are needed in the end; where fewer are left, all of them stay.
        turn: (rows,) who comes first where the rule does not say: of equal scores, and of more rows than are needed.
        seed: of the draws of `weight = "power"`.
        last: whether it is the last step that chooses, so that no more than `wanted` stay.

    Raises:
        InputError: for weights of scores outside 0 to 1.
    """
    if step.rule == "verdict":
        choice = on_one_side(scores, 0.5, above=True)
        return Choice(first_in_turn(choice.rows, turn, wanted), choice.keeps) if last else choice
    if step.keep == "choice":
        return by_reward(scores, wanted, step.reward, seed)
    if step.keep in RULES:
        count = wanted if last else -int(-step.share * len(scores) // 1)
        return ranked(step.keep, scores, count, turn)
    if step.keep:
        assert step.threshold is not None, "refused when it was read"
        choice = on_one_side(scores, step.threshold, above=step.side == "above")
        return Choice(first_in_turn(choice.rows, turn, wanted), choice.keeps) if last else choice
    return drawn(scores, wanted, step.bias, step.max_repeats, seed, step.name)


def ranked(keep: str, scores: np.ndarray, count: int, turn: np.ndarray) -> Choice:
    """So many rows with the highest, the lowest or the middle scores; of equal ones those whose turn is first."""
    judged = np.flatnonzero(~np.isnan(scores))
    count = min(count, len(judged))
    key = -scores[judged] if keep == "highest" else scores[judged]
    order = judged[np.lexsort((turn[judged], key))]
    start = (len(order) - count) // 2 if keep == "middle" else 0
    rows = np.sort(order[start : start + count])
    return Choice(rows, _within(keep, scores, rows))


def _within(keep: str, scores: np.ndarray, rows: np.ndarray) -> Keeps:
    """Within the borders of what stayed; at a border as many as of the candidates with that very score."""
    if not len(rows):
        return lambda others: np.zeros(len(others))
    low = -np.inf if keep == "lowest" else scores[rows].min()
    high = np.inf if keep == "highest" else scores[rows].max()
    at_border = {
        border: float((scores[rows] == border).sum() / (scores == border).sum())
        for border in (low, high)
        if (scores == border).any()
    }

    def keeps(others: np.ndarray) -> np.ndarray:
        inside = ((others > low) & (others < high)).astype(float)
        for border, share in at_border.items():
            inside[others == border] = share
        return np.asarray(inside)

    return keeps


def on_one_side(scores: np.ndarray, threshold: float, *, above: bool) -> Choice:
    """All rows on one side of a border, those at it too."""

    def keeps(others: np.ndarray) -> np.ndarray:
        return (others >= threshold if above else others <= threshold).astype(float)  # of NaN neither is true

    return Choice(np.flatnonzero(keeps(scores)), keeps)


def first_in_turn(rows: np.ndarray, turn: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, in order."""
    if len(rows) <= most:
        return rows
    kept: np.ndarray = np.sort(rows[np.argsort(turn[rows], kind="stable")[:most]])
    return kept


def drawn(scores: np.ndarray, wanted: int, bias: float, max_repeats: int, seed: int, name: str = "the score") -> Choice:
    """Importance resampling: rows drawn one after the other with weights w = (1 - score) ** bias, without replacement from a list
    that holds each row `max_repeats` times (Drayson et al., arXiv 2502.15654, equation 4 and their code).

    Draws without replacement are a race: each entry of the list arrives after a time that is exponential with rate w, and the first
    `wanted` are drawn (Efraimidis and Spirakis 2006). So the time of the last one says how likely any other row would have been drawn.

    Raises:
        InputError: for scores outside 0 to 1.
    """
    judged = ~np.isnan(scores)
    if ((scores[judged] < 0) | (scores[judged] > 1)).any():
        low, high = scores[judged].min(), scores[judged].max()
        raise InputError(
            f"select: weight = power takes scores from 0 to 1, and {name} gives {low:.4g} to {high:.4g}; say keep instead"
        )

    def log_weight(of: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(np.isnan(of), -np.inf, bias * np.log1p(-np.clip(of, 0, 1)))

    waits = np.random.Generator(np.random.Philox(seed)).standard_exponential((len(scores), max_repeats))
    with np.errstate(divide="ignore"):
        arrivals = np.log(waits) - log_weight(scores)[:, None]  # logarithms: weights may be smaller than any float
    order = np.argsort(arrivals, axis=None, kind="stable")
    order = order[: min(wanted, int(np.isfinite(arrivals).sum()))]
    ended = arrivals.ravel()[order[-1]] if len(order) == wanted and wanted else (np.inf if wanted else -np.inf)

    def keeps(others: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            rate = (
                np.exp(log_weight(others) + ended)
                if np.isfinite(ended)
                else np.where(log_weight(others) > -np.inf, ended, 0)
            )
            return np.asarray(-np.expm1(-max_repeats * np.maximum(rate, 0)))

    return Choice(np.sort(order // max_repeats), keeps)


def by_reward(scores: np.ndarray, places: int, factor: float, seed: int) -> Choice:
    """Of the candidates of each place one, by Bradley and Terry's choice; of places whose candidates have no score none.

    Args:
        scores: (K * places,); candidate j of place i is at i + j * places.
        factor: what a score is multiplied by to be a reward.
    """
    from scipy.special import expit

    assert len(scores) % max(places, 1) == 0, "refused when it was read"
    if not places:
        return Choice(np.zeros(0, np.int64), lambda others: np.zeros(len(others)))
    with np.errstate(over="ignore"):  # what is infinite is refused
        rewards = np.where(np.isnan(scores), -np.inf, factor * scores).reshape(-1, places)
    there = ~np.isneginf(rewards).all(axis=0)
    rows = (one_of_each(rewards, seed) * places + np.arange(places))[there]

    def keeps(others: np.ndarray) -> np.ndarray:
        """In the place of the first candidate, over places that are evenly spaced."""
        rivals = rewards[1:, np.unique(np.linspace(0, places - 1, RIVALS).round().astype(np.int64))]
        against = np.logaddexp.reduce(rivals, axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            chances = expit(factor * others[:, None] - against).mean(axis=1)
        return np.where(np.isnan(others), 0.0, chances)

    return Choice(np.sort(rows), keeps)
