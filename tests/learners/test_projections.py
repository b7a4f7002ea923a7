"""The learner `projections`: features from one factor, cells beside Theorem 2, and what size does and does not do."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from collapse_cli import config, theory
from collapse_cli.config import Experiment
from collapse_cli.config.cell import Cell
from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.findings import predictions
from collapse_cli.learners import Hints, learner_class, silent
from collapse_cli.learners import regression_mixture as memory
from collapse_cli.learners.projections import Projections
from collapse_cli.learners.regression import Setting, labeller, true_weights

HERE = Path()


def tree_of(lam: float = 1e-6, width: int = 30, mixture: bool = True, **options: Any) -> dict[str, Any]:
    section = {"dimensions": 60, "noise": 0.1, **options}
    made = {
        "kind": "mixture" if mixture else "generational",
        "learner": "projections",
        "data": {"source": "regression", "rows": 50, "regression": section},
        "projections": {"lam": lam, "width": width},
    }
    return config.load(made | ({"mixture": {"rows": [1], "share": [0.0]}} if mixture else {}), "test").model_dump(
        mode="json"
    )


def learner(tree: dict[str, Any]) -> Any:
    made, experiment = learner_class("projections"), Experiment.model_validate(tree)
    params = {**made.params(experiment, "data"), **made.params(experiment, "train")}
    return made(params, Hints(), silent)


def errors(tree: dict[str, Any], cells: Sequence[Cell], seeds: int) -> np.ndarray:
    """`error` of cells, (cells, seeds); those of a seed one after another, for they share its rows and projections."""
    model = learner(tree)
    found = [[model.cell(cell, seed=seed, scratch=HERE)["error"] for cell in cells] for seed in range(seeds)]
    return np.array(found).T


def predicted(tree: dict[str, Any], cell: Cell) -> float:
    found = predictions.predict_cell(tree, cell.record())
    assert found is not None
    return found


def as_theory(tree: dict[str, Any], cells: Sequence[Cell], seeds: int) -> np.ndarray:
    """The mean of each cell is within 2% of theory, or 4 standard errors; their errors by seed are returned, (cells, seeds)."""
    every = errors(tree, cells, seeds)
    for cell, found in zip(cells, every, strict=True):
        value, error = predicted(tree, cell), found.std(ddof=1) / math.sqrt(seeds)
        assert error < 0.1 * value, f"{cell.label}: too noisy to say anything"
        assert abs(found.mean() - value) <= max(0.02 * value, 4 * error), (
            f"{cell.label}: {found.mean()} ± {error}, theory {value}"
        )
    return every


def projection(d: int, seed: int, width: int) -> np.ndarray:
    """S itself, (m, d)."""
    return memory.Stream(d, seed, (memory.PROJECTION,)).rows(width) / math.sqrt(d)


def slow_weights(x: np.ndarray, y: np.ndarray, s: np.ndarray, lam: float) -> np.ndarray:
    """w_hat = S'v by scikit-learn, or by the pseudoinverse."""
    if lam == 0:
        return np.asarray(s.T @ np.linalg.pinv(x @ s.T) @ y)
    return np.asarray(s.T @ Reference(alpha=len(x) * lam, fit_intercept=False, solver="svd").fit(x @ s.T, y).coef_)


@pytest.mark.parametrize("width", [1, 10, 40, 60, 61, 300])
def test_the_features_are_those_of_the_projection(width: int) -> None:
    found, s = memory.features(60, 4, width), projection(60, 4, width)
    assert found.shape == (60, min(width, 60))
    np.testing.assert_allclose(found @ found.T, s.T @ s, atol=1e-10)
    assert np.array_equal(projection(60, 4, 9), projection(60, 4, width)[:9]) or width < 9


