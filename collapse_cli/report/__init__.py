"""`collapse report`: what people look at, made from run folders alone. Reads them only; imports neither torch nor plotly."""

from collections.abc import Sequence
from pathlib import Path

from collapse_cli.files import write_atomically
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report.loading import read, series_of

__all__ = ["write_figures", "write_markdown", "write_report"]


def write_report(folders: Sequence[RunFolder], out: Path, *, forecast: bool = True) -> Path:
    """Write one self-contained HTML page about one run, or about several. Replaces `out` whole.

    Args:
        forecast: whether to work out the forecast too, which takes a second or two; a run that is at work leaves it out.

    Raises:
        ConfigError: for a run that does not exist, or whose run.json is damaged.
    """
    from collapse_cli.report.forecast import look
    from collapse_cli.report.page import html

    runs = read(folders)
    text = html(runs, series_of(runs), [look(run) if forecast and run.text else None for run in runs])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, text)
    return out


def write_markdown(folders: Sequence[RunFolder], out: Path, *, forecast: bool = True) -> Path:
    """Write a compact Markdown report, and its pictures beside it: `report.md`, `report-perplexity.png` …

    Raises:
        ConfigError: as `write_report`.
    """
    from collapse_cli.report.forecast import look
    from collapse_cli.report.markdown import markdown
    from collapse_cli.report.paper import write

    runs = read(folders)
    series = series_of(runs)
    pictures = write(runs, series, out.parent, ("png",), f"{out.stem}-")
    text = markdown(runs, series, [look(run) if forecast and run.text else None for run in runs], pictures)
    write_atomically(out, text)
    return out


def write_figures(folders: Sequence[RunFolder], folder: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write figures for papers into a folder: perplexity, histograms, deciles, diversity; of several lineages how they stand to each other; of other
    families their headline measure, the others and pictures; of mixtures each axis. As far as there are numbers.

    Args:
        formats: of `png` (300 dpi), `svg` (text as text), `pdf`.

    Raises:
        ConfigError: as `write_report`.
    """
    from collapse_cli.report.paper import write

    runs = read(folders)
    return write(runs, series_of(runs), folder, formats)
