"""Weights and budgets from the command line: the error of a mean beside its closed forms, tiny language models, refusals."""

import math
from pathlib import Path
from typing import Any

import pytest
from support import e2e

from collapse_cli.theory.means import MixedRows, growing_means

GAUSSIAN = """# The error of an estimated mean.
learner = "gaussian"
[loop]
generations = {generations}
policies = ["{policy}"]
[data]
source = "blobs"
rows = {rows}
reserve = {reserve}
eval_rows = 1
blobs = {{ dimensions = 1, centers = 1, spread = 1.0 }}
[mix]
rows = {mixed}
weights = "{weights}"
[gaussian]
unbiased = true
trials = {trials}
"""
TRIALS = 20_000


def rows_of(folder: Path, *more: str, **settings: Any) -> list[dict[str, Any]]:
    """The rows of a run of `GAUSSIAN`."""
    settings = {"generations": 8, "reserve": 0, "mixed": 0, "weights": "equal", "trials": TRIALS} | settings
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(GAUSSIAN.format(**settings), encoding="utf-8")
    result = e2e.collapse("run", folder / "mine.toml", "--runs-dir", folder / "runs", *more)
    assert result.code == 0, result.err
    return e2e.read_lines(folder / "runs" / "mine" / "metrics.jsonl")


def as_formula(row: dict[str, Any], n: int, value: float) -> None:
    """The variance of the mean times n real rows, within 4 standard errors, which are small enough to say something."""
    found, error = row["mean_shift_squared"] * n, row["mean_shift_squared_se"] * n
    assert error < 0.013 * value
    assert abs(found - value) < 4 * error, f"{found} ± {error}, formula {value}"


@pytest.mark.parametrize(
    ("policy", "rows", "n", "weights", "value"),
    [
        ("fresh-50", 50, 25, "golden", 0.6180),
        ("fresh-50", 50, 25, "equal", 2 / 3),
        ("fresh-20", 75, 15, "golden", 0.3904),
        ("fresh-20", 75, 15, "equal", 0.5556),
        ("fresh-50", 50, 25, "3:1", (0.75**2 + 0.25**2) / (1 - 0.25**2)),
    ],
)
def test_the_golden_weight_makes_the_error_of_a_mean_what_its_paper_says(
    policy: str, rows: int, n: int, weights: str, value: float, tmp_path: Path
) -> None:
    """V(w) n of arXiv 2502.18049, with k = real / synthetic rows of 1 and 1/4; at w = 1/2 and 1/5 plain pooling."""
    found = rows_of(tmp_path, policy=policy, rows=rows, reserve=8 * n, weights=weights)
    as_formula(found[-1], n, value)
    assert (found[-1]["real_rows"], found[-1]["real_share"]) == (n, n / rows)
    if weights == "golden":
        assert found[-1]["real_weight"] == pytest.approx(value, abs=1e-4), "which is the weight itself"
    assert all(("real_weight" in row) == (weights != "equal" and row["generation"] > 0) for row in found)


def test_the_same_real_rows_beside_any_number_of_synthetic_ones(tmp_path: Path) -> None:
    """As below with lambda = 4, from a corpus of the real rows alone: `mix.rows` says how many there are in all."""
    found = rows_of(tmp_path, policy="keep-rows-15", rows=15, mixed=75, generations=24)
    assert [row["train_rows"] for row in found] == [15] + [75] * 24
    assert {row["real_rows"] for row in found} == {15}
    as_formula(found[-1], 15, 13 / 9)


@pytest.mark.parametrize(("share", "policy"), [(0.5, "accumulate-fresh-50"), (0.8, "accumulate-fresh-20")])
def test_new_real_rows_in_each_generation_hold_back_the_error_of_a_growing_corpus(
    share: float, policy: str, tmp_path: Path
) -> None:
    """V_t = ((t - 1 + a) / t)² V_(t-1) + 1 / t² of arXiv 2601.15468, a share a of each generation's rows being synthetic."""
    found = rows_of(tmp_path, policy=policy, rows=20, reserve=8 * 10)
    value = 1.0
    for t, row in enumerate(found[1:], 2):
        value = ((t - 1 + share) / t) ** 2 * value + 1 / t**2
        assert row["train_rows"] == 20 * t
        as_formula(row, 20, value)


def test_a_growing_corpus_may_grow_by_any_number_of_rows(tmp_path: Path) -> None:
    """Feedback: m = 10 real and k = 40 synthetic rows join n0 = 20 in each generation."""
    found = rows_of(tmp_path, policy="accumulate-fresh-20", rows=20, reserve=80, mixed=50)
    assert [(row["real_rows"], row["synthetic_rows"]) for row in found] == [(20 + 10 * g, 40 * g) for g in range(9)]
    expected = growing_means(n=20, mixes=[MixedRows(10, 40)] * 8, variance="unbiased")
    for row, (error, _) in zip(found, expected, strict=False):
        as_formula(row, 20, error * 20)


