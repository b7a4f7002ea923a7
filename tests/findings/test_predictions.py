"""Which closed form belongs to which experiment, and where there is none."""

import json
import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from collapse_cli import config, families, theory
from collapse_cli.config import presets, read_toml
from collapse_cli.config.cell import Cell, cells
from collapse_cli.config.reading import variant_experiments
from collapse_cli.findings import predictions
from collapse_cli.findings.expectations import at_cell, planned_cells, theory_at, theory_of
from collapse_cli.findings.predictions import predict_cell, predict_loop
from collapse_cli.learners import learner_class
from collapse_cli.where import Arm

ISO = theory.spectrum("iso", 50)
PRESETS = ("strong-ridge", "strong-projections", "strong-weighted", "strong-iterative", "generational-regression")


def tree_of(learner: str, **options: Any) -> dict[str, Any]:
    return config.load({"learner": learner, **options}, "test").model_dump(mode="json")


def ridge(lam: float = 0.0, real_data: str = "fresh", **options: Any) -> dict[str, Any]:
    section = {"dimensions": 50, "noise": 0.5, **options}
    data = {"source": "regression", "rows": 200, "regression": section}
    mixture = {"rows": [1], "share": [0.0], "real_data": real_data}
    return tree_of("ridge", kind="mixture", data=data, ridge={"lam": lam}, mixture=mixture)


def gaussian(rows: int = 100, unbiased: bool = False, **blobs: Any) -> dict[str, Any]:
    data = {"source": "blobs", "rows": rows, "blobs": {"dimensions": 1, **blobs}}
    return tree_of("gaussian", data=data, gaussian={"unbiased": unbiased})


def test_cells_of_ridge_are_asked_of_their_own_theorem() -> None:
    tree = ridge(1e-6, noise_synthetic=0.2)
    given: dict[str, Any] = {"eigenvalues": ISO, "c2": 0.5, "noise": 0.5, "noise_synthetic": 0.2}
    cases = {
        Cell(180, 20, 0.5): theory.ridge(**given, n=200, p2=0.1, lam=1e-6).risk,
        Cell(180, 20, 0.5, lam=0.1): theory.ridge(**given, n=200, p2=0.1, lam=0.1).risk,
        Cell(100, 100, 0.5, weight=0.2): theory.weighted(**given, n=200, p2=0.5, lam=1e-6, alpha=0.2).risk,
        Cell(100, 100, 0.5, iterations=4): theory.iterative_fresh(**given, n=200, p2=0.5, lam=1e-6, iterations=4).risk,
    }
    for cell, value in cases.items():
        assert predict_cell(tree, cell.record()) == pytest.approx(value, rel=1e-12)
    assert predict_cell(tree, Cell(200, 0).record()) == pytest.approx(0.25 * 50 / 150, rel=1e-3)


def test_a_cell_without_theory_has_none() -> None:
    tree = ridge()
    assert predict_cell(tree, Cell(50, 0).record()) is None, "infinite at n = d without a penalty"
    assert predict_cell(tree, Cell(90, 10, 0.5, weight=0.1, iterations=3).record()) is None
    record = Cell(90, 10).record()
    for learner in ("mlp", "lm"):
        assert predict_cell({**tree, "learner": learner}, record) is None
    assert predict_cell({**tree, "data": {**tree["data"], "source": "digits"}}, record) is None
    projections = {**tree, "learner": "projections"}
    assert predict_cell(projections, Cell(90, 10, 0.5).record()) is not None
    assert predict_cell(projections, Cell(90, 10, 0.5, iterations=2).record()) is None


def test_fixed_real_rows_are_known_in_the_first_round_and_after_many() -> None:
    fixed, fresh = ridge(real_data="fixed"), ridge()

    def at(tree: dict[str, Any], rounds: int) -> float | None:
        return predict_cell(tree, Cell(200, 200, 1.0, iterations=rounds).record())

    assert at(fixed, 1) == at(fresh, 1)
    assert at(fixed, 2) is None
    assert at(fixed, 1000) == pytest.approx(theory.iterative_fixed(d=50, n=400, p2=0.5, noise=0.5).risk)
    assert predict_cell(ridge(0.1, "fixed"), Cell(200, 200, 1.0, iterations=1000).record()) is None


def test_the_loop_of_regression() -> None:
    tree = ridge(noise_synthetic=1.0)
    one = 50 / (200 - 51)
    for g in (0, 1, 7):
        assert predict_loop(tree, "error", "keep-0", g) == pytest.approx(one * (0.25 + g))
    same = ridge(inputs="same")
    sums = 0.25 * one * np.cumsum(1 / np.arange(1, 6) ** 2)
    found = [predict_loop(same, "error", "accumulate", generation) for generation in range(5)]
    assert found == pytest.approx(sums.tolist())
    fresh = predict_loop(ridge(), "error", "accumulate", 1)
    assert fresh == pytest.approx(0.25 * (one + 50 / (2 * (400 - 51))))
    few = {**ridge(), "data": {**ridge()["data"], "rows": 30}}
    gone = predict_loop(few, "error", "keep-0", 400)
    assert gone is not None
    assert gone > 0.99, "with fewer rows than dimensions nothing of the truth is left"


