"""Measured against published: the verdict at its boundaries, cells that are found or not, entries that are damage."""

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.rows import cell_of, row_of, without

from collapse_cli.config import load
from collapse_cli.findings import expectations
from collapse_cli.findings.expectations import NO_PART, NO_THEORY, NOT_YET, judge, planned_cells, theory_trouble
from collapse_cli.records.row import Row
from collapse_cli.where import Arm


def loop_tree(*expect: dict[str, Any], learner: str = "gaussian", **loop: Any) -> dict[str, Any]:
    said = {"generations": 10, "policies": ["keep-0", "accumulate"], "seeds": [0, 1, 2], **loop}
    entries = [{"source": "a paper", **entry} for entry in expect]
    data = {"source": "blobs", "rows": 100}
    return load({"learner": learner, "loop": said, "data": data, "expect": entries}, "here").model_dump(mode="json")


def mixture_tree(*expect: dict[str, Any], **mixture: Any) -> dict[str, Any]:
    entries = [{"source": "a paper", **entry} for entry in expect]
    said = {"rows": [300, 1000], "share": [0.0, 0.1], **mixture}
    tree = {"kind": "mixture", "learner": "ridge", "mixture": said, "data": {"source": "regression"}, "expect": entries}
    return load(tree, "here").model_dump(mode="json")


def rows_of(values: dict[int, list[float]], policy: str = "keep-0", name: str = "variance") -> list[Row]:
    return [
        row_of(policy, seed, generation, **{name: value})
        for generation, found in values.items()
        for seed, value in enumerate(found)
    ]


