"""A plan at work: live bars, or plain lines where the output is no terminal."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from collapse_cli.metrics import numbers
from collapse_cli.terminal.text import line, safe

PACKAGE = "collapse_cli"  # the name its loggers begin with
QUIET_SECONDS = 60.0  # between two lines about the same stage where there is no terminal


class ProgressBars:
    """Shows a plan at work: a bar for each stage at work, one for the plan, and a line for each generation measured."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self.done = self.cached = 0
        self.left = ""
        self._at_work: dict[str, _AtWork] = {}
        self._live = console.is_interactive
        self._notes = _Notes(self)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("[dim]{task.fields[speed]}"),
            TextColumn("[cyan]{task.fields[left]}"),
            console=console,
            transient=True,
        )
        self._plan_bar = self._bars.add_task("plan", total=max(1, total), speed=f"0/{total} stages", left="")

    def __enter__(self) -> "ProgressBars":
        logging.getLogger(PACKAGE).addHandler(self._notes)
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger(PACKAGE).removeHandler(self._notes)
        if self._live:
            self._bars.stop()

    def line(self, text: str) -> None:
        """A line that stays; nothing in it is taken for markup."""
        line(self.console, text)

    def time_left(self, seconds: float, unknown: Sequence[str] = ()) -> None:
        """How long the plan will take from now on: so many seconds, and stages of kinds besides of which nothing is known yet."""
        self.left = f"{numbers.duration(seconds)} left"
        if unknown:
            self.left = f"more than {self.left}" if seconds else "time left unknown"
        self._bars.update(self._plan_bar, left=self.left if self.done < self.total else "")

    def started(self, kind: str, where: str) -> None:
        label = f"{kind:<7} {where}"
        if (before := self._at_work.pop(label, None)) is not None:  # it was lost, and is computed again
            self._bars.remove_task(before.bar)
        bar = self._bars.add_task(safe(label), total=1, speed="", left="")
        self._at_work[label] = _AtWork(bar, time.monotonic(), time.monotonic())

    def progress(self, kind: str, where: str, done: int, total: int, unit: str) -> None:
        label = f"{kind:<7} {where}"
        stage = self._at_work[label]
        took = time.monotonic() - stage.began
        speed = f"{done / took:,.0f} {unit}/s" if took > 0.2 else ""
        left = f"{numbers.duration(took / done * (total - done))} left" if done and took > 0.2 else ""
        self._bars.update(stage.bar, completed=done, total=total, speed=speed, left=left)
        if not self._live and time.monotonic() - stage.told > QUIET_SECONDS:
            stage.told = time.monotonic()
            self.line(f"{self._count()} {label}: {done / total:.0%}, {speed}, {left}")

    def finished(self, kind: str, where: str, *, seconds: float, cached: bool, note: str, listed: bool) -> None:
        self.done += 1
        self.cached += cached
        left = self.left if self.done < self.total else ""
        self._bars.update(self._plan_bar, completed=self.done, speed=f"{self.done}/{self.total} stages", left=left)
        if (stage := self._at_work.pop(f"{kind:<7} {where}", None)) is not None:
            self._bars.remove_task(stage.bar)
        if not cached and (listed or not self._live):
            text = f"{self._count()} {kind:<7} {where}  {numbers.duration(seconds):>6}"
            self.line("  ".join(part for part in (text, note, "" if self._live else left) if part))

    def waiting(self, where: str) -> None:
        self.line(f"{self._count()} waiting for another process: {where}")

    def _count(self) -> str:
        return f"[{self.done:>{len(str(self.total))}}/{self.total}]"


@dataclass
class _AtWork:
    """A stage at work: its bar, when it began, and when a line was last printed about it."""

    bar: TaskID
    began: float
    told: float


class _Notes(logging.Handler):
    """What the engine has to say in the middle of a stage becomes a line of its own."""

    def __init__(self, shown: ProgressBars) -> None:
        super().__init__(logging.WARNING)
        self.shown = shown

    def emit(self, record: logging.LogRecord) -> None:
        self.shown.line(f"note: {record.getMessage()}")
