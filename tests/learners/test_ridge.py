"""The learner `ridge`: exact fits, the loop's closed forms, and cells of mixtures beside their theorems."""

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
from collapse_cli.config.policies import Policy
from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.experiment import mixing
from collapse_cli.findings import predictions
from collapse_cli.learners import Hints, learner_class, silent
from collapse_cli.learners import regression_mixture as memory
from collapse_cli.learners.regression import Setting, fit_sums, labeller, solver, true_weights
from collapse_cli.learners.ridge import Ridge

HERE = Path()


def tree_of(learner: str = "ridge", **options: Any) -> dict[str, Any]:
    kind = "mixture" if "mixture" in options else "generational"
    data = {"source": "regression", **options.pop("data", {})}
    return config.load({"kind": kind, "learner": learner, "data": data, **options}, "test").model_dump(mode="json")


def made(tree: dict[str, Any], encoded: Path | None = None) -> Any:
    """A learner with the settings of all its stages."""
    learner, experiment = learner_class(tree["learner"]), Experiment.model_validate(tree)
    mixture = {"mixture": {"real_data": experiment.mixture.real_data}}
    params = {**learner.params(experiment, "data"), **learner.params(experiment, "train"), **mixture}
    return learner(params, Hints(encoded=encoded), silent)


def errors_of(tree: dict[str, Any], cells: Sequence[Cell], seeds: int) -> np.ndarray:
    """`error` of cells, (cells, seeds); those of a seed one after another, for they share its rows."""
    model = made(tree)
    found = [[model.cell(cell, seed=seed, scratch=HERE)["error"] for cell in cells] for seed in range(seeds)]
    return np.array(found).T


def errors(tree: dict[str, Any], cell: Cell, seeds: int) -> np.ndarray:
    """`error` of a cell, (seeds,)."""
    (found,) = errors_of(tree, [cell], seeds)
    return np.asarray(found)


def as_theory(tree: dict[str, Any], cell: Cell, seeds: int) -> None:
    """A cell's mean is within 2% of theory, or 4 standard errors."""
    found, value = errors(tree, cell, seeds), predictions.predict_cell(tree, cell.record())
    assert value is not None
    error = found.std(ddof=1) / math.sqrt(seeds)
    assert error < 0.12 * value, f"{cell.label}: too noisy to say anything"
    assert abs(found.mean() - value) <= max(0.02 * value, 4 * error), (
        f"{cell.label}: {found.mean()} ± {error}, theory {value}"
    )


def problem(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(seed)
    return g.standard_normal((n, d)), g.standard_normal(n)


def dataset(x: np.ndarray, y: np.ndarray, origin: int = 0) -> Dataset:
    return Dataset({"x": x, "y": y}, np.full(len(x), origin, np.int32))


# --- fits -------------------------------------------------------------------------------------------------------------


def fitted(x: np.ndarray, y: np.ndarray, lam: float) -> np.ndarray:
    model = made(tree_of(ridge={"lam": lam}))
    facts = model.fit(dataset(x, y), seed=0, scratch=HERE)
    loss = np.mean((y - x @ model.weights) ** 2)
    assert facts["train_loss"] == pytest.approx(loss, rel=1e-6, abs=1e-12)
    return np.asarray(model.weights)


@pytest.mark.parametrize(("n", "d"), [(50, 20), (20, 50), (20, 20), (3, 40), (400, 5)])
@pytest.mark.parametrize("lam", [1e-6, 1e-2, 3.0])
def test_a_fit_is_that_of_scikit_learn_with_alpha_n_lam(n: int, d: int, lam: float) -> None:
    x, y = problem(n, d)
    reference = Reference(alpha=n * lam, fit_intercept=False, solver="svd").fit(x, y).coef_
    np.testing.assert_allclose(fitted(x, y, lam), reference, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(50, 20), (20, 50), (3, 40)])
