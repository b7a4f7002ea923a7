"""Whole tiny runs of every training objective: rows, keys, a kill in the middle, and what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
from support import e2e

VARIANTS = {
    "truncated": 'loss = "truncated"\ntruncate = 0.005',
    "focal": 'loss = "focal"',
    "smoothed": 'loss = "smoothed"',
    "adversarial": "adversarial = 0.05",
    "replay": "replay = 0.25",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, dict[str, Any]]]:
    """Rows of keep-0 by variant and generation, of one store; `plain` is the run without any of them."""
    here = tmp_path_factory.mktemp("objectives")
    config = e2e.write_experiment(here)
    tables = "".join(f"[variants.{name}.train]\n{lines}\n" for name, lines in VARIANTS.items())
    text = config.read_text(encoding="utf-8").replace('"keep-0", "keep-10"', '"keep-0"')
    config.write_text(text + "[variants.plain]\n" + tables, encoding="utf-8")
    result = e2e.collapse("run", config, "--runs-dir", here / "runs", "--json")
    assert result.code == 0, result.err
    return {
        run["run"].partition("-")[2]: {row["generation"]: row for row in run["rows"]} for run in result.json["runs"]
    }


def test_each_objective_runs_and_is_told_in_the_rows(runs: dict[str, dict[int, dict[str, Any]]]) -> None:
    assert runs.keys() == {"plain", *VARIANTS}
    for name, rows in runs.items():
        for generation, row in rows.items():
            assert math.isfinite(row["perplexity"])
            assert ("train_objective" in row) == (name not in ("plain", "replay")), name
            assert ("replay_tokens" in row) == (name == "replay" and generation > 0)
    plain = runs["plain"][0]
    assert runs["adversarial"][0]["train_objective"] > 2 * runs["adversarial"][0]["train_loss"]
    assert runs["truncated"][0]["train_objective"] < runs["truncated"][0]["train_loss"]
    assert runs["focal"][0]["train_objective"] < runs["focal"][0]["train_loss"]
    for name in ("truncated", "focal", "smoothed", "adversarial"):
        assert runs[name][0]["perplexity"] != plain["perplexity"], "the objective is that of generation 0, too"


def test_rows_that_are_replayed_are_counted_and_generation_0_is_the_same_model(
    runs: dict[str, dict[int, dict[str, Any]]],
) -> None:
    """40 rows in batches of 6 and 2 of the originals: six of them, and one of 4 and 1."""
    plain, replay = runs["plain"], runs["replay"]
    assert replay[0]["model_key"] == plain[0]["model_key"]
    assert replay[1]["model_key"] != plain[1]["model_key"]
    assert replay[1]["replay_rows"] == 6 * 2 + 1
    assert replay[1]["replay_tokens"] == 13 * e2e.BLOCK
    assert replay[1]["train_tokens"] == plain[1]["train_tokens"] + 13 * e2e.BLOCK
    assert replay[1]["real_rows"] == 0, "the corpus holds none: replay is another way in"


REFUSED = (
    ("train.loss=huber", "train.loss"),
    ("train.loss=truncated --set train.truncate=0", "train.truncate"),
    ("train.loss=truncated --set train.truncate=1.5", "train.truncate"),
    ("train.loss=focal --set train.focusing=-1", "train.focusing"),
    ("train.loss=smoothed --set train.smoothing=1", "train.smoothing"),
    ("train.replay=1", "train.replay"),
    ("train.replay=-0.1", "train.replay"),
    ("train.replay=0.01", "is no row of it: raise replay"),
    ("train.adversarial=-1", "train.adversarial"),
    ("train.truncate=0.5", "train.truncate means nothing here: only train.loss = truncated reads it"),
    ("loop.generations=0 --set train.replay=0.5", "train.replay means nothing here"),
)


@pytest.mark.parametrize(("given", "said"), REFUSED, ids=lambda value: value[:40])
def test_nonsense_is_refused_in_one_line(tmp_path: Path, given: str, said: str) -> None:
    config = e2e.write_experiment(tmp_path)
    result = e2e.collapse("run", config, "--set", *given.split(), "--runs-dir", tmp_path / "runs")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert said in result.err, result.err
    assert not (tmp_path / "runs").exists()
