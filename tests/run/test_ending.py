"""What a run takes besides its stages: timed on a short version's, in folders of their own."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from support import e2e, small

from collapse_cli.config import load
from collapse_cli.config.reading import read_toml
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import store_of
from collapse_cli.run import costs, ending, preparation, timing
from collapse_cli.run.costs import CostsAsked, describe
from collapse_cli.run.ending import Ending, time_ending
from collapse_cli.run.execution import Execution
from collapse_cli.run.observers.computed import Computed
from collapse_cli.run.rates import Rate
from collapse_cli.run.timing import Timed


def test_pages_are_timed_with_as_many_models_as_the_run_will_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 models were made; the pages are of 16, twice, of 64, and of all 84, whose rows are read back."""
    file = small.write(tmp_path, "numbers", small.NUMBERS)
    few = load(read_toml(file), "a test")
    many = few.model_copy(update={"loop": few.loop.model_copy(update={"seeds": tuple(range(7))})})
    folder, store = RunFolder(tmp_path / "runs", "x"), store_of(tmp_path / "short")
    version, prepared = (preparation.prepare(one, folder, store, None, Execution(jobs=1)) for one in (few, many))
    scheduler.run([*version.plan.stages.values()], LocalExecutor(store), Computed())
    pages, write = list[int](), ending.report.write_report

    def kept(folders: list[RunFolder], page: Path) -> Path:
        rows = folders[0].rows()
        pages.append(len(rows))
        assert {row.where for row in rows} <= {made.where for made in prepared.plan.generations}
        return write(folders, page)

    monkeypatch.setattr(ending.report, "write_report", kept)
    clock = count()
    timed = time_ending(
        prepared.config, prepared.plan, version.plan, store, tmp_path / "ending", lambda: next(clock) / 1e3
    )
    assert pages == [16, 16, 64, len(prepared.plan.generations)]
    assert timed is not None
    assert timed.models == len(prepared.plan.generations) == 84
    assert timed.of(version.plan) > 0
    assert not (tmp_path / "runs").exists()


def test_a_plan_takes_its_stages_its_rows_and_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process rows are written between stages; a report on all variants takes as long again as those of each."""
    file = small.write(tmp_path, "numbers", small.NUMBERS)
    folder, store = RunFolder(tmp_path / "runs", "x"), store_of(tmp_path / "runs")
    prepared = preparation.prepare(load(read_toml(file), "a test"), folder, store, tmp_path / "real", Execution(jobs=1))
    known = Ending(folder=0.5, row=0.25, page=Rate(0.125, 0.0, 1.0), libraries=2.0, models=12)
    monkeypatch.setattr(costs, "time_stages", lambda *_, **__: Timed(ending=known))
    plan = describe(prepared, store, folder, CostsAsked(tmp_path / "timed", loading=3.0))
    stages, models = sum(kind.seconds for kind in plan.kinds.values()), len(prepared.plan.generations)
    assert (plan.begin, plan.end) == (3.5, 3.0 + models * 0.125)
    assert plan.seconds == pytest.approx(stages + models * 0.25 + plan.begin + plan.end)
    assert plan.libraries == 2.0
    other = replace(plan, end=1.0, libraries=0.0, seconds=2.0)
    assert costs_total(plan, other) == pytest.approx(plan.seconds + 2.0 + plan.end - 2.0 + 1.0), "libraries load once"


def test_pages_of_many_models_take_what_their_kinds_and_their_number_do(tmp_path: Path) -> None:
    """The models of a seed differ in their kind, those of other seeds do not: by a law that is made up, of 6 kinds and 84 models."""
    file = small.write(tmp_path, "numbers", small.NUMBERS)
    config = load(read_toml(file), "a test")
    many = config.model_copy(update={"loop": config.loop.model_copy(update={"seeds": tuple(range(7))})})
    prepared = preparation.prepare(
        many, RunFolder(tmp_path / "runs", "x"), store_of(tmp_path / "short"), None, Execution(jobs=1)
    )
    models = prepared.plan.generations
    kinds = len({made.where.name for made in models})
    assert ending.arms_of(models) == kinds < len(models)
    known = Ending(page=Rate(0.001, 0.1, 0.5))
    assert known.of(prepared.plan) == pytest.approx(0.5 + 0.1 * kinds + 0.001 * len(models))


@pytest.mark.parametrize(
    ("models", "kinds", "pages"),
    [
        (5, 5, [5]),
        (84, 6, [16, 64, 84]),
        (100, 100, [16, 64, 100]),
        (2400, 120, [16, 64, 120, 240, 960, 2400]),
        (2000, 2, [16, 64, 256, 1024, 2000]),
    ],
)
def test_pages_are_of_one_seed_and_of_two_where_there_are_many_kinds(models: int, kinds: int, pages: list[int]) -> None:
    """2,400 models of 120 kinds: by pages of up to 256 the end was said to take ten times as long as it did."""
    assert [*ending._sizes(models, kinds)] == pages


def costs_total(*plans: costs.PlanCosts) -> float:
    from collapse_cli.terminal.plan import Total

    return Total.of(plans).seconds


def test_a_run_with_workers_is_timed_with_workers(tmp_path: Path) -> None:
    """Two at a time, as the run will be; they leave nothing behind."""
    import psutil

    file = small.write(tmp_path, "numbers", small.NUMBERS)
    ask = ("run", file, "--runs-dir", tmp_path / "runs", "--dry-run", "--json", "--jobs", "2")
    before = {child.pid for child in psutil.Process().children()}
    result = e2e.collapse(*ask)
    assert result.code == 0, result.err
    plan = result.json
    assert (plan["workers"], plan["measured"], plan["fault"]) == (2, True, "")
    assert plan["end"] > 0
    assert {child.pid for child in psutil.Process().children()} <= before
    assert not (tmp_path / "runs").exists()


def test_what_memory_will_not_do_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = small.write(tmp_path, "numbers", small.NUMBERS)
    ask = ("run", file, "--runs-dir", tmp_path / "runs", "--dry-run")
    monkeypatch.setattr(costs, "memory_free", lambda prepared: 1 << 40)
    assert "memory will hardly do" not in e2e.collapse(*ask).out
    monkeypatch.setattr(costs, "memory_free", lambda prepared: 1 << 20)
    monkeypatch.setattr(
        timing, "ProcessExecutor", lambda *_: pytest.fail("workers would take more memory than there is")
    )
    for jobs in ("1", "2"):
        assert "memory will hardly do" in e2e.collapse(*ask, "--jobs", jobs).out