@pytest.mark.parametrize("lam", [0.0, 1e-14])
def test_without_a_penalty_it_is_the_pseudoinverse(n: int, d: int, lam: float) -> None:
    x, y = problem(n, d)
    np.testing.assert_allclose(fitted(x, y, lam), np.linalg.pinv(x) @ y, rtol=1e-8, atol=1e-10)


def test_rows_that_repeat_leave_the_least_norm() -> None:
    """More rows than dimensions and yet a singular Gram matrix, as when a corpus of few inputs accumulates."""
    x, y = problem(10, 30)
    x, y = np.concatenate([x] * 5), np.concatenate([y + i for i in range(5)])
    np.testing.assert_allclose(fitted(x, y, 0.0), np.linalg.pinv(x) @ y, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(12, 30), (30, 30), (80, 30)])
@pytest.mark.parametrize("width", [0, 10, 30])
@pytest.mark.parametrize("lam", [0.0, 1e-3])
def test_the_two_sides_agree(n: int, d: int, width: int, lam: float) -> None:
    """Rows by rows, d by d, and a plain solution of the normal equations."""
    x, y = problem(n, d)
    back = np.random.default_rng(1).standard_normal((d, width)) if width else None
    features = x if back is None else x @ back
    dual = fit_sums({"x": x, "y": y}, lam, back)
    sums = {"gram": x.T @ x, "moment": x.T @ y, "square": np.array([y @ y]), "rows": np.array([float(n)])}
    primal = fit_sums(sums, lam, back)
    n_lam = n * lam
    plain = (
        np.linalg.solve(features.T @ features + n_lam * np.eye(features.shape[1]), features.T @ y)
        if lam
        else np.linalg.pinv(features) @ y
    )
    plain = plain if back is None else back @ plain
    tight = 1e-4 if n == d else 1e-7  # the square of the condition number of a square matrix
    np.testing.assert_allclose(dual, plain, rtol=tight, atol=tight * np.abs(plain).max())
    np.testing.assert_allclose(primal, plain, rtol=tight, atol=tight * np.abs(plain).max())


