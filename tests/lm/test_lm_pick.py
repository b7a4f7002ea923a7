"""Choosing the next token: the best candidates, penalties, and draws, against torch, transformers and definitions."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import chi_square, warped

from collapse_cli.lm import pick
from collapse_cli.lm.pick import SUM_BLOCK, best, draw, invert, log_mass, log_softmax_, penalize


def logits_of(rows: int, width: int, *, seed: int = 0, steep: float = 3.0) -> torch.Tensor:
    return steep * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


# --- the best candidates ----------------------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 4),
    width=st.sampled_from([1, 2, 63, 64, 65, 255, 256, 257, 511, 640, 2_000, 5_003]),
    count=st.sampled_from([1, 2, 3, 10, 64]),
    levels=st.sampled_from([None, 1, 2, 5, 100]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_best_are_those_of_topk(rows: int, width: int, count: int, levels: int | None, seed: int) -> None:
    """`levels`: how many different scores there are, so that the best are tied; all different when None."""
    random = np.random.default_rng(seed)
    numbers = random.permuted(np.tile(np.arange(width), (rows, 1)), axis=1) if levels is None else None
    if numbers is None:
        numbers = random.integers(0, levels, (rows, width))
    scores = torch.from_numpy(numbers.astype(np.float32))
    values, columns = best(scores, count)
    wanted = torch.topk(scores, min(count, width), dim=1)
    assert torch.equal(values, wanted.values)
    assert torch.equal(scores.gather(1, columns), values)
    assert all(len(set(row)) == len(row) for row in columns.tolist()), "no column comes twice"
    if levels is None:
        assert torch.equal(columns, wanted.indices)


def test_the_best_are_found_next_to_minus_infinity_and_in_the_columns_after_the_last_block() -> None:
    scores = torch.full((2, 64 * 20 + 7), -torch.inf)
    scores[0, [5, 64 * 20 + 6]] = torch.tensor([1.0, 2.0])
    scores[1, 64 * 20] = 0.0
    values, columns = best(scores, 2)
    assert columns[0].tolist() == [64 * 20 + 6, 5]
    assert columns[1, 0] == 64 * 20
    assert values.tolist() == [[2.0, 1.0], [0.0, -np.inf]]


# --- penalties and sums -----------------------------------------------------------------------------------------------


@given(penalty=st.sampled_from([0.5, 1.2, 3.0]), seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 30))
def test_a_penalty_is_that_of_transformers_on_logits_and_on_log_probabilities(
    penalty: float, seed: int, tokens: int
) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = logits_of(3, 40, seed=seed % 1000)
    seen = torch.from_numpy(np.random.default_rng(seed).integers(0, 40, (3, tokens)))  # some come several times
    theirs = RepetitionPenaltyLogitsProcessor(penalty)
    found = logits.clone()
    penalize(found, seen, penalty)
    assert torch.equal(found, theirs(seen, logits.clone()))
    odds = log_softmax_(logits.clone())
    assert torch.allclose(odds, logits.log_softmax(1), atol=1e-6)
    wanted = theirs(seen, odds.clone())
    penalize(odds, seen, penalty)
    assert torch.equal(odds, wanted)
    untouched = torch.ones_like(logits, dtype=torch.bool).scatter_(1, seen, False)
    assert torch.equal(found[untouched], logits[untouched])


def test_log_mass_is_logsumexp_and_tells_what_is_not_finite() -> None:
    logits = logits_of(6, 1000, steep=30.0)
    logits[1, 3] = -torch.inf
    assert torch.allclose(log_mass(logits), logits.logsumexp(1, keepdim=True))
    before = logits.clone()
    log_mass(logits)
    assert torch.equal(logits, before)
    logits[2, 5], logits[3, 5], logits[4] = torch.inf, torch.nan, -torch.inf
    assert torch.isfinite(log_mass(logits)).squeeze(1).tolist() == [True, True, False, False, False, True]
    odds = log_softmax_(logits)
    assert torch.isnan(odds).all(dim=1).tolist() == [False, False, True, True, True, False]


# --- draws ------------------------------------------------------------------------------------------------------------


def drawn_from(logits: torch.Tensor, count: int, *how: Any, seed: int = 0) -> np.ndarray:
    """(rows, count) draws for each row of logits."""
    uniform = torch.from_numpy(np.random.default_rng(seed).random((count, len(logits))))
    return np.stack([draw(logits.clone(), each, *how).numpy() for each in uniform], axis=1)


def all_drawn(logits: torch.Tensor, points: int, *how: Any) -> np.ndarray:
    """Draws from one row of logits (vocabulary,) with evenly spaced numbers."""
    uniform = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return draw(logits.repeat(points, 1), uniform, *how).numpy()


HOW: list[tuple[Any, ...]] = [
    *((1.0, 0, 1.0), (0.7, 0, 1.0), (0.7, 5, 1.0), (0.7, 0, 0.8), (1.3, 7, 0.9), (1.0, 1, 1.0), (1.0, 99, 0.5)),
    *((1.0, 0, 1.0, 0.2), (1.5, 0, 1.0, 0.2), (1.3, 7, 0.9, 0.3), (0.7, 0, 0.8, 0.05)),
]


@pytest.mark.parametrize("how", HOW, ids=str)
def test_draws_have_the_support_and_the_probabilities_of_transformers(how: tuple[Any, ...]) -> None:
    for seed, width in enumerate((12, 50, 600)):
        logits = logits_of(1, width, seed=seed)
        wanted = warped(logits, *how)[0]
        counts = np.bincount(all_drawn(logits[0], 4000, *how), minlength=width)
        assert not counts[wanted == 0].any(), "what is cut off is never drawn"
        assert counts[wanted > 1 / 2000].all(), "what is left is drawn"
        assert np.abs(counts / 4000 - wanted).max() < 1 / 1000, "evenly spaced numbers meet every share"
    counts = np.bincount(drawn_from(logits_of(1, 12), 2500, *how)[0], minlength=12)
    wanted = warped(logits_of(1, 12), *how)[0]
    if (wanted > 0).sum() > 1:
        assert chi_square(counts, wanted) < 4
        assert chi_square(counts, np.roll(wanted, 1) + 1e-9) > 50, "the test can tell"


@given(
    seed=st.integers(0, 10_000),
    width=st.sampled_from([2, 40, 300, 3_000]),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 0.99]),
)
def test_what_is_drawn_is_what_transformers_leaves(
    seed: int, width: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = logits_of(4, width, seed=seed)
    random = np.random.default_rng(seed)
    uniform = torch.from_numpy(np.concatenate([[0.0, 1 - 2**-53], random.random(2)]))
    drawn = draw(logits.clone(), uniform, temperature, top_k, top_p, min_p).numpy()
    # a share that rounding may put on the other side of top_p or min_p is allowed either way
    sides = ((min(1.0, top_p * by), min_p / by) for by in (1 - 1e-5, 1 + 1e-5))
    allowed = np.maximum(*(warped(logits, temperature, top_k, *side) for side in sides))
    assert (allowed[np.arange(4), drawn] > 0).all()


@pytest.mark.parametrize("steep", [0.0, 0.01, 1.0, 5.0])
def test_top_p_of_a_flat_distribution_keeps_more_tokens_than_are_looked_through_at_first(
    steep: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pick, "LIKELY", 16)  # so that candidates come from blocks
    logits = logits_of(1, 5_000, steep=steep)[0]
    wanted = warped(logits[None], 1.0, 0, 0.9)[0]
    drawn = all_drawn(logits, 1000, 1.0, 0, 0.9)
    if steep:
        assert (wanted[drawn] > 0).mean() > 0.998, "but for the last one, by rounding"
    assert len(set(drawn)) > (900 if steep < 1 else 0)
    monkeypatch.setattr(pick, "LIKELY", 5_000)
    if steep:  # ties may come in any order
        assert np.array_equal(all_drawn(logits, 1000, 1.0, 0, 0.9), drawn)


def test_top_p_of_a_flat_distribution_over_five_thousand_tokens_draws_from_all_it_should() -> None:
    drawn = all_drawn(logits_of(1, 5_000, steep=0.01)[0], 800, 1.0, 0, 0.9)
    assert len(set(drawn)) == 800
    assert len(set(all_drawn(torch.zeros(3_000), 1500, 1.0, 0, 0.5))) == 1500
    assert len(set(all_drawn(torch.zeros(1_100), 2200, 1.0, 0, 0.5))) in (550, 551), "by rounding"


@pytest.mark.parametrize("how", HOW, ids=str)
def test_a_draw_does_not_depend_on_the_other_rows(how: tuple[Any, ...]) -> None:
    """One row in four is flat, so that top-p has to sort all of it."""
    logits = logits_of(12, 5_000, steep=4.0)
    logits[::4] *= 0.001
    uniform = torch.from_numpy(np.random.default_rng(0).random(12))
    together = draw(logits.clone(), uniform, *how)
    for row in range(12):
        assert draw(logits[row : row + 1].clone(), uniform[row : row + 1], *how) == together[row]


def test_what_is_forbidden_is_never_drawn() -> None:
    logits = torch.full((3, 2_000), -torch.inf)
    logits[:, 1_234] = -5.0
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    for how in HOW:
        assert draw(logits.clone(), uniform, *how).tolist() == [1_234] * 3


def test_logits_that_are_not_finite_are_drawn_from_without_an_error() -> None:
    """They are reported when the batch is done; until then a token must come out, and other rows must be right."""
    logits = logits_of(3, 2_000)
    logits[1] = torch.nan
    uniform = torch.full((3,), 0.3, dtype=torch.float64)
    for how in HOW:
        drawn = draw(logits.clone(), uniform, *how)
        assert ((drawn >= 0) & (drawn < 2_000)).all()
        alone = draw(logits[[0, 2]].clone(), uniform[:2], *how)
        assert drawn[[0, 2]].tolist() == alone.tolist()


# --- inverting a distribution -----------------------------------------------------------------------------------------


def naive(mass: np.ndarray, uniform: float) -> tuple[int, bool]:
    """The index by its definition in float64, and whether rounding may give a neighbour."""
    sums = np.cumsum(mass.astype(np.float64))
    point = uniform * sums[-1]
    near = bool(np.isclose(sums, point, rtol=1e-5, atol=1e-6 * sums[-1]).any())
    return int(np.argmax(sums > point)), near


@given(
    count=st.sampled_from([1, 2, 12, SUM_BLOCK - 1, SUM_BLOCK, SUM_BLOCK + 1, 2 * SUM_BLOCK, 3 * SUM_BLOCK + 7]),
    zeros=st.floats(0, 0.99),
    steep=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 2**32 - 1),
    edge=st.sampled_from([None, 0.0, 1 - 2**-53, 0.5]),
)
def test_inverting_is_exact_and_never_draws_what_has_no_probability(
    count: int, zeros: float, steep: float, seed: int, edge: float | None
) -> None:
    random = np.random.default_rng(seed)
    mass = np.exp(steep * random.normal(size=(8, count))).astype(np.float32)
    mass /= mass.max(axis=1, keepdims=True)
    mass[random.random((8, count)) < zeros] = 0
    mass[np.arange(8), random.integers(0, count, 8)] = 1
    uniform = random.random(8) if edge is None else np.full(8, edge)
    drawn = invert(torch.from_numpy(mass), torch.from_numpy(uniform)).numpy()
    for row in range(8):
        assert mass[row, drawn[row]] > 0
        wanted, near = naive(mass[row], uniform[row])
        if not near:
            assert drawn[row] == wanted


@pytest.mark.parametrize("count", [12, SUM_BLOCK, 2 * SUM_BLOCK + 5])
def test_inverting_at_the_very_edges_draws_the_first_and_the_last_token_that_has_probability(count: int) -> None:
    mass = torch.zeros(2, count)
    mass[:, 3] = mass[:, count - 2] = 0.5
    drawn = invert(mass, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert drawn.tolist() == [3, count - 2]
    half = invert(mass, torch.tensor([np.nextafter(0.5, 0), 0.5], dtype=torch.float64))
    assert half.tolist() == [3, count - 2], "a boundary belongs to the next token"


def test_a_boundary_between_blocks_never_draws_a_token_without_probability() -> None:
    """The first token of a block has none; points at and around the end of the block before it."""
    random = np.random.default_rng(0)
    mass = random.random((200, 3 * SUM_BLOCK)).astype(np.float32)
    mass[:, [0, SUM_BLOCK, 2 * SUM_BLOCK]] = 0
    ends = mass.reshape(200, 3, SUM_BLOCK).sum(axis=2, dtype=np.float32).astype(np.float64).cumsum(axis=1)
    for boundary in (0, 1):
        for shift in range(-3, 4):
            uniform = ends[:, boundary] / ends[:, -1] * (1 + shift * 2.0**-53)
            drawn = invert(torch.from_numpy(mass), torch.from_numpy(uniform)).numpy()
            assert (mass[np.arange(200), drawn] > 0).all()


@pytest.mark.parametrize("temperature", [1e-300, 1e-39, 1e-30, 1e-21, 1e-10])
@pytest.mark.parametrize("limits", [(0, 1.0), (5, 1.0), (0, 0.5), (3, 1e-300)])
def test_the_coldest_draws_are_the_likeliest_tokens(temperature: float, limits: tuple[int, float]) -> None:
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(0)) * 20
    wanted = logits.argmax(dim=1)
    uniform = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    assert torch.equal(pick.draw(logits, uniform, temperature, *limits), wanted)


@pytest.mark.parametrize("temperature", [1e20, 1e39, 1e300])
def test_the_hottest_draws_are_even(temperature: float) -> None:
    uniform = torch.arange(100, dtype=torch.float64) / 100 + 0.005
    logits = torch.randn(1, 100, generator=torch.Generator().manual_seed(0)).repeat(100, 1)
    assert pick.draw(logits, uniform, temperature, 0, 1.0).tolist() == list(range(100))


@pytest.mark.parametrize("penalty", [1e-300, 1e-39, 1e39, 1e300])
def test_extreme_penalties_leave_numbers(penalty: float) -> None:
    scores = torch.tensor([[0.0, 2.0, -3.0, 1.0]])
    pick.penalize(scores, torch.tensor([[0, 1, 2]]), penalty)
    assert scores.isfinite().all()
    assert scores[0, 3] == 1.0
