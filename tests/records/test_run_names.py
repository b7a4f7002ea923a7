"""A run's name belongs to one configuration, its rows are those of the store, and what ends a run ends it politely."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.rows import row_of, write_rows

from collapse_cli import files
from collapse_cli.config import Experiment, load
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.process import interruptible
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder


def config(**train: Any) -> Experiment:
    return load({"train": train}, "a test")


def row(generation: int, **fields: Any) -> Row:
    lm = {"perplexity": 10.0 + generation, "predicted_tokens": 5, "protocol": "blocks"}
    about = {"model_key": "ab", "warnings": [], **lm, "eval_keys": [f"key-{generation}"]}
    return row_of("keep-0", 0, generation, **(about | fields))


def test_two_configurations_that_begin_at_once_do_not_share_a_name(tmp_path: Path) -> None:
    """Both were checked before either wrote its run.json."""
    first, second = (RunFolder(tmp_path, "one") for _ in range(2))
    first.joined_with(config(lr=1e-3))
    second.joined_with(config(lr=2e-3))
    first.start(config(lr=1e-3), [], {})
    with pytest.raises(ConfigError, match=r"was made with train.lr = 0.001, this one has 0.002"):
        second.start(config(lr=2e-3), [], {})
    assert first.config() == config(lr=1e-3)


def test_a_run_that_was_extended_meanwhile_is_not_shrunk(tmp_path: Path) -> None:
    small = load({"loop": {"generations": 1}}, "a test")
    large = load({"loop": {"generations": 3}}, "a test")
    RunFolder(tmp_path, "one").start(large, [], {})
    with pytest.raises(ConfigError, match="another process extended the run 'one'"):
        RunFolder(tmp_path, "one").start(small, [], {})


def test_rows_that_differ_from_the_store_are_written_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = RunFolder(tmp_path, "one")
    folder.start(config(), [], {})
    assert folder.add_rows([row(0), row(1), row(2)])
    assert not folder.add_rows([row(0), row(1, warnings=["later"]), row(2)])
    assert caplog.records == []
    file = folder.path / "metrics.jsonl"
    write_rows(
        folder.path, [row(0), row(1, perplexity=12.5), row(2)]
    )  # without digests, as earlier versions wrote them
    with caplog.at_level(logging.WARNING):
        assert RunFolder(tmp_path, "one").add_rows([row(0), row(1), row(2)])
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}: rows that differed from the store: 1; they are written again"
    ]
    assert folder.rows() == [row(0), row(1), row(2)]
    RunFolder(tmp_path, "one").add_rows([row(2, eval_keys=["of another stage"])])
    assert [json.loads(line)["eval_keys"] for line in file.read_text().splitlines()][-1] == ["of another stage"]
    assert len(folder.rows()) == 3


def test_half_written_files_go_when_a_run_begins(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "one")
    folder.start(config(), [], {})
    for name in (".run.json.0123abcd", ".plan.json.0123abcd", ".metrics.jsonl.0123abcd", ".mine"):
        (folder.path / name).write_text("half")
    folder.start(config(), [], {})
    hidden = {path.name for path in folder.path.iterdir() if path.name.startswith(".")}
    assert hidden - {".lock"} == {".mine"}


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def none(*_: object) -> None:
        raise OSError(code, "no locks here")

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(InputError, match="has no locks"), FolderStore(tmp_path / "store").locked("a"):
        pass
    with pytest.raises(InputError, match="has no locks"):
        RunFolder(tmp_path, "one").add_event({})


def test_who_holds_a_lock_is_said_at_once_and_ctrl_c_ends_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    hold = (
        "import sys; from pathlib import Path; from collapse_cli.records.rundir import RunFolder\n"
        "with RunFolder(Path(sys.argv[1]), 'one').locked(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        ctrl_c = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
        ctrl_c.start()
        with pytest.raises(KeyboardInterrupt):
            RunFolder(tmp_path, "one").add_event({})
        ctrl_c.join()
        other.communicate()
    who = f"process {other.pid}" if sys.platform == "linux" else "another process"
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == f"waiting for {who}, which holds the lock {tmp_path / 'one' / '.lock'}; Ctrl-C ends the wait"
    RunFolder(tmp_path, "one").add_event({})
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_polite_signal_ends_a_run_as_ctrl_c_does(name: str) -> None:
    before = signal.getsignal(getattr(signal, name))
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(getattr(signal, name))
    assert signal.getsignal(getattr(signal, name)) == before


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_output_that_nobody_reads_ends_without_a_word() -> None:
    """As of `collapse options --json | head -1`."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "collapse_cli", "options", "--json"]
    made = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (made.returncode, made.stderr) == (141, "")


def test_of_a_selection_the_option_is_named_that_differs(tmp_path: Path) -> None:
    """And not the whole list: a function of the user's own has changed, for example."""

    def chosen(sha256: str) -> Experiment:
        step = {"by": "mine:score", "keep": "lowest", "plugin_sha256": sha256}
        return Experiment.model_validate({"select": {"oversample": 2.0, **step}})

    folder = RunFolder(tmp_path, "run")
    folder.joined_with(chosen("a" * 64))
    folder.start(chosen("a" * 64), [], {})
    with pytest.raises(ConfigError, match=r"with select\.plugin_sha256 = 'a{64}', this one has 'b{64}'"):
        folder.joined_with(chosen("b" * 64))