@pytest.mark.parametrize("width", [5, 50, 60, 200])
@pytest.mark.parametrize("rows", [30, 50, 90])
@pytest.mark.parametrize("lam", [0.0, 1e-3, 1.0])
def test_a_fit_is_ridge_on_projected_inputs(width: int, rows: int, lam: float) -> None:
    g = np.random.default_rng(2)
    x, y = g.standard_normal((rows, 60)), g.standard_normal(rows)
    model = learner(tree_of(lam, width))
    facts = model.fit(Dataset({"x": x, "y": y}, np.zeros(rows, np.int32)), seed=8, scratch=HERE)
    plain = slow_weights(x, y, projection(60, 8, width), lam)
    close = 1e-4 if lam == 0 and width in (rows, 60) else 1e-6  # square matrices are badly conditioned
    np.testing.assert_allclose(model.weights, plain, rtol=close, atol=close * np.abs(plain).max())
    assert facts["train_loss"] == pytest.approx(np.mean((y - x @ model.weights) ** 2), rel=1e-5, abs=1e-8)


def test_each_fit_draws_a_projection_of_its_own() -> None:
    model = learner(tree_of(mixture=False))
    data = model.real(0)[0]["train"]
    found = []
    for seed in (1, 2, 1):
        model.fit(data, seed=seed, scratch=HERE)
        found.append(model.weights)
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])


@pytest.mark.parametrize("size", [10, 55, 80, 200])
@pytest.mark.parametrize("spectrum", ["iso", "pow"])
def test_cells_from_sums_are_those_from_rows(size: int, spectrum: str) -> None:
    tree = tree_of(1e-3, spectrum=spectrum, noise_synthetic=0.4)
    setting, cell = Setting.of(Experiment.model_validate(tree).data.regression), Cell(30, 20, 0.5, size=size)
    w1, w2 = true_weights(setting, 6), labeller(setting, 0.5, 6)
    parts = []
    for stream, rows, w, noise in (((memory.REAL, 1), 30, w1, 0.1), ((memory.SYNTHETIC, 1), 20, w2, 0.4)):
        drawn = memory.Stream(61, 6, stream).rows(rows)
        x = drawn[:, :-1] * np.sqrt(setting.eigenvalues)
        parts.append((x, x @ w + noise * drawn[:, -1]))
    x, y = (np.concatenate(both) for both in zip(*parts, strict=True))
    plain = slow_weights(x, y, projection(60, 6, size), 1e-3)
    found = learner(tree).cell(cell, seed=6, scratch=HERE)
    assert found["error"] == pytest.approx(setting.norm_squared(plain - w1), rel=1e-6)
    assert found["train_loss"] == pytest.approx(np.mean((y - x @ plain) ** 2), rel=1e-6)
    own = {**tree, "projections": {"lam": 7.0, "width": size}}
    named = Cell(30, 20, 0.5, lam=1e-3)
    assert learner(own).cell(named, seed=6, scratch=HERE) == found, "size and lam override the configuration's"


@pytest.mark.parametrize(
    ("cell", "spectrum"),
    [
        (Cell(150, 150, 0.5, size=50, lam=1e-2), "iso"),
        (Cell(150, 150, 0.5, size=400, lam=1e-2), "iso"),
        (Cell(90, 10, 0.5, size=50, lam=1e-2), "iso"),
        (Cell(50, 50, 0.5, size=450, lam=1e-6), "iso"),
        (Cell(50, 50, 0.5, size=100, lam=1e-2), "iso"),
        (Cell(150, 150, 0.5, size=50, lam=1e-3), "pow"),
        (Cell(50, 50, 0.5, size=450, lam=1e-3), "pow"),
    ],
    ids=lambda value: value.label if isinstance(value, Cell) else value,
)
def test_cells_are_as_theory_says(cell: Cell, spectrum: str) -> None:
    as_theory(tree_of(dimensions=150, spectrum=spectrum), [cell], 30)


