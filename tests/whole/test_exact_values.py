"""Closed forms of what stops collapse, from `collapse run` of small configurations: within 2%, or 4 standard errors.

Theory's functions are held to simulations of their own in tests/theory; here it is the loop itself: its mixing, its learners, its blocks.
"""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from collapse_cli import theory
from collapse_cli.__main__ import main
from collapse_cli.engine import checkpoint
from collapse_cli.findings.predictions import predict_loop

Row = Mapping[str, Any]


def run(tmp_path: Path, text: str) -> tuple[dict[str, Any], list[Row]]:
    """The resolved configuration and the rows of a run."""
    (tmp_path / "one.toml").write_text(text, encoding="utf-8")
    assert main(["run", str(tmp_path / "one.toml"), "--runs-dir", str(tmp_path / "runs"), "--jobs", "1"]) == 0
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


@pytest.mark.parametrize("keep", ["lowest", "highest"])
def test_a_filter_on_a_gaussian_is_a_truncation(tmp_path: Path, keep: str) -> None:
    """Half of the rows by their surprise: those within the quartiles, or those beyond, whose mean squares are known."""
    text = gaussian(50_000, ["keep-0"], trials=1, generations=2, unbiased="true").replace(
        "seeds = [0]", "seeds = [0, 1]"
    )
    _, rows = run(tmp_path, text + f'[select]\noversample = 2.0\nby = "surprise"\nkeep = "{keep}"\n')
    quartile = NormalDist().inv_cdf(0.75)
    inside = theory.approach(noise=1.0, slack=quartile)
    beyond = theory.truncated_loss(threshold=quartile, n=1000, generations=0).growth
    assert (inside + beyond) / 2 == pytest.approx(1), "both halves together are all rows"
    for generation in (1, 2):
        found = statistics.mean(row["variance"] for row in rows if row["generation"] == generation)
        assert found == pytest.approx((inside if keep == "lowest" else beyond) ** generation, rel=0.02)


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


VERIFIED = """
[select]
by = "verifier"
phi = 0.9
psi = 0.6
signs = true
short = "shrink"
"""


@pytest.mark.parametrize(("flipped", "printed"), [(0.55, 0.96), (0.59, 0.63), (0.61, -0.65), (0.65, -0.98)])
def test_the_threshold_of_a_verifier(tmp_path: Path, flipped: float, printed: float) -> None:
    """p* = 1/(1 + .6/.9) = .6 is seen as a change of sign; cosines as the table's, which are one draw each."""
    config, rows = run(tmp_path, FLIPPED.format(rows=50_000, flipped=flipped) + VERIFIED)
    found, error = cosines(rows)
    expected = predict_loop(config, "cosine", "keep-0", 1)
    assert expected is not None
    assert agrees(found, error, expected)
    single = error * 2  # of a draw: the mean is over four
    assert abs(found - printed) <= max(0.02, 4 * (error**2 + single**2) ** 0.5)
    values = [row["cosine"] for row in rows if row["generation"] == 1]
    assert all((value > 0) == (flipped < 0.6) for value in values) or abs(flipped - 0.6) < 0.02
    assert (found > 0) == (flipped < 0.6)
    [step] = next(row for row in rows if row["generation"] == 1)["selection"]["steps"]
    assert step["facts"]["threshold"] == pytest.approx(0.6)
    assert step["facts"]["wrong_share"] == pytest.approx(flipped, abs=0.01)


BIASED = """
learner = "ridge"
[loop]
generations = {generations}
policies = ["keep-0"]
seeds = [0, 1, 2]
[data]
source = "regression"
rows = 20000
eval_rows = 10
regression = {{ dimensions = 5, noise = 0.5 }}
[ridge]
lam = 0.0
[select]
by = "biased-verifier"
theta = {theta}
slack = 0.5
short = "shrink"
"""


