"""What holds for a whole process."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from collapse_cli.process import peak_memory_mb

ASK = """
import json, os, sys
import collapse_cli.{module}
print(json.dumps([{{name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}}, "torch" in sys.modules]))
"""


def asked(project: Path, module: str, **given: str) -> list[object]:
    """The two settings, and whether torch is there already, after a new process imported a module of ours."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    code = ASK.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], cwd=project, env=clean | given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("module", ["__main__", "run.worker", "process"])
def test_threads_sleep_while_they_wait_and_torch_is_not_there_before(project: Path, module: str) -> None:
    assert asked(project, module) == [{"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}, False]


@pytest.mark.parametrize(
    ("given", "policy", "count"),
    [
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE", None),
        ({"GOMP_SPINCOUNT": "300000"}, None, "300000"),
        ({"KMP_BLOCKTIME": "200"}, None, None),
    ],
)
def test_what_is_set_from_outside_stays(project: Path, given: dict[str, str], policy: str | None, count: str) -> None:
    assert asked(project, "process", **given)[0] == {"OMP_WAIT_POLICY": policy, "GOMP_SPINCOUNT": count}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count in other units")
def test_memory_is_said_in_the_megabytes_in_which_sizes_are_said() -> None:
    """Not in those of 1,048,576 bytes: beside the estimate of a dry run it would be 5% too little."""
    block = b"1" * (100 << 20)
    now, held = psutil.Process().memory_info().rss, peak_memory_mb()
    del block
    assert now - 4 * 10**6 <= held * 10**6
    assert held * 10**6 <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 4 * 10**6


@pytest.mark.skipif(sys.platform != "linux", reason="there alone a process takes it over")
def test_the_memory_of_a_process_is_its_own_and_not_that_of_who_started_it() -> None:
    """Workers said that they held what the run did when it started them."""
    block = b"1" * (400 << 20)
    asked = "from collapse_cli.process import peak_memory_mb; print(peak_memory_mb())"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert len(block) > 0
    assert 5 < int(said) < 200
