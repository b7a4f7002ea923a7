"""Disks, quotas and file sizes that end in the middle of a write, outputs that nobody reads, and odd lock files.

Each is one line without a traceback, and the same command, given again, ends with the numbers of a run that was left alone.
"""

import errno
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import e2e
from support.small import EXPERIMENTS, rows_of
from support.waiting import PATIENCE

from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.remote_addresses import copy_of
from collapse_cli.records.names import STORE


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may be larger: a write beyond that ends with EFBIG, in whatever library."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["numbers", "tiny"])
def test_files_that_may_not_grow_further_are_said(tmp_path: Path, name: str) -> None:
    """Sizes from nothing on: each kind of file is the first that does not fit, once."""
    config, runs = EXPERIMENTS[name](tmp_path), tmp_path / "runs"
    e2e.run(config, tmp_path / "whole", "--jobs", "1")
    said = []
    for size in itertools.accumulate([1, 300, 700, 2000, 5000, 10_000, 20_000]):
        with largest_file(size):
            result = e2e.collapse("run", config, "--runs-dir", runs, "--jobs", "1")
        assert result.code in (0, 2), result.err
        assert "Traceback" not in result.err
        if result.code == 2:
            said.append(result.err)
            assert result.err.count("\n") == 1
            assert "File too large" in result.err
            assert str(runs) in result.err, "it is said where"
            assert "ulimit -f" in result.err
    assert len(said) >= 4
    e2e.run(config, runs, "--jobs", "1")
    assert rows_of(runs, name) == rows_of(tmp_path / "whole", name)


@pytest.mark.parametrize(("number", "each"), [(errno.ENOSPC, 3), (errno.EDQUOT, 7)])
def test_a_disk_or_quota_that_is_full_at_any_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, each: int
) -> None:
    """Some file systems say so only when a file is brought to the disk: each third time of a run is tried, or each seventh."""
    config, runs, sync = EXPERIMENTS["numbers"](tmp_path), tmp_path / "runs", os.fsync
    e2e.run(config, tmp_path / "whole", "--jobs", "1")
    failed = 0
    for place in range(0, 100, each):
        calls = itertools.count()

        def full(handle: int, place: int = place, calls: Iterator[int] = calls) -> None:
            if next(calls) == place:
                raise OSError(number, os.strerror(number))
            sync(handle)

        monkeypatch.setattr(os, "fsync", full)
        result = e2e.collapse("run", config, "--runs-dir", runs / str(place), "--jobs", "1")
        monkeypatch.undo()
        if result.code == 0:
            break
        failed += 1
        assert result.code == 2
        assert result.err.count("\n") == 1
        assert os.strerror(number) in result.err
        assert str(runs) in result.err, "it is said where"
        assert "free some space" in result.err
        e2e.run(config, runs / str(place), "--jobs", "1")
        assert rows_of(runs / str(place), "numbers") == rows_of(tmp_path / "whole", "numbers")
    assert failed >= 5


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_run_whose_output_nobody_reads_ends_and_can_go_on(tmp_path: Path, jobs: str) -> None:
    """As of `collapse run | head -1`: no traceback, and no error in its record."""
    config, runs = EXPERIMENTS["numbers"](tmp_path), tmp_path / "runs"
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "collapse_cli", "run", config, "--runs-dir", runs, "--jobs", jobs]
    made = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE)
    os.close(write)
    assert (made.returncode, made.stderr) == (141, "")
    record = (runs / "numbers" / "run.json").read_text()
    assert '"status": "interrupted"' in record
    e2e.run(config, runs, "--jobs", "1")
    e2e.run(config, tmp_path / "whole", "--jobs", "1")
    assert rows_of(runs, "numbers") == rows_of(tmp_path / "whole", "numbers")


def test_what_is_left_of_attempts_at_finished_stages_goes_when_a_run_begins(tmp_path: Path) -> None:
    config, runs = EXPERIMENTS["numbers"](tmp_path), tmp_path / "runs"
    e2e.run(config, runs)
    store = FolderStore(runs / STORE)
    finished, other = e2e.plan(runs, "numbers")[0]["key"], "f" * 64
    for key in (finished, other):
        (store.scratch(key) / "checkpoint.safetensors").write_text("half")
        (store.attempt(key) / "half").write_text("half")
    e2e.run(config, runs)
    assert store.unfinished() == [other]  # perhaps another run's, which is at work


