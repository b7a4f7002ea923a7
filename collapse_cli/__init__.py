"""What happens to a model when its training data are partly made by earlier models, and what stops it?

Start reading in `experiment/loop.py`: the generational loop, top to bottom. What each of its stages does is in `experiment/stages/`.
"""

import os  # and nothing that takes time to load: Ctrl-C cannot be answered yet

__version__ = "0.1.0"

SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait for work. Does nothing where one of its settings is given from outside.

    By default they spin: beside other work each of them holds a core that the thread they wait for needs
    (docs/benchmarks.md, "Threads that wait"). Must be called before torch is imported; child processes inherit it.
    """
    if not any(os.environ.get(name) for name in (*SLEEPING, "KMP_BLOCKTIME")):
        os.environ.update(SLEEPING)


let_threads_sleep()  # here, because OpenMP reads its settings once, while torch is imported
