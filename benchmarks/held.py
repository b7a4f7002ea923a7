"""How much memory a command holds at its peak, all of its processes at one moment."""

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

EVERY = 0.1  # seconds


class Peak:
    """Looks at a process and its children for as long as the `with` block lasts.

    What the system says when a process has ended (`ru_maxrss`) is of no use: Linux hands it on from the process that started it.

    Attributes:
        bytes: the most, at one moment, of the sum of what each had held at most.
    """

    def __init__(self, process: int) -> None:
        self.bytes, self._process, self._end = 0, process, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(EVERY):
            with suppress(psutil.Error):
                own = psutil.Process(self._process)
                self.bytes = max(self.bytes, sum(map(held, (own, *own.children(recursive=True)))))


def held(process: psutil.Process) -> int:
    """Bytes that a process has held at most; where the system does not say, that it holds; 0 of one that is gone."""
    with suppress(psutil.Error, OSError):
        status = Path(f"/proc/{process.pid}/status")
        if status.exists():
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) << 10
        return int(process.memory_info().rss)
    return 0
