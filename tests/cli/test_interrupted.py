"""Ctrl-C at any moment of a command, its first and its last ones too: exit code 130, one line, and no traceback.

Python itself answers for the hundredths of a second before the first line of `__main__` (`site`, `runpy`): nobody else can.
"""

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from support.waiting import PATIENCE

SAID = "collapse: interrupted; the same command goes on where it stopped\n"
# Sends the signal from within, while the n-th module after our first is looked for: the same moments on any machine.
AT_IMPORT = """
import os, signal, sys
left = {at}
def strike(event, arguments):
    global left
    if event == "import" and "collapse_cli.__main__" in sys.modules:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(strike)
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a shell started us in the background
sys.argv = ["collapse", *{arguments}]
from collapse_cli.__main__ import main
sys.exit(main())
"""


def struck(at: int, *arguments: str) -> tuple[int, str]:
    """How a command ends that is struck at an import, and what it says."""
    code = AT_IMPORT.format(at=at, arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("at", [1, 3, 10, 30, 60, 100, 150, 200, 260, 330])
def test_ctrl_c_while_the_libraries_of_the_command_line_are_loaded(at: int) -> None:
    assert struck(at, "options", "train") == (130, SAID)


@pytest.mark.parametrize("at", [450, 700, 1300, 2500])
def test_ctrl_c_while_the_libraries_of_a_run_are_loaded(tmp_path: Path, at: int) -> None:
    assert struck(at, "run", "--preset", "smoke", "--dry-run", "--runs-dir", str(tmp_path / "runs")) == (130, SAID)


def test_ctrl_c_at_moments_from_the_start_to_the_end(tmp_path: Path) -> None:
    """From outside, by time: whatever is at work then, the taking down of the process too. Fourteen moments of a second."""
    ends: Counter[str] = Counter()
    for moment in range(14):
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
            ends["before our first line"] += 1
        elif child.returncode == 130:
            assert said == SAID
            ends["interrupted"] += 1
        else:
            assert said in ("", SAID), said
            assert child.returncode in (0, 2, -2), said  # done; or before Python listens
            ends["done"] += 1
    assert ends["interrupted"] >= 3, ends
