"""The SLURM script of docs/cluster.md, run by a shell beside stand-ins for SLURM, Ray and collapse: what it starts where, and how it ends."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scripts import PROJECT
from support.waiting import until

from collapse_cli.engine.executors.ray import LONGEST_PLACE

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(
    BASH is None or not Path("/proc/self/status").exists(), reason="a shell script, and Linux to look at it"
)
FIRST_PORT, PORTS = 20000, 20000  # as the script has them
STAND_INS = {
    "scontrol": 'echo "scontrol $*" >> "$SAID"; [ "$1" != show ] || printf "127.0.0.1\\nother\\n"',
    "srun": 'echo "srun ${SRUN_CPUS_PER_TASK-unset} $*" >> "$SAID"; while [ "$1" != ray ]; do shift; done; exec "$@"',
    "ray": f'case "$*" in *--head*) exec "{sys.executable}" -c "$LISTEN" "$RAY_ADDRESS";; *) exec sleep 60;; esac',
    "collapse": 'trap "exit 130" TERM; echo "collapse $*" >> "$SAID"; eval "$WORK"',
}
LISTEN = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1].split(":")[1])))
time.sleep(60)
"""


def the_script() -> str:
    page = (PROJECT / "docs" / "cluster.md").read_text(encoding="utf-8")
    block = page.partition("    #!/bin/bash\n")[2].partition("\n\n")[0]
    return textwrap.dedent(f"    #!/bin/bash\n{block}\n")


def a_job() -> int:
    """The number of a job whose port is free."""
    for number in range(os.getpid(), os.getpid() + 100):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", FIRST_PORT + number % PORTS))
            except OSError:
                continue
            return number
    raise AssertionError("no port is free")


class Job:
    """The script at work."""

    def __init__(self, place: Path, work: str, *, listen: str = LISTEN) -> None:
        commands = place / "bin"
        commands.mkdir()
        for name, text in STAND_INS.items():
            (commands / name).write_text(f"#!/bin/bash\n{text}\n")
            (commands / name).chmod(0o755)
        (place / "job.sh").write_text(the_script())
        self.said = place / "said"
        self.number = a_job()
        environment = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "SAID": str(self.said),
            "LISTEN": listen,
            "WORK": work,
            "SCRATCH": str(place),
            "SLURM_JOB_ID": str(self.number),
            "SLURM_JOB_NODELIST": "127.0.0.1,other",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "16",
        }
        command = [str(BASH), str(place / "job.sh")]
        self.process = subprocess.Popen(command, env=environment, start_new_session=True)

    def lines(self) -> list[str]:
        return self.said.read_text().splitlines() if self.said.exists() else []


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[list[Job]]:
    started: list[Job] = []
    yield started
    for job in started:  # as SLURM does with what a job leaves
        os.killpg(job.process.pid, signal.SIGKILL)
        job.process.wait()


def test_ray_is_started_on_all_nodes_with_all_their_processors_and_the_run_beside_its_head(
    tmp_path: Path, jobs: list[Job]
) -> None:
    """`srun` of SLURM 22.05 and later takes no number of processors from the job: a node's stages would share one."""
    jobs.append(job := Job(tmp_path, "exit 3"))
    assert job.process.wait(60) == 3, "the code of the run"
    until(lambda: len(job.lines()) == 4)  # steps are started beside the script
    steps = sorted(line for line in job.lines() if line.startswith("srun "))
    assert [line.split()[1] for line in steps] == ["16", "16"]
    assert "--exclude=127.0.0.1" in steps[0]
    assert "--nodelist=127.0.0.1" in steps[1]
    own = f"/tmp/ray-{job.number}"  # of this job alone, on a node that it shares with others
    assert all(f" --temp-dir={own} " in step for step in steps)
    assert len("/tmp/ray-4294967295") <= LONGEST_PLACE, "or the names of sockets are too long"
    assert f"collapse run my.toml --runs-dir {tmp_path}/runs --executor ray" in job.lines()


def test_a_job_whose_time_ends_stops_its_run_and_goes_back_into_the_queue(tmp_path: Path, jobs: list[Job]) -> None:
    jobs.append(job := Job(tmp_path, "while :; do sleep 0.05; done"))
    until(lambda: any(line.startswith("collapse ") for line in job.lines()))
    job.process.send_signal(signal.SIGTERM)  # to the shell alone, as `--signal=B:` says
    job.process.wait(60)
    assert job.lines()[-1].startswith("scontrol requeue ")


def test_a_job_whose_time_ends_before_ray_has_begun_goes_back_into_the_queue(tmp_path: Path, jobs: list[Job]) -> None:
    jobs.append(job := Job(tmp_path, "exit 3", listen="import time; time.sleep(60)"))
    until(lambda: any(line.startswith("srun ") for line in job.lines()))
    job.process.send_signal(signal.SIGTERM)
    job.process.wait(60)
    assert job.lines()[-1] == f"scontrol requeue {job.number}"
    assert not any(line.startswith("collapse ") for line in job.lines())
