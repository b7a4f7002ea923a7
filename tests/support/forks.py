"""Python processes that are forks of this one, in place of new ones that import for seconds what is here already."""

import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from collapse_cli.engine import child


class Forked:
    """As much of `subprocess.Popen` as our own code uses of it, for `python -P -c CODE ARGUMENTS`; a fork of this process runs the code.

    It has what a new process has: its own pipes and none of ours, the signals' usual meaning, no log handler of this process.
    """

    def __init__(
        self, command: Sequence[str], *, stdin: int, stdout: int, process_group: int | None = None, **_: Any
    ) -> None:
        python, *options, code, arguments = command
        assert (python, options) == (sys.executable, ["-P", "-c"])
        (theirs, ours), (from_them, to_us) = os.pipe(), os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid, self.returncode = os.fork(), None
        if self.pid == 0:
            self._run(theirs, to_us, process_group, code, arguments)
        os.close(theirs)
        os.close(to_us)
        self.stdin, self.stdout = os.fdopen(ours, "wb"), os.fdopen(from_them, "rb")

    @staticmethod
    def _run(given: int, said: int, group: int | None, code: str, arguments: str) -> None:
        ends = 1
        try:
            if group is not None:
                os.setpgid(0, group)
            os.dup2(given, 0)
            os.dup2(said, 1)
            os.closerange(3, 3 + max(int(number) for number in os.listdir("/proc/self/fd")))  # noqa: PTH208
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            logging.getLogger("collapse_cli").handlers.clear()
            sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
            sys.argv = ["-c", arguments]
            try:
                exec(code, {"__name__": "__main__"})
            except SystemExit as end:
                ends = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(ends)

    def poll(self) -> int | None:
        return self.wait(os.WNOHANG)

    def wait(self, how: int = 0) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def fork_workers() -> None:
    """From now on the workers, and the devices, that this process starts are forks of it. It must have no thread at work."""
    setattr(child, "subprocess", SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE))  # noqa: B010
