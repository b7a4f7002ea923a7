"""The run folder: run.json, plan.json, metrics.jsonl, events.jsonl. Reading one needs nothing of what made it."""

import hashlib
import json
import logging
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from collapse_cli import families, files
from collapse_cli.config import Experiment, load, nearest
from collapse_cli.config.selection import LOOKED_UP
from collapse_cli.engine import sealed
from collapse_cli.engine.remote_addresses import is_address, runs_option, shown
from collapse_cli.engine.stage import KEY
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.records import checked, elsewhere
from collapse_cli.records.fields import makes_sense
from collapse_cli.records.made_with import git_state, hardware, versions
from collapse_cli.records.names import RULE_OF_NAMES, can_be_named
from collapse_cli.records.row import Row, in_order, planned_arms
from collapse_cli.records.runs import made_by, names_of_runs
from collapse_cli.where import Arm, Where

log = logging.getLogger(__name__)
OF_A_RUN = ("run.json", "plan.json", "metrics.jsonl", "events.jsonl")
OF_A_CHECK = (checked.FILE, checked.TEXTS)
HALF_WRITTEN = re.compile(
    r"\.(run\.json|plan\.json|metrics\.jsonl|samples\.jsonl|\.finished\.json)\.[0-9a-f]{8}"
)  # left by a kill
STEPS = "select.steps"  # where the identity of a configuration has its selection, whichever way it was given
MOST_OF_RECORD = 1 << 26  # bytes of a run.json; a larger one is damage
NEEDED: Set[str] = {"model_key", "warnings"}  # of a row, besides what says of which model it is


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a plan.

    Attributes:
        inputs: by name, the keys of those that it is made from.
        shard_of: of a shard, the key of the stage that is put together from it and others; "" of a whole stage.
        generations: those that it works for.
    """

    kind: str
    key: str
    inputs: Mapping[str, str]
    shard_of: str = ""
    generations: frozenset[int] = frozenset()


class RunFolder:
    """One experiment's folder `runs/NAME`. Several processes may write to it: each change is made under its lock."""

    def __init__(self, runs: Path, name: str) -> None:
        """A folder that exists or is still to be made.

        Raises:
            ConfigError: for a name that is no plain file name.
            InputError: for a run that is elsewhere, and cannot be reached.
        """
        if not can_be_named(name):
            raise ConfigError(f"--name {name[:120]!r}: {RULE_OF_NAMES}")
        self.runs, self.name, self.path = runs, name, runs / name
        elsewhere.bring(runs, name)
        # of metrics.jsonl: which file, how far it was read, and what its rows say
        self._file, self._read = 0, 0
        self._there: dict[Where, bytes] = {}

    def place(self, file: str = "") -> str:
        """Where the run, or a file of it, is, as a person knows it."""
        if not elsewhere.is_copy(self.runs):
            return str(self.path / file)
        return "/".join(filter(None, (shown(self.runs), "runs", self.name, file)))

    def _said(self, error: InputError, file: str) -> str:
        """What was wrong with a file, which is named by where it is."""
        return str(error).replace(str(self.path / file), self.place(file))

    # --- reading ------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return (self.path / "run.json").is_file()

    def record(self) -> dict[str, Any]:
        """`run.json`.

        Raises:
            ConfigError: when there is no such run, or its record cannot be read.
        """
        path = self.path / "run.json"
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file; give the name of a run, or its folder")
        if not os.path.lexists(path):
            near = nearest(self.name, names_of_runs(self.runs)) or made_by(self.name, self.runs)
            raise ConfigError(
                f"there is no run {self.name!r} in {shown(self.runs)}{near}; `collapse list{runs_option(self.runs)}` shows what there is"
            )
        try:
            record = sealed.read(path, MOST_OF_RECORD)
        except InputError as error:
            raise ConfigError(f"{self._said(error, path.name)}; remove it and run again") from None
        if "config" not in record or not all(
            isinstance(record.get(name), str) for name in ("status", "created", "updated")
        ):
            raise ConfigError(
                f"{self.place(path.name)} is damaged (it is not the record of a run); remove it and run again"
            )
        return record

    def tree(self) -> dict[str, Any]:
        """The configuration as it stands in `run.json`, of whatever version.

        Raises:
            ConfigError: as `record`.
        """
        tree = self.record()["config"]
        if not isinstance(tree, dict):
            raise ConfigError(
                f"{self.place('run.json')} is damaged (it holds no configuration); remove it and run again"
            )
        return tree

    def config(self) -> Experiment:
        return load(self.tree(), self.place("run.json"))

    def plan(self) -> list[PlannedStage]:
        """The planned stages, as `plan.json` has them.

        Raises:
            ConfigError: when it cannot be read, or is no plan.
        """
        path = self.path / "plan.json"
        if not os.path.lexists(path):
            return []
        try:
            stages = sealed.read(path)["stages"]
            whole = all(_is_planned(stage) for stage in stages)
        except InputError as error:
            raise ConfigError(f"{self._said(error, path.name)}; give the run's command again") from None
        except (KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise ConfigError(f"{self.place(path.name)} is damaged (it is not a plan); give the run's command again")
        return [
            PlannedStage(stage["kind"], stage["key"], stage["inputs"], stage.get("shard_of", ""), _generations(stage))
            for stage in stages
        ]

    def rows(self) -> list[Row]:
        """The rows of `metrics.jsonl`, by seed, generation and the configuration's order of policies and lineages.

        A line torn by a kill is left out.
        """
        rows, _ = self._whole_rows()
        # where stages are computed at the same time, whichever policy is measured first stands first in the file
        return in_order(rows, self._arms())

    def damaged(self) -> int:
        """How many lines of `metrics.jsonl` are no rows, and are left out of `rows`."""
        return self._whole_rows()[1]

    def lines(self) -> tuple[list[Row], int, int]:
        """All rows that say of which model they are, in the file's order, though they may lack what a row should have.

        Returns:
            The rows; how many lines are torn, or not what was written; how many are of no model.

        Raises:
            ConfigError: when the file cannot be read, or is something else than a file.
        """
        try:
            records, torn = sealed.of_file(self.path / "metrics.jsonl")
        except InputError as error:
            said = self._said(error, "metrics.jsonl")
            raise ConfigError(f"{said}; move it away and give the run's command again") from None
        rows = [row for record in records if (row := Row.of(record)) is not None]
        return rows, torn, len(records) - len(rows)

    def _whole_rows(self, needed: Set[str] | None = None) -> tuple[list[Row], int]:
        """The rows that lack nothing, and how many lines are none of those."""
        rows, torn, of_none = self.lines()
        needed = needed or self._needed()
        whole = [row for row in rows if _is_whole(row, needed)]
        return whole, torn + of_none + len(rows) - len(whole)

    def _needed(self) -> Set[str]:
        """What a line must have to be a row."""
        try:
            learner = self.tree().get("learner", families.DEFAULT)
        except ConfigError:  # rows can be read without it
            learner = families.DEFAULT
        return NEEDED | families.of(learner if isinstance(learner, str) else families.DEFAULT).needed

    def _arms(self) -> list[Arm]:
        try:
            return planned_arms(self.tree())
        except ConfigError:  # rows can be read without it
            return []

    def joined_with(self, config: Experiment) -> Experiment:
        """What this run will hold when `config` is run under its name: with what it holds already.

        Raises:
            ConfigError: when the run was made by a different configuration, or what is a file of a run is none.
        """
        for name in (*OF_A_RUN, ".lock") if self.path.is_dir() else ():
            try:
                files.check_ordinary(self.path / name)
            except InputError as error:
                raise ConfigError(f"{error}; move it away and give the same command again") from None
        if not self.exists():
            # before its run.json the folder of a run holds its plan, or hidden files; one that lost it, a report, too
            if self.path.is_file():
                raise ConfigError(f"{self.path} is a file, and the run's folder must be there; give another --name")
            names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
            if "plan.json" not in names and any(
                not name.startswith(".") for name in names.difference(OF_A_RUN, OF_A_CHECK)
            ):
                raise ConfigError(f"{self.place()} holds files that are not a run's; give another --name")
            return config
        old = self.config()
        if (difference := _difference(old.identity(), config.identity())) is not None:
            key, before, now = difference
            beside, _, option = key.rpartition(".")
            of, _, section = beside.rpartition(".")
            if option == "sha256" and section in ("model", "data"):
                lineage = of.removeprefix("lineages.")
                before, now = (getattr(experiment.lineage(lineage), section).source for experiment in (old, config))
                if before == now:
                    raise ConfigError(
                        f"the content of {beside}.source = {now!r} has changed since the run {self.name!r} was made; restore "
                        "it, or give this run a --name of its own"
                    )
                key = f"{beside}.source (by content)"
            raise self._other(config, key, before, now)
        return config.extended(old)

    def check_same_settings(self, config: Experiment) -> None:
        """As `joined_with`, for what can be compared before model and data are looked up.

        Raises:
            ConfigError: when the run was made by a different configuration, or the folder is no run's.
        """
        if not self.exists():
            self.joined_with(config)
            return
        old, new = self.config().identity(), config.identity()
        for tree in (old, new):
            for option in ("public", "public_sha256"):
                tree["pool"].pop(option, None)
            del tree["foreign"]
            for own in tree["lineages"].values() if "lineages" in tree else (tree,):
                for section in ("model", "data"):
                    del own[section]
                for section in ("train", "sample"):  # `auto` is not yet resolved
                    del own[section]["dtype"]
                for step in own["select"]["steps"]:
                    for option in LOOKED_UP:
                        del step[option]
        if (difference := _difference(old, new)) is not None:
            raise self._other(config, *difference)

    def _other(self, config: Experiment, key: str, before: Any, now: Any) -> ConfigError:
        if key == STEPS:  # not the same number of them
            before, now = (
                ", then ".join(step["do"] or step["by"] for step in steps) or "none" for steps in (before, now)
            )
        elif key.startswith(f"{STEPS}.") and not config.select.steps:  # one step, given in [select] itself
            key = f"select{key.removeprefix(STEPS)}"
        elif key.startswith("foreign.sources"):
            key = config.sources_option
        return ConfigError(
            f"the run {self.name!r} was made with {key} = {before!r}, this one has {now!r}; "
            f"give this one a --name of its own, or remove the folder {self.place()} to make that run anew"
        )

    # --- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        with files.locked(self.path / ".lock"):
            yield

    def start(
        self, config: Experiment, plan: Sequence[Mapping[str, Any]], measured: Mapping[Where, Sequence[str]]
    ) -> None:
        """Write `run.json` and `plan.json`, and drop rows of `metrics.jsonl` that the plan no longer holds.

        Args:
            measured: the keys of the eval stages behind the row of each generation of the plan.

        Raises:
            ConfigError: when another process began, or extended, a run of this name since `joined_with`.
        """
        with self.locked():
            if self.joined_with(config) != config:
                raise ConfigError(
                    f"another process extended the run {self.name!r} just now; give the command again to go on with both"
                )
            for path in self.path.iterdir():
                if HALF_WRITTEN.fullmatch(path.name):
                    path.unlink()
            created = self.record()["created"] if self.exists() else _now()
            files.write_atomically(self.path / "plan.json", sealed.sealed({"stages": plan}))
            _tell_of_plan(self.runs)
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
            files.write_atomically(self.path / "run.json", sealed.sealed(record, allow_nan=True))
            file = self.path / "metrics.jsonl"
            rows, damaged = self._whole_rows(NEEDED | families.of(config.learner).needed)
            if damaged:
                log.warning("%s: %d lines were torn or changed; what they said is written again", file, damaged)
            times = Counter(
                row.where for row in rows
            )  # what is there twice says two things perhaps: it is written again
            once = [row for row in rows if times[row.where] == 1]
            kept = [row for row in once if measured.get(row.where) == row.eval_keys]
            clean = "".join(sealed.line(row.fields) for row in kept)
            if clean.encode() != (file.read_bytes() if file.exists() else b""):
                files.write_atomically(file, clean)
        elsewhere.send(self.path)  # before anything is made: by its plan others know what it needs

    def add_rows(self, rows: Sequence[Row]) -> bool:
        """Append rows to `metrics.jsonl`, flushed, but those of generations that have theirs. False when all had.

        A row that is there and says something else, of other stages perhaps, is replaced, and that is said.
        """
        if not rows:
            return False
        with self.locked():
            self._look_again()
            new = [row for row in rows if row.where not in self._there]
            other = {row.where: row for row in rows if self._there.get(row.where, _digest(row)) != _digest(row)}
            if other:
                file = self.path / "metrics.jsonl"
                kept = [row for row in self._whole_rows()[0] if row.where not in other]
                files.write_atomically(file, "".join(sealed.line(row.fields) for row in (*kept, *other.values())))
                log.warning("%s: rows that differed from the store: %d; they are written again", file, len(other))
            sealed.append(self.path / "metrics.jsonl", *(row.fields for row in new))
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
            records, _ = sealed.in_lines(whole)
            rows, needed = [row for record in records if (row := Row.of(record)) is not None], self._needed()
            self._there |= {row.where: _digest(row) for row in rows if _is_whole(row, needed)}

    def add_event(self, event: Mapping[str, Any]) -> None:
        with self.locked():
            sealed.append(self.path / "events.jsonl", {"time": _now(), **event})

    def finish(self, status: str, error: str = "") -> None:
        """Write how the run ended: success, interrupted or error."""
        with self.locked():
            record = self.record() | {"status": status, "updated": _now()}
            record.pop("error", None)
            if error:
                record["error"] = error
            files.write_atomically(self.path / "run.json", sealed.sealed(record, allow_nan=True))


def run_of(target: str, runs: Path) -> RunFolder:
    """The run of that name in `runs`, or in that folder where `target` is a path; whether it exists is asked later.

    Raises:
        ConfigError: for what can be neither.
    """
    if is_address(target):
        place, _, name = target.rstrip("/").rpartition("/")
        raise ConfigError(
            f"{target!r}: a run that is elsewhere is named, and its place given with --runs-dir, as in {name} --runs-dir {place.removesuffix('/runs')}"
        )
    path = Path(target).resolve()
    try:
        return RunFolder(path.parent, path.name) if "/" in target or target == "." else RunFolder(runs, target)
    except ConfigError:
        raise ConfigError(f"{target!r} is neither the name of a run in {shown(runs)} nor a run's folder") from None


def time_of_plans(runs: Path) -> int:
    """When a run last wrote its plan into a folder of runs, or a run came or went: its time. Another one says that plans are to be read again."""
    try:
        return runs.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _tell_of_plan(runs: Path) -> None:
    """Change `time_of_plans`. The clock's time, for the file system's own stands still for some milliseconds."""
    with suppress(OSError):  # a folder of someone else's
        os.utime(runs, ns=(time.time_ns(), time.time_ns()))


def _digest(row: Row) -> bytes:
    """Of what a row says; its warnings depend on when it was written."""
    plain = json.loads(json.dumps({name: value for name, value in row.fields.items() if name != "warnings"}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).digest()[:16]


def _is_planned(stage: Mapping[str, Any]) -> bool:
    """Whether an entry of a plan is one: its names and keys are printed, and looked for in the store."""
    keys = (stage["key"], *stage["inputs"].values(), *([stage["shard_of"]] if "shard_of" in stage else []))
    whole = isinstance(stage["kind"], str) and isinstance(stage["for"], list)
    return whole and all(isinstance(key, str) and KEY.fullmatch(key) for key in keys)


def _generations(stage: Mapping[str, Any]) -> frozenset[int]:
    """For which ones a stage works, as far as its entry in a plan says so."""
    # of policy, seed, generation, ...
    places = (where for where in stage["for"] if isinstance(where, list) and len(where) > 2)
    return frozenset(place[2] for place in places if isinstance(place[2], int))


def _is_whole(row: Row, needed: Set[str]) -> bool:
    """Whether it has what a row of a run must have; a policy's name is printed, so control characters in it are damage."""
    if (
        not row.fields.keys() >= needed
        or not str(row.where.arm).isprintable()
        or not isinstance(row.fields["model_key"], str)
    ):
        return False
    if not makes_sense("warnings", row.fields["warnings"]):
        return False
    if "perplexity" not in needed:
        return True
    numbers = (row.fields["perplexity"], row.fields.get("nll", 0.0), row.fields["predicted_tokens"])
    return all(type(number) in (int, float) for number in numbers)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> tuple[str, Any, Any] | None:
    for key in dict.fromkeys(("kind", "learner", *old, *new)):  # what decides which other keys there are comes first
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            if (difference := _difference(before, now, f"{prefix}{key}.")) is not None:
                return difference
        elif before != now:
            if (
                isinstance(before, list) and isinstance(now, list) and len(before) == len(now) > 0
            ):  # of tables, the option
                place = next(place for place, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1])
                if isinstance(before[place], dict) and isinstance(now[place], dict):
                    number = f"{place + 1}." if len(now) > 1 else ""
                    return _difference(before[place], now[place], f"{prefix}{key}.{number}")
            return prefix + key, before, now
    return None


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
