"""The correction step: rows of (p + gamma p*) / (1 + gamma)."""

import numpy as np
import pytest

from collapse_cli.data.dataset import Dataset
from collapse_cli.selection.correction import corrected


def rows_of(values: np.ndarray, origin: int, **more: np.ndarray) -> Dataset:
    return Dataset({"x": values, **more}, np.full(len(values), origin, np.int32))


@pytest.mark.parametrize("gamma", [0.25, 1.0, 3.0])
def test_so_many_rows_are_of_the_reference(gamma: float) -> None:
    rows, reference = rows_of(np.arange(20_000.0), 3), rows_of(-1 - np.arange(50.0), 0, more=np.zeros(50))
    mixed, replaced = corrected(rows, reference, gamma, 1)
    share = gamma / (1 + gamma)
    assert abs(replaced.mean() - share) <= 4 * np.sqrt(share * (1 - share) / len(rows))
    assert (mixed.arrays["x"][~replaced] == rows.arrays["x"][~replaced]).all()
    assert (mixed.origin[~replaced] == 3).all()
    assert (mixed.origin[replaced] == 0).all()
    assert set(mixed.arrays) == {"x"}
    counts = np.unique(mixed.arrays["x"][replaced], return_counts=True)[1]
    expected = replaced.sum() / 50
    assert len(counts) == 50
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected)).all(), "all alike, with replacement"


def test_without_weight_nothing_changes_and_the_first_rows_of_more_are_the_same() -> None:
    rows, reference = rows_of(np.arange(300.0), 2), rows_of(-1 - np.arange(9.0), 0)
    same, replaced = corrected(rows, reference, 0.0, 1)
    assert (same.arrays["x"] == rows.arrays["x"]).all()
    assert not replaced.any()
    all_, few = corrected(rows, reference, 0.5, 1)[0], corrected(rows.take(np.arange(100)), reference, 0.5, 1)[0]
    assert (all_.arrays["x"][:100] == few.arrays["x"]).all()


def test_rows_of_text_of_other_width_take_their_place() -> None:
    def text(tokens: np.ndarray, origin: int) -> Dataset:
        lengths = np.full(len(tokens), tokens.shape[1], np.int32)
        return Dataset({"tokens": tokens, "lengths": lengths}, np.full(len(tokens), origin, np.int32))

    mixed, replaced = corrected(text(np.ones((50, 3), np.int32), 1), text(np.full((4, 5), 7, np.int32), 0), 1.0, 2)
    for row, length, real in zip(mixed.arrays["tokens"], mixed.arrays["lengths"], replaced, strict=True):
        assert row[:length].tolist() == ([7] * 5 if real else [1] * 3)


def test_the_mean_of_a_gaussian_loop_is_held() -> None:
    """Refits of a Gaussian's mean from n rows: variance a round 1/n without; with gamma it stays at (1 + ...)/n for good."""
    n, rounds, chains = 50, 60, 400
    ends = {0.0: [], 1.0: []}
    for gamma, found in ends.items():
        for chain in range(chains):
            random = np.random.default_rng(chain)
            real = random.standard_normal(n)
            mean = real.mean()
            for generation in range(rounds):
                made = rows_of(mean + random.standard_normal(n), 1)
                mean = corrected(made, rows_of(real, 0), gamma, chain * 1000 + generation)[0].arrays["x"].mean()
            found.append(mean)
    # E mean_{t+1} = mean_t / 2 + real / 2 and each round adds the noise of a bootstrap: the limit is below 3/n, not rounds/n
    assert np.var(ends[0.0]) * n == pytest.approx(rounds + 1, rel=4 * np.sqrt(2 / chains))
    assert np.var(ends[1.0]) * n < 3
