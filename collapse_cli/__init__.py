"""What happens to a model when its training data are partly made by earlier models, and what stops it?

Start reading in `experiment/loop.py`: the generational loop, top to bottom. What each of its stages does is in `experiment/stages/`.
"""

import os  # and nothing that takes time to load: Ctrl-C cannot be answered yet

from collapse_cli import groups

__version__ = "0.1.0"

SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait for work. Does nothing where one of its settings is given from outside.

    By default they spin: beside other work each of them holds a core that the thread they wait for needs
    (docs/benchmarks.md, "Threads that wait"). Must be called before torch is imported; child processes inherit it.
    """
    if not any(os.environ.get(name) for name in (*SLEEPING, "KMP_BLOCKTIME")):
        os.environ.update(SLEEPING)


def cores() -> int:
    """How many cores of this machine this process may keep busy: SLURM and `taskset` bind it to some, and containers have a quota of time."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(mine, int(groups.cores() or mine)))


def let_threads_fit() -> None:
    """Let OpenMP have no more threads than this process has cores. Does nothing where their number is given from outside.

    torch heeds what a process is bound to, and no quota: it takes a thread for each core of the machine, and all wait for the one that is held
    back. Must be called before torch is imported; child processes inherit it.
    """
    machine = os.cpu_count() or 1
    siblings = 2 if groups.words("/sys/devices/system/cpu/smt/active") == ["1"] else 1
    if not os.environ.get("OMP_NUM_THREADS") and (mine := cores()) < machine // siblings:
        os.environ["OMP_NUM_THREADS"] = str(mine)


let_threads_sleep()  # here, because OpenMP reads its settings once, while torch is imported
let_threads_fit()