def test_a_loop_without_theory_has_none() -> None:
    tree = ridge()
    for policy in ("keep-10", "fresh-50", "accumulate-subsample"):
        assert predict_loop(tree, "error", policy, 1) is None
    assert predict_loop(tree, "test_loss", "keep-0", 1) is None
    assert predict_loop(tree, "error", "keep-0.0", 1) == predict_loop(tree, "error", "keep-0", 1) is not None
    assert predict_loop({**tree, "learner": "projections"}, "error", "keep-0", 1) is None
    assert predict_loop({**tree, "mix": {"size": "growing"}}, "error", "keep-0", 1) is None
    assert predict_loop({**tree, "loop": {**tree["loop"], "init": "previous"}}, "error", "keep-0", 1) is None
    assert predict_loop(ridge(0.3, inputs="same"), "error", "keep-0", 1) is None
    assert predict_loop(ridge(0.3), "error", "accumulate", 1) is None
    assert predict_loop(ridge(0.3, noise_synthetic=1.0), "error", "keep-0", 1) is None
    assert predict_loop(tree_of("lm"), "perplexity", "keep-0", 1) is None


@pytest.mark.parametrize("unbiased", [False, True])
def test_the_loop_of_a_gaussian(unbiased: bool) -> None:
    tree = gaussian(10, unbiased)
    found = {what: predict_loop(tree, what, "keep-0", 9) for what in predictions.GAUSSIAN}
    expected = theory.gaussian(n=10, refits=10, unbiased=unbiased)
    assert found == {
        "variance": expected.variance,
        "mean_shift_squared": expected.mean_error,
        "std": expected.std,
        "log_variance": expected.log_variance,
        "w2_squared": expected.wasserstein,
        "log_det": expected.log_determinant,
    }
    assert found["variance"] == pytest.approx(1 if unbiased else 0.9**10)
    assert predict_loop(tree, "std", "accumulate", 3) is None
    kept = predict_loop(tree, "variance", "accumulate", 3)
    assert kept == theory.gaussian(n=10, refits=4, unbiased=unbiased, policy="accumulate").variance


def test_of_gaussians_in_more_dimensions_and_of_several_less_is_known() -> None:
    tree = gaussian(20, True, dimensions=5)
    assert predict_loop(tree, "mean_shift_squared", "keep-0", 9) == pytest.approx(2.5)
    assert predict_loop(tree, "log_det", "keep-0", 9) == pytest.approx(-8.756, abs=1e-3)
    assert predict_loop(tree, "w2_squared", "keep-0", 9) is None
    assert predict_loop(gaussian(centers=3, dimensions=2), "variance", "keep-0", 1) is None
    assert predict_loop(tree, "test_loss", "keep-0", 1) is None


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_expect_what_theory_says_of_cells_they_have(name: str) -> None:
    tree = read_toml(presets()[name])
    variants = variant_experiments(tree, name) or {"": config.load(tree, name)}
    for experiment in variants.values():
        plain = json.loads(experiment.model_dump_json())
        learner_class(experiment.learner).resolve(experiment)
        assert experiment.expect
        if experiment.kind == "mixture":
            assert len({cell.label for cell in cells(experiment.mixture)}) == len(cells(experiment.mixture))
        for entry in experiment.expect:
            assert entry.value is None, "theory's value is looked up"
            if experiment.kind == "mixture":
                records = [one for one in planned_cells(plain) if at_cell(entry.cell, one)]
                assert len(records) == 1, f"{entry.cell} names {len(records)} cells"
                value = predict_cell(plain, records[0])
            else:
                assert entry.generation <= experiment.loop.generations
                value = predict_loop(plain, entry.what, entry.policy, entry.generation)
            assert value is not None, f"no theory for {entry}"
            assert math.isfinite(value)


def test_what_theory_knows_of_the_law_of_a_place() -> None:
    """Thresholds and plateaus of error against rows; with weight 0 real rows alone count, and nothing stops them."""

    def of(name: str, variant: str = "", **where: float) -> tuple[float | None, float | None]:
        tree = read_toml(presets()[name])
        experiment = variant_experiments(tree, name)[variant] if variant else config.load(tree, name)
        return predictions.known_law(experiment.model_dump(mode="json"), where)

    assert of("strong-weighted", share=0.5, quality=0.5, weight=0.0) == (202, 0)
    assert of("strong-weighted", share=0.5, quality=0.5, weight=0.2) == (None, pytest.approx(0.02, rel=1e-4))
    assert of("strong-weighted", share=0.5, quality=0.5, weight=0.5) == (101, pytest.approx(0.125, rel=1e-4))
    assert of("strong-ridge", share=0.1, quality=0.5) == (101, pytest.approx(0.005, rel=1e-4))
    assert of("strong-ridge", share=0.5, quality=0.0) == (101, 0)
    threshold, plateau = of("strong-projections", "much-data", share=0.5, quality=2.0, size=50)
    assert (threshold, plateau) == (51, pytest.approx(0.5 + 0.25 * 2 * 0.5, rel=1e-3))
    assert of("strong-mlp", "rows", share=0.1) == (None, None)


