"""A run whose models are trained on two devices: killed, given again with other numbers of devices, and refused where it makes no sense."""

from pathlib import Path
from typing import Any

import psutil
import pytest
from support import e2e
from support.waiting import until

from collapse_cli import cores
from collapse_cli.config import load
from collapse_cli.config.reading import read_toml
from collapse_cli.errors import ConfigError, how_many
from collapse_cli.lm import devices
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import store_of
from collapse_cli.run import preparation
from collapse_cli.run.computing import gpus_of
from collapse_cli.run.costs import memory_needed
from collapse_cli.run.execution import Execution
from collapse_cli.run.preparation import prepare, to_do
from collapse_cli.run.timing import Timed

ONE = ["--policy", "keep-10"]
MARK = "COLLAPSE_TEST_OF_DEVICES"  # in the environment of a run and of all that it starts


def alive(mark: str) -> list[int]:
    """The processes with this mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process.pid)
        except (psutil.Error, OSError):  # another user's, or gone
            continue
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("devices")
    e2e.write_experiment(folder)
    return folder


@pytest.fixture(scope="module")
def ends(home: Path) -> list[list[int]]:
    """The runs of this file: how they ended."""
    mark = str(home)

    def job(runs: str, *more: str, **how: Any) -> dict[str, Any]:
        argv = ["run", str(home / "tiny.toml"), "--runs-dir", str(home / runs), *ONE, *more]
        return {"argv": argv, "err": str(home / f"{runs}.err"), "forks": True, **how}

    made = e2e.drive(
        job("one"),
        job(
            "two",
            "--devices=2",
            strike=e2e.strike("train", 2, when="tell", tell=2),
            env={MARK: mark, "COLLAPSE_CHECKPOINT_SECONDS": "0"},
        ),
    )
    until(lambda: not alive(mark))  # no device outlives its run
    return made + e2e.drive(job("two", "--devices=1", log=str(home / "progress.jsonl")))


def test_a_run_on_two_devices_is_killed_and_goes_on_with_one(home: Path, ends: list[list[int]]) -> None:
    """The first model is of two devices, the second of two and then, from its checkpoint, of one."""
    assert ends == [[0], [-9], [0]], [(home / f"{name}.err").read_text() for name in ("one", "two")]
    one, two = e2e.results(home / "one"), e2e.results(home / "two")
    assert one.keys() == two.keys()
    made_by = {where[2]: row.get("devices", 1) for where, row in two.items()}
    assert made_by == {0: 2, 1: 1}
    for where, row in two.items():
        assert row["model_key"] == one[where]["model_key"], "the number of devices is in no key"
        assert row["train_loss"] == pytest.approx(one[where]["train_loss"], rel=1e-5 if where[2] == 0 else 0.02)
        assert row["perplexity"] == pytest.approx(one[where]["perplexity"], rel=1e-5 if where[2] == 0 else 0.02)
    told = [(kind, done) for kind, _, done, _ in e2e.read_lines(home / "progress.jsonl")]
    assert [done for kind, done in told if kind == "train"] == [step * 8 * 16 for step in (3, 4, 5)], (
        "from its checkpoint"
    )


def test_a_family_that_is_fitted_on_one_device_says_so(tmp_path: Path) -> None:
    result = e2e.collapse("run", "--preset", "nature-gaussian", "--devices", "2", "--runs-dir", tmp_path / "runs")
    assert result.code == 2
    assert result.err.count("\n") <= 3
    assert "--devices 2: language models alone are trained on several devices" in " ".join(result.err.split())
    assert not (tmp_path / "runs").exists()


def test_more_devices_than_cores_are_refused(home: Path, tmp_path: Path) -> None:
    """As they may be meant for a machine with GPUs; nothing is written."""
    result = e2e.collapse("run", home / "tiny.toml", "--devices", "1000", "--runs-dir", tmp_path / "runs")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "--devices 1000: torch finds no GPU here" in result.err
    assert f"for which there {'is' if cores() == 1 else 'are'} {how_many(cores(), 'core')} here" in result.err
    assert not (tmp_path / "runs" / "tiny").exists()


def test_what_devices_need_is_in_the_estimate(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more processes in memory; and of a cluster a training asks for a GPU a device."""
    monkeypatch.setattr(preparation, "cores", lambda: 4)
    config = load({**read_toml(home / "tiny.toml"), "ray": {"gpus": 0.5}}, "tiny.toml")
    folder, store = RunFolder(tmp_path / "runs", "x"), store_of(tmp_path / "runs")
    needed = {}
    for count in (1, 3):
        prepared = prepare(config, folder, store, tmp_path / f"real-{count}", Execution(4, devices=count))
        needed[count] = memory_needed(
            prepared, to_do(prepared.plan, store), Timed(), psutil.Process().memory_info().rss, 1 << 33
        )
        assert prepared.hints.devices == count
        notes = [note for note in prepared.notes if "--devices" in note]
        assert notes == [] if count == 1 else len(notes) <= 1
        asked = {stage.work: gpus_of(prepared)(stage) for stage in prepared.plan.stages.values()}
        assert asked["train"] == max(0.5, count if count > 1 else 0)
        assert (asked["sample"], asked["data"]) == (0.5, 0)
    own = psutil.Process().memory_info().rss
    assert needed[3] - needed[1] > 1.5 * own


def test_more_gpus_than_there_are_is_one_line(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(count: int) -> None:
        raise ConfigError(f"--devices {count}: this machine has 1 GPU")

    monkeypatch.setattr(devices, "check", check)
    result = e2e.collapse("run", home / "tiny.toml", "--devices", "4", "--runs-dir", tmp_path / "runs")
    assert (result.code, result.out) == (2, "")
    assert " ".join(result.err.split()).endswith("--devices 4: this machine has 1 GPU")
    assert not (tmp_path / "runs" / "tiny").exists()
