"""Where a report may be written: asked before any work, so that a mistake is one line and leaves nothing behind."""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from collapse_cli.errors import ConfigError
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report.paper import DRAWN


def check_writable(folders: Sequence[RunFolder], out: Path, figures: Path | None, *, markdown: bool = False) -> None:
    """Ask whether a report of these runs can be written there; nothing is changed.

    Args:
        out: the page, or the Markdown file with pictures beside it.
        figures: the folder of figures for papers, if they are wanted.

    Raises:
        ConfigError: for a run that is not there or named twice, a folder where a file is needed or the other way
            round, and a place that nothing can be written to.
    """
    paths = [folder.path.resolve() for folder in folders]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise ConfigError(f"the run {folders[index].name!r} is named twice; name each run once")
        folders[index].record()
    _file("--out", out)
    if markdown:
        _pictures("--out", out.parent, f"{out.stem}-", ("png",))
    if figures is None:
        return
    if out.absolute() in (figures.absolute(), *figures.absolute().parents):
        raise ConfigError(f"--figures {figures} needs a folder where --out {out} is a file; name another folder")
    if figures.exists() and not figures.is_dir():
        raise ConfigError(f"--figures {figures} is a file; name a folder")
    _probe("--figures", figures, f".{uuid.uuid4().hex[:8]}", "name another folder")
    _pictures("--figures", figures, "", ("png", "svg"))


def _file(option: str, path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{option} {path} is no ordinary file; name another")
    # the name that an unfinished file has: longer than the file's own
    _probe(option, path.parent, f".{path.name}.{uuid.uuid4().hex[:8]}", f"name another file with {option}")


def _pictures(option: str, folder: Path, prefix: str, formats: Sequence[str]) -> None:
    for name in (f"{prefix}{drawn}.{kind}" for drawn in DRAWN for kind in formats):
        if (folder / name).is_dir():
            raise ConfigError(f"{option}: {folder / name} is a folder where a picture goes; name another place")


def _probe(option: str, folder: Path, name: str, advice: str) -> None:
    """Make the folder and a file in it, and remove both again: permissions alone do not tell (/proc, quotas, root)."""
    folder = folder.absolute()
    lacking = [parent for parent in (folder, *folder.parents) if not os.path.lexists(parent)]
    made: list[Path] = []
    try:
        for parent in reversed(lacking):
            parent.mkdir()
            made.append(parent)
        with (folder / name).open("x"):
            pass
        (folder / name).unlink()
    except OSError as error:
        why = f"{error.strerror or error}: {error.filename}" if lacking and not folder.is_dir() else error.strerror
        failed = "cannot be made" if lacking and not folder.is_dir() else "cannot be written to"
        raise ConfigError(f"{option}: the folder {folder} {failed} ({why}); {advice}") from None
    finally:
        for parent in reversed(made):
            parent.rmdir()