@pytest.mark.parametrize(
    ("rows", "n", "generations", "value"), [(30, 20, 8, 1.25), (40, 20, 10, 4 / 3), (75, 15, 24, 13 / 9)]
)
def test_the_same_real_rows_in_each_generation_hold_the_error_where_theory_says(
    rows: int, n: int, generations: int, value: float, tmp_path: Path
) -> None:
    """1 + lambda / (1 + 2 lambda), lambda = synthetic / real rows of 1/2, 1, 4."""
    found = rows_of(tmp_path, policy=f"keep-rows-{n}", rows=rows, generations=generations)
    as_formula(found[-1], n, value)


def test_a_schedule_ends_where_its_last_share_does(tmp_path: Path) -> None:
    found = rows_of(tmp_path, policy="keep-100-50-0-20", rows=20, trials=3, generations=6)
    assert [row["real_rows"] for row in found] == [20, 20, 10, 0, 4, 4, 4]
    assert [row["real_share"] for row in found] == [1, 1, 0.5, 0, 0.2, 0.2, 0.2]
    assert found[1]["mean_shift_squared"] == pytest.approx(found[0]["mean_shift_squared"]), "it is the original corpus"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (
            {"policy": "keep-rows-21", "rows": 20},
            "keep-rows-21 keeps 21 real rows, the original corpus has 20; lower N",
        ),
        ({"policy": "keep-rows-0", "rows": 20}, "keep-0 keeps none"),
        ({"policy": "keep-50-50", "rows": 20}, "the last share stays for all later generations; say it once"),
        (
            {"policy": "fresh-50-20", "rows": 20, "reserve": 37},
            "fresh-50-20 needs 38 never-seen real rows by generation 8",
        ),
        (
            {"policy": "keep-rows-9", "rows": 20, "mixed": 8},
            "keep-rows-9 keeps 9 real rows, a corpus of mix.rows = 8 has fewer",
        ),
        (
            {"policy": "keep-50", "rows": 20, "mixed": 50},
            "keep-50 of mix.rows = 50 asks for 25 real rows at generation 1",
        ),
        ({"policy": "accumulate-fresh-50", "rows": 20, "reserve": 79}, "needs 80 never-seen real rows by generation 8"),
        ({"policy": "keep-50", "rows": 20, "weights": "0:1"}, "mix.weights: must be two numbers above 0"),
        ({"policy": "keep-50", "rows": 20, "weights": "gold"}, 'mix.weights: must be "equal", "golden", or'),
        ({"policy": "keep-0", "rows": 20, "weights": "2:1"}, "no policy of this run mixes real and synthetic rows"),
    ],
)
def test_nonsense_is_one_line_before_anything_is_computed(settings: dict[str, Any], why: str, tmp_path: Path) -> None:
    given = {"generations": 8, "reserve": 0, "mixed": 0, "weights": "equal", "trials": 3} | settings
    (tmp_path / "mine.toml").write_text(GAUSSIAN.format(**given), encoding="utf-8")
    result = e2e.collapse("run", tmp_path / "mine.toml", "--runs-dir", tmp_path / "runs")
    assert result.code == 2
    assert why in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_run_says_which_shares_it_never_reaches(tmp_path: Path) -> None:
    given = {"generations": 2, "reserve": 0, "mixed": 0, "weights": "equal", "trials": 3}
    given |= {"policy": "keep-50-20-10", "rows": 20}
    (tmp_path / "mine.toml").write_text(GAUSSIAN.format(**given), encoding="utf-8")
    result = e2e.collapse("run", tmp_path / "mine.toml", "--runs-dir", tmp_path / "runs")
    assert result.code == 0, result.err
    said = " ".join((result.out + result.err).split())
    assert (
        "keep-50-20-10 has shares for 3 generations, and this run ends with generation 2, so it does not use 10" in said
    )


def test_weights_of_a_language_model_change_its_training_and_nothing_before_it(tmp_path: Path) -> None:
    """So generation 0, what it makes and the corpus of generation 1 are one for all weights."""
    config, runs = e2e.write_experiment(tmp_path), {}
    for name, weights in (("plain", "equal"), ("heavy", "50:1"), ("golden", "golden")):
        e2e.run(config, tmp_path / "runs", "--name", name, "--policy", "keep-50", mix__weights=weights)
        runs[name] = e2e.read_lines(tmp_path / "runs" / name / "metrics.jsonl")
    for name in ("heavy", "golden"):
        first, second = runs[name]
        assert first["model_key"] == runs["plain"][0]["model_key"], "generation 0 has real rows alone"
        assert second["model_key"] != runs["plain"][1]["model_key"]
        assert second["nll"] != runs["plain"][1]["nll"]
    assert runs["golden"][1]["real_weight"] == pytest.approx((math.sqrt(5) - 1) / 2), "half of the rows are real"
    assert runs["heavy"][1]["real_weight"] == pytest.approx(50 / 51)
    assert e2e.kinds(set(e2e.stages(tmp_path / "runs")), tmp_path / "runs")["mix"] == 1
