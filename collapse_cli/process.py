"""What holds for a whole process of ours: how quiet its libraries are, how much memory it took."""

import codecs
import io
import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from collapse_cli import groups
from collapse_cli.errors import UserError

IN_ASCII = str.maketrans(
    {"×": "x", "≥": ">=", "≤": "<=", "²": "^2", "…": "...", "·": "-", "–": "-", "—": "-", "σ": "s"}
)


MEGABYTE = 10**6  # bytes, as sizes are said everywhere
BEGAN: ContextVar[float] = ContextVar("BEGAN")  # when the command began, by `time.perf_counter`
HEARD: list[int] = []  # each Ctrl-C, and request like it, by the number of its signal
AT_STAKE: list[bool] = []  # an entry for each `interruptible`; empty: nothing would be lost by an end at once
OUTPUT = "the output of this command"  # what an error of the standard output has for a file


class _Output(io.FileIO):
    """The standard output, whose errors say that they are its own: those of writing to any other file name none, too."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError as error:
            raise OSError(error.errno, error.strerror, OUTPUT) from None


MOST_SECONDS = 10**9  # of a variable: thirty years; what waits for longer may be refused by the system
# environment variables that we, or libraries while they are imported, take for numbers
NUMBERS = {
    "HF_HUB_ETAG_TIMEOUT": int,
    "HF_HUB_DOWNLOAD_TIMEOUT": int,
    "COLLAPSE_CHECKPOINT_SECONDS": float,
    "COLLAPSE_LEASE_SECONDS": float,
    "COLLAPSE_OUTAGE_SECONDS": float,
}


def odd_variable() -> str:
    """What is wrong with an environment variable that must be a number, in one sentence; empty where nothing is.

    A wrong TERMINAL_WIDTH, which typer would end in a traceback for, is dropped: no work hangs on it.
    """
    if not os.environ.get("TERMINAL_WIDTH", "80").isdecimal():
        del os.environ["TERMINAL_WIDTH"]
    os.environ.pop("MPLBACKEND", None)  # for windows, which we have none of; a wrong name ends the import of matplotlib
    for name, kind in NUMBERS.items():
        if value := os.environ.get(name):
            try:
                right = 0 <= kind(value) <= MOST_SECONDS
            except (ValueError, OverflowError):
                right = False
            if not right:
                what = "a whole number" if kind is int else "a number"
                return (
                    f"the environment variable {name} is {value!r}, and must be {what} of seconds, {MOST_SECONDS:,} at most; "
                    "correct it, or unset it"
                )
    return ""


def own_errors_of_output() -> None:
    """Let errors of writing to the standard output be told from those of other files, by `OUTPUT` as their file."""
    there = sys.stdout
    if there is not sys.__stdout__ or not isinstance(there, io.TextIOWrapper):  # none, or not the process's own
        return
    there.flush()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(there.fileno(), "w", closefd=False)),
        encoding=there.encoding,
        errors=there.errors,
        line_buffering=there.line_buffering,
        write_through=there.write_through,
    )


def print_in_any_encoding() -> None:
    """Let what is printed reach a terminal or a file whose encoding lacks some of its characters: by others like them.

    Without this, one ≥ ends a command with a traceback where PYTHONIOENCODING or the locale say ASCII or Latin-1.
    """
    codecs.register_error("collapse.alike", _alike)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="collapse.alike")


def _alike(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    there = error.object[error.start : error.end].translate(IN_ASCII)
    return there.encode("ascii", "backslashreplace").decode("ascii"), error.end


def quiet_libraries() -> None:
    """No progress bars and advice of transformers and the Hub between our own lines; data/tables.py sees to those of datasets."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def free_memory() -> int:
    """Bytes of this machine's memory that can still be taken; in a container or a batch job, of what that may have."""
    import psutil

    free, left = int(psutil.virtual_memory().available), groups.free_memory()
    return free if left is None else min(free, left)


def total_memory() -> int:
    """Bytes of memory that this machine has, or the container or batch job may have, whoever uses them now."""
    import psutil

    total, most = int(psutil.virtual_memory().total), groups.memory()
    return total if most is None else min(total, most)


