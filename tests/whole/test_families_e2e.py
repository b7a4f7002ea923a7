"""Families that are no language models, from the command line: run, status, eval, compare, forecast; and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e

GAUSSIAN = """# A Gaussian, refitted.
learner = "gaussian"
[loop]
generations = 40
policies = ["keep-0", "accumulate"]
seeds = [0, 1, 2]
[data]
source = "blobs"
rows = 50
blobs = { dimensions = 1 }
[gaussian]
trials = 40
[[expect]]
what = "variance"
generation = 40
tolerance = 0.02
source = "closed form"
[[expect]]
what = "variance"
policy = "accumulate"
generation = 40
value = 3.0
source = "made up"
note = "far off"
[[expect]]
what = "variance"
generation = 60
value = 1.0
source = "made up"
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a Gaussian that differ in how many rows there are."""
    folder = tmp_path_factory.mktemp("families")
    (folder / "small.toml").write_text(GAUSSIAN, encoding="utf-8")
    (folder / "large.toml").write_text(GAUSSIAN.replace("rows = 50", "rows = 200"), encoding="utf-8")
    for name in ("small", "large"):
        result = e2e.collapse("run", folder / f"{name}.toml", "--runs-dir", folder / "runs")
        assert result.code == 0, result.err
        (folder / f"{name}.txt").write_text(result.out, encoding="utf-8")
    return folder / "runs"


def test_a_run_prints_its_first_measure_theory_and_what_is_inside(runs: Path) -> None:
    said = (runs.parent / "small.txt").read_text(encoding="utf-8")
    assert "fitted variance, truth 1 (mean of 3 seeds, 95% interval)" in said
    assert "theory" in said
    assert "1 inside, 1 outside, 1 not run" in said
    assert "(2) made up: far off" in said
    assert "Fitted variance, truth 1, from generation 0 to 40" in said
    heads = [line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│")]
    assert heads[:7] == ["0", "1", "2", "5", "10", "20", "40"]


def test_rows_of_a_family_have_what_all_rows_have(runs: Path) -> None:
    rows = e2e.read_lines(runs / "small" / "metrics.jsonl")
    assert len(rows) == 2 * 3 * 41
    for row in rows:
        assert {
            "policy",
            "seed",
            "generation",
            "model_key",
            "model_dir",
            "test_loss",
            "variance",
            "warnings",
        } <= row.keys()
        assert row["train_rows"] == row["real_rows"] + row["synthetic_rows"]
    last = [row for row in rows if row["generation"] == 40]
    assert {(row["policy"], row["real_rows"], row["synthetic_rows"]) for row in last} == {
        ("keep-0", 0, 50),
        ("accumulate", 50, 2000),
    }
    # E v_t = (1 - 1/n)^t after t fits; 120 chains
    variance = np.mean([row["variance"] for row in last if row["policy"] == "keep-0"])
    assert abs(variance / (1 - 1 / 50) ** 41 - 1) < 0.3


def test_every_generation_is_evaluated_again_to_what_was_logged(runs: Path) -> None:
    rows = e2e.collapse("eval", "small", "--runs-dir", runs, "--json").json
    assert len(rows) == 2 * 3 * 41
    assert all(row["measure"] == "test_loss" and row["difference"] == 0 for row in rows)
    table = e2e.collapse("eval", "small", "--runs-dir", runs)
    assert table.code == 0
    assert "evaluated again: test loss" in table.out


def test_evaluation_finds_a_number_that_is_not_that_of_the_model(runs: Path, tmp_path: Path) -> None:
    config = runs.parent / "small.toml"
    assert e2e.collapse("run", config, "--runs-dir", tmp_path, "--seeds", "0", "--generations", "3").code == 0
    file = tmp_path / "small" / "metrics.jsonl"
    lines = file.read_text().splitlines()
    row = json.loads(lines[-1])
    del row["digest"]  # as an earlier version wrote it
    row["test_loss"] += 0.01
    file.write_text("\n".join([*lines[:-1], json.dumps(row)]) + "\n")
    result = e2e.collapse("eval", "small", "--runs-dir", tmp_path)
    assert result.code == 1
    assert "of 8 models, 1 gave another" in result.out


def test_runs_of_a_family_are_compared(runs: Path) -> None:
    found = e2e.collapse("compare", "small", "large", "--runs-dir", runs, "--json").json
    assert (found["measure"], found["generation"]) == ("variance", 40)
    entries = {(one["run"], one["policy"]): one for one in found["policies"]}
    assert entries["small", "keep-0"]["theory"] == pytest.approx((1 - 1 / 50) ** 41)
    assert entries["small", "keep-0"]["now"]["n"] == 3
    pairs = {(tuple(one["first"]), tuple(one["second"])): one for one in found["pairs"]}
    assert len(pairs) == 4, "policies within a run, and the same policy in two runs"
    difference = pairs[("small", "keep-0"), ("large", "keep-0")]["difference"]["mean"]
    now = [entries[run, "keep-0"]["now"]["mean"] for run in ("small", "large")]
    assert difference == pytest.approx(now[0] - now[1])
    table = e2e.collapse("compare", "small", "large", "--runs-dir", runs)
    assert "paired over seeds" in table.out
    assert "theory" in table.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["forecast", "small"], "has no perplexity by generation to forecast"),
        (["compare", "small", "small"], "the run 'small' is named twice"),
        (["run", "{config}", "--set", "data.source=digits"], "data.source = 'digits'"),
        (["run", "{config}", "--set", "data.rows=0", "--name", "x"], "data.rows"),
        (["run", "{config}", "--set", "learner=gausian", "--name", "x"], "there is no learner 'gausian'"),
        (["run", "{config}", "--set", "gaussian.trials=0", "--name", "x"], "gaussian.trials must be at least 1"),
        (["run", "{config}", "--set", "gaussian.trails=2", "--name", "x"], "did you mean 'gaussian.trials'"),
        (["run", "{config}", "--policy", "fresh-10", "--name", "x"], "reserve"),
        (["run", "{config}", "--set", "gaussian.trials=3"], "was made with gaussian.trials = 40"),
        (["run", "{config}", "--set", "learner=gmm"], "was made with learner = 'gaussian', this one has 'gmm'"),
        (["run", "{config}", "--model", "gpt2", "--name", "x"], "--model means nothing to the learner gaussian"),
        (["run", "{config}", "--set", "loop=3", "--name", "x"], "loop must be a table, it is 3"),
        (["run", "{config}", "--generations", "100000000", "--name", "x"], "loop.generations must be at most 1e+06"),
        (
            ["run", "{config}", "--set", "data.blobs.spread=1e200", "--name", "x"],
            "data.blobs.spread must be at most 1e+06",
        ),
        (["run", "{config}", "--set", "data.rows=1000000000000", "--name", "x"], "out of memory"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(runs: Path, arguments: list[str], said: str) -> None:
    config = str(runs.parent / "small.toml")
    result = e2e.collapse(*(one.replace("{config}", config) for one in arguments), "--runs-dir", runs)
    assert result.code == 2
    assert said in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (runs / "x").exists()


def test_a_damaged_file_of_the_store_is_named_and_what_to_do(runs: Path, tmp_path: Path) -> None:
    config = runs.parent / "small.toml"
    assert e2e.collapse("run", config, "--runs-dir", tmp_path, "--seeds", "0", "--generations", "3").code == 0
    for file in (tmp_path / "store").rglob("models.safetensors"):
        file.write_bytes(b"junk")
    result = e2e.collapse("eval", "small", "--runs-dir", tmp_path)
    assert result.code == 2
    assert "models.safetensors is not what was written" in result.err
    assert "give the run's command again" in result.err


def test_a_narrow_terminal_cuts_no_digits(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that lost its last digits would be taken for another one."""
    seen = []
    for columns in ("200", "50"):
        monkeypatch.setenv("COLUMNS", columns)
        text = e2e.collapse("status", "small", "--runs-dir", runs).out
        lines = [line for line in text.splitlines() if line.startswith("│")]
        words = [word.strip("()") for line in lines for word in line.replace("│", " ").split()]
        seen.append(sorted(word for word in words if "." in word and word[0].isdigit()))
    assert len(seen[0]) >= 3 * 14, "means and both ends of their intervals"
    assert seen[0] == seen[1]


def test_runs_of_different_learners_are_not_compared(runs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    text = '# Blobs.\nlearner = "gmm"\nloop = { generations = 1, policies = ["keep-0"] }\n'
    other.write_text(text + 'data = { source = "blobs", rows = 60 }\n', encoding="utf-8")
    assert e2e.collapse("run", other, "--runs-dir", runs).code == 0
    result = e2e.collapse("compare", "small", "other", "--runs-dir", runs)
    assert result.code == 2
    assert "small is of gaussian (generational), other is of gmm (generational)" in result.err


def test_other_blocks_extend_and_finish_the_same_run(runs: Path) -> None:
    config = runs.parent / "small.toml"

    def rows() -> dict[Any, Any]:
        found = e2e.read_lines(runs / "small" / "metrics.jsonl")
        return {(row["policy"], row["seed"], row["generation"]): row["variance"] for row in found}

    before = rows()
    longer = e2e.collapse("run", config, "--runs-dir", runs, "--generations", "45", "--set", "loop.block=9", "--json")
    assert longer.code == 0, longer.err
    assert len(rows()) == 2 * 3 * 46
    assert before.items() <= rows().items()