def test_a_biased_verifier_draws_the_loop_to_its_own_parameters(tmp_path: Path) -> None:
    """With theta_c = 0 the error is (1 - distance)^2: generation after generation what the map of theory says, and 1 in the end."""
    _, rows = run(tmp_path, BIASED.format(theta=[0.0], generations=6))
    distances = theory.biased_verifier(offset=1.0, noise=0.5, slack=0.5, d=5, generations=6)
    for generation, distance in enumerate(distances[1:], 1):
        found = [row["error"] for row in rows if row["generation"] == generation]
        error = statistics.stdev(found) / len(found) ** 0.5
        assert agrees(statistics.mean(found), error, (1 - distance) ** 2)
    assert distances[-1] < 1e-3


def test_a_biased_verifier_ends_at_a_theta_of_its_own(tmp_path: Path) -> None:
    _, rows = run(tmp_path, BIASED.format(theta=[0.3, -0.2, 0.1, 0.4, -0.5], generations=6))
    for row in rows:
        if row["generation"] == 6:
            [step] = row["selection"]["steps"]
            assert row["error"] == pytest.approx(step["facts"]["distance_to_truth"] ** 2, rel=0.02)
            assert row["error"] > 0.1, "that is not the truth"


CURATED = """
learner = "ngram"
[loop]
generations = {generations}
policies = ["keep-0"]
seeds = [0, 1, 2]
[ngram]
order = 1
[model]
tokenizer = "words"
[data]
source = "{folder}"
rows = 20000
block_size = 2
[eval]
block_size = 16
[sample]
prompts = "none"
new_tokens = 1
max_duplicates = 1.0
decode = {{ beams = 1, temperature = 1.0 }}
[select]
oversample = {candidates}
by = "{module}:reward"
keep = "choice"
"""
REWARD = """
def reward(texts):
    return [{"a": 0.0, "b": 1.0, "c": 2.0}.get(text.strip(), 0.0) for text in texts]
"""


@pytest.mark.parametrize(
    ("candidates", "printed"),
    [
        (2, {1: (0.35452, 0.34159, 0.30389), 3: (0.10998, 0.31446, 0.57555)}),
        (4, {1: (0.26156, 0.33785, 0.40059)}),
    ],
)
def test_curation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidates: int, printed: dict[int, tuple[float, ...]]
) -> None:
    """P = (.5, .3, .2), r = (0, 1, 2) of the table: a unigram of three words, one of K taken by its reward."""
    module = f"rewards_{tmp_path.name.replace('-', '_')}"  # a module of a name that was imported is not read again
    (tmp_path / f"{module}.py").write_text(REWARD, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = tmp_path / "text"
    text.mkdir()
    for name, tokens in (("train", 40_000), ("valid", 1000), ("test", 1000)):
        words = ["a"] * (tokens // 2) + ["b"] * (tokens * 3 // 10) + ["c"] * (tokens // 5)
        (text / f"{name}.txt").write_text(
            " ".join(np.random.default_rng(0).permutation(words)) + "\n", encoding="utf-8"
        )
    made = CURATED.format(folder=text, module=module, candidates=candidates, generations=max(printed))
    _, rows = run(tmp_path, made)
    shares: dict[int, list[np.ndarray]] = {}
    for row in rows:
        arrays, _ = checkpoint.read(tmp_path / "runs" / row["model_dir"] / "models.safetensors") or ({}, None)
        counts = np.sort(arrays[f"{row['generation']}.counts_0"])[-3:]
        shares.setdefault(row["generation"], []).append(counts / counts.sum())
    assert np.mean(shares[0], axis=0) == pytest.approx([0.2, 0.3, 0.5], abs=1e-3)
    for generation, wanted in printed.items():
        found = np.array(shares[generation])
        error = found.std(axis=0, ddof=1) / len(found) ** 0.5
        for share, off, expected in zip(found.mean(axis=0), error, sorted(wanted), strict=True):
            assert agrees(share, off, expected), (candidates, generation)
