"""`python -m collapse_cli`, and the command `collapse`: one line for each mistake of the user, and exit codes."""

import os
import sys

ON_A_NODE = " on the node "  # in the name of a file that is not of this machine
DONE, USAGE, INTERRUPTED, UNREAD = 0, 2, 130, 141  # 128 and the number of SIGINT, of SIGPIPE
GOES_ON = "interrupted; the same command goes on where it stopped"


def leave_at_once(*_: object) -> None:
    """End the process where nothing is at stake yet: while libraries are loaded, an exception ends anywhere, with traces."""
    os.write(2, f"collapse: {GOES_ON}\n".encode())
    os._exit(INTERRUPTED)


try:
    import atexit
    import errno
    import signal
    import time
    from collections.abc import Iterator
    from contextlib import contextmanager, suppress
    from pathlib import Path
    from types import FrameType
    from typing import Any

    from collapse_cli.errors import UserError
except KeyboardInterrupt:
    leave_at_once()

ADVICE = {
    errno.ENOSPC: "free some space (collapse gc) and run the same command again: what is finished is kept",
    errno.EDQUOT: "free some space (collapse gc) and run the same command again: what is finished is kept",
    errno.EFBIG: "files may not grow larger here (ulimit -f); allow larger ones and run the same command again",
    errno.EACCES: "choose another --runs-dir, or change its permissions",
    errno.EPERM: "choose another --runs-dir, or change its permissions",
    errno.EROFS: "the file system is read-only; choose another --runs-dir",
    errno.ENOTDIR: "a part of this path is a file; choose another --runs-dir",
    errno.ENAMETOOLONG: "shorten it",
    errno.ELOOP: "it is a link to itself; choose another --runs-dir",
    errno.EISDIR: "a folder stands where a file is needed; move it away",
    errno.EIO: "the disk cannot be read or written; check it",
    errno.ESTALE: "this file system cannot be reached any more; give the same command again when it can",
    errno.ENOENT: "it was removed while the command ran; give the same command again",
    errno.EMFILE: "allow more open files (ulimit -n) and give the same command again",
    errno.ENFILE: "the machine has too many open files; close other programs and give the same command again",
    errno.ENOMEM: "memory ran out; end other programs, or lower --jobs, and give the same command again",
    errno.EAGAIN: "allow more processes (ulimit -u), or lower --jobs, and give the same command again",
    errno.EBUSY: "another program uses it; give the same command again when it is free",
    errno.EINVAL: "the file system does not take this; choose another --runs-dir",
    errno.ENOTCONN: "this file system cannot be reached any more; give the same command again when it can",
    errno.EEXIST: "there is a file where a folder is needed; choose another --runs-dir",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0 done, 2 the user's mistake, 130 interrupted, 141 nobody reads its output,
    1 anything else.

    Without `arguments` it is the whole process that it runs, and Ctrl-C is answered from the first to the last.
    """
    if arguments is not None:
        return _run(arguments)
    ends: list[int] = []
    atexit.register(_end_as_interrupted, ends)  # the first of all, so that it is called when all others have been
    with _no_traces():
        ends.append(_run(None))
    return ends[0]


@contextmanager
def _no_traces() -> Iterator[None]:
    """For Ctrl-C before the command itself runs, and after it: no traceback of what is just loaded or taken down."""
    heard = _requests_to_end(signal.default_int_handler, signal.SIG_DFL)  # not ignored, as in the background of a shell
    for number in heard:
        signal.signal(number, leave_at_once)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, leave_at_once)


def _requests_to_end(*handlers: object) -> list[int]:
    """Those of Ctrl-C, of a scheduler and of a terminal that goes which are answered by one of some handlers."""
    # not those of `process`, which takes longer to load than Ctrl-C may take to come
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has not all of them
    return [number for name in names if signal.getsignal(number := getattr(signal, name)) in handlers]


def _end_as_interrupted(ends: list[int]) -> None:
    """End with the code of main: where Ctrl-C struck in a text that was executed, as dataclasses do, Python would end the
    process by the signal instead.
    """
    if ends == [INTERRUPTED]:
        os._exit(INTERRUPTED)  # what is written has been flushed, or said to be lost


def _run(arguments: list[str] | None) -> int:
    began = time.perf_counter()
    try:
        Path.cwd()
    except OSError as error:
        gone = "was removed" if error.errno == errno.ENOENT else f"cannot be read ({error.strerror})"
        return _say(f"the folder that you are in {gone}; change to another one (cd) and give the command again", USAGE)
    from collapse_cli import process

    process.BEGAN.set(began)
    process.own_errors_of_output()
    process.print_in_any_encoding()
    process.heed_lost_interrupts()
    if odd := process.odd_variable():
        return _say(odd, USAGE)
    try:
        code = _end(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a failure can still be said
    except BrokenPipeError:
        _drop_output()
        return UNREAD
    except OSError as error:
        if error.filename != process.OUTPUT:
            raise
        _drop_output()
        return _say(
            f"{process.OUTPUT} cannot be written: {error.strerror}; send it to another place; what a run has finished is kept",
            USAGE,
        )
    return code


def _end(arguments: list[str] | None) -> int:
    """Run the command and say what went wrong, but not with the output; the exit code."""
    import typer

    from collapse_cli.cli.app import app
    from collapse_cli.process import OUTPUT, interrupts_kept

    # typer carries a click of its own or uses the one installed, by version: take the base of what it raises
    mistakes: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
    try:
        for number in _requests_to_end(leave_at_once):  # what is loaded from here on stands beside work
            signal.signal(number, _asked_to_end)
        with interrupts_kept():
            code = app(args=arguments, standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except mistakes as mistake:
        if type(mistake).__name__ == "NoArgsIsHelpError":  # it has printed the help
            return USAGE
        from collapse_cli.cli import usage_errors

        return _say(usage_errors.sentence(mistake, sys.argv[1:] if arguments is None else arguments), USAGE)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as stop:  # as of `| head -1`, which typer makes an exit of its own of
        if isinstance(stop.__context__, BrokenPipeError):
            raise stop.__context__ from None
        raise
    except UserError as error:
        return _say(str(error), USAGE)
    except MemoryError as error:
        how_much = f" ({error})" if str(error) else ""
        return _say(f"out of memory{how_much}; lower the number of rows, trials or generations", USAGE)
    except OSError as error:
        if error.filename is None and "temporary directory" in str(error.strerror):  # as Python's tempfile words it
            return _say(f"{error.strerror}; name a folder that can be written to with TMPDIR=FOLDER", USAGE)
        if error.errno not in ADVICE or error.filename == OUTPUT:
            raise
        return _say(_of_files(error), USAGE)
    if code == INTERRUPTED:  # typer makes an exit code of its own of Ctrl-C
        return _say(GOES_ON, INTERRUPTED)
    return code if isinstance(code, int) else DONE


def _asked_to_end(number: int, frame: FrameType | None) -> None:
    """Ctrl-C while the command runs: in what has only begun to load its libraries an exception would end anywhere, with traces."""
    from collapse_cli import process

    if not process.AT_STAKE and process.is_loading(frame):
        leave_at_once()
    process.asked_to_end(number, frame)


def _of_files(error: OSError) -> str:
    """What the system says of a file or folder, and what to do."""
    name = error.filename
    if isinstance(name, str):
        if ON_A_NODE in name:  # neither this machine's disk nor its --runs-dir is at fault
            mend = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend that there"
            return f"{error.strerror}: {name}; {mend} and run the same command again: what is finished is kept"
        with suppress(OSError):  # a name too long to be looked at
            if (link := Path(name)).is_symlink() and not link.exists():
                return (
                    f"{name} is a link to {link.readlink()}, which is not there; make that folder, or remove the link"
                )
        import tempfile

        ours = os.path.join(tempfile.gettempdir(), "collapse-")  # noqa: PTH118
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and name.startswith(ours):
            return f"{error.strerror}: {name}; free some space there, or name another folder with TMPDIR=FOLDER"
        from collapse_cli.cli import usage_errors

        of_place = "--runs-dir" in ADVICE[error.errno or 0] or error.errno in (errno.ENOSPC, errno.EDQUOT)
        if of_place and (advice := usage_errors.of_copies(name)):  # whose --runs-dir is not at fault
            return f"{error.strerror}: {name}, {advice}"
    return f"{error.strerror}: {name or 'the runs folder'}; {ADVICE[error.errno or 0]}"


def _drop_output() -> None:
    """Nobody reads it any more: what is still to be written at the end of this process must not fail, too."""
    with suppress(OSError, ValueError):  # no file of the system's, as in a test
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _say(message: str, code: int) -> int:
    from collapse_cli.terminal import text as terminal

    with suppress(OSError):  # where it cannot be said, the exit code says enough
        terminal.say(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
