"""Ctrl-C at any moment of a command, its first and its last ones too: exit code 130, one line, and no traceback.

Python itself answers for the hundredths of a second before the first line of `__main__` (`site`, `runpy`): nobody else can.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from support import small
from support.waiting import PATIENCE, until

from collapse_cli import process
from collapse_cli.errors import UserError

SAID = "collapse: interrupted; the same command goes on where it stopped\n"
# Sends the signal from within, while the n-th module after our first is looked for: the same moments on any machine.
AT_IMPORT = """
import os, signal, sys
left = {at}
def kill():
    os.kill(os.getpid(), signal.{name})
class InAClass:
    def __set_name__(self, owner, name):
        kill()
class InAFinalizer:
    def __del__(self):
        kill()
def strike(event, arguments):
    global left
    if event == "import" and "collapse_cli.__main__" in sys.modules:
        left -= 1
        if left == 0:
            {how}
sys.addaudithook(strike)
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a shell started us in the background
sys.argv = ["collapse", *{arguments}]
from collapse_cli.__main__ import main
sys.exit(main())
"""


def struck(at: int, *arguments: str, name: str = "SIGINT", how: str = "kill()") -> tuple[int, str]:
    """How a command ends that is struck at an import, and what it says."""
    code = AT_IMPORT.format(at=at, arguments=list(arguments), name=name, how=how)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("at", [1, 3, 10, 30, 60, 100, 150, 200, 260, 330])
def test_ctrl_c_while_the_libraries_of_the_command_line_are_loaded(at: int) -> None:
    assert struck(at, "options", "train") == (130, SAID)


@pytest.mark.parametrize("at", [450, 700, 1300, 2500])
def test_ctrl_c_while_the_libraries_of_a_run_are_loaded(tmp_path: Path, at: int) -> None:
    assert struck(at, "run", "--preset", "smoke", "--dry-run", "--runs-dir", str(tmp_path / "runs")) == (130, SAID)


@pytest.mark.parametrize(("name", "at"), [("SIGTERM", 30), ("SIGTERM", 100), ("SIGHUP", 260), ("SIGTERM", 330)])
def test_a_request_to_end_is_answered_as_ctrl_c_is_also_before_a_run_begins(name: str, at: int) -> None:
    """As a scheduler sends it to a job that it has just started."""
    assert struck(at, "options", "train", name=name) == (130, SAID)


@pytest.mark.parametrize("how", ["type('Made', (), dict(field=InAClass()))", "InAFinalizer()"])
@pytest.mark.parametrize("at", [300, 450])
def test_ctrl_c_where_python_makes_another_error_of_it_or_none(tmp_path: Path, how: str, at: int) -> None:
    """While a class is made it is wrapped up to Python 3.11; in a finalizer it is told and ends nothing."""
    command = ("run", "--preset", "smoke", "--dry-run", "--runs-dir", str(tmp_path / "runs"))
    assert struck(at, *command, how=how) == (130, SAID)


def _wrapped() -> None:
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        raise RuntimeError("Error calling __set_name__") from error  # as Python up to 3.11 does


def _told_otherwise() -> None:
    try:
        _wrapped()
    except RuntimeError:
        raise UserError("the config does not make a model") from None


def _dropped() -> None:
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    raise ImportError("numpy._core.multiarray failed to import")  # as libraries in C do, without its cause


def _after_it() -> None:
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    raise UserError("the disk is full")


def _without_any() -> None:
    raise ImportError("no such module")


@pytest.mark.parametrize(
    ("strike", "kind"),
    [
        (_wrapped, KeyboardInterrupt),
        (_told_otherwise, KeyboardInterrupt),
        (_dropped, KeyboardInterrupt),
        (_after_it, UserError),
        (_without_any, ImportError),
    ],
)
def test_what_is_made_of_a_ctrl_c_is_taken_for_one_and_nothing_else_is(
    strike: Callable[[], None], kind: type[BaseException]
) -> None:
    before = signal.signal(signal.SIGINT, process.asked_to_end)
    try:
        with pytest.raises(kind), process.interrupts_kept():
            strike()
    finally:
        signal.signal(signal.SIGINT, before)


IN_A_FINALIZER = """
import os, signal, time
from collapse_cli import process
signal.signal(signal.SIGINT, process.asked_to_end)
process.heed_lost_interrupts()
class Struck:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
try:
    Struck()
    time.sleep({patience})
except KeyboardInterrupt:
    print("ended")
"""


def test_a_ctrl_c_that_a_finalizer_loses_comes_again() -> None:
    """Python tells of it and goes on."""
    code = IN_A_FINALIZER.format(patience=PATIENCE)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


# Holds up each worker process before its first statement, where no handler of ours can be yet.
HELD_UP = """
import sys, time
from pathlib import Path
if any("run.worker" in word for word in sys.orig_argv):
    Path({here!r}, "begins").touch()
    while not Path({here!r}, "go").exists():
        time.sleep(0.01)
"""


def test_what_a_terminal_sends_to_all_processes_is_answered_by_one(tmp_path: Path) -> None:
    """Also where a worker has just been started."""
    (tmp_path / "sitecustomize").with_suffix(".py").write_text(HELD_UP.format(here=str(tmp_path)))
    arguments = ["run", str(small.write(tmp_path, "numbers", small.NUMBERS)), "--jobs", "2", "--seeds", "0,1"]
    run = subprocess.Popen(
        [sys.executable, "-m", "collapse_cli", *arguments, "--runs-dir", str(tmp_path / "runs")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until((tmp_path / "begins").exists)
    os.killpg(run.pid, signal.SIGINT)
    (tmp_path / "go").touch()
    said = run.communicate(timeout=PATIENCE)[1]
    assert (run.returncode, said) == (130, SAID)


def test_ctrl_c_at_moments_from_the_start_to_the_end(tmp_path: Path) -> None:
    """From outside, by time: whatever is at work then, the taking down of the process too. Fourteen moments of a second."""

    def end_at(moment: int) -> str:
        child = subprocess.Popen(
            [sys.executable, "-m", "collapse_cli", "list", "--runs-dir", str(tmp_path / "runs")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(0.075 * moment)
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=PATIENCE)[1]
        if "Traceback" in said and "__main__.py" not in said:
            return "before our first line"
        if child.returncode == 130:
            assert said == SAID
            return "interrupted"
        assert said in ("", SAID), said
        assert child.returncode in (0, 2, -2), said  # done; or before Python listens
        return "done"

    with ThreadPoolExecutor(3) as at_once:  # most of the time is waited
        ends = Counter(at_once.map(end_at, range(14)))
    assert ends["interrupted"] >= 3, ends
