"""What containers and batch systems leave to a process: their control groups, as files and, where this machine lets us make one, for real."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from support.waiting import until

import collapse_cli
from collapse_cli import groups
from collapse_cli.cli import doctor
from collapse_cli.process import free_memory, total_memory

IN_A_CONTAINER = "0::/"
A_JOB = "0::/system.slice/slurmstepd.scope/job_7/step_0"
OF_VERSION_1 = "4:memory:/slurm/job_7\n2:cpu,cpuacct:/slurm/job_7\n0::/"


@pytest.fixture
def laid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight cores and 10,000 bytes, and where its groups are."""
    monkeypatch.setattr(groups, "ROOT", str(tmp_path / "root"))
    monkeypatch.setattr(groups, "OWN", str(tmp_path / "own"))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000, total=20_000))
    return tmp_path


def lay(folder: Path, own: str, files: Mapping[str, str]) -> None:
    (folder / "own").write_text(f"{own}\n")
    for name, text in files.items():
        file = folder / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        (IN_A_CONTAINER, {}, 8),
        (IN_A_CONTAINER, {"cpu.max": "max 100000"}, 8),
        (IN_A_CONTAINER, {"cpu.max": "250000 100000"}, 2),
        (IN_A_CONTAINER, {"cpu.max": "50000 100000"}, 1),
        (IN_A_CONTAINER, {"cpu.max": "1600000 100000"}, 8),
        (IN_A_CONTAINER, {"cpu.max": "junk"}, 8),
        (IN_A_CONTAINER, {"unified/cpu.max": "300000 100000"}, 3),
        (A_JOB, {"system.slice/slurmstepd.scope/job_7/cpu.max": "300000 100000"}, 3),
        (A_JOB, {"system.slice/slurmstepd.scope/job_8/cpu.max": "300000 100000"}, 8),
        (OF_VERSION_1, {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        (OF_VERSION_1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        (
            OF_VERSION_1,
            {
                "cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us": "400000",
                "cpu,cpuacct/slurm/job_7/cpu.cfs_period_us": "100000",
            },
            4,
        ),
    ],
)
def test_a_quota_of_time_is_so_many_cores(laid: Path, own: str, files: Mapping[str, str], cores: int) -> None:
    lay(laid, own, files)
    assert collapse_cli.cores() == cores


@pytest.mark.parametrize(
    ("own", "files", "free", "total"),
    [
        (IN_A_CONTAINER, {}, 10_000, 20_000),
        (IN_A_CONTAINER, {"memory.max": "3000", "memory.current": "1000"}, 2000, 3000),
        (IN_A_CONTAINER, {"memory.max": "max", "memory.current": "1000"}, 10_000, 20_000),
        (IN_A_CONTAINER, {"memory.max": "90000", "memory.current": "1000"}, 10_000, 20_000),
        (IN_A_CONTAINER, {"memory.max": "3000", "memory.current": "4000"}, 0, 3000),
        (IN_A_CONTAINER, {"memory.max": "lots", "memory.current": "0"}, 10_000, 20_000),
        # of 2,500 bytes 900 are of files that were read
        (
            IN_A_CONTAINER,
            {"memory.max": "3000", "memory.current": "2500", "memory.stat": "anon 1600\ninactive_file 900\nslab 0"},
            1400,
            3000,
        ),
        # the step has no limit of its own, the job has one
        (
            A_JOB,
            {
                "system.slice/slurmstepd.scope/job_7/step_0/memory.max": "max",
                "system.slice/slurmstepd.scope/job_7/step_0/memory.current": "700",
                "system.slice/slurmstepd.scope/job_7/memory.max": "5000",
                "system.slice/slurmstepd.scope/job_7/memory.current": "1000",
            },
            4000,
            5000,
        ),
        (
            OF_VERSION_1,
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "123456",
                "memory/slurm/job_7/memory.limit_in_bytes": "6000",
                "memory/slurm/job_7/memory.usage_in_bytes": "2000",
                "memory/slurm/job_7/memory.stat": "total_inactive_file 500",
            },
            4500,
            6000,
        ),
    ],
)
def test_memory_is_what_the_machine_and_the_groups_leave(
    laid: Path, own: str, files: Mapping[str, str], free: int, total: int
) -> None:
    lay(laid, own, files)
    assert (free_memory(), total_memory()) == (free, total)


def test_doctor_says_whose_limit_it_is(laid: Path) -> None:
    lay(laid, IN_A_CONTAINER, {"memory.max": "3000", "memory.current": "1000"})
    assert doctor._memory() == "2 kB free of 3 kB, the limit of this container or batch job"
    lay(laid, IN_A_CONTAINER, {"memory.max": "max"})
    assert doctor._memory() == "10 kB free of 20 kB"


def test_where_nothing_tells_of_groups_there_are_none(laid: Path) -> None:
    """As on a Mac."""
    assert (groups.cores(), groups.memory(), groups.free_memory()) == (None, None, None)


def test_of_this_machine_they_are_plausible_numbers() -> None:
    assert 0 < free_memory() <= total_memory() <= psutil.virtual_memory().total
    assert 1 <= collapse_cli.cores() <= (os.cpu_count() or 1)


MEGABYTES = 700
ASKED = "import json; from collapse_cli.process import free_memory, total_memory; print(json.dumps([free_memory(), total_memory()]))"


@pytest.fixture
def job() -> Iterator[Path]:
    """A control group below this process's own, as SLURM makes one a job, with a limit."""
    own = next((line for line in Path(groups.OWN).read_text().splitlines() if ":memory:" in line), "")
    made = Path(groups.ROOT, "memory", own.partition(":memory:")[2].lstrip("/"), f"collapse-test-{os.getpid()}")
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error.strerror}")
    try:
        (made / "memory.limit_in_bytes").write_text(str(MEGABYTES << 20))
    except OSError as error:
        made.rmdir()
        pytest.skip(f"no control group can be given a limit here: {error.strerror}")
    yield made
    until(lambda: removed(made))


def removed(group: Path) -> bool:
    """Whether a group could be removed: one whose process has just ended is busy for a moment."""
    try:
        group.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def test_a_real_group_of_a_batch_job_is_heeded(job: Path) -> None:
    enter = f"import os; open({str(job / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); "
    done = subprocess.run([sys.executable, "-c", enter + ASKED], capture_output=True, text=True, check=False)
    if "PermissionError" in done.stderr:
        pytest.skip("no process may be put into a control group here")
    free, total = json.loads(done.stdout)
    assert total == MEGABYTES << 20
    assert total / 2 < free < total