def test_a_new_family_brings_its_closed_form_in_its_description_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No module of findings has to know of it."""
    new = replace(families.of("gaussian"), name="newer", theory=families.Theory(loop="support.new_family:halves"))
    monkeypatch.setitem(cast(dict[str, families.Description], families.FAMILIES), "newer", new)
    tree = {"learner": "newer"}
    assert [theory_at(tree, "size", Arm("keep-0"), g) for g in range(3)] == [1.0, 0.5, 0.25]
    assert theory_at(tree, "size", Arm("accumulate"), 1) is None
    assert theory_of(tree | {"kind": "mixture"}, {"rows": 10}) is None, "it names none for cells"


def test_gaussians_with_real_rows() -> None:
    """Policies that keep, renew or pool rows: means and variances; schedules too, and nothing of what they do not have."""
    tree = gaussian(40)
    for policy, real, kept in (("keep-25", 10, True), ("fresh-50", 20, False)):
        one = theory.mixed_mean(n=40, real=real, synthetic=40 - real, kept=kept, generations=7, variance="biased")
        assert predict_loop(tree, "variance", policy, 7) == one.variance
        assert predict_loop(tree, "mean_shift_squared", policy, 7) == one.mean_error
        assert predict_loop(gaussian(40, dimensions=3), "mean_shift_squared", policy, 7) == 3 * one.mean_error
        assert predict_loop(tree, "std", policy, 7) is None
    pooled = theory.subsampled_mean(n=40, generations=7, variance="unbiased")
    assert predict_loop(gaussian(40, True), "variance", "accumulate-subsample", 7) == pooled.variance
    schedule = [predict_loop(tree, "variance", "keep-50-25", g) for g in range(3)]
    assert schedule[:2] == [predict_loop(tree, "variance", "keep-50", g) for g in range(2)]
    assert schedule[2] != predict_loop(tree, "variance", "keep-50", 2)
    assert predict_loop(tree, "variance", "keep-rows-40", 5) == predict_loop(tree, "variance", "keep-100", 5)
    for other in ({"mix": {"size": "growing"}}, {"loop": {**tree["loop"], "init": "previous"}}):
        assert predict_loop({**tree, **other}, "variance", "keep-25", 7) is None
    assert predict_loop({**tree, "select": {"by": "surprise"}}, "variance", "keep-0", 7) is None


def test_gaussians_with_weights() -> None:
    tree = gaussian(40)
    tree["mix"]["weights"] = "3:1"
    loop: dict[str, Any] = {"n": 40, "real": 10, "synthetic": 30, "kept": True, "generations": 7, "variance": "biased"}
    assert predict_loop(tree, "variance", "keep-25", 7) == theory.mixed_mean(**loop, weight=0.5).variance
    assert predict_loop(tree, "variance", "keep-0", 7) == pytest.approx((1 - 1 / 40) ** 8), "one kind of rows alone"
    for policy in ("accumulate", "accumulate-subsample"):
        assert predict_loop(tree, "variance", policy, 7) is None
    tree["mix"]["weights"] = "golden"
    golden = theory.mixed_mean(**{**loop, "kept": False}, weight=theory.golden_weight(10, 30))
    assert predict_loop(tree, "mean_shift_squared", "fresh-25", 7) == pytest.approx(golden.mean_error, rel=1e-12)


def test_gaussians_whose_corpora_grow_or_have_another_size() -> None:
    tree = gaussian(40, True)
    plain = [predict_loop(tree, "variance", "accumulate", g) for g in range(5)]
    tree["mix"]["rows"] = 40
    assert [predict_loop(tree, "variance", "accumulate", g) for g in range(5)] == pytest.approx(plain), (
        "two derivations"
    )
    share, _ = theory.contaminated(share_synthetic=0.75, generations=6)
    fitted = [predict_loop(tree, "mean_shift_squared", "accumulate-fresh-25", g) for g in range(7)]
    assert fitted == pytest.approx([value / 40 for value in share.values], rel=0.03), "but that the variance is fitted"
    tree["mix"]["rows"] = 60
    kept = theory.mixed_mean(n=40, real=40, synthetic=20, kept=True, generations=3, variance="unbiased")
    assert predict_loop(tree, "variance", "keep-rows-40", 3) == kept.variance
    assert predict_loop(tree, "variance", "accumulate-subsample", 3) is None
    assert predict_loop(tree, "variance", "keep-0", 3) == pytest.approx(1)


def test_a_gaussian_with_a_truncated_loss() -> None:
    tree = gaussian(40)
    tree["gaussian"]["truncate"] = 0.5
    assert predict_loop(tree, "variance", "keep-0", 3) is None, "fits start from nothing that could judge rows"
    tree["loop"]["init"] = "previous"
    expected = theory.truncated_loss(threshold=0.5, n=40, generations=3).variance
    assert predict_loop(tree, "variance", "keep-0", 3) == expected
    assert predict_loop(tree, "variance", "keep-10", 3) is None
    assert predict_loop(tree, "std", "keep-0", 3) is None
