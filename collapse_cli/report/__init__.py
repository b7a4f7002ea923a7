"""`collapse report`: a page that people look at, made from run folders alone."""

from collections.abc import Sequence
from pathlib import Path

from collapse_cli.report.reading import read, series_of
from collapse_cli.rundir import RunFolder
from collapse_cli.store import write_atomically

__all__ = ["write_report"]


def write_report(folders: Sequence[RunFolder], out: Path) -> Path:
    """Write one self-contained HTML page about one run, or several side by side. Replaces `out` whole.

    Raises:
        ConfigError: for a run that does not exist, or whose run.json is damaged.
    """
    from collapse_cli.report import page

    runs = read(folders)
    text = page.html(runs, series_of(runs))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, text)
    return out
