"""Someone else's chat template tried before it is used: it is a program, and may loop for ever or fill the memory.

transformers' sandbox keeps a template from files and the system, not from time and memory. So it first writes a few small dialogues in a
process of its own that has little of both.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

SECONDS = 10  # of processor time
PATIENCE = 120.0  # seconds by the clock
MEMORY = 1 << 30  # bytes, besides what the process has
MOST = 1 << 20  # characters around the few words of a dialogue
FINE, TOO_MUCH, TOO_LONG = 0, 3, 4  # how the process ends


def trouble(writers: Sequence[Callable[[], str]]) -> str:
    """What is wrong with a template, as the end of a sentence; "" where nothing is, or where it cannot be tried.

    Args:
        writers: each writes a small dialogue; one that raises is no trouble.
    """
    if sys.platform == "win32":  # which has no such processes
        return ""
    with warnings.catch_warnings(), _tokenizers_settled():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads have no part in what the child does
        child = os.fork()
    if not child:
        _write(writers)
    ended = _end_of(child)
    if ended == TOO_MUCH:
        return f"takes more than {MEMORY >> 30} GiB of memory for a short dialogue"
    if ended == TOO_LONG:
        return f"writes more than {MOST:,} characters around a short dialogue"
    if ended == -signal.SIGXCPU:
        return f"does not come to an end within {SECONDS} seconds of work"
    return f"ends the process that runs it (signal {-ended})" if ended < 0 else ""


def _end_of(child: int) -> int:
    """How the process ended; `FINE` for one that only waits, as one that was begun while another thread held a lock."""
    until = time.monotonic() + PATIENCE
    done, status = 0, 0
    try:
        while not done and time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0 if done else 0.005)
    finally:
        if not done:
            os.kill(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
    if not done:
        return -signal.SIGXCPU if used.ru_utime + used.ru_stime > SECONDS / 2 else FINE
    return os.waitstatus_to_exitcode(status)


@contextlib.contextmanager
def _tokenizers_settled() -> Iterator[None]:
    """The library of tokenizers says nothing of a new process where this variable is there, whatever its value."""
    name = "TOKENIZERS_PARALLELISM"
    if name in os.environ:
        yield
        return
    os.environ[name] = "true"  # as it is without
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _write(writers: Sequence[Callable[[], str]]) -> NoReturn:
    """What the process does."""
    ended = FINE
    try:
        _limit()
        ended = next((found for write in writers if (found := _tried(write)) != FINE), FINE)
    finally:
        os._exit(ended)


def _tried(write: Callable[[], str]) -> int:
    try:
        return TOO_LONG if len(write()) > MOST else FINE
    except MemoryError:
        return TOO_MUCH
    except Exception:  # it refuses that dialogue
        return FINE


def _limit() -> None:
    """Little time and memory for this process, and signals that end it."""
    import resource

    faulthandler.disable()
    for number in (signal.SIGXCPU, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: SECONDS}
    with contextlib.suppress(OSError):  # where the system does not tell
        there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits[resource.RLIMIT_AS] = there + MEMORY
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