def cell_rows(tree: dict[str, Any], error: Any, seeds: int = 3) -> list[Row]:
    return [
        cell_of(str(record), seed, **record, error=error(record, seed))
        for record in planned_cells(tree)
        for seed in range(seeds)
    ]


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Predictions of our own in place of those of theory."""
    module = ModuleType("predictions")
    module.predict_loop = lambda tree, what, policy, generation: 0.9**generation if what == "variance" else None  # type: ignore[attr-defined]
    module.predict_cell = lambda tree, record: 10.0 / record["rows"] + record["share"] ** 2  # type: ignore[attr-defined]
    module.known_law = lambda *_: (None, None)  # type: ignore[attr-defined]
    monkeypatch.setattr(expectations, "predictions", module)
    return module


def test_a_mean_is_held_against_a_published_value_by_the_relative_tolerance() -> None:
    rows = rows_of({0: [1.0, 1.0, 1.0], 10: [0.5, 0.5, 0.5]})
    for value, verdict in ((0.5, "inside"), (0.5 / 1.1, "inside"), (0.45, "outside"), (0.56, "outside")):
        (one,) = judge(rows, loop_tree({"what": "variance", "generation": 10, "value": value, "tolerance": 0.1}))
        assert (one.verdict, one.kind, one.value) == (verdict, "published", value)
        assert one.where == "keep-0, generation 10", "no policy named is the first"
        assert one.source == "a paper"


def test_chance_is_allowed_four_standard_errors_over_seeds() -> None:
    values = [0.9, 1.0, 1.1]
    error = float(stats.sem(values))
    for off, verdict in ((3.99, "inside"), (4.01, "outside")):
        tree = loop_tree({"what": "variance", "generation": 3, "value": 1.0 + off * error, "tolerance": 0.01})
        (one,) = judge(rows_of({0: [1.0] * 3, 3: values}), tree)
        assert one.verdict == verdict
        assert one.error == pytest.approx(error)
        assert one.limits == "± 1% or 4 standard errors"
        low, high = stats.t.interval(0.95, 2, np.mean(values), error)
        assert one.ours is not None
        assert (one.ours.low, one.ours.high) == pytest.approx((low, high))
    (one,) = judge(rows_of({0: [1.0] * 3, 3: values}), loop_tree({"what": "variance", "value": 1.0, "tolerance": 0.5}))
    assert one.limits == "± 50%"


def test_one_seed_of_many_trials_has_the_error_over_trials() -> None:
    rows = [row_of("keep-0", 0, 0, variance=0.9, variance_se=0.03)]
    (one,) = judge(rows, loop_tree({"what": "variance", "value": 1.0, "tolerance": 0.01}))
    assert one.verdict == "inside"
    assert one.error == 0.03
    assert one.ours is not None
    assert one.ours.high == pytest.approx(0.9 + 1.96 * 0.03, abs=1e-3)
    (one,) = judge([without(rows[0], "variance_se")], loop_tree({"what": "variance", "value": 1.0, "tolerance": 0.01}))
    assert (one.verdict, one.error) == ("outside", None)


def test_perplexity_is_a_mean_of_logs() -> None:
    rows = rows_of({0: [10.0, 40.0]}, name="perplexity")
    tree = loop_tree({"what": "perplexity", "value": 20.0, "tolerance": 1e-6}, learner="lm")
    (one,) = judge(rows, tree)
    assert one.ours is not None
    assert one.ours.mean == pytest.approx(20.0)
    assert one.error == pytest.approx(20.0 * stats.sem([math.log(10), math.log(40)]))


def test_an_entry_without_a_value_takes_that_of_theory(predictions: ModuleType) -> None:
    rows = rows_of({0: [1.0] * 3, 2: [0.81] * 3, 4: [0.5] * 3}) + rows_of({0: [1.0] * 3}, name="std")
    entries = [{"what": "variance", "generation": g, "tolerance": 0.01} for g in (2, 4)]
    found = judge(rows, loop_tree(*entries, {"what": "std"}))
    assert [(one.kind, one.verdict) for one in found] == [
        ("theory", "inside"),
        ("theory", "outside"),
        ("theory", "not run"),
    ]
    assert [one.value for one in found] == [pytest.approx(0.81), pytest.approx(0.9**4), None]
    assert found[2].why == NO_THEORY
    del predictions


def test_a_configuration_that_theory_cannot_read_is_not_one_without_theory() -> None:
    """An old or damaged tree was "no theory says it" before, as if no formula were known."""
    tree = loop_tree({"what": "variance"})
    whole = load({"learner": "gaussian", "data": {"source": "blobs"}}, "test").model_dump(mode="json")
    for section, said in (("mix", "it has no 'mix'"), ("data", "it has no 'data'")):
        damaged = {name: value for name, value in whole.items() if name != section} | {"expect": tree["expect"]}
        (one,) = judge(rows_of({0: [1.0]}), damaged)
        assert (one.verdict, one.why) == ("not run", f"theory cannot read this configuration: {said}")
        assert theory_trouble(damaged) == one.why
    assert theory_trouble(whole) == ""
    (one,) = judge(rows_of({0: [1.0]}), {**damaged, "learner": "lm", "expect": [{"what": "variance", "source": "s"}]})
    assert one.why == NO_THEORY, "language models have no formula, whatever the tree"


def test_theory_that_fails_or_is_asked_for_the_absurd_says_so(predictions: ModuleType) -> None:
    predictions.predict_loop = None  # type: ignore[attr-defined]
    tree = loop_tree({"what": "variance"})
    (one,) = judge(rows_of({0: [1.0]}), tree)
    assert (one.value, one.verdict) == (None, "not run")
    assert one.why.startswith("theory cannot read this configuration: ")
    asked: list[Any] = []
    predictions.predict_loop = lambda *arguments: asked.append(arguments) or math.nan  # type: ignore[attr-defined]
    assert expectations.theory_at(tree, "variance", Arm("keep-0"), 3) is None
    assert len(asked) == 1
    tree["data"]["blobs"]["dimensions"] = 10**12
    assert expectations.theory_at(tree, "variance", Arm("keep-0"), 3) is None
    assert expectations.theory_at(loop_tree(), "variance", Arm("keep-0"), 10**12) is None
    assert len(asked) == 1


def test_what_is_not_run_says_whether_it_will_be() -> None:
    rows = rows_of({0: [1.0] * 3, 1: [0.9] * 3})
    entries = [
        {"what": "variance", "generation": 10, "value": 1.0},
        {"what": "variance", "generation": 11, "value": 1.0},
        {"what": "variance", "policy": "keep-50", "value": 1.0},
        {"what": "accuracy", "generation": 1, "value": 1.0},
        {"what": "variance", "policy": "accumulate", "generation": 10, "value": 1.0},
    ]
    found = judge(rows, loop_tree(*entries))
    assert {one.verdict for one in found} == {"not run"}
    assert [one.why for one in found] == [NOT_YET, NO_PART, NO_PART, NO_PART, NOT_YET]
    assert {one.ours for one in found} == {None}


def test_seeds_that_lag_behind_are_not_averaged_with_the_others() -> None:
    rows = rows_of({0: [1.0, 1.0, 3.0], 1: [1.0, 1.0, 3.0], 2: [1.0, 1.0]})
    (one,) = judge(rows, loop_tree({"what": "variance", "generation": 1, "value": 1.0}))
    assert one.ours is not None
    assert (one.ours.mean, one.ours.n) == (1.0, 2)


def test_a_cell_is_found_by_the_fields_that_are_named(predictions: ModuleType) -> None:
    def error(record: dict[str, Any], seed: int) -> float:
        return 10.0 / float(record["rows"]) + 0.01 * record["share"] * 10 + 1e-6 * seed

    entries = [
        {"what": "error", "cell": {"rows": 1000, "share": 0.1}, "value": 0.02, "tolerance": 0.001},
        {"what": "error", "cell": {"rows": 1000, "share": 0}, "tolerance": 0.001},
        {"what": "error", "cell": {"share": 0.1}, "value": 1.0},
        {"what": "error", "cell": {"rows": 2000, "share": 0.1}, "value": 1.0},
        {"what": "accuracy", "cell": {"rows": 1000, "share": 0.1}},
    ]
    tree = mixture_tree(*entries)
    found = judge(cell_rows(tree, error), tree)
    assert [one.verdict for one in found] == ["inside", "inside", "not run", "not run", "not run"]
    assert found[0].where == "n=1000, p2=0.1"
    assert found[1].value == pytest.approx(0.01)
    assert found[1].kind == "theory"
    assert "2 cells" in found[2].why
    assert found[3].why == NO_PART
    assert found[4].value is None, "theory is of the headline measure"
    del predictions


def test_a_share_is_met_where_it_is_rounded_to_whole_rows() -> None:
    tree = mixture_tree(
        {"what": "error", "cell": {"rows": 300, "share": 0.011}, "value": 1.0}, share=[0.011, 0.1], rows=[300]
    )
    assert [record["share"] for record in planned_cells(tree)] == [0.01, 0.1]
    (one,) = judge(cell_rows(tree, lambda record, seed: 1.0), tree)
    assert one.verdict == "inside"


def test_a_cell_that_is_planned_is_awaited_and_theory_is_shown(predictions: ModuleType) -> None:
    tree = mixture_tree({"what": "error", "cell": {"rows": 1000, "share": 0.1}})
    (one,) = judge([], tree)
    assert (one.verdict, one.why) == ("not run", NOT_YET)
    assert one.value == pytest.approx(0.02)
    del predictions


@pytest.mark.parametrize(
    "expect",
    [None, {}, "all", [1, None, [], "x"], [{"what": 3}], [{"what": "x", "tolerance": "much"}], [{"what": "x", "value": []}],
     [{"what": "x", "generation": "two"}], [{"what": "x", "policy": 3}], [{"what": "x", "tolerance": -1.0}], [{"what": ""}]],
)  # fmt: skip
def test_entries_that_are_damage_are_left_out(expect: object) -> None:
    assert judge(rows_of({0: [1.0]}), {**loop_tree(), "expect": expect}) == []
    judge(rows_of({0: [1.0]}), {"expect": expect, "kind": "mixture", "mixture": []})


@pytest.mark.parametrize("cell", [None, [], "x", {"rows": "many"}, {"share": math.inf}, {3: 3}, {"rows": 10**400}])
def test_a_cell_that_is_damage_matches_nothing_or_all(cell: object) -> None:
    tree = {**mixture_tree(), "expect": [{"what": "error", "value": 1.0, "cell": cell, "source": "s"}]}
    (one,) = judge(cell_rows(tree, lambda record, seed: 1.0), tree)
    assert one.verdict == "not run"


@pytest.mark.parametrize(
    "section",
    [None, [], {"rows": ["many"], "share": [0.1]}, {"rows": list(range(1000)), "share": [0.001] * 1000},
     {"rows": [10**300], "share": [0.5]}, {"real_rows": [5], "share": [1.0], "rows": []}],
)  # fmt: skip
def test_a_grid_that_is_damage_has_no_cells(section: object) -> None:
    assert planned_cells({"mixture": section}) == []


def test_many_entries_and_many_rows_are_no_matter() -> None:
    tree = loop_tree() | {"expect": [{"what": "variance", "value": 1.0, "source": "s"}] * 2000}
    assert len(judge(rows_of({g: [1.0] * 3 for g in range(3)}), tree)) == expectations.MOST


def test_a_factor_and_an_absolute_room_stand_in_place_of_the_tolerance() -> None:
    """A tolerance of 300% let 0 pass for a spread of 0.01, and "-0.4 ± 250%" was a decade."""

    def said(ours: float, **entry: float) -> tuple[str, str]:
        (one,) = judge(rows_of({0: [ours]}), loop_tree({"what": "variance", "source": "s", **entry}))
        return one.verdict, one.limits

    assert said(0.0, value=0.01, tolerance=3.0)[0] == "inside", "the old row could not fail below"
    assert said(0.0, value=0.01, factor=3.2) == ("outside", "× or ÷ 3.2")
    assert [said(x, value=0.01, factor=3.2)[0] for x in (0.0031, 0.0033, 0.031, 0.033)] == [
        "outside", "inside", "inside", "outside",
    ]  # fmt: skip
    assert said(-1.3, value=-0.4, within=1.0) == ("inside", "± 1")
    assert said(-1.5, value=-0.4, within=1.0)[0] == "outside"
    for damaged in ({"factor": 0.5}, {"within": -1.0}, {"factor": "much"}):
        entry = {"what": "variance", "value": 1.0, "source": "s", **damaged}
        assert judge(rows_of({0: [1.0]}), {**loop_tree(), "expect": [entry]}) == []
