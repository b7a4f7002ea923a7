"""The experiment kind `mixture`: its grid, which rows are in which cell, its stages, kills, and what is said of mistakes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e

from collapse_cli.config import Experiment, load
from collapse_cli.config.cell import Cell, cells
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.stage import Plan
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.experiment import kinds, mixture
from collapse_cli.experiment.stages.base import CORPUS, ROWS
from collapse_cli.learners import Hints, learner_class
from collapse_cli.run.observers.computed import Computed
from collapse_cli.run.observers.rows import ReadOnce, metrics_row

DIGITS = {
    "kind": "mixture",
    "learner": "mlp",
    "loop": {"seeds": [0, 1]},
    "data": {"source": "digits"},
    "mlp": {"width": 8, "epochs": 1},
    "mixture": {"rows": [20, 60], "share": [0.0, 0.25, 1.0], "generator_rows": [30], "size": [8, 16]},
}
REGRESSION = {
    "kind": "mixture",
    "learner": "ridge",
    "loop": {"seeds": [0, 1, 2]},
    "data": {"source": "regression", "regression": {"dimensions": 10}},
    "mixture": {"rows": [20, 40], "share": [0.0, 0.5], "quality": [0.5]},
}


def resolved(tree: dict[str, Any]) -> tuple[Experiment, Hints]:
    config = load(tree, "a test")
    found = learner_class(config.learner).resolve(config)
    return found.config, found.hints


def run(tree: dict[str, Any], root: Path) -> tuple[Plan, FolderStore, list[str]]:
    config, hints = resolved(tree)
    planned, store, listener = kinds.plan(config, hints), FolderStore(root), Computed()
    root.mkdir(parents=True, exist_ok=True)
    scheduler.run(list(planned.stages.values()), LocalExecutor(store), listener)
    return planned, store, listener.keys


# --- the grid ---------------------------------------------------------------------------------------------------------


def grid(**axes: Any) -> list[Cell]:
    return cells(load({"mixture": axes}, "a test").mixture)


def test_the_grid_is_the_product_of_its_axes() -> None:
    found = grid(rows=(100, 1000), share=(0.0, 0.1), quality=(0.5, 1.0), size=(10,))
    assert [(cell.real, cell.synthetic) for cell in found[::2]] == [(100, 0), (90, 10), (1000, 0), (900, 100)]
    assert {cell.quality for cell in found} == {0.5, 1.0}
    assert found[2].label == "n=100 p2=0.1 c2=0.5 m=10"
    assert found[2].record() == {
        "rows": 100,
        "real_rows": 90,
        "synthetic_rows": 10,
        "share": 0.1,
        "quality": 0.5,
        "size": 10,
    }
    assert len({cell.label for cell in found}) == len(found) == 8


def test_rows_may_be_given_in_three_ways() -> None:
    assert [(c.real, c.synthetic) for c in grid(real_rows=(90,), share=(0.0, 0.1))] == [(90, 0), (90, 10)]
    assert [(c.real, c.synthetic) for c in grid(real_rows=(0, 5), synthetic_rows=(7,))] == [(0, 7), (5, 7)]
    assert grid() == []


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"rows": [10], "real_rows": [5]}, "given by rows and share, .* not by rows and real_rows"),
        ({"rows": [10]}, "not by rows"),
        ({"rows": [10], "share": [1.5]}, r"share must be in 0..1"),
        ({"real_rows": [10], "share": [1.0]}, "leaves no real rows"),
        ({"rows": [0], "share": [0.5]}, "rows must be at least 1"),
        ({"rows": [10], "share": [0.5], "quality": [-1.0]}, "quality must be at least 0"),
        ({"rows": [10], "share": [0.5], "weight": [1.0]}, "weight must be at least 0 and below 1"),
        ({"rows": [10], "share": [0.5], "iterations": [0]}, "iterations must be at least 1"),
        ({"rows": [10], "share": [0.5], "iterations": [10**6]}, "iterations must be at least 1 and at most 10,000"),
        ({"rows": [10**9], "share": [0.5]}, "rows must be at most 100,000,000"),
        ({"rows": [10], "share": [0.5], "quality": [1e160]}, "quality and lam must be at most"),
        ({"rows": [10, 10], "share": [0.5]}, "rows names one twice"),
    ],
)
def test_an_impossible_grid_is_refused(axes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load({"mixture": axes}, "a test")


def test_a_learner_or_an_axis_that_a_mixture_does_not_have_is_refused() -> None:
    for tree, said in (
        ({"learner": "vae"}, "kind = mixture has no learner 'vae'; it has lm, ridge, projections, mlp"),
        ({"learner": "mlp", "mixture": {"rows": [10], "share": [0.5], "quality": [1.0]}}, "quality means nothing"),
        ({"learner": "ridge"}, "the grid of the mixture is empty"),
        ({"learner": "ridge", "mixture": {"rows": [10], "share": [0.03]}}, "a share of 0.03 of 10 rows is 0 rows"),
        ({"learner": "ridge", "mixture": {"rows": [1], "share": [0.9]}}, "a share of 0.9 of 1 rows is 1 rows"),
    ):
        with pytest.raises(ConfigError, match=f"^a test: .*{said}"):
            load({"kind": "mixture", **tree}, "a test")


def test_more_real_rows_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="needs 60 real rows, but the data have 59"):
        mixture.check_real_rows(load(DIGITS, "a test"), 59)
    tree = {**DIGITS, "mixture": {"real_rows": [10], "synthetic_rows": [90]}}
    with pytest.raises(InputError, match="needs 100 inputs to label, but the data have 99"):
        mixture.check_real_rows(load(tree, "a test"), 99)
    mixture.check_real_rows(load(tree, "a test"), 100)


# --- the chain: mlp and lm --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, FolderStore, list[str]]:
    return run(DIGITS, tmp_path_factory.mktemp("digits") / "store")


def test_a_generator_is_fitted_once_and_its_rows_serve_all_cells(digits: tuple[Plan, FolderStore, list[str]]) -> None:
    planned, _, computed = digits
    kinds_of = [stage.kind for stage in planned.stages.values()]
    assert sorted(computed) == sorted(planned.stages)
    # a seed: 12 cells of two sizes share 6 corpora; besides one generator, its corpus and its rows; the data are one
    assert {kind: kinds_of.count(kind) for kind in kinds_of} == {
        "data": 1,
        "train": 2 * (1 + 12),
        "sample": 2,
        "mix": 2 * (1 + 6),
        "eval": 2 * 12,
    }
    assert len(planned.generations) == 2 * 12


def test_synthetic_rows_stand_where_real_ones_would_otherwise(digits: tuple[Plan, FolderStore, list[str]]) -> None:
    planned, store, _ = digits

    def corpus(label: str) -> Dataset:
        one = next(g for g in planned.generations if g.where.name == label and g.where.seed == 0)
        return Dataset.load(store.folder(one.train.inputs["corpus"].key) / CORPUS)

    real, mixed, made = (corpus(f"n=60 p2={share} g=30 m=8") for share in ("0", "0.25", "1"))
    assert [(part.origin == 1).sum() for part in (real, mixed, made)] == [0, 15, 60]
    for part in (mixed, made):
        assert (part.arrays["x"] == real.arrays["x"]).all(), "the inputs are the same, only who labels them differs"
    assert (mixed.arrays["y"][:45] == real.arrays["y"][:45]).all()
    assert (mixed.arrays["y"][45:] == made.arrays["y"][45:]).all()
    small = corpus("n=20 p2=0.25 g=30 m=8")
    assert (small.arrays["x"] == real.arrays["x"][:20]).all(), "smaller cells hold the first rows of larger ones"
    generator = next(stage for stage in planned.stages.values() if stage.kind == "sample")
    taught = Dataset.load(store.folder(generator.inputs["model"].inputs["corpus"].key) / CORPUS)
    assert (len(taught), int(taught.origin.max())) == (30, 0)
    assert not (taught.arrays["x"][:, None] == real.arrays["x"][None]).all(-1).any(), "from the other end of the data"
    labelled = Dataset.load(store.folder(generator.key) / ROWS)
    assert len(labelled) == 60


def test_rows_say_the_cell_and_what_was_measured(digits: tuple[Plan, FolderStore, list[str]]) -> None:
    planned, store, _ = digits
    rows = [metrics_row(one, ReadOnce(store)).record() for one in planned.generations]
    row = next(row for row in rows if row["policy"] == "n=60 p2=0.25 g=30 m=16" and row["seed"] == 1)
    assert {name: row[name] for name in ("rows", "real_rows", "synthetic_rows", "share", "size", "generation")} == {
        "rows": 60,
        "real_rows": 45,
        "synthetic_rows": 15,
        "share": 0.25,
        "size": 16,
        "generation": 0,
    }
    assert row["train_rows"] == 60
    assert 0 < row["error"] < 1
    assert {"train", "eval"} <= row["seconds"].keys()
    json.dumps(rows)


def test_killed_anywhere_the_chain_does_what_is_missing_and_ends_the_same(
    digits: tuple[Plan, FolderStore, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [metrics_row(one, ReadOnce(digits[1])).record() for one in digits[0].generations]
    publish = FolderStore.publish
    left = [0]

    class KillError(Exception):
        """Between one stage and the next."""

    def dying(self: FolderStore, *arguments: Any) -> Any:
        if left[0] == 0:
            raise KillError
        left[0] -= 1
        return publish(self, *arguments)

    monkeypatch.setattr(FolderStore, "publish", dying)
    computed: list[str] = []
    for stages in (1, 3, 10, 20, 1000):
        left[0] = stages
        try:
            planned, store, done = run(DIGITS, tmp_path / "store")
        except KillError:
            continue
        computed += done
    assert len(computed) == len(digits[2]) - 1 - 3 - 10 - 20
    found = [metrics_row(one, ReadOnce(store)).record() for one in planned.generations]
    assert [{**row, "seconds": 0} for row in found] == [{**row, "seconds": 0} for row in expected]


# --- cells in memory: ridge and projections ---------------------------------------------------------------------------


def test_cells_in_memory_make_few_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "TOGETHER", 3)
    planned, store, _ = run(REGRESSION, tmp_path / "store")
    assert [stage.kind for stage in planned.stages.values()] == ["block"] * 3 * 2
    rows = [metrics_row(one, ReadOnce(store)).record() for one in planned.generations]
    assert [(row["policy"], row["seed"]) for row in rows[:4]] == [
        (cell.label, 0) for cell in grid(**REGRESSION["mixture"])
    ]
    alone, _, _ = run({**REGRESSION, "mixture": {"rows": [40], "share": [0.5], "quality": [0.5]}}, tmp_path / "alone")
    again = metrics_row(alone.generations[0], ReadOnce(FolderStore(tmp_path / "alone"))).record()
    assert again["error"] == rows[3]["error"], "a cell is what it is, whichever others are computed beside it"


def test_a_killed_stage_of_cells_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAPSE_CHECKPOINT_SECONDS", "0")
    whole, place, _ = run(REGRESSION, tmp_path / "whole" / "store")
    ridge: Any = learner_class("ridge")
    cell, calls = ridge.cell, [0]

    def dying(self: Any, *arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return cell(self, *arguments, **named)

    monkeypatch.setattr(ridge, "cell", dying)
    with pytest.raises(KeyboardInterrupt):
        run(REGRESSION, tmp_path / "killed" / "store")
    planned, store, _ = run(REGRESSION, tmp_path / "killed" / "store")
    assert calls[0] == 1 + 4 * 3, "cells that were done are not done again"
    for one, other in zip(planned.generations, whole.generations, strict=True):
        first, second = metrics_row(one, ReadOnce(store)).record(), metrics_row(other, ReadOnce(place)).record()
        assert {**first, "seconds": 0} == {**second, "seconds": 0}


# --- as a user --------------------------------------------------------------------------------------------------------


CONFIG = """# A mixture.
kind = "mixture"
learner = "ridge"
loop.seeds = [0, 1, 2]
data = { source = "regression", regression = { dimensions = 10 } }
[mixture]
rows = [20, 40, 80]
share = [0.0, 0.5]
quality = [0.5]
[[expect]]
what = "error"
cell = { rows = 80, share = 0.5 }
tolerance = 0.5
source = "Theorem 1"
"""


def test_a_mixture_from_the_command_line_to_its_report(tmp_path: Path) -> None:
    file, runs = tmp_path / "grid.toml", tmp_path / "runs"
    file.write_text(CONFIG, encoding="utf-8")
    result = e2e.collapse("run", file, "--runs-dir", runs)
    assert result.code == 0, result.err
    assert "measured against published numbers and theory" in result.out
    assert "inside" in result.out
    assert "p2 = 0.5" in result.out
    again = e2e.collapse("run", file, "--runs-dir", runs)
    assert "nothing to compute: all stages are in the store" in again.out
    shown = e2e.collapse("run", file, "--runs-dir", runs, "--json").json
    assert len(shown["rows"]) == 3 * 6
    assert shown["expect"][0]["verdict"] == "inside"
    assert shown["expect"][0]["kind"] == "theory"
    for command in (["status", "grid"], ["compare", "grid"], ["report", "grid"], ["report", "grid", "--md"]):
        done = e2e.collapse(*command, "--runs-dir", runs)
        assert done.code == 0, (command, done.err)
    page = (runs / "grid" / "report.html").read_text(encoding="utf-8")
    assert "p2" in page
    again = e2e.collapse("eval", "grid", "--runs-dir", runs)
    assert again.code == 2
    assert "keeps no models: a mixture of ridge is computed in memory" in again.err
    ahead = e2e.collapse("forecast", "grid", "--runs-dir", runs)
    assert ahead.code == 2
    assert "has no perplexity by generation to forecast" in ahead.err
    plan = e2e.collapse("run", file, "--runs-dir", tmp_path / "other", "--dry-run")
    assert plan.code == 0, plan.err
    assert not (tmp_path / "other").exists()
    seeds = e2e.collapse("run", file, "--runs-dir", runs, "--seeds", "0,1,2,3", "--json").json
    assert (seeds["computed"], seeds["cached"]) == (1, 3)
    for option in (["--generations", "5"], ["--policy", "keep-0"]):
        refused = e2e.collapse("run", file, "--runs-dir", runs, *option)
        assert refused.code == 2
        assert f"{option[0]} means nothing to a mixture" in refused.err
    wrong = e2e.collapse("run", file, "--runs-dir", runs, "--set", "mixture.rows=[20]")
    assert wrong.code == 2
    assert "was made with mixture.rows" in wrong.err


def test_a_mixture_of_language_models_from_scratch(tmp_path: Path) -> None:
    file = e2e.write_experiment(tmp_path)
    text = file.read_text(encoding="utf-8").replace("[loop]", 'kind = "mixture"\n[mixture]\nreal_rows = [8, 16]\n'
                                                    "share = [0.0, 0.5]\nsize = [1, 2]\n[loop]")  # fmt: skip
    file.write_text(text.replace('generations = 1\npolicies = ["keep-0", "keep-10"]\n', ""), encoding="utf-8")
    found = e2e.run(file, tmp_path / "runs")
    assert len(found["rows"]) == 8
    assert {row["size"] for row in found["rows"]} == {1, 2}
    assert all(np.isfinite(row["nll"]) for row in found["rows"])
    row = next(row for row in found["rows"] if row["share"] == 0.5 and row["real_rows"] == 16)
    assert (row["synthetic_rows"], row["train_rows"]) == (16, 32)


def test_rows_that_are_added_stand_beside_the_grid() -> None:
    grid = {"rows": [20], "share": [0.0, 0.5], "added_rows": [5, 20], "added_to": 40}
    made = [(cell.real, cell.synthetic) for cell in cells(load({**DIGITS, "mixture": grid}, "a test").mixture)]
    assert made == [(20, 0), (10, 10), (40, 0), (40, 5), (40, 20)]
    made = [
        (cell.real, cell.synthetic)
        for cell in cells(load({**DIGITS, "mixture": {**grid, "added_to": 0}}, "a test").mixture)
    ]
    assert made == [(20, 0), (10, 10), (20, 5), (20, 20)]
    with pytest.raises(ConfigError, match="has no effect without added_rows"):
        load({**DIGITS, "mixture": {"rows": [20], "share": [0.0], "added_to": 40}}, "a test")
