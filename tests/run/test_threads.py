"""How many threads stages have: one where a model is so small that two wait for each other; what else is at work has no say."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import e2e

import collapse_cli
from collapse_cli.config import load
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Product, Stage
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import store_of
from collapse_cli.run import computing
from collapse_cli.run.execution import Execution
from collapse_cli.run.observers.computed import Computed
from collapse_cli.run.preparation import Prepared, prepare, shared_out, threads_by_work, to_do
from collapse_cli.run.threads import LARGE_HEAD, SMALL_LAYER, that_pay

CORES = 3
SMALL = {"layer_parameters": 4 * 50_000, "layers": 4}
LARGE = {"layer_parameters": 4 * SMALL_LAYER, "layers": 4}
FEW, MANY = {"head_parameters": LARGE_HEAD // 10}, {"head_parameters": LARGE_HEAD}


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


def threads_of(product: Product, *sizes: Mapping[str, int], learner: str = "lm", devices: int = 1) -> int:
    stage: Any = SimpleNamespace(key="x", of=SimpleNamespace(product=product))
    size = SimpleNamespace(**{name: value for each in sizes for name, value in each.items()})
    of_all: Any = SimpleNamespace(
        config=SimpleNamespace(learner=learner), of=lambda stage: size, plan=SimpleNamespace(shard_of={})
    )
    return that_pay(stage, of_all, CORES, devices)


@pytest.mark.parametrize(
    ("product", "sizes", "wanted"),
    [
        (Product.ROWS, (SMALL, FEW), 1),
        (Product.ROWS, (SMALL, MANY), 1),
        (Product.ROWS, (LARGE, FEW), CORES),
        (Product.MODEL, (SMALL, FEW), 1),
        (Product.MODEL, (SMALL, MANY), CORES),
        (Product.MEASURES, (SMALL, FEW), 1),
        (Product.MEASURES, (SMALL, MANY), CORES),
        (Product.MEASURES, (LARGE, FEW), CORES),
    ],
)
def test_a_small_model_has_one_thread(product: Product, sizes: Any, wanted: int) -> None:
    assert threads_of(product, *sizes) == wanted


def test_what_was_not_measured_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads_of(Product.MODEL, SMALL, FEW, learner="vae") == CORES
    assert threads_of(Product.MODEL, SMALL, FEW, devices=2) == CORES, "which share them"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert threads_of(Product.ROWS, SMALL, FEW) == CORES, "threads that spin"


def prepared(folder: Path, execution: Execution) -> Prepared:
    runs = folder / "runs"
    config = load(tomllib.loads(e2e.write_experiment(folder).read_text()), "a test")
    return prepare(config, RunFolder(runs, "x"), store_of(runs), None, execution)


def test_a_run_in_this_process_gives_its_stages_so_many_and_leaves_as_many_as_there_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    had, compute = dict[str, int](), LocalExecutor.compute

    def noting(executor: LocalExecutor, stage: Stage, observer: Observer) -> Any:
        had[stage.key] = torch.get_num_threads()
        return compute(executor, stage, observer)

    monkeypatch.setattr(LocalExecutor, "compute", noting)
    found = prepared(tmp_path, Execution(jobs=1))
    store, data = (
        store_of(tmp_path / "runs"),
        {stage.key for stage in found.plan.stages.values() if stage.work == "data"},
    )
    computing.compute(to_do(found.plan, store), found, store, Computed())
    assert {had[key] for key in had if key not in data} == {1}
    assert torch.get_num_threads() == CORES
    assert set(threads_by_work(found).values()) == {1}


def test_shards_have_what_their_stage_has(tmp_path: Path) -> None:
    """A stage that samples and one of its shards: of both as many, if both are alone."""
    found = prepared(tmp_path, Execution(jobs=1, shards=2))
    _, threads = shared_out(found.plan, found.size, Execution(jobs=1))
    assert found.plan.shard_of
    assert all(threads[key] == threads[whole.key] for key, whole in found.plan.shard_of.items())


@pytest.mark.parametrize(
    ("machine", "mine", "given", "threads"), [(64, 4, "", "4"), (64, 64, "", None), (64, 4, "9", "9")]
)
def test_a_process_that_is_bound_to_some_cores_has_no_more_threads(
    monkeypatch: pytest.MonkeyPatch, machine: int, mine: int, given: str, threads: str | None
) -> None:
    """No quota of a container's is heeded by torch."""
    monkeypatch.setattr("os.cpu_count", lambda: machine)
    monkeypatch.setattr(collapse_cli, "cores", lambda: mine)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    if not given:
        monkeypatch.delenv("OMP_NUM_THREADS")
    collapse_cli.let_threads_fit()
    assert os.environ.get("OMP_NUM_THREADS") == threads
