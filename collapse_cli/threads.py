"""How threads wait for work. Imports next to nothing: it comes first in every command, before Ctrl-C can be answered."""

import os

SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait for work. Does nothing where one of its settings is given from outside.

    By default they spin: beside other work each of them holds a core that the thread they wait for needs
    (docs/benchmarks.md, "Threads that wait"). Must be called before torch is imported; child processes inherit it.
    """
    if not any(os.environ.get(name) for name in (*SLEEPING, "KMP_BLOCKTIME")):
        os.environ.update(SLEEPING)
