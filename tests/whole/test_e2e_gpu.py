"""A run on a GPU from start to end: killed in the middle, it goes on and ends with the same numbers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support import e2e

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, or none asked for by -m gpu"),
]
MORE = ["--policy", "keep-0", "--set=train.epochs=12", "--set=train.dtype=bfloat16", "--set=sample.dtype=bfloat16"]


def begun(home: Path, runs: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "collapse_cli", "run", str(home / "tiny.toml"), "--runs-dir", str(home / runs)]
    environment = os.environ | {
        "COLLAPSE_CHECKPOINT_SECONDS": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.Popen(
        [*command, *MORE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_numbers(tmp_path: Path) -> None:
    """Sixty steps a training, so that they are recorded."""
    e2e.write_experiment(tmp_path)
    whole, part = begun(tmp_path, "whole"), begun(tmp_path, "part")
    until = time.monotonic() + 120
    while not list((tmp_path / "part").glob("store/**/checkpoint.safetensors")):
        assert part.poll() is None, part.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.01)
    part.send_signal(signal.SIGKILL)
    assert part.wait() == -signal.SIGKILL
    again = begun(tmp_path, "part")
    for each in (whole, again):
        said = each.communicate(timeout=120)[0]
        assert each.returncode == 0, said
    assert e2e.results(tmp_path / "part") == e2e.results(tmp_path / "whole")
    assert len(e2e.results(tmp_path / "whole")) == 2
