"""Whether a run is at work or was killed, told by a lock that dies with its holder."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import e2e
from support.instrumented import write_run

from collapse_cli.records import flags as module
from collapse_cli.records.at_work import SAID, at_work, working
from collapse_cli.records.flags import FILE
from collapse_cli.records.listing import facts_of

pytestmark = pytest.mark.skipif(module.fcntl is None, reason="no locks of this kind on Windows")


def test_it_is_known_while_somebody_works_and_afterwards(tmp_path: Path) -> None:
    assert at_work(tmp_path / "run") is None, "no folder"
    with working(tmp_path / "run"):
        assert at_work(tmp_path / "run") is True
        with working(tmp_path / "run"):  # as two commands of one name do
            assert at_work(tmp_path / "run") is True
        assert at_work(tmp_path / "run") is True
    assert at_work(tmp_path / "run") is False


def test_a_kill_is_noticed_and_the_command_says_what_to_do(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run", generations=2, missing=[("keep-0", 0, 2)], status="started")
    assert facts_of(tmp_path, "run").at_work is None
    assert "started: at work, or killed (give the same command" in " ".join(status(tmp_path).split())
    code = f"from pathlib import Path; from collapse_cli.records.at_work import working\nwith working(Path({str(folder)!r})): print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert facts_of(tmp_path, "run").at_work is True
        assert "started: at work " in status(tmp_path)
        assert e2e.collapse("status", "run", "--runs-dir", tmp_path, "--json").json["at_work"] is True
        child.send_signal(signal.SIGKILL)
    assert facts_of(tmp_path, "run").at_work is False
    assert "started: killed (give the same command" in " ".join(status(tmp_path).split())
    assert " killed " in e2e.collapse("list", "--runs-dir", tmp_path).out


def status(runs: Path) -> str:
    return e2e.collapse("status", "run", "--runs-dir", runs).out


def test_what_cannot_be_asked_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).mkdir()
    assert at_work(tmp_path) in (None, False)  # a folder has a lock of its own, which nobody holds
    monkeypatch.setattr(module, "fcntl", None)
    assert at_work(tmp_path) is None
    with working(tmp_path / "run"):
        assert not (tmp_path / "run").exists()
    assert set(SAID) == {True, False, None}


def test_looking_writes_nothing(tmp_path: Path) -> None:
    with working(tmp_path):
        before = (tmp_path / FILE).stat()
        assert at_work(tmp_path)
        assert (tmp_path / FILE).stat() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
