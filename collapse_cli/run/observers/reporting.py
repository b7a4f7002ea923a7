"""`report.html`, written anew while the run is at work."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from collapse_cli import report
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder

log = logging.getLogger(__name__)
FIRST_REPORT = 0.15  # seconds that one is taken to take before any was written
REPORT_SHARE = 0.02  # of a run's time that refreshing its report may take


class Reporting:
    """The run's report as the run now is; whatever goes wrong with it, the run goes on.

    Attributes:
        page: where the report is, as it was last written; None where that did not succeed, and an older one may be there.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.page: Path | None = None
        self._spent, self._last, self._began = 0.0, FIRST_REPORT, time.monotonic()

    def written(self, rows: Sequence[Row], *, new: bool) -> None:
        """After a generation, unless reports take much of the run's time: the next one costs what the last one did."""
        if new and self._spent + self._last <= REPORT_SHARE * (time.monotonic() - self._began):
            self.write(forecast=False)

    def write(self, *, forecast: bool) -> None:
        """As the run now is."""
        start, self.page = time.monotonic(), None
        try:
            self.page = report.write_report([self.folder], self.folder.path / "report.html", forecast=forecast)
        except Exception as error:
            log.warning(
                "the report could not be written (%s: %s); the run is not affected", type(error).__name__, error
            )
        self._last = time.monotonic() - start
        self._spent += self._last
