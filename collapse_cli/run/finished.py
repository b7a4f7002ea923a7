"""A finished run says that it is finished without the libraries of its learner, whose import takes seconds.

When a run ends well it leaves a hidden file that says what it was asked for and what all of it was made from and left: which files of
the user's, which code, which machine. Where each of these is as it was, everything would be looked up again to find that there is
nothing to compute. Where any is not, or cannot be known without asking elsewhere (a Hub id, a server), the run is begun as ever.
"""

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from collapse_cli import files
from collapse_cli.config import Experiment, variants_of
from collapse_cli.config.tree import MADE_TOKENIZERS
from collapse_cli.config.unread import Scope
from collapse_cli.engine import sealed
from collapse_cli.engine.stage import Plan, Product, digest
from collapse_cli.engine.store import Store
from collapse_cli.errors import UserError
from collapse_cli.families import KNOWN
from collapse_cli.findings import causes
from collapse_cli.findings.run_result import Results, RunResult
from collapse_cli.records import checked, elsewhere, kept_texts
from collapse_cli.records.remembered import code, stamp_of
from collapse_cli.records.rundir import OF_A_RUN, RunFolder
from collapse_cli.records.runs import store_of

FILE = ".finished.json"
PAGE = "report.html"
OF_PACKAGE = (
    "",
    "pydoc",
    *KNOWN,
    "blobs",
    "regression",
    "digits",
    *MADE_TOKENIZERS,
)  # names that mean no file and no Hub id
MOST_FILES = 2000  # of the user's, that are looked at
LEFT = tuple(
    name for name in (*OF_A_RUN, checked.FILE, kept_texts.FILE, PAGE) if name != "events.jsonl"
)  # which nothing is read from


@dataclass(frozen=True)
class AsTheyWere:
    """Runs that are as they were when they ended: what they came to, and by run what was said of its data then."""

    results: Results
    notes: Mapping[str, Sequence[str]]


def circumstances(config: Experiment) -> str | None:
    """A digest of all that a run depends on besides its own files; None where that cannot be known here and now.

    Args:
        config: as it was asked for, before anything is looked up.
    """
    if config.tracking.to or config.store.keep_models != "all":  # mirrors may lack rows, others may need models no more
        return None
    if config.ray != type(config.ray)():  # whether that suits the command is asked of a cluster
        return None
    found: dict[str, Any] = {}
    for own in config.of_lineages().values():
        for path in _named(own):
            if path is None or not _look(path, found):
                return None
    machine = [
        platform.node(),
        os.cpu_count(),
        sys.version,
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        Path("/dev/nvidia0").exists(),
    ]
    return digest({"asked": config.model_dump(mode="json"), "files": found, "code": code(), "machine": machine})


def remember(before: str | None, folder: RunFolder, plan: Plan, notes: Sequence[str]) -> None:
    """Write down that a run has ended well.

    Args:
        before: `circumstances`, as they were when it began.
    """
    if before is None or elsewhere.is_copy(folder.runs):  # others may work on a run that is elsewhere
        return
    measured = [key for key, stage in plan.stages.items() if stage.of.product is Product.MEASURES]
    record = {
        "circumstances": before,
        "left": _left(folder),
        "measured": measured,
        "planned": list(plan.stages),
        "notes": list(notes),
    }
    with suppress(OSError):  # a full disk: the run is finished all the same
        files.write_atomically(folder.path / FILE, sealed.sealed(record))


