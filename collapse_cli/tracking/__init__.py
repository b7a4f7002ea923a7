"""Mirrors of `metrics.jsonl` in MLflow, TensorBoard and Weights & Biases. The file stays the truth; a mirror can be made again.

Off unless `tracking.to` names a tracker; nothing of a tracker is imported before. Numbers are mirrored, generated text is
not. A tracker that fails is dropped with one warning, and the next run of the same command mirrors what is missing.
"""

import contextlib
import hashlib
import importlib.util
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from filelock import FileLock, Timeout

from collapse_cli.config import Experiment
from collapse_cli.errors import ConfigError
from collapse_cli.records.row import Row
from collapse_cli.tracking.mirrored import About
from collapse_cli.tracking.to_mlflow import MLflow, store_uri
from collapse_cli.tracking.to_tensorboard import TensorBoard
from collapse_cli.tracking.to_wandb import WandB
from collapse_cli.where import Where

LOG = logging.getLogger("collapse_cli")
NEEDS = {"mlflow": ["mlflow"], "tensorboard": ["tensorboard"], "wandb": ["wandb"]}  # modules that an extra brings
NEEDS_SQL = ["sqlalchemy", "alembic"]  # brought by the extra, not by mlflow-skinny alone


class Mirror(Protocol):
    """One tracker. Whatever its methods raise means that it is gone."""

    def add(self, row: Row) -> None:
        """Mirror a row; one that is there already changes nothing."""

    def close(self, status: str) -> None:
        """The run ended: success, interrupted or error."""


class Mirrors:
    """The open mirrors of a run: a context manager. No tracker can make `add` or `close` fail."""

    def __init__(self, rows: Callable[[], Iterable[Row]] = tuple) -> None:
        """No mirror yet.

        Args:
            rows: reads the rows that `metrics.jsonl` holds now.
        """
        self._rows = rows
        self._mirrors: dict[str, Mirror] = {}
        self._seen: set[Where] = set()
        self._lock: FileLock | None = None

    def open(self, makers: Mapping[str, Callable[[], Mirror]], lock: FileLock) -> None:
        """Open what `makers` make, unless another process holds `lock`, and mirror the rows that are there."""
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError) as error:
            why = "another process mirrors this run" if isinstance(error, Timeout) else _line(error)
            LOG.warning(
                "%s: this process does not mirror the run (%s); metrics.jsonl is complete", " and ".join(makers), why
            )
            return
        self._lock = lock
        for name, make in makers.items():
            with self._dropping(name):
                self._mirrors[name] = make()
        self._catch_up()

    def add(self, row: Row) -> None:
        """Mirror a row of `metrics.jsonl`, just appended to it; one mirrored before is passed over."""
        if row.where in self._seen:
            return
        self._seen.add(row.where)
        for name, mirror in list(self._mirrors.items()):
            with self._dropping(name):
                mirror.add(row)

    def close(self, status: str = "success") -> None:
        """Mirror what others have added to `metrics.jsonl` meanwhile, and end the mirrors; a second call does nothing.

        Args:
            status: how the run ended: success, interrupted or error.
        """
        try:
            if self._mirrors:
                self._catch_up()
            for name, mirror in list(self._mirrors.items()):
                with self._dropping(name):
                    mirror.close(status)
        finally:
            self._mirrors.clear()
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> "Mirrors":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.close("success" if kind is None else "interrupted" if interrupted else "error")

    def _catch_up(self) -> None:
        try:
            rows = list(self._rows())
        except Exception as error:
            LOG.warning("metrics.jsonl could not be read for the trackers (%s)", _line(error))
            return
        for row in rows:
            self.add(row)

    @contextlib.contextmanager
    def _dropping(self, name: str) -> Iterator[None]:
        """Whatever a tracker does, the experiment goes on. An interruption by the user is no tracker's failure."""
        try:
            yield
        except Exception as error:
            self._mirrors.pop(name, None)
            LOG.warning(
                "%s failed, and this run goes on without it (%s: %s); metrics.jsonl is complete, and the same command, given "
                "again, mirrors what is missing",
                name,
                type(error).__name__,
                _line(error),
            )


def check_installed(config: Experiment) -> None:
    """Whether all trackers that are asked for are installed. To be asked before anything is computed; imports nothing.

    Raises:
        ConfigError: for a tracker that is not installed, or a password that would be written into `run.json`.
    """
    if re.match(r"[^/]*://[^/]*:[^/]*@", config.tracking.uri):
        raise ConfigError(
            "tracking.uri holds a password, which would be written into run.json; "
            "give the address in the environment variable MLFLOW_TRACKING_URI instead"
        )
    for name in dict.fromkeys(config.tracking.to):
        needed = NEEDS[name]
        if name == "mlflow" and not store_uri(config, Path()).startswith(("http", "databricks")):
            needed = needed + NEEDS_SQL
        for module in needed:
            spec = importlib.util.find_spec(module)
            if spec is None or spec.origin is None:  # no origin: only a folder of that name lies here
                raise ConfigError(
                    f"tracking.to names {name}, and {module} is not installed: "
                    f"pip install 'collapse-cli[{name}]', or leave {name} out of tracking.to"
                )


def open_mirrors(
    config: Experiment, folder: Path, name: str, record: Mapping[str, Any], rows: Callable[[], Iterable[Row]] = tuple
) -> Mirrors:
    """The mirrors that `config.tracking` asks for, with the rows that the run has already.

    Args:
        folder: the run's folder, `runs/NAME`.
        record: what `run.json` holds: created, versions and git are used.
        rows: reads the rows of `metrics.jsonl`; asked now and at the end.

    Raises:
        ConfigError: as `check_installed`.
    """
    check_installed(config)
    mirrors = Mirrors(rows)
    # A run made anew under an old name is another one; one that is resumed, or lies elsewhere now, is the same.
    identity = hashlib.sha256(f"{name}\n{record.get('created', '')}".encode()).hexdigest()[:16]
    about = About(config, folder, name, identity, record, rows)
    known: dict[str, Callable[[], Mirror]] = {
        "mlflow": lambda: MLflow(about),
        "tensorboard": lambda: TensorBoard(about),
        "wandb": lambda: WandB(about),
    }
    makers: dict[str, Callable[[], Mirror]] = {tracker: known[tracker] for tracker in dict.fromkeys(config.tracking.to)}
    if makers:
        mirrors.open(makers, FileLock(folder / ".tracking.lock"))
    return mirrors


def _line(error: BaseException) -> str:
    """What an error says, as one short line."""
    return " ".join(str(error).split())[:200]
