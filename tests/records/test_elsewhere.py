"""Runs that are elsewhere, in a folder that stands for a bucket which somebody else writes to; two folders of copies are two machines."""

import errno
import os
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from collapse_cli.__main__ import _of_files
from collapse_cli.engine import leases
from collapse_cli.engine.objects import _in_words
from collapse_cli.engine.remote_addresses import copy_of
from collapse_cli.errors import InputError
from collapse_cli.records import elsewhere
from collapse_cli.records.elsewhere import _Place, _place
from collapse_cli.records.names import STORE
from collapse_cli.records.runs import names_of_runs

RUN = "mine"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the address; this machine's copies are in `tmp_path / "one"`."""
    monkeypatch.setenv("COLLAPSE_CACHE", str(tmp_path / "one"))
    monkeypatch.setattr(elsewhere, "_PLACES", {})
    return tmp_path / "there"


def machine(there: Path, name: str, tmp_path: Path) -> _Place:
    """The place as another machine works with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLLAPSE_CACHE", str(tmp_path / name))
        patch.setattr(elsewhere, "_PLACES", {})
        return _place(copy_of(f"file://{there}"))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_cannot_be_a_run_is_not_brought(there: Path, tmp_path: Path) -> None:
    """Whatever somebody put there: nothing is written beside the copies of runs, least of all where the copies of stages are."""
    for name in (STORE, "Store", ".hidden", "-rf", "a b", "x" * 101, RUN):
        write(there / "runs" / name / "run.json", "{}")
    write(there / "runs" / "alone.json", "{}")
    runs = copy_of(f"file://{there}")
    unsent = runs / STORE / "ab" / "made but not sent"
    write(unsent, "a stage")
    assert names_of_runs(runs) == [RUN]
    assert {path.name for path in runs.iterdir()} == {RUN, STORE}
    assert [path.name for path in (runs / STORE).iterdir()] == ["ab"]
    for path in sorted(there.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    elsewhere.drop_gone(runs)
    assert unsent.exists()
    assert not (runs / RUN).exists()


def test_who_was_paused_for_longer_than_its_lease_sends_nothing_over_what_another_one_sent(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks before it sends, and does not wait for the thread that would have found it out."""
    monkeypatch.setenv("COLLAPSE_LEASE_SECONDS", "60")
    one, two = (machine(there, name, tmp_path) for name in ("one", "two"))
    slept = SimpleNamespace(**{name: getattr(time, name) for name in ("time", "sleep", "monotonic")})
    write(there / "runs" / RUN / "metrics.jsonl", "as it was\n")
    with ExitStack() as paused:
        paused.enter_context(one.working(RUN))
        write(one.runs / RUN / "metrics.jsonl", "what the paused one had\n")
        (lease,) = (there / "leases").glob("*/*")
        os.utime(lease, (time.time() - 1000,) * 2)
        with two.working(RUN):
            write(two.runs / RUN / "metrics.jsonl", "what the other one made, and more\n")
        slept.clock_gettime = slept.monotonic = lambda *_: 1e9
        slept.CLOCK_BOOTTIME = 7
        monkeypatch.setattr(leases, "time", slept)
        with pytest.raises(InputError, match="ended before it was renewed"):
            one.send(RUN)
        monkeypatch.undo()
        with pytest.raises(InputError, match="ended before it was renewed"):
            paused.close()
    assert (there / "runs" / RUN / "metrics.jsonl").read_text() == "what the other one made, and more\n"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_is_wrong_with_the_folder_of_copies_is_not_put_down_to_the_place_of_the_runs(
    there: Path, number: int
) -> None:
    for path in (copy_of(f"file://{there}") / "mine" / "run.json", there.parent / "one"):  # the latter has to be made
        said = _of_files(OSError(number, os.strerror(number), str(path)))
        assert "COLLAPSE_CACHE=FOLDER" in said
        assert "--runs-dir" not in said
    assert "COLLAPSE_CACHE" not in _of_files(OSError(number, os.strerror(number), str(there / "mine")))


def test_a_disk_of_a_node_is_not_taken_for_this_machines(there: Path) -> None:
    """Its folder of copies may have the same name."""
    file = f"{copy_of(f'file://{there}')} on the node other"
    assert _of_files(OSError(errno.ENOSPC, "No space left on device", file)) == (
        f"No space left on device: {file}; free some space there and run the same command again: what is finished is kept"
    )
    said = _of_files(OSError(errno.EACCES, "Permission denied", file))
    assert "mend that there" in said
    assert "this machine" not in said


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ExpiredToken", "the credentials have expired (ExpiredToken); get new ones"),
        ("AccessDenied", "are refused (AccessDenied)"),
    ],
)
def test_keys_that_are_taken_no_more_in_the_middle_of_a_run(code: str, said: str) -> None:
    error = PermissionError("no")
    error.__cause__ = Exception()
    error.__cause__.response = {"Error": {"Code": code}}  # type: ignore[attr-defined]
    for known in (False, True):
        line = str(_in_words(error, "s3://bucket/runs", "bucket/runs", known=known))
        assert said in line
        assert line.endswith("what is finished is kept: give the same command again") == known


def test_a_full_disk_of_copies_is_named_and_nothing_half_written_is_left(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system does not say which file it was."""
    write(there / "runs" / RUN / "run.json", "{}")
    runs, whole = copy_of(f"file://{there}"), Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        whole(path, content[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        elsewhere.bring(runs, RUN)
    assert caught.value.filename == str(runs / RUN)
    assert [path.name for path in (runs / RUN).iterdir()] == [".lock"]
    monkeypatch.setattr(Path, "write_bytes", whole)
    with pytest.raises(RuntimeError), elsewhere.working(runs / RUN):  # noqa: PT012
        write(runs / RUN / "metrics.jsonl", "a row")
        monkeypatch.setattr(Path, "write_bytes", full)
        raise RuntimeError
    assert not list((there / "leases").glob("*/*")), "the run's lease is given back all the same"


def test_a_clock_that_is_wrong_is_not_taken_for_wrong_keys() -> None:
    error = PermissionError("The difference between the request time and the current time is too large.")
    error.__cause__ = Exception()
    error.__cause__.response = {"Error": {"Code": "RequestTimeTooSkewed"}}  # type: ignore[attr-defined]
    said = str(_in_words(error, "s3://bucket/runs", "bucket/runs", known=True))
    assert "set this machine's clock" in said
    assert "AWS_ACCESS_KEY_ID" not in said