def test_ridgeless_models_amplify_below_the_threshold_and_mitigate_beyond_it() -> None:
    """Theory (What follows), at d = 120, n = 100: what bad labels cost, error less that with perfect labels, c2 = p2 = .5."""
    tree, sizes = tree_of(dimensions=120), (20, 50, 80, 200, 500, 2000)
    found = as_theory(tree, [Cell(50, 50, c2, size=m) for m in sizes for c2 in (0.5, 0.0)], 25)
    cost = [float((bad - good).mean()) for bad, good in zip(found[::2], found[1::2], strict=True)]
    assert cost[0] < cost[1] < cost[2], "a larger model amplifies, up to the threshold m = n"
    assert cost[3] > cost[4] > cost[5], "and mitigates beyond it"
    assert cost[5] > 0.3, "without removing it"


def test_with_a_penalty_the_best_size_is_finite_only_for_bad_labels() -> None:
    """Theory (What follows), with lam = 1e-2, d = 600, n = 500, p2 = .5: no peak; c2 = 1 has an interior optimum, c2 = .1 none."""
    tree = tree_of(1e-2, dimensions=600)

    def curve(c2: float, sizes: tuple[int, ...]) -> list[float]:
        return [predicted(tree, Cell(250, 250, c2, size=m)) for m in sizes]

    sizes = (50, 100, 300, 450, 500, 550, 700, 1000, 2500, 6000, 20000)
    zeta = np.subtract(curve(1.0, sizes), curve(0.0, sizes))
    assert (np.diff(zeta) > 0).all(), "what bad labels cost grows with size throughout"
    bad, good = curve(1.0, sizes), curve(0.1, sizes)
    assert 4 < int(np.argmin(bad[4:])) + 4 < len(sizes) - 1, "an interior optimum"
    assert int(np.argmin(good)) == len(sizes) - 1, "larger is better"
    asked = [(c2, m) for m in (1000, 6000) for c2 in (0.1, 1.0)]
    errors_by_seed = as_theory(tree, [Cell(250, 250, c2, size=m) for c2, m in asked], 8)
    found = dict(zip(asked, errors_by_seed, strict=True))
    steps = {c2: found[c2, 6000] - found[c2, 1000] for c2 in (0.1, 1.0)}
    assert steps[1.0].mean() > 0 > steps[0.1].mean()
    assert (steps[0.1] < 0).all(), "cells of a seed are paired"


def test_with_much_data_larger_is_worse_only_where_labels_are_bad_enough() -> None:
    """Theory (Plateaus): E = (1 - m/d) + p2² c2 m/d, so that larger helps where c2 < 1/p2² = 4."""
    tree, sizes = tree_of(1e-4, dimensions=40), (10, 20, 30, 80)
    found = as_theory(tree, [Cell(5000, 5000, c2, size=m) for m in sizes for c2 in (2.0, 6.0)], 20).mean(axis=1)
    for c2, helps, means in ((2.0, True, found[::2]), (6.0, False, found[1::2])):
        assert (np.diff(means) < 0).all() if helps else (np.diff(means) > 0).all()
        ratio = np.array(sizes[:3]) / 40
        np.testing.assert_allclose(means[:3], 1 - ratio + 0.25 * c2 * ratio, rtol=0.15)


def test_the_prediction_is_the_theorems() -> None:
    tree = tree_of(1e-2, width=250, dimensions=300, spectrum="pow", beta=1.2)
    found = predicted(tree, Cell(300, 100, 0.5))
    risk = theory.projections(
        eigenvalues=theory.spectrum("pow", 300, 1.2), n=400, m=250, p2=0.25, c2=0.5, lam=1e-2, noise=0.1
    )
    assert found == pytest.approx(risk.risk)


def test_other_sources_are_refused_and_the_width_counts_as_parameters() -> None:
    assert Projections.resolve(Experiment.model_validate(tree_of(width=77))).parameters == 77
    tree = tree_of()
    tree["data"]["source"] = "blobs"
    with pytest.raises(InputError, match="it takes regression"):
        Projections.resolve(Experiment.model_validate(tree))
