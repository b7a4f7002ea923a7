"""The run folder: run.json, plan.json, metrics.jsonl, events.jsonl. Reading one needs nothing of what made it."""

import hashlib
import json
import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from collapse_cli.config import Experiment, load, nearest, presets
from collapse_cli.engine.store import write_atomically
from collapse_cli.errors import ConfigError
from collapse_cli.files import check_locks
from collapse_cli.records.made_with import git_state, hardware, versions

log = logging.getLogger(__name__)
STORE = "store"
HALF_WRITTEN = re.compile(r"\.(run\.json|plan\.json|metrics\.jsonl)\.[0-9a-f]{8}")  # left by a kill
NEEDED = {"policy", "seed", "generation", "model_key", "warnings"}
NEEDED_OF_LM = NEEDED | {"perplexity", "predicted_tokens", "protocol"}
Where = tuple[str, int, int]  # policy, seed, generation


RULE_OF_NAMES = f"a run's name is at most 100 letters, digits, '.', '_' and '-', starts with a letter or digit, and is not {STORE!r}"


def can_be_named(name: str) -> bool:
    """Whether a run can have that name: `RULE_OF_NAMES`."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None and name.lower() != STORE


class RunFolder:
    """One experiment's folder `runs/NAME`. Several processes may write to it: each change is made under its lock."""

    def __init__(self, runs: Path, name: str) -> None:
        """A folder that exists or is still to be made.

        Raises:
            ConfigError: for a name that is no plain file name.
        """
        if not can_be_named(name):
            raise ConfigError(f"--name {name[:120]!r}: {RULE_OF_NAMES}")
        self.runs, self.name, self.path = runs, name, runs / name
        self._file, self._read, self._there = (
            0,
            0,
            dict[Where, bytes](),
        )  # of metrics.jsonl: which file, how far it was read, rows

    # --- reading ------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return (self.path / "run.json").is_file()

    def record(self) -> dict[str, Any]:
        """`run.json`.

        Raises:
            ConfigError: when there is no such run, or its record cannot be read.
        """
        try:
            record: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            near = nearest(self.name, names_of_runs(self.runs)) or made_by(self.name)
            raise ConfigError(
                f"there is no run {self.name!r} in {self.runs}{near}; `collapse list` shows those that there are"
            ) from None
        except NotADirectoryError:
            raise ConfigError(f"{self.path} is a file; give the name of a run, or its folder") from None
        except (ValueError, RecursionError, IsADirectoryError) as error:
            raise ConfigError(f"{self.path / 'run.json'} is damaged ({error}); remove it and run again") from None
        if not isinstance(record, dict) or not {"config", "status", "created", "updated"} <= record.keys():
            raise ConfigError(
                f"{self.path / 'run.json'} is damaged (it is not the record of a run); remove it and run again"
            )
        return record

    def config(self) -> Experiment:
        return load(self.record()["config"], str(self.path / "run.json"))

    def plan(self) -> list[dict[str, Any]]:
        """The planned stages: kind, key, inputs (name -> key), for ([[policy, seed, generation], …])."""
        try:
            stages: list[dict[str, Any]] = json.loads((self.path / "plan.json").read_text(encoding="utf-8"))["stages"]
            whole = all({"kind", "key", "inputs", "for"} <= stage.keys() for stage in stages)
            whole = whole and all(
                isinstance(stage["key"], str) and isinstance(stage["inputs"], dict) for stage in stages
            )
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IsADirectoryError):
            whole = False
        if not whole:
            raise ConfigError(f"{self.path / 'plan.json'} is damaged; give the run's command again")
        return stages

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`, by seed, generation and the configuration's order of policies.

        A line torn by a kill is left out.
        """
        rows = _lines(self.path / "metrics.jsonl", self._needed())
        # side by side, whichever policy is measured first stands first in the file
        names = (*self._policies(), *(row["policy"] for row in rows))
        order = {name: index for index, name in enumerate(dict.fromkeys(names))}
        return sorted(rows, key=lambda row: (row["seed"], row["generation"], order[row["policy"]]))

    def damaged(self) -> int:
        """How many lines of `metrics.jsonl` are no rows, and are left out of `rows`."""
        file = self.path / "metrics.jsonl"
        if not file.is_file():
            return 0
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        return sum(bool(line.strip()) for line in lines) - len(_lines(file, self._needed()))

    def _needed(self) -> set[str]:
        """What a line must have to be a row."""
        try:
            learner = self.record()["config"].get("learner", "lm")
        except (ConfigError, AttributeError):  # rows can be read without it
            learner = "lm"
        return NEEDED_OF_LM if learner == "lm" else NEEDED

    def _policies(self) -> Sequence[str]:
        try:
            named = self.record()["config"]["loop"]["policies"]
        except (ConfigError, KeyError, TypeError):  # rows can be read without it
            return ()
        return [name for name in named if isinstance(name, str)] if isinstance(named, list) else ()

    def check(self, config: Experiment) -> Experiment:
        """What this run will hold when `config` is run under its name: with what it holds already.

        Raises:
            ConfigError: when the run was made by a different configuration.
        """
        if not self.exists():
            # a folder that another process is just beginning holds these, or hidden files, before its run.json
            own = {"plan.json", "metrics.jsonl", "events.jsonl"}
            if self.path.is_file():
                raise ConfigError(f"{self.path} is a file, and the run's folder must be there; give another --name")
            names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
            if any(not name.startswith(".") for name in names - own):
                raise ConfigError(f"{self.path} holds files that are not a run's; give another --name")
            return config
        old = self.config()
        if (difference := _difference(old.identity(), config.identity())) is not None:
            key, before, now = difference
            if key in (f"{section}.sha256" for section in ("model", "data")):
                section = key.partition(".")[0]
                before, now = (getattr(one, section).source for one in (old, config))
                if before == now:
                    raise ConfigError(
                        f"the content of {section}.source = {now!r} has changed since the run {self.name!r} was made; restore "
                        "it, or give this run a --name of its own"
                    )
                key = f"{section}.source (by content)"
            raise self._other(key, before, now)
        return config.extended(old)

    def check_settings(self, config: Experiment) -> None:
        """As `check`, for what can be compared before model and data are looked up.

        Raises:
            ConfigError: when the run was made by a different configuration, or the folder is no run's.
        """
        if not self.exists():
            self.check(config)
            return
        old, new = self.config().identity(), config.identity()
        for tree in (old, new):
            for section in ("model", "data"):
                del tree[section]
            for section in ("train", "sample"):  # `auto` is not yet resolved
                del tree[section]["dtype"]
        if (difference := _difference(old, new)) is not None:
            raise self._other(*difference)

    def _other(self, key: str, before: Any, now: Any) -> ConfigError:
        return ConfigError(
            f"the run {self.name!r} was made with {key} = {before!r}, this one has {now!r}; "
            "give this one a --name of its own"
        )

    # --- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        check_locks(self.path / ".lock")
        with FileLock(self.path / ".lock"):
            yield

    def start(
        self, config: Experiment, plan: Sequence[Mapping[str, Any]], measured: Mapping[Where, Sequence[str]]
    ) -> None:
        """Write `run.json` and `plan.json`, and drop rows of `metrics.jsonl` that the plan no longer holds.

        Args:
            measured: the keys of the eval stages behind the row of each generation of the plan.

        Raises:
            ConfigError: when another process began, or extended, a run of this name since `check`.
        """
        with self.locked():
            if self.check(config) != config:
                raise ConfigError(
                    f"another process extended the run {self.name!r} just now; give the command again to go on with both"
                )
            for path in self.path.iterdir():
                if HALF_WRITTEN.fullmatch(path.name):
                    path.unlink()
            created = self.record()["created"] if self.exists() else _now()
            write_atomically(self.path / "plan.json", json.dumps({"stages": plan}, indent=1))
            record = {
                "name": self.name,
                "status": "started",
                "created": created,
                "updated": _now(),
                "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
                "config": config.model_dump(mode="json"),
                "versions": versions(),
                "git": git_state(),
                "hardware": hardware(),
            }
            write_atomically(self.path / "run.json", json.dumps(record, indent=1))
            file = self.path / "metrics.jsonl"
            text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
            needed = NEEDED_OF_LM if config.learner == "lm" else NEEDED
            kept = [row for row in _lines(file, needed) if measured.get(_where(row)) == row.get("eval_keys", ())]
            clean = "".join(json.dumps(row) + "\n" for row in kept)
            if clean != text:
                write_atomically(file, clean)

    def add_rows(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Append rows to `metrics.jsonl`, flushed, but those of generations that have theirs. False when all had.

        A row that is there and says something else, of other stages perhaps, is replaced, and that is said.
        """
        if not rows:
            return False
        with self.locked():
            self._look_again()
            new = [row for row in rows if _where(row) not in self._there]
            other = {_where(row): row for row in rows if self._there.get(_where(row), _said(row)) != _said(row)}
            if other:
                file = self.path / "metrics.jsonl"
                kept = [row for row in _lines(file, self._needed()) if _where(row) not in other]
                write_atomically(file, "".join(json.dumps(row) + "\n" for row in [*kept, *other.values()]))
                log.warning("%s: rows that differed from the store: %d; they are written again", file, len(other))
            _append(self.path / "metrics.jsonl", *new)
            return bool(new or other)

    def _look_again(self) -> None:
        """Which generations have rows by now: what was added to the file since is read, by us or by another process."""
        file = self.path / "metrics.jsonl"
        try:
            now = file.stat()
        except FileNotFoundError:
            now = None
        if (
            now is None or self._file != now.st_ino or now.st_size < self._read
        ):  # another file than the one that was read
            self._file, self._read, self._there = now.st_ino if now else 0, 0, {}
        if now is not None:
            with file.open("rb") as lines:
                lines.seek(self._read)
                added = lines.read()
            whole = added[: added.rfind(b"\n") + 1]  # a line torn by a kill is looked at again
            self._read += len(whole)
            self._there |= {_where(row): _said(row) for row in _rows(whole.decode("utf-8", "replace"), self._needed())}

    def add_event(self, event: Mapping[str, Any]) -> None:
        with self.locked():
            _append(self.path / "events.jsonl", {"time": _now(), **event})

    def finish(self, status: str, error: str = "") -> None:
        """Write how the run ended: success, interrupted or error."""
        with self.locked():
            record = self.record() | {"status": status, "updated": _now()}
            record.pop("error", None)
            if error:
                record["error"] = error
            write_atomically(self.path / "run.json", json.dumps(record, indent=1))


def run_of(target: str, runs: Path) -> RunFolder:
    """The run of that name in `runs`, or in that folder where `target` is a path; whether it exists is asked later.

    Raises:
        ConfigError: for what can be neither.
    """
    path = Path(target).resolve()
    try:
        return RunFolder(path.parent, path.name) if "/" in target or target == "." else RunFolder(runs, target)
    except ConfigError:
        raise ConfigError(f"{target!r} is neither the name of a run in {runs} nor a run's folder") from None


def made_by(name: str) -> str:
    """What makes a run that is not there, where it is that of a preset; else nothing."""
    return f" (`collapse run --preset {name}` makes it)" if name in presets() else ""


def names_of_runs(runs: Path) -> list[str]:
    """The names of the runs in a folder, sorted; none where it cannot be read."""
    try:
        return sorted(path.parent.name for path in runs.glob("*/run.json") if path.parent.name != STORE)
    except OSError:
        return []


def all_runs(runs: Path) -> list[RunFolder]:
    """Every run in a runs folder."""
    return [RunFolder(runs, path.parent.name) for path in sorted(runs.glob("*/run.json")) if path.parent.name != STORE]


def _where(row: Mapping[str, Any]) -> Where:
    return row["policy"], row["seed"], row["generation"]


def _said(row: Mapping[str, Any]) -> bytes:
    """A digest of what a row says; its warnings depend on when it was written."""
    plain = json.loads(json.dumps({name: value for name, value in row.items() if name != "warnings"}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).digest()[:16]


def _lines(file: Path, needed: Set[str]) -> list[dict[str, Any]]:
    """The rows of a file that can be rows of a run."""
    return _rows(file.read_text(encoding="utf-8", errors="replace"), needed) if file.is_file() else []


def _rows(text: str, needed: Set[str]) -> list[dict[str, Any]]:
    """The lines that can be rows of a run; a policy's name is printed, so control characters in it are damage."""
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue  # torn by a kill; what it said is in the store
        if not (isinstance(row, dict) and row.keys() >= needed):
            continue
        whole = all(type(row[name]) is int for name in ("seed", "generation"))
        whole = whole and all(isinstance(row[name], str) for name in ("policy", "model_key"))
        if whole and row["policy"].isprintable():
            rows.append(row)
    return rows


def _append(file: Path, *rows: Mapping[str, Any]) -> None:
    with file.open("a+", encoding="utf-8") as out:
        if out.tell() > 0:
            out.seek(out.tell() - 1)
            torn = out.read(1) != "\n"
            out.write("\n" if torn else "")
        out.writelines(json.dumps(row) + "\n" for row in rows)
        out.flush()


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> tuple[str, Any, Any] | None:
    for key in dict.fromkeys(("kind", "learner", *old, *new)):  # what decides which other keys there are comes first
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            if (found := _difference(before, now, f"{prefix}{key}.")) is not None:
                return found
        elif before != now:
            return prefix + key, before, now
    return None


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
