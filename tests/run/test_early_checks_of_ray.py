"""What is wrong with a Ray cluster that was asked for, and what can be said of it at once: one line, and nothing is written."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import e2e

from collapse_cli.run import ray_cluster


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is not imported by these checks, so it need not be there."""
    monkeypatch.setattr(ray_cluster, "NEEDED", "collapse_cli")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def closed() -> Iterator[int]:
    """A port at which nobody answers."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]


def refused(config: Path, runs: Path, *more: str) -> str:
    """The one line that a command ends with, which has written nothing."""
    made = e2e.collapse("run", config, "--runs-dir", runs, *more)
    assert made.code == 2
    assert not runs.exists()
    (line,) = made.err.splitlines()
    return line.removeprefix("collapse: ")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return e2e.write_experiment(tmp_path / "experiment")


def test_without_ray_one_line_says_what_to_install(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "NEEDED", "no_such_module_as_this")
    said = refused(config, tmp_path / "runs", "--executor", "ray")
    assert said == "--executor ray, and ray is not installed: pip install 'collapse-cli[ray]', or leave --executor out"


def test_an_address_at_which_nobody_answers(
    config: Path, tmp_path: Path, closed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = f"127.0.0.1:{closed}"
    said = refused(config, tmp_path / "runs", "--executor", "ray", "--set", f"ray.address={at}")
    assert said.startswith(f"no Ray answers at {at} (ray.address): Connection refused; ")
    monkeypatch.setenv("RAY_ADDRESS", at)
    said = refused(config, tmp_path / "runs", "--executor", "ray", "--dry-run")
    assert said.startswith(f"no Ray answers at {at} (the environment variable RAY_ADDRESS): Connection refused; ")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://127.0.0.1:10001", "an address of Ray's client; start the run on a machine of the cluster"),
        ("127.0.0.1", "must be HOST:PORT of the cluster's head, or auto"),
        ("127.0.0.1:0", "must be HOST:PORT"),
        ("127.0.0.1:99999", "must be HOST:PORT"),
        ("http://127.0.0.1:6379", "must be HOST:PORT"),
        ("a b:6379", "must be HOST:PORT"),
        ("no-such-host.invalid:6379", "no Ray answers at no-such-host.invalid:6379"),
        (f"{'x' * 300}.invalid:6379", "no Ray answers at"),
    ],
)
def test_an_address_that_is_none(config: Path, tmp_path: Path, address: str, words: str) -> None:
    assert words in refused(config, tmp_path / "runs", "--executor", "ray", "--set", f"ray.address={address}")


def test_options_of_ray_are_read_with_that_executor_alone(config: Path, tmp_path: Path) -> None:
    said = refused(config, tmp_path / "runs", "--set", "ray.threads=2")
    assert said == "ray.threads has no effect without --executor ray"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("ray.threads=-1", "ray.threads must be"),
        ("ray.gpus=1.5", "above 1 it must be a whole number, it is 1.5"),
        ("ray.gpus=-1", "ray.gpus must be"),
        ("ray.cpus=1", "ray.cpus"),
    ],
)
def test_resources_that_are_none(config: Path, tmp_path: Path, setting: str, words: str) -> None:
    assert words in refused(config, tmp_path / "runs", "--executor", "ray", "--set", setting)


def test_an_executor_that_there_is_not(config: Path, tmp_path: Path) -> None:
    assert "--executor" in refused(config, tmp_path / "runs", "--executor", "slurm")


def test_where_the_cluster_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from collapse_cli.config import load

    named, not_named = (load({"ray": {"address": address}}, "x") for address in ("10.0.0.1:6379", ""))
    assert ray_cluster.address_of(not_named) == ""
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert [ray_cluster.address_of(one) for one in (named, not_named)] == ["10.0.0.1:6379", "10.0.0.2:6379"]
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert ray_cluster.address_of(not_named) == ""