@pytest.mark.parametrize("what", ["folder", "pipe", "none"])
@pytest.mark.parametrize("where", ["run", "stage"])
def test_lock_files_that_are_none_are_said_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, where: str
) -> None:
    """A folder or a named pipe in its place, or a lock file that may not be opened."""
    config, runs = EXPERIMENTS["numbers"](tmp_path), tmp_path / "runs"
    e2e.run(config, runs)
    key = e2e.plan(runs, "numbers")[-1]["key"]
    lock = runs / "numbers" / ".lock" if where == "run" else runs / STORE / ".locks" / f"{key}.lock"
    lock.unlink(missing_ok=True)
    if what == "folder":
        lock.mkdir()
    elif what == "pipe":
        os.mkfifo(lock)
    else:
        lock.touch()
        opened = os.open

        def refuse(path: str, *rest: int, **more: int) -> int:
            if os.fspath(path) == str(lock):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return opened(path, *rest, **more)

        monkeypatch.setattr(os, "open", refuse)
    for path in sorted(e2e.folder_of(runs, key).rglob("*"), reverse=True):
        path.unlink()
    began = time.monotonic()
    result = e2e.collapse("run", config, "--runs-dir", runs, "--jobs", "1")
    assert time.monotonic() - began < PATIENCE
    assert result.code == 2 or (what == "pipe" and where == "stage" and result.code == 0), result.err
    assert "Traceback" not in result.err
    assert result.err.count("\n") <= 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a file system")
@pytest.mark.parametrize("what", ["runs", "shared", "copies"])
def test_a_file_system_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A real one, whose sizes end in the middle of one kind of file or another: of runs, of a folder that machines share without locks,
    or of this machine's copies of that. What is said names it, and what to do about it.
    """
    config, disk, said = EXPERIMENTS["numbers"](tmp_path), tmp_path / "disk", 0
    disk.mkdir()
    e2e.run(config, tmp_path / "whole", "--jobs", "1")
    for size in ("24k", "40k", "64k", "100k"):
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], stderr=subprocess.DEVNULL
        ).returncode:
            pytest.skip("nothing may be mounted here")
        monkeypatch.setenv("COLLAPSE_CACHE", str((disk if what == "copies" else tmp_path) / f"cache-{size}"))
        shared = f"file://{tmp_path if what == 'copies' else disk}/shared-{size}"
        runs = disk / "runs" if what == "runs" else copy_of(shared)
        there = ["--runs-dir", str(runs) if what == "runs" else shared, "--jobs", "1"]
        try:
            result = e2e.collapse("run", config, *there)
            said += result.code == 2
            assert result.code in (0, 2), result.err
            if result.code == 2:
                assert "No space left on device" in result.err or "kB are free" in result.err
                assert str(disk) in result.err, "it is said where"
                assert ("COLLAPSE_CACHE=FOLDER" in result.err) == (what == "copies"), result.err
            assert result.err.count("\n") == (result.code == 2), result.err
            subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
            again = e2e.collapse("run", config, *there)
            assert again.code == 0, again.err
            assert rows_of(runs, "numbers") == rows_of(tmp_path / "whole", "numbers")
        finally:
            subprocess.run(
                ["umount", "-l", disk], check=True
            )  # whoever holds leases has a file there until this process ends
    assert said >= 2


def test_a_clock_that_was_set_back_and_files_of_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing hangs on them: what is finished is found, and a run that begins in the past is one as any other."""
    config, runs = EXPERIMENTS["numbers"](tmp_path), tmp_path / "runs"
    e2e.run(config, tmp_path / "whole", "--jobs", "1")
    e2e.run(config, runs, "--jobs", "1", "--generations", "0")
    for path in runs.rglob("*"):
        os.utime(path, (4e9, 4e9))
    now = itertools.count(4e8, -1000.0)  # in 1982, and backwards while it runs
    monkeypatch.setattr(time, "time", lambda: next(now))
    before = len(e2e.stages(runs))
    e2e.run(config, runs, "--jobs", "1")
    assert before > 0
    assert set(e2e.finished_events(runs, "numbers").values()) == {1}
    assert rows_of(runs, "numbers") == rows_of(tmp_path / "whole", "numbers")
    for command in (["status", "numbers"], ["list"], ["gc"], ["report", "numbers"]):
        made = e2e.collapse(*command, "--runs-dir", runs)
        assert made.code == 0, made.err
    assert len(e2e.stages(runs)) >= before


@pytest.mark.parametrize(("where", "advice"), [("collapse-x1", "TMPDIR=FOLDER"), ("runs", "collapse gc")])
def test_what_frees_space_is_what_is_advised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, advice: str
) -> None:
    """`eval` of a model folder works in a temporary folder, of which gc knows nothing."""

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / where))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("collapse_cli.cli.app.app", full)
    made = e2e.collapse("list", "--runs-dir", tmp_path)
    assert made.code == 2
    assert advice in made.err