def as_they_were(config: Experiment, runs: Path, name: str) -> AsTheyWere | None:
    """What a run, or each of the variants of an experiment, came to where nothing is to be computed; None where that is not sure.

    Args:
        config: as it is asked for.
    """
    variants = variants_of(config, name)
    folders = {variant: RunFolder(runs, f"{name}-{variant}") for variant in variants} or {"": RunFolder(runs, name)}
    results, notes = list[RunResult](), dict[str, Sequence[str]]()
    for variant, folder in folders.items():
        there = _as_it_was(variants.get(variant, config), folder)
        if there is None:
            return None
        result, notes[folder.name] = there
        results.append(result)
    if not variants:
        return AsTheyWere(Results(results), notes)
    page = runs / f"{name}.html"
    try:
        written = page.stat().st_mtime_ns
        if any((folder.path / FILE).stat().st_mtime_ns > written for folder in folders.values()):
            return None
    except OSError:
        return None
    shares = causes.shares({variant: folder.rows() for variant, folder in folders.items()})
    return AsTheyWere(Results(results, page, shares), notes)


def _as_it_was(config: Experiment, folder: RunFolder) -> tuple[RunResult, Sequence[str]] | None:
    """The same of one run, with what was said of its data."""
    if elsewhere.is_copy(folder.runs) or not (folder.path / FILE).is_file():
        return None
    try:
        record = sealed.read(folder.path / FILE)
        if record["circumstances"] != circumstances(config) or record["left"] != _left(folder):
            return None
        if folder.record()["status"] != "success" or not (folder.path / PAGE).is_file():
            return None
        store = store_of(folder.runs)
        if not {*store.unfinished()}.isdisjoint(record["planned"]):  # what a kill left is tidied when a run begins
            return None
        if not all(map(store.has, record["measured"])):
            return None
        return _result(folder, store, record), record["notes"]
    except (UserError, OSError, KeyError, TypeError):
        return None


def _result(folder: RunFolder, store: Store, record: Mapping[str, Any]) -> RunResult:
    there = sum(store.has(key) for key in record["planned"])
    return RunResult.of(folder.path, folder.config(), folder.rows(), folder.path / PAGE, computed=0, cached=there)


def _left(folder: RunFolder) -> list[Any]:
    """Which files the run has left, what else is in its folder, and whether its lock is one; JSON has no tuples."""
    names = sorted({path.name for path in folder.path.iterdir()} - {FILE})
    return [names, (folder.path / ".lock").is_file(), *(stamp and list(stamp) for stamp in stamp_of(folder.path, LEFT))]


def _named(config: Experiment) -> Iterator[Path | None]:
    """What an experiment reads of the user's; None for what is no file here."""
    scope = Scope.of(config.model_dump(mode="json"))
    for key, name in _paths(config, ""):
        if name in OF_PACKAGE or scope.foreign(key) or (key == "model.source" and config.model.config):
            continue
        if key in ("data.train", "data.valid", "data.test") and Path(config.data.source).is_dir():
            continue  # in the folder, all of which is looked at
        yield Path(name).absolute() if Path(name).exists() else None
    if any(":" in step.by for step in (config.select, *config.select.steps)):  # code of the user's, found by Python
        yield None


def _paths(section: BaseModel, prefix: str) -> Iterator[tuple[str, str]]:
    """The options of a section that may be paths, and what they are."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, BaseModel):
                yield from _paths(one, f"{prefix}{name}.")
            elif isinstance(one, str) and _may_be_a_path(field.annotation, field.metadata):
                yield f"{prefix}{name}", one


def _may_be_a_path(annotation: Any, metadata: Sequence[Any]) -> bool:
    """Whether a type is `UserPath`, or made of it."""
    if any(getattr(rule, "func", None) is files.at_home for rule in metadata):
        return True
    inner = get_args(annotation)
    return any(_may_be_a_path(one, getattr(one, "__metadata__", ())) for one in inner if one is not annotation)


def _look(path: Path, found: dict[str, Any]) -> bool:
    """Add what says which files these are; False where that does not say all."""
    paths = [path]
    if path.is_dir():
        paths = [Path(folder) / name for folder, _, names in os.walk(path) for name in names][: MOST_FILES + 1]
    if len(found) + len(paths) > MOST_FILES or any(
        one.name == "adapter_config.json" for one in paths
    ):  # it names another model
        return False
    for one in paths:
        found[str(one)] = [stamp and list(stamp) for stamp in stamp_of(one.parent, [one.name])]
    return True
