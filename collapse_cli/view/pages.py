"""Reports, each made once for all who look at it, until its runs change."""

import gzip
import logging
import uuid
from dataclasses import dataclass
from pathlib import Path

from collapse_cli import report
from collapse_cli.errors import UserError
from collapse_cli.records.rundir import RunFolder
from collapse_cli.view import frames
from collapse_cli.view.kept import Kept
from collapse_cli.view.runs import SHOWN, stamp

log = logging.getLogger(__name__)
MOST_PAGES = 8  # that are kept; one has about 5 MB, of which 2 MB are left when it is compressed
QUICKLY = 1  # of gzip's levels: a tenth of a second for a page


@dataclass(frozen=True)
class _Page:
    """A page as it is sent, compressed, and whether it only says why there is none."""

    content: bytes
    failed: bool


class Pages:
    """Pages about runs, for several threads."""

    def __init__(self, scratch: Path) -> None:
        """`scratch`: a folder of our own, where a page lies for the moment between its making and its reading."""
        self._scratch = scratch
        self._kept: Kept[tuple[Path, ...], _Page] = Kept(
            self._made, lambda paths: stamp(paths, SHOWN), MOST_PAGES, failed=lambda page: page.failed
        )

    def version(self, runs: list[RunFolder]) -> str:
        """A name for the page as `page` would give it now."""
        return self._kept.version(_key(runs))

    def page(self, runs: list[RunFolder]) -> bytes:
        """The report on these runs as they are, or a page that says in one line why there is none; compressed with gzip."""
        return self._kept.get(_key(runs))[1].content

    def _made(self, paths: tuple[Path, ...]) -> _Page:
        html, failed = self._html(paths)
        return _Page(gzip.compress(html, QUICKLY, mtime=0), failed)

    def _html(self, paths: tuple[Path, ...]) -> tuple[bytes, bool]:
        """The page, and whether it only says that there is none."""
        runs = [RunFolder(path.parent, path.name) for path in paths]
        file = self._scratch / f"{uuid.uuid4().hex}.html"
        try:
            ended = all(run.record()["status"] != "started" for run in runs)
            return report.write_report(runs, file, forecast=ended).read_bytes(), False
        except UserError as error:
            return frames.failure(str(error)).encode(), True
        except Exception as error:  # a mistake of ours: whoever looks at other runs need not suffer from it
            log.exception("the page about %s could not be made", ", ".join(run.name for run in runs))
            return frames.failure(f"the page could not be made ({type(error).__name__}: {error})").encode(), True
        finally:
            file.unlink(missing_ok=True)


def _key(runs: list[RunFolder]) -> tuple[Path, ...]:
    return tuple(run.path for run in runs)
