"""Blocks of generations: to the last bit what the plain loop gives, in blocks of any size, killed or not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collapse_cli.config import Experiment, load
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine import checkpoint, scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.stage import Finished, Plan, Stage, Workplace
from collapse_cli.errors import InputError
from collapse_cli.experiment import kinds
from collapse_cli.experiment.stages import block
from collapse_cli.learners import Hints
from collapse_cli.run.observers.computed import Computed
from collapse_cli.run.observers.rows import ReadOnce, metrics_row

POLICIES = [
    "keep-0",
    "keep-10",
    "keep-100",
    "keep-100-30-0-60",
    "keep-rows-7",
    "fresh-20",
    "fresh-40-0-20",
    "accumulate",
    "accumulate-fresh-10-100-0",
    "accumulate-subsample",
]
NOT_NUMBERS = ("seconds", "model_key", "model_dir", "eval_keys")
FAMILIES: dict[str, dict[str, Any]] = {
    "gaussian": {"gaussian": {"trials": 3}, "data": {"source": "blobs", "rows": 30, "eval_rows": 20, "reserve": 60}},
    "gmm": {"data": {"source": "blobs", "rows": 40, "eval_rows": 20, "reserve": 80}},
    "ridge": {
        "ridge": {"lam": 1e-3},
        "data": {"source": "regression", "rows": 30, "eval_rows": 20, "reserve": 60, "regression": {"dimensions": 5}},
    },
}
FAMILIES["gaussian, golden"] = {
    **FAMILIES["gaussian"],
    "gaussian": {"trials": 3, "unbiased": True},
    "mix": {"weights": "golden"},
}
FAMILIES["ridge, 2:1"] = {**FAMILIES["ridge"], "mix": {"weights": "2:1", "rows": 26}}


def experiment(learner: str = "gaussian", **loop: Any) -> Experiment:
    """A few generations of a family under every policy."""
    settings = {"generations": 7, "policies": POLICIES, "seeds": [3]} | loop
    return load({"learner": learner.partition(",")[0], "loop": settings, **FAMILIES[learner]}, "a test")


def run(config: Experiment, root: Path) -> tuple[Plan, FolderStore]:
    """All stages of an experiment in a store of its own."""
    planned, store = kinds.plan(config, Hints()), FolderStore(root)
    root.mkdir(exist_ok=True)
    scheduler.run(list(planned.stages.values()), LocalExecutor(store), Computed())
    return planned, store


def rows_of(planned: Plan, store: FolderStore) -> dict[tuple[str, int, int], dict[str, Any]]:
    """The rows of metrics.jsonl as JSON has them, without what is no number."""
    found = {}
    for one in planned.generations:
        row = json.loads(json.dumps(metrics_row(one, ReadOnce(store)).record()))
        found[one.where.policy, one.where.seed, one.where.generation] = {
            name: value for name, value in row.items() if name not in NOT_NUMBERS
        }
    return found


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """A family in the plain loop: its rows, which all else must equal."""
    planned, store = run(experiment(request.param, block=1), tmp_path_factory.mktemp("plain") / "store")
    assert {stage.kind for stage in planned.stages.values()} == {"data", "train", "sample", "mix", "eval"}
    return request.param, rows_of(planned, store)


@pytest.mark.parametrize("size", [2, 3, 7, 50])
def test_blocks_of_any_size_give_the_rows_of_the_plain_loop(
    plain: tuple[str, dict[tuple[str, int, int], Any]], size: int, tmp_path: Path
) -> None:
    learner, expected = plain
    planned, store = run(experiment(learner, block=size), tmp_path / "store")
    assert {stage.kind for stage in planned.stages.values()} == {"data", "block"}
    found = rows_of(planned, store)
    assert found.keys() == expected.keys()
    for where, row in expected.items():
        assert found[where] == row, where


@pytest.mark.parametrize("init", ["gen0", "previous"])
@pytest.mark.parametrize("prompts", ["real", "previous"])
def test_where_a_fit_starts_and_what_is_continued_hold_in_blocks_too(init: str, prompts: str, tmp_path: Path) -> None:
    both = []
    for size in (1, 3):
        config = load(
            {
                "learner": "ridge",
                "loop": {"generations": 5, "policies": ["keep-20", "accumulate"], "init": init, "block": size},
                "sample": {"prompts": prompts},
                **FAMILIES["ridge"],
                "data": {**FAMILIES["ridge"]["data"], "regression": {"dimensions": 5, "inputs": "same"}},
            },
            "a test",
        )
        both.append(rows_of(*run(config, tmp_path / str(size))))
    assert both[0] == both[1]


def test_a_truncated_loss_and_labels_of_the_wrong_sign_are_the_same_in_blocks(tmp_path: Path) -> None:
    policies = ["keep-0", "keep-20", "accumulate-subsample"]
    for learner, changed in (
        ("gaussian", {"gaussian": {"trials": 3, "truncate": 0.3}}),
        ("ridge", {"data": {**FAMILIES["ridge"]["data"], "regression": {"dimensions": 5, "flipped": 0.3}}}),
    ):
        both = []
        for size in (1, 3):
            init = "previous" if learner == "gaussian" else "base"
            loop = {"generations": 5, "policies": policies, "init": init, "block": size}
            config = load({"learner": learner, "loop": loop, **FAMILIES[learner], **changed}, "a test")
            both.append(rows_of(*run(config, tmp_path / f"{learner}-{size}")))
        assert both[0] == both[1]


def test_each_seed_draws_its_own_real_rows_and_generation_0_is_of_all_policies(tmp_path: Path) -> None:
    planned, store = run(experiment(seeds=[3, 4], policies=["keep-0", "keep-10"]), tmp_path / "store")
    kinds_of = [stage.kind for stage in planned.stages.values()]
    assert kinds_of.count("data") == 2
    assert kinds_of.count("block") == 2 * (1 + 2)
    rows = rows_of(planned, store)
    assert rows["keep-0", 3, 0] == {**rows["keep-10", 3, 0], "policy": "keep-0"}
    assert rows["keep-0", 3, 0]["variance"] != rows["keep-0", 4, 0]["variance"]


class KillError(Exception):
    """A kill in the middle of a block."""


@pytest.mark.parametrize("family", ["gaussian", "gaussian, golden"])
def test_killed_in_the_middle_a_block_goes_on_from_its_checkpoint_to_the_same_numbers(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLAPSE_CHECKPOINT_SECONDS", "0")
    expected = rows_of(*run(experiment(family), tmp_path / "whole"))
    step, worked = block.InMemory.step, []

    def until(last: int | None) -> Any:
        def counted(self: block.InMemory, generation: int) -> None:
            if generation == last:
                raise KillError
            worked.append((self.block.policy, generation))
            step(self, generation)

        return counted

    for last in (4, 6, 2, 7, None):  # each try dies at some generation of some block
        monkeypatch.setattr(block.InMemory, "step", until(last))
        try:
            found = rows_of(*run(experiment(family), tmp_path / "killed"))
        except KillError:
            continue
    assert found == expected
    assert len(worked) == len(set(worked)) == 1 + 7 * len(POLICIES), "no generation was computed twice"


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "block.safetensors"
    checkpoint.keep(file, {"a": np.arange(3)}, {"facts": [1]})

    def killed(*_: object) -> None:
        raise KillError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KillError):
            checkpoint.keep(file, {"a": np.arange(4)}, {"facts": [2]})
    arrays, said = checkpoint.take_up(file) or ({}, None)
    assert arrays["a"].tolist() == [0, 1, 2]
    assert said == {"facts": [1]}


def test_more_generations_take_up_the_blocks_that_are_there(tmp_path: Path) -> None:
    short, store = run(experiment(generations=6, block=3), tmp_path / "store")
    before = set(store.keys())
    longer, _ = run(experiment(generations=9, block=3), tmp_path / "store")
    assert before <= longer.stages.keys()
    assert len(longer.stages) == len(before) + len(POLICIES)
    assert rows_of(short, store).items() <= rows_of(longer, store).items()


def test_thousands_of_generations_are_few_files(tmp_path: Path) -> None:
    config = experiment(generations=2050, policies=["keep-0", "accumulate"])
    planned, store = run(config, tmp_path / "store")
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(planned.generations) == 2 * 2051
    assert len(files) < 200
    last = metrics_row(planned.generations[-1], ReadOnce(store)).record()
    assert (last["policy"], last["generation"], last["train_rows"]) == ("accumulate", 2050, 30 * 2051)
    assert 0.3 < last["variance"] < 2


def test_models_of_a_block_can_be_read_again(tmp_path: Path) -> None:
    planned, store = run(experiment(policies=["keep-0"], block=3), tmp_path / "store")
    last = planned.generations[-1]
    models = block.models_of(store.get(last.train.key))
    assert sorted(models) == [7]
    middle = planned.generations[5]
    assert sorted(block.models_of(store.get(middle.train.key))) == [4, 5, 6]
    variances = np.diagonal(models[7]["covariance"], axis1=1, axis2=2)
    assert np.isclose(variances.mean(), metrics_row(last, ReadOnce(store)).record()["variance"])


def test_large_models_are_not_kept_for_every_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "LARGEST", 10)
    planned, store = run(experiment(policies=["keep-0"], block=3), tmp_path / "store")
    assert sorted(block.models_of(store.get(planned.generations[5].train.key))) == [6]


def test_a_learner_of_text_or_images_has_no_blocks() -> None:
    for learner in ("lm", "vae"):
        config = load({"learner": learner, "loop": {"block": 10}}, "a test")
        with pytest.raises(InputError, match=r"loop\.block = 10: a generation of .* stages of its own"):
            kinds.plan(config, Hints())


def test_a_checkpoint_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.read(tmp_path / "none.safetensors") is None
    assert checkpoint.take_up(tmp_path / "none.safetensors") is None


def test_a_block_reads_no_more_than_its_inputs(tmp_path: Path) -> None:
    """What a stage uses must be in its key: a block is computed alone, from the folders of its inputs."""
    planned, store = run(experiment(policies=["accumulate-subsample"], block=3), tmp_path / "store")
    stage: Stage = planned.generations[-1].train
    inputs: Mapping[str, Finished] = {name: store.get(made.key) for name, made in stage.inputs.items()}
    for name in ("new", "scratch"):
        (tmp_path / name).mkdir()
    again = stage.of.body(stage, inputs, Workplace(tmp_path / "new", tmp_path / "scratch", lambda *_: None))
    old = store.get(stage.key).facts
    for new, before in zip(again["generations"], old["generations"], strict=True):
        assert {**new, "seconds": 0} == {**before, "seconds": 0}
    rows = [Dataset.load(place / block.MADE) for place in (tmp_path / "new", store.folder(stage.key))]
    assert all((rows[0].arrays[name] == rows[1].arrays[name]).all() for name in rows[0].arrays)
