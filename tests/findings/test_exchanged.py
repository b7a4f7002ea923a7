"""Closed forms beside runs of several lineages: whole runs of learners of numbers, held against them within their standard errors."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.computed import rows, run

from collapse_cli.config import load, merge
from collapse_cli.findings.expectations import theory_at
from collapse_cli.where import Arm

MEANS = ("variance", "mean_shift_squared", "distance_to_others", "mixture_variance")
GAUSSIAN: dict[str, Any] = {
    "learner": "gaussian",
    "gaussian": {"trials": 600},
    "loop": {"generations": 4, "seeds": [0], "policies": ["keep-0", "keep-50"]},
    "data": {"source": "blobs", "rows": 72, "eval_rows": 5, "blobs": {"dimensions": 1}},
    "pool": {"lineages": 3, "real": "segments"},
}
SHIFTED = {
    "pool": {"lineages": 0, "real": "common", "rule": "all"},
    "gaussian": {"unbiased": True},
    "data": {"reserve": 160, "blobs": {"dimensions": 2, "spread": 2.0}},
    "lineages": {"a": {"data": {"segment": "1/2"}}, "b": {"data": {"segment": "2/2", "blobs": {"shift": 2.0}}}},
    "loop": {"policies": ["fresh-50", "keep-rows-6"]},
}
RIDGE: dict[str, Any] = {
    "learner": "ridge",
    "loop": {"generations": 3, "seeds": list(range(12)), "policies": ["keep-50"]},
    "mix": {"rows": 1200},
    "pool": {"rule": "all"},
    "lineages": {"a": {"data": {"segment": "1/2"}}, "b": {"data": {"segment": "2/2", "regression": {"shift": 0.5}}}},
    "data": {"source": "regression", "rows": 1200, "eval_rows": 5, "regression": {"dimensions": 3}},
}


def scores(tree: dict[str, Any], fields: tuple[str, ...], root: Path) -> list[float]:
    """Of every field, lineage, policy and generation: what was measured less the closed form, in standard errors."""
    config = load(tree, "a test")
    measured: dict[tuple[Arm, int, str], list[tuple[float, float]]] = {}
    for row in rows(*run(config, root)):
        for name in fields:
            value, error = row.measure(name), row.measure(f"{name}_se") or math.nan
            assert value is not None
            measured.setdefault((row.where.arm, row.where.generation, name), []).append((value, error))
    found = []
    for (arm, generation, name), several in measured.items():
        known = theory_at(config.model_dump(mode="json"), name, arm, generation)
        assert known is not None, (arm, generation, name)
        values = np.array([value for value, _ in several])
        error = several[0][1] if len(values) == 1 else values.std(ddof=1) / math.sqrt(len(values))
        off = float(values.mean()) - known
        found.append(0.0 if abs(off) < 1e-12 else off / float(error))
    return found


CASES = [
    *(({"pool": {"rule": rule}}, rule) for rule in ("own", "all", "others", "segments")),
    (SHIFTED, "of two truths"),
    ({"pool": {"real": "common", "rule": "own"}}, "of the same real rows"),
    (
        merge(
            SHIFTED,
            {
                "pool": {"public_rows": 20, "weights": "3:1:4"},
                "mix": {"rows": 72},
                "loop": {"policies": ["keep-50"]},
            },
        ),
        "with public rows and shares of the loss",
    ),
    ({"pool": {"public_rows": 10, "rule": "segments"}, "gaussian": {"unbiased": True}}, "with public rows, all alike"),
]


@pytest.mark.parametrize(("changed", "name"), CASES, ids=[name for _, name in CASES])
def test_lineages_of_gaussians_are_where_the_closed_form_says(
    changed: dict[str, Any], name: str, tmp_path: Path
) -> None:
    """Exact: scores are those of a normal variable, so that none is beyond 4.5 and their mean square is near 1."""
    found = scores(merge(GAUSSIAN, changed), MEANS, tmp_path / "store")
    assert max(map(abs, found)) < 4.5
    assert 0.3 < float(np.mean(np.square(found))) < 2.2  # they hang together


def test_lineages_of_least_squares_are_near_the_closed_form(tmp_path: Path) -> None:
    found = scores(RIDGE, ("error", "distance_to_others"), tmp_path / "store")
    assert max(map(abs, found)) < 4


NONE: list[tuple[dict[str, Any], str]] = [
    ({"loop": {"policies": ["accumulate"]}}, "a pool that grows"),
    ({"loop": {"policies": ["keep-50-0"]}}, "a schedule"),
    ({"loop": {"init": "previous"}, "gaussian": {"truncate": 0.5}}, "a truncated loss"),
    ({"data": {"blobs": {"centers": 2}}}, "two blobs"),
    ({"mix": {"rows": 25}, "pool": {"rule": "all"}}, "rows that cannot be shared out evenly"),
    (
        {"pool": {"real": "common", "lineages": 0}, "lineages": {"a": {}, "b": {"data": {"segment": "1/2"}}}},
        "parts that overlap",
    ),
    (
        {"pool": {"real": "common", "lineages": 0}, "lineages": {"a": {}, "b": {"data": {"blobs": {"shift": 1.0}}}}},
        "the same noise of two truths",
    ),
    (
        {"pool": {"real": "common", "lineages": 0}, "lineages": {"a": {}, "b": {"gaussian": {"unbiased": True}}}},
        "two ways to fit",
    ),
]


@pytest.mark.parametrize(("changed", "why"), NONE, ids=[why for _, why in NONE])
def test_nothing_is_said_where_no_formula_is_known(changed: dict[str, Any], why: str) -> None:
    tree = load(merge(merge(GAUSSIAN, {"loop": {"policies": ["keep-50"]}}), changed), "a test").model_dump(mode="json")
    names = tree["lineages"] or {"model-1": {}}
    for name in names:
        assert theory_at(tree, "distance_to_others", Arm(tree["loop"]["policies"][0], name), 2) is None


def test_least_squares_of_few_rows_and_other_lineages_are_not_predicted() -> None:
    tree = load(RIDGE, "a test").model_dump(mode="json")
    assert theory_at(tree, "error", Arm("keep-50", "a"), 2) is not None
    mean = theory_at(tree, "distance_to_others", Arm("keep-50", "*"), 2)
    assert mean == pytest.approx(theory_at(tree, "distance_to_others", Arm("keep-50", "b"), 2))
    assert theory_at(tree, "error", Arm("keep-50", "c"), 2) is None
    for changed in (
        {"data": {"regression": {"dimensions": 10}}},
        {"data": {"regression": {"noise_synthetic": 0.1}}},
        {"data": {"regression": {"inputs": "same"}}},
        {"ridge": {"lam": 0.1}},
    ):
        assert (
            theory_at(load(merge(RIDGE, changed), "a test").model_dump(mode="json"), "error", Arm("keep-50", "a"), 2)
            is None
        )


@pytest.mark.parametrize(
    "damage", [{"pool": 3}, {"lineages": {"a": 3}}, {"pool": {"lineages": 10**9}}, {"lineages": 7}]
)
def test_a_damaged_configuration_is_no_reason_to_fail(damage: dict[str, Any]) -> None:
    tree = load(RIDGE, "a test").model_dump(mode="json") | damage
    assert theory_at(tree, "error", Arm("keep-50", "a"), 2) is None


def test_the_distance_at_generation_0_is_that_without_exchange_and_1_less_a_times_it_later() -> None:
    """Vu, Reeves and Wenger: a is the share of the loss that pooled rows have; here half, of 600 kept rows and 600 pooled ones."""
    tree = load(RIDGE, "a test").model_dump(mode="json")
    first, *later = (theory_at(tree, "distance_to_others", Arm("keep-50", "a"), g) for g in range(5))
    assert first is not None
    assert later == pytest.approx([first / 4] * 4)
