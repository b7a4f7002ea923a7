"""Closed forms of what stops collapse, from `collapse run` of small configurations: within 2%, or 4 standard errors.

Theory's functions are held to simulations of their own in tests/theory; here it is the loop itself: its mixing, its learners, its blocks.
"""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from collapse_cli import theory
from collapse_cli.__main__ import main
from collapse_cli.findings.predictions import predict_loop

Row = Mapping[str, Any]


def run(tmp_path: Path, text: str) -> tuple[dict[str, Any], list[Row]]:
    """The resolved configuration and the rows of a run."""
    (tmp_path / "one.toml").write_text(text, encoding="utf-8")
    assert main(["run", str(tmp_path / "one.toml"), "--runs-dir", str(tmp_path / "runs")]) == 0
    folder = tmp_path / "runs" / "one"
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return about["config"], [json.loads(line) for line in lines]


def agrees(measured: float, error: float, expected: float) -> bool:
    return abs(measured - expected) <= max(0.02 * abs(expected), 4 * error)


GAUSSIAN = """
learner = "gaussian"
[loop]
generations = {generations}
seeds = [0]
policies = {policies}
[data]
source = "blobs"
rows = {rows}
reserve = {reserve}
blobs = {{ dimensions = 1, centers = 1 }}
[gaussian]
trials = {trials}
unbiased = {unbiased}
"""


def gaussian(rows: int, policies: list[str], trials: int = 4000, generations: int = 6, **more: Any) -> str:
    values = {"reserve": 0, "unbiased": "false"} | more
    return GAUSSIAN.format(rows=rows, policies=json.dumps(policies), trials=trials, generations=generations, **values)


@pytest.mark.parametrize("unbiased", ["false", "true"])
def test_means_of_mixed_rows(tmp_path: Path, unbiased: str) -> None:
    """Every policy of a Gaussian whose mean and variance are known: kept, renewed, scheduled, pooled rows."""
    policies = ["keep-25", "keep-rows-10", "fresh-50", "fresh-50-25", "accumulate", "accumulate-subsample"]
    config, rows = run(tmp_path, gaussian(20, policies, reserve=60, unbiased=unbiased))
    looked_at = 0
    for row in rows:
        for what in ("variance", "mean_shift_squared"):
            expected = predict_loop(config, what, row["policy"], row["generation"])
            assert expected is not None
            error = row[f"{what}_se"]
            assert error < 0.03 * expected, "sharp enough to contradict"
            assert agrees(row[what], error, expected), (row["policy"], row["generation"], what)
            looked_at += 1
    assert looked_at == 2 * 7 * len(policies)


def test_means_of_weighted_rows(tmp_path: Path) -> None:
    """As above with the golden weight."""
    policies = ["keep-25", "keep-rows-10", "fresh-50", "fresh-50-25"]
    config, rows = run(tmp_path, gaussian(20, policies, reserve=60) + '[mix]\nweights = "golden"\n')
    for row in rows:
        for what in ("variance", "mean_shift_squared"):
            expected = predict_loop(config, what, row["policy"], row["generation"])
            assert expected is not None
            assert agrees(row[what], row[f"{what}_se"], expected), (row["policy"], row["generation"], what)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_contaminated_accumulation(tmp_path: Path, share: float) -> None:
    """V_t = ((t-1+a)/t)^2 V_{t-1} + 1/t^2 of the table, where each generation adds as many rows as there were."""
    config, rows = run(
        tmp_path, gaussian(100, [f"accumulate-fresh-{100 - round(100 * share)}"], trials=3000, reserve=700)
    )
    formula, _ = theory.contaminated(share_synthetic=share, generations=6)
    for row, expected in zip(rows, formula.values, strict=True):
        found, error = 100 * row["mean_shift_squared"], 100 * row["mean_shift_squared_se"]
        assert agrees(found, error, expected)
        exact = predict_loop(config, "variance", row["policy"], row["generation"])
        assert exact is not None
        assert agrees(row["variance"], row["variance_se"], exact)


FED_BACK = """
learner = "ridge"
[loop]
generations = 20
policies = ["accumulate-fresh-20"]
seeds = [0, 1]
[mix]
rows = 5000
[data]
source = "regression"
rows = 20000
reserve = 20000
eval_rows = 10
regression = {{ dimensions = 20, noise = 0.0 }}
[ridge]
lam = {lam}
"""