def test_a_direction_without_data_gets_no_weight() -> None:
    gram = np.diag([1.0, 0.5, 0.0])
    found = solver(gram, 10).weights(np.array([1.0, 1.0, 1e-17]), 1e-14)
    np.testing.assert_allclose(found, [1.0, 2.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("rows", [(30, 30, 30), (4, 4, 4), (4, 10, 3)])
def test_a_corpus_summarised_batch_by_batch_gives_the_same_bits(rows: tuple[int, ...]) -> None:
    parts = [dataset(*problem(n, 12, seed), seed) for seed, n in enumerate(rows)]
    whole, running = made(tree_of(ridge={"lam": 0.0})), made(tree_of(ridge={"lam": 0.0}))
    whole_facts = whole.fit(Dataset.concat(parts), seed=0, scratch=HERE)
    summary = running.summarise(parts[0])
    for part in parts[1:]:
        summary = running.merge(summary, running.summarise(part))
    running_facts = running.fit_summary(summary)
    assert np.array_equal(whole.weights, running.weights)
    assert whole_facts == running_facts
    x, y = (np.concatenate([part.arrays[name] for part in parts]) for name in "xy")
    np.testing.assert_allclose(whole.weights, np.linalg.pinv(x) @ y, rtol=1e-7, atol=1e-9)


# --- real rows, samples, truth ----------------------------------------------------------------------------------------


def loop_tree(**regression_options: Any) -> dict[str, Any]:
    options = {"dimensions": 20, "noise": 0.5, **regression_options}
    return tree_of(data={"rows": 60, "reserve": 5, "regression": options}, ridge={"lam": 0.0})


def test_real_rows_are_the_seeds_own_and_a_longer_corpus_begins_with_them(tmp_path: Path) -> None:
    tree = loop_tree(spectrum="pow")
    longer = {**tree, "data": {**tree["data"], "rows": 90}}
    short, long = (made(one).real(3)[0]["train"] for one in (tree, longer))
    assert (len(short), len(long)) == (60, 90)
    assert np.array_equal(short.arrays["x"], long.arrays["x"][:60])
    assert np.array_equal(short.arrays["y"], long.arrays["y"][:60])
    other = made(tree).real(4)[0]
    assert not np.array_equal(short.arrays["x"], other["train"].arrays["x"])
    assert {name: len(part) for name, part in other.items()} == {"train": 60, "test": 1000, "reserve": 5}
    assert not np.array_equal(other["train"].arrays["x"][:5], other["reserve"].arrays["x"])
    made(tree).encode(tmp_path, seed=3)
    assert Dataset.load(tmp_path / "train.safetensors").arrays["x"].dtype == np.float64


@pytest.mark.parametrize("spectrum", ["iso", "pow"])
def test_the_truth_has_norm_1_and_labels_follow_from_it(spectrum: str, tmp_path: Path) -> None:
    tree = loop_tree(spectrum=spectrum, noise=0.0)
    model = made(tree, tmp_path)
    model.encode(tmp_path, seed=1)
    w = true_weights(model.setting, 1)
    assert model.setting.norm_squared(w) == pytest.approx(1)
    np.testing.assert_allclose(model.setting.eigenvalues, theory.spectrum(spectrum, 20, 1.5))
    train = Dataset.load(tmp_path / "train.safetensors")
    np.testing.assert_allclose(train.arrays["y"], train.arrays["x"] @ w, atol=1e-12)
    model.fit(train, seed=0, scratch=HERE)
    test = Dataset.load(tmp_path / "test.safetensors")
    outcome = model.measure(test)
    kept, facts = outcome.rows, outcome.facts
    assert facts["error"] == pytest.approx(0, abs=1e-20)
    assert len(kept) == 1000
    model.restore({"w": w + np.eye(20)[4] / np.sqrt(model.setting.eigenvalues[4])})
    facts = model.measure(test).facts
    assert facts["error"] == pytest.approx(1), "a unit of Sigma's norm away"
    assert facts["test_loss"] == pytest.approx(1, rel=0.2), "which is what test rows say, within their noise"


def test_inputs_have_the_covariance_that_was_asked_for() -> None:
    tree = loop_tree(spectrum="pow", beta=1.0)
    tree["data"]["rows"] = 20_000
    x = made(tree).real(0)[0]["train"].arrays["x"]
    np.testing.assert_allclose(x.T @ x / len(x), np.diag(1 / np.arange(1, 21)), atol=0.03)


@pytest.mark.parametrize("inputs", ["same", "fresh"])
def test_a_synthetic_row_depends_on_its_stream_and_not_on_its_neighbours(inputs: str, tmp_path: Path) -> None:
    model = made(loop_tree(inputs=inputs, noise_synthetic=0.25))
    train = model.real(0)[0]["train"]
    model.fit(train, seed=0, scratch=HERE)

    def sampled(rows: np.ndarray) -> Dataset:
        prompts = Dataset({**train.take(rows).arrays, "stream": rows, "extra": rows == 7}, train.origin[rows])
        outcome = model.sample(prompts, seed=9, scratch=tmp_path)
        found, facts = outcome.rows, outcome.facts
        assert facts == {"sample_rows": int((rows != 7).sum())}
        return found

    every, few = sampled(np.arange(60)), sampled(np.array([7, 40, 3]))
    for name in "xy":
        assert np.array_equal(every.arrays[name][[7, 40, 3]], few.arrays[name])
    assert np.array_equal(every.arrays["x"], train.arrays["x"]) == (inputs == "same")
    left = every.arrays["y"] - every.arrays["x"] @ model.weights
    assert 0.15 < left.std() < 0.35
    assert every.arrays.keys() == train.arrays.keys()


def test_a_saved_model_is_the_same_model(tmp_path: Path) -> None:
    model, other = made(loop_tree()), made(loop_tree())
    model.fit(model.real(0)[0]["train"], seed=0, scratch=HERE)
    model.save(tmp_path)
    other.load(tmp_path)
    assert np.array_equal(model.weights, other.weights)


def test_the_labellers_risk_is_exact_and_its_direction_even_handed() -> None:
    for spectrum in ("iso", "pow"):
        setting = Setting(21, spectrum, 1.5, 0.1, 0.1, True)
        moved = [labeller(setting, 0.5, seed) - true_weights(setting, seed) for seed in range(400)]
        assert [setting.norm_squared(one) for one in moved] == pytest.approx([0.5] * 400)
        crossed = np.array([one * true_weights(setting, seed) for seed, one in enumerate(moved)])
        scale = np.abs(crossed).mean(axis=0)
        assert (np.abs(crossed.mean(axis=0)) < 5 * scale / math.sqrt(400)).all(), "uncorrelated with the truth"
    twice = labeller(setting, 2.0, 3) - true_weights(setting, 3)
    np.testing.assert_allclose(twice, 2 * moved[3], err_msg="a larger c² goes further in the same direction")


# --- the loop, written by hand ----------------------------------------------------------------------------------------


def looped(tree: dict[str, Any], policy: str, generations: int, seed: int, folder: Path) -> list[float]:
    """`error` by generation."""
    folder.mkdir(exist_ok=True)
    model, rule = made(tree, folder), Policy.parse(policy)
    model.encode(folder, seed=seed)
    real, test = (Dataset.load(folder / f"{name}.safetensors") for name in ("train", "test"))
    corpus, synthetic, found = real, [], []
    for generation in range(generations + 1):
        if generation:
            rows = mixing.prompt_rows(rule, len(real), generation, generation, growing=False)
            prompts = real.take(rows)
            prompts = Dataset({**prompts.arrays, "stream": rows, "extra": np.zeros(len(rows), bool)}, prompts.origin)
            rows_made = model.sample(prompts, seed=1000 * seed + generation, scratch=folder).rows
            rows_made = Dataset(rows_made.arrays, np.full(len(rows_made), generation, np.int32))
            synthetic = [*synthetic, rows_made] if rule.accumulates else [rows_made]
            corpus = mixing.mix(rule, real, real.take(np.arange(0)), synthetic, generation, generation, growing=False)
        model.fit(corpus, seed=generation, scratch=folder)
        facts = model.measure(test).facts
        found.append(facts["error"])
    return found


@pytest.mark.parametrize("inputs", ["same", "fresh"])
@pytest.mark.parametrize("policy", ["keep-0", "accumulate"])
def test_the_loop_follows_its_closed_form(policy: str, inputs: str, tmp_path: Path) -> None:
    tree = loop_tree(inputs=inputs, noise_synthetic=0.8)
    runs = np.array([looped(tree, policy, 8, seed, tmp_path) for seed in range(60)])
    for generation in (0, 1, 4, 8):
        value = predictions.predict_loop(tree, "error", policy, generation)
        assert value is not None
        error = runs[:, generation].std(ddof=1) / math.sqrt(60)
        assert error < 0.1 * value
        assert abs(runs[:, generation].mean() - value) < max(0.02 * value, 4 * error)


def test_replacing_grows_without_end_and_accumulating_is_bounded() -> None:
    tree = loop_tree()
    replaced, kept = (
        [predictions.predict_loop(tree, "error", policy, generation) or 0.0 for generation in range(200)]
        for policy in ("keep-0", "accumulate")
    )
    assert min(replaced + kept) > 0
    assert replaced[199] == pytest.approx(200 * replaced[0])
    assert replaced[0] == pytest.approx(kept[0])
    assert max(kept) <= kept[0] * math.pi**2 / 6


def test_ridge_with_a_penalty_follows_its_recursion(tmp_path: Path) -> None:
    tree = tree_of(data={"rows": 60, "regression": {"dimensions": 40, "noise": 0.3}}, ridge={"lam": 0.1})
    runs = np.array([looped(tree, "keep-0", 5, seed, tmp_path) for seed in range(60)])
    for generation in (0, 2, 5):
        value = predictions.predict_loop(tree, "error", "keep-0", generation)
        error = runs[:, generation].std(ddof=1) / math.sqrt(60)
        assert value == pytest.approx(runs[:, generation].mean(), abs=max(0.02 * value, 4 * error))


# --- cells ------------------------------------------------------------------------------------------------------------


def mixture(real_data: str = "fresh", lam: float = 1e-6, **regression_options: Any) -> dict[str, Any]:
    options = {"dimensions": 100, "noise": 0.5, **regression_options}
    grid = {"rows": [1], "share": [0.0], "real_data": real_data}
    return tree_of(data={"regression": options}, ridge={"lam": lam}, mixture=grid)


def slow_cell(tree: dict[str, Any], cell: Cell, seed: int) -> float:
    """The same cell with all its rows in memory and scikit-learn's ridge with weights."""
    setting = Setting.of(Experiment.model_validate(tree).data.regression)
    w1, w = true_weights(setting, seed), labeller(setting, cell.quality or 0.0, seed)
    lam = tree["ridge"]["lam"] if cell.lam is None else cell.lam
    for turn in range(1, (cell.iterations or 1) + 1):
        first = 1 if tree["mixture"]["real_data"] == "fixed" else turn
        parts = []
        for (kind, number), rows, labels, noise in (
            ((memory.REAL, first), cell.real, w1, setting.noise),
            ((memory.SYNTHETIC, turn), cell.synthetic, w, setting.noise_synthetic),
        ):
            drawn = memory.Stream(setting.d + 1, seed, (kind, number)).rows(rows)
            x = drawn[:, :-1] * np.sqrt(setting.eigenvalues)
            parts.append((x, x @ labels + noise * drawn[:, -1]))
        x, y = (np.concatenate(both) for both in zip(*parts, strict=True))
        a = np.ones(cell.rows)
        if cell.weight is not None:
            a = np.repeat([(1 - cell.weight) / (1 - cell.share), cell.weight / cell.share], [cell.real, cell.synthetic])
        model = Reference(alpha=cell.rows * lam, fit_intercept=False, solver="svd")
        w = model.fit(x, y, sample_weight=a).coef_
    return setting.norm_squared(w - w1)


@pytest.mark.parametrize(
    "cell",
    [
        Cell(40, 20, 0.5),
        Cell(10, 8, 0.5, lam=0.1),
        Cell(30, 30, None),
        Cell(0, 60, 1.0),
        Cell(4500, 10, 1.0, lam=0.01),
        Cell(60, 40, 0.5, weight=0.1),
        Cell(60, 40, 0.5, weight=0.0),
        Cell(15, 5, 0.5, weight=0.1, lam=0.05),
        Cell(60, 40, 2.0, iterations=3),
    ],
    ids=lambda cell: cell.label,
)
@pytest.mark.parametrize("real_data", ["fresh", "fixed"])
def test_cells_from_sums_are_those_from_rows(cell: Cell, real_data: str) -> None:
    tree = mixture(real_data, lam=1e-3, dimensions=25, spectrum="pow", noise_synthetic=0.2)
    found = made(tree).cell(cell, seed=5, scratch=HERE)
    assert found["error"] == pytest.approx(slow_cell(tree, cell, 5), rel=1e-7)
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())
    assert found["test_loss"] == pytest.approx(found["error"] + 0.25)


def test_what_a_cell_gives_does_not_depend_on_the_cells_before_it() -> None:
    tree, grid = mixture(dimensions=12), [Cell(9000, 500, 0.5), Cell(4096, 4097, 0.5), Cell(30, 10, 0.5, iterations=4)]
    forth = [made(tree).cell(cell, seed=1, scratch=HERE) for cell in grid]
    for cache in (memory.sums, memory._stream, memory.rounds):
        cache.cache_clear()
    back = [made(tree).cell(cell, seed=1, scratch=HERE) for cell in reversed(grid)]
    assert forth == back[::-1], "to the last bit"


def test_larger_cells_begin_with_the_rows_of_smaller_ones() -> None:
    short, long = (memory.Stream(7, 3, (4, 1)) for _ in range(2))
    assert np.array_equal(long.rows(9000)[:5000], short.rows(5000))
    np.testing.assert_allclose(long.products(9000), long.rows(9000).T @ long.rows(9000), rtol=1e-12, atol=1e-9)
    assert np.array_equal(long.products(5000), short.products(5000))
    assert not np.array_equal(memory.Stream(7, 4, (4, 1)).rows(5), short.rows(5))
    assert not np.array_equal(memory.Stream(7, 3, (5, 1)).rows(5), short.rows(5))


def test_one_round_of_iterative_mixing_is_the_static_mixture() -> None:
    tree = mixture(dimensions=15)
    static, once = (
        made(tree).cell(cell, seed=2, scratch=HERE) for cell in (Cell(40, 40, 1.0), Cell(40, 40, 1.0, iterations=1))
    )
    assert static == once
    assert static["labeller_error"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("cell", "spectrum"),
    [
        (Cell(540, 60, 0.5), "iso"),
        (Cell(300, 300, 0.5), "iso"),
        (Cell(300, 300, 0.5, lam=0.1), "iso"),
        (Cell(30, 30, 0.5), "iso"),
        (Cell(300, 300, 0.5, lam=0.01), "pow"),
        (Cell(30, 30, 0.5, lam=0.01), "pow"),
        (Cell(60, 540, 1.0, weight=0.5), "iso"),
        (Cell(500, 500, 0.5, weight=0.075), "iso"),
        (Cell(75, 75, 0.5, weight=0.2, lam=0.1), "iso"),
        (Cell(500, 500, 2.0, iterations=4), "iso"),
        (Cell(200, 800, 2.0, iterations=8), "iso"),
        (Cell(250, 250, 1.0, iterations=8, lam=0.01), "pow"),
    ],
    ids=lambda value: value.label if isinstance(value, Cell) else value,
)
def test_cells_are_as_theory_says(cell: Cell, spectrum: str) -> None:
    as_theory(mixture(spectrum=spectrum, noise=0.2 if spectrum == "pow" else 0.5), cell, 30)


def test_strong_collapse() -> None:
    """Theory (Plateaus): with a share of 1% the error stops at p2² c2; with perfect labels, or none, it does not."""
    tree = mixture(noise=0.1, dimensions=50)
    for cell in (Cell(19_800, 200, 1.0), Cell(20_000, 0, 1.0), Cell(10_000, 10_000, 0.0), Cell(10_000, 10_000, 0.5)):
        as_theory(tree, cell, 10)
    floor = errors(tree, Cell(19_800, 200, 1.0), 10).mean()
    assert floor > 1e-4
    assert errors(tree, Cell(20_000, 0, 1.0), 10).mean() < 0.4 * floor


def test_the_best_weight_of_synthetic_rows_goes_to_zero_as_rows_grow() -> None:
    """Theory (Weighted mixing): a fixed weight keeps its plateau, and synthetic rows help ever less."""
    tree, weights = mixture(), (0.0, 0.01, 0.03, 0.075, 0.2, 0.5)
    best, gains = [], []
    for n in (300, 1000, 3000):
        means = errors_of(tree, [Cell(n // 2, n // 2, 0.5, weight=weight) for weight in weights], 20).mean(axis=1)
        best.append(weights[int(np.argmin(means))])
        gains.append(min(means) / means[0])
    assert best == [0.2, 0.075, 0.03]
    assert gains[0] < gains[1] < gains[2] < 1
    assert means[-1] == pytest.approx(0.125, rel=0.15), "unweighted: p2² c2"


def test_what_iterative_mixing_does_and_does_not() -> None:
    """Theory (Iterative mixing), d = 20, s = .5, c2_0 = 2: both protocols, statements that hold and ones that do not."""
    fresh, fixed = (mixture(real_data, lam=0.0, dimensions=20) for real_data in ("fresh", "fixed"))

    def mean(tree: dict[str, Any], real: int, synthetic: int, rounds: int) -> float:
        return float(errors(tree, Cell(real, synthetic, 2.0, iterations=rounds), 20).mean())

    sizes = (320, 5_000)
    static, log_rounds, enough, clean = ([] for _ in range(4))
    for n in sizes:
        for share, found in ((0.5, log_rounds), (0.8, enough)):
            found.append(mean(fresh, round(n * (1 - share)), round(n * share), math.ceil(math.log(n / 20))))
        static.append(mean(fresh, n // 2, n // 2, 1))
        clean.append(mean(fresh, n, 0, 1))

    def slope(found: list[float]) -> float:
        return (math.log(found[1]) - math.log(found[0])) / (math.log(sizes[1]) - math.log(sizes[0]))

    assert slope(static) > -0.1, "static mixing has a plateau"
    assert slope(clean) < -0.9
    assert slope(log_rounds) < -0.9, "ln(n/d) rounds bring the clean rate back for p2 = 0.5"
    assert slope(enough) > -0.8, "but not for p2 = 0.8, above e^(-1/2)"
    settled = mean(fresh, 2500, 2500, 16)
    assert clean[1] < settled < 1.6 * clean[1], "1/(1 - p2²) = 1.33 times n real rows"
    assert settled < mean(fresh, 2500, 0, 1), "better than one fit to a round's real rows: it has seen more of them"
    alone = mean(fixed, 2500, 0, 1)
    assert mean(fixed, 2500, 2500, 16) > alone, "with fixed real rows never better than these alone"


def test_fixed_real_rows_come_to_their_own_limit() -> None:
    tree = mixture("fixed", lam=0.0, dimensions=20)
    cell = Cell(500, 500, 2.0, iterations=40)
    as_theory(tree, cell, 30)
    assert predictions.predict_cell(tree, Cell(500, 500, 2.0, iterations=3).record()) is None, "not there yet"


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "--set data.rows=500"),
        ({"data": {"source": "blobs"}}, "it takes regression"),
        (
            {"data": {"rows": 5, "regression": {"dimensions": 10_000, "spectrum": "pow", "beta": 4.0}}},
            "lower beta to 3",
        ),
        ({"mixture": {"rows": [10], "share": [0.0, 0.5], "weight": [0.5]}}, "leave out shares of 0 and 1"),
        ({"mixture": {"rows": [10], "share": [1.0], "weight": [0.0]}}, "has 0 and 10"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Ridge.resolve(Experiment.model_validate(tree_of(**options)))
    assert "\n" not in str(caught.value)


def test_resolving_counts_parameters_and_costs() -> None:
    loop, grid = Experiment.model_validate(loop_tree()), Experiment.model_validate(mixture())
    found = Ridge.resolve(loop)
    assert found.parameters == 20
    assert found.row_bytes == 8 * 21 + 4
    assert found.row_flops > 0
    assert Ridge.resolve(grid).parameters == 100
    assert Ridge.drawn(loop)


def test_flipped_labels_are_the_others_with_another_sign(tmp_path: Path) -> None:
    """As many as were asked for; a row's depends on its stream, not on its neighbours."""
    plain, wrong = (made(loop_tree(**more), tmp_path) for more in ({}, {"flipped": 0.3}))
    rows = 20_000
    prompts = {"x": np.zeros((rows, plain.setting.d)), "stream": np.arange(rows), "extra": np.zeros(rows, bool)}
    for learner in (plain, wrong):
        learner.restore({"w": np.arange(1.0, plain.setting.d + 1)})
    all_of_them = Dataset(prompts, np.zeros(rows, np.int32))
    right, some = (learner.sample(all_of_them, seed=5, scratch=HERE).rows.arrays for learner in (plain, wrong))
    np.testing.assert_array_equal(right["x"], some["x"])
    np.testing.assert_array_equal(np.abs(right["y"]), np.abs(some["y"]))
    assert float(np.mean(right["y"] != some["y"])) == pytest.approx(0.3, abs=0.015)
    few = wrong.sample(all_of_them.take(np.arange(100, 200)), seed=5, scratch=HERE).rows
    np.testing.assert_array_equal(few.arrays["y"], some["y"][100:200])