def peak_memory_mb() -> int:
    """The most memory this process has held so far, in MB; on a GPU, what torch held there."""
    torch = sys.modules.get("torch")  # where it was never needed it holds nothing
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated()) // MEGABYTE
    # not `ru_maxrss`, where that can be helped: Linux hands it on from the process that started this one
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 // MEGABYTE
    try:
        import resource
    except ImportError:  # not on Windows
        import psutil

        return int(psutil.Process().memory_info().rss) // MEGABYTE
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // MEGABYTE


@contextmanager
def interruptible() -> Iterator[None]:
    """While there is something to lose: a polite request to end (SIGTERM, as from a cluster's scheduler; SIGHUP, when the terminal goes)
    ends a run as Ctrl-C does. Under `nohup` SIGHUP stays ignored.
    """
    unheard = [number for number in requests_to_end() if signal.getsignal(number) is signal.SIG_DFL]
    for number in unheard:
        signal.signal(number, asked_to_end)
    AT_STAKE.append(True)
    try:
        yield
    finally:
        AT_STAKE.pop()
        for number in unheard:
            signal.signal(number, signal.SIG_DFL)


def asked_to_end(number: int, _: FrameType | None) -> None:
    """Answer Ctrl-C, or a request like it.

    Raises:
        KeyboardInterrupt: always.
    """
    HEARD.append(number)
    raise KeyboardInterrupt


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Let a Ctrl-C that strikes inside end it also where something else is made of it: Python up to 3.11 raises an error of its own while a
    class is made, and so do libraries in C while they are loaded.

    Raises:
        KeyboardInterrupt: for any such error; and for one that is none of the user's, as soon as there was a Ctrl-C.
    """
    before = len(HEARD)
    try:
        yield
    except Exception as error:
        link: BaseException | None = error
        while link is not None:
            if isinstance(link.__cause__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            link = link.__cause__ or link.__context__
        if len(HEARD) > before and not isinstance(error, UserError | OSError | MemoryError):
            raise KeyboardInterrupt from error
        raise


def is_loading(frame: FrameType | None) -> bool:
    """Whether a module is being loaded there."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def send_again(number: int) -> None:
    """Send this process a signal in a hundredth of a second, when what cannot be interrupted may have ended."""
    again = threading.Timer(0.01, _to_main_thread, (number,))
    again.daemon = True
    again.start()


def _to_main_thread(number: int) -> None:
    """Send it a signal that wakes it, too, where it waits for something."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)
    else:
        signal.raise_signal(number)


def heed_lost_interrupts() -> None:
    """Ctrl-C that strikes in what Python calls by the way, as a finalizer, would end nothing and leave a traceback: let it come again."""
    others = sys.unraisablehook

    def hook(lost: "sys.UnraisableHookArgs") -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            others(lost)
        elif heard := [number for number in requests_to_end() if callable(signal.getsignal(number))]:
            send_again(heard[0])  # an exception from here would be lost, too

    sys.unraisablehook = hook


def requests_to_end() -> list[signal.Signals]:
    """The signals of Ctrl-C, of a scheduler, and of a terminal that goes; Windows has not all of them."""
    return [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def unheard_by_children() -> Iterator[None]:
    """While a process that is talked to in lines is started. Terminals and schedulers send what is to end a command to all its processes:
    this one answers, and none that is just beginning may, with a traceback. It begins with these signals blocked, until `answers_alone`.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, requests_to_end())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def not_interrupted() -> Iterator[None]:
    """While what takes moments must not be left half done, such as ending other processes: a second Ctrl-C, too, is answered after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = {number: handler for number in requests_to_end() if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt


def answers_alone() -> TextIO:
    """Where a process that is talked to in lines answers. It ends with its input, and by no signal that a terminal sends."""
    for number in requests_to_end():
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, requests_to_end())
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    return answers


def lines_of_input() -> Iterator[dict[str, Any]]:
    """What is written to this process, line by line; where that ends, so does the process, whatever it is at."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(lines.get())