def test_feedback(tmp_path: Path) -> None:
    """The table's rows: n0 = 20,000, m = 1,000, k = 4,000. The bias that is fed back is that of a small penalty.

    A model is too small by the share lam, near enough the same in each generation: labels of models shrink as well, by lam squared.
    """
    lam = 1e-3
    config, rows = run(tmp_path, FED_BACK.format(lam=lam))
    assert config["mix"]["rows"] == 5000
    for generation, printed in ((0, 1.0), (1, 1.160), (5, 1.562), (10, 1.843), (20, 2.159)):
        bias = statistics.mean(row["error"] ** 0.5 for row in rows if row["generation"] == generation)
        assert bias / lam == pytest.approx(printed, rel=0.02), generation


@pytest.mark.parametrize(("a", "printed"), [(0.1, 1.086), (0.5, 1.571), (1.0, 2.525)])
def test_truncated_loss(tmp_path: Path, a: float, printed: float) -> None:
    """The table's growth of the variance, a generation."""
    text = gaussian(200, ["keep-0"], trials=1000, generations=3, unbiased="true")
    text = text.replace("[loop]", '[loop]\ninit = "previous"') + f"truncate = {a}\n"
    config, rows = run(tmp_path, text)
    first, *later = rows
    assert agrees(first["variance"], first["variance_se"], 1.0)
    for generation, row in enumerate(later, 1):
        assert agrees(row["variance"], row["variance_se"], printed**generation)
        expected = predict_loop(config, "variance", "keep-0", generation)
        assert expected == pytest.approx(printed**generation, rel=2e-3)


WORDS = """
learner = "ngram"
[loop]
generations = 8
policies = ["keep-0"]
seeds = [0, 1, 2, 3]
[ngram]
order = 1
[data]
source = "zipf"
block_size = 64
rows = 64
zipf = { vocabulary = 1000, exponent = 1.0, rank = 1, dependence = 0.0, train_tokens = 4096, test_tokens = 4096 }
[sample]
prompts = "none"
new_tokens = 64
decode = { beams = 1, temperature = 1.0 }
"""


def test_survival_of_words(tmp_path: Path) -> None:
    """n-grams of order 1: how many words are left, and how much of the truth is gone, generation after generation."""
    config, rows = run(tmp_path, WORDS)
    for generation in range(9):
        there = [row for row in rows if row["generation"] == generation]
        for what in ("vocabulary_share", "missing_mass"):
            values = [row[what] for row in there]
            error = statistics.stdev(values) / len(values) ** 0.5
            expected = predict_loop(config, what, "keep-0", generation)
            assert expected is not None
            assert agrees(statistics.mean(values), error, expected), (generation, what)
    unlike = {**config, "data": {**config["data"], "zipf": {**config["data"]["zipf"], "dependence": 1.0}}}
    assert predict_loop(unlike, "missing_mass", "keep-0", 1) is None
    assert predict_loop(config, "missing_mass", "keep-10", 1) is None


FLIPPED = """
learner = "ridge"
[loop]
generations = 1
policies = ["keep-0"]
seeds = [0, 1, 2, 3]
[data]
source = "regression"
rows = {rows}
eval_rows = 10
regression = {{ dimensions = 20, noise = 0.0, flipped = {flipped} }}
[ridge]
lam = 0.0
"""


def cosines(rows: list[Row]) -> tuple[float, float]:
    """Mean and standard error over seeds of generation 1's direction."""
    values = [row["cosine"] for row in rows if row["generation"] == 1]
    return statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5


@pytest.mark.parametrize("flipped", [0.4, 0.49, 0.51, 0.6])
def test_flipped_labels_without_a_verifier(tmp_path: Path, flipped: float) -> None:
    """The threshold is then a half."""
    config, rows = run(tmp_path, FLIPPED.format(rows=20_000, flipped=flipped))
    assert all(row["cosine"] == pytest.approx(1, abs=1e-9) for row in rows if row["generation"] == 0)
    found, error = cosines(rows)
    expected = predict_loop(config, "cosine", "keep-0", 1)
    assert expected is not None
    assert agrees(found, error, expected)
    assert (found > 0) == (flipped < 0.5)
