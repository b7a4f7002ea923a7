"""Each kind of file of a small run is damaged in turn, what came after it is made again, and wrong numbers are counted.

A number that differs from the undamaged run's and was not announced by an error is a silent wrong number: there must be
none. `PYTHONPATH=tests python tests/engine/test_damage.py` prints the count of each experiment.
"""

import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from support import e2e
from support.kinds import change_bodies
from support.small import EXPERIMENTS, rows_of

from collapse_cli.engine.executors.processes import ProcessExecutor
from collapse_cli.lm.sample import MOST_SEQUENCES


def flip(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


def flip_last(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def truncate(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def delete(path: Path, other: Path) -> None:
    path.unlink()


def make_folder(path: Path, other: Path) -> None:
    path.unlink()
    path.mkdir()


def put_another(path: Path, other: Path) -> None:
    """By the file of the same name of another stage."""
    shutil.copy(other, path)


DAMAGES = [flip, flip_last, truncate, empty, delete, make_folder, put_another]


@dataclass(frozen=True)
class Case:
    """One damage to one file of a stage, or of the checkpoint of an unfinished one.

    Attributes:
        other: a file of the same name of another stage.
    """

    kind: str
    key: str
    path: Path
    other: Path
    damage: Callable[[Path, Path], None]


@dataclass
class Found:
    """How often the same command, given again after a damage, ended how."""

    same: int = 0
    refused: int = 0
    silent: int = 0
    tracebacks: int = 0
    files: Counter[str] = field(default_factory=Counter)  # damages by `kind file`
    ways: Counter[str] = field(default_factory=Counter)  # damages by what was done

    @property
    def faults(self) -> tuple[int, int, int]:
        return self.silent, self.tracebacks, self.refused


def later_than(runs: Path, name: str, key: str) -> set[str]:
    """The keys of the stages that are made from a stage, however far."""
    later = {key}
    for stage in e2e.plan(runs, name):  # inputs before their users
        if later & set(stage["inputs"].values()):
            later.add(stage["key"])
    return later - {key}


def cases(runs: Path, name: str, *, every: bool = False) -> list[Case]:
    """Every damage to every file of a stage of each kind, or of each stage."""
    found: list[Case] = []
    seen: set[tuple[str, str]] = set()
    store = runs / "store"
    for stage in e2e.plan(runs, name):
        folder = e2e.folder_of(runs, stage["key"])
        for path in sorted(folder.rglob("*")):
            kind = (stage["kind"], path.name)
            if path.is_dir() or (kind in seen and not every):
                continue
            seen.add(kind)
            found += _of_a_file(*kind, stage["key"], path, store.glob(f"??/*/{path.relative_to(folder)}"))
    return found


def checkpoint_cases(runs: Path, kind: str) -> list[Case]:
    """Every damage to every file that an interrupted stage has left to go on from."""
    scratch = runs / "store" / ".scratch"
    paths = sorted(path for path in scratch.glob("*/**/*") if path.is_file())
    return [
        one
        for path in paths
        for one in _of_a_file(kind, path.name, path.relative_to(scratch).parts[0], path, iter(paths))
    ]


def _of_a_file(kind: str, _: str, key: str, path: Path, others: Iterator[Path]) -> Iterator[Case]:
    different = [one for one in sorted(others) if one != path and one.read_bytes() != path.read_bytes()]
    for damage in DAMAGES:
        if damage is not put_another or different:
            yield Case(kind, key, path, different[0] if different else path, damage)


def of_kind(case: Case) -> str:
    """Files of one name of stages of one kind."""
    return f"{case.kind} {case.path.name}"


def spread(found: list[Case], each: int = 1, begin: int = 0, by: Callable[[Case], str] = of_kind) -> list[Case]:
    """So many cases of each file, other damages from one file to the next, the same ones for the same file of other experiments.

    Args:
        begin: how many of a file's damages are passed over.
        by: what is taken for one file.
    """
    by_file: dict[str, list[Case]] = {}
    for one in found:
        by_file.setdefault(by(one), []).append(one)
    return [
        files[(crc32(name.encode()) + begin + more) % len(files)]
        for name, files in by_file.items()
        for more in range(min(each, len(files)))
    ]


def in_workers(*argv: str | Path) -> e2e.Result:
    """A command in a process of its own, whose workers are forks of it."""
    with tempfile.TemporaryDirectory() as temporary:
        said = {name: str(Path(temporary, name)) for name in ("out", "err")}
        ((code,),) = e2e.drive({"argv": [str(word) for word in argv], "forks": True, **said})
        return e2e.Result(code, *(Path(said[name]).read_text() for name in ("out", "err")))


def damaged_runs(
    config: Path,
    home: Path,
    chosen: list[Case],
    whole: list[dict[str, Any]],
    *arguments: str,
    command: Callable[..., e2e.Result] = e2e.collapse,
) -> Found:
    """Damage, take away what came later, run again, compare with the rows of an undamaged run."""
    runs, name, found = home / "runs", config.stem, Found()
    for case in chosen:
        again = home / "again"
        shutil.copytree(runs, again, ignore=shutil.ignore_patterns("report.html"))  # 5 MB that are no stage's
        case.damage(again / case.path.relative_to(runs), again / case.other.relative_to(runs))
        for later in later_than(runs, name, case.key):
            shutil.rmtree(e2e.folder_of(again, later), ignore_errors=True)
        (again / name / "metrics.jsonl").unlink(missing_ok=True)
        what = f"{case.kind} {case.path.name}"
        found.files[what] += 1
        found.ways[case.damage.__name__] += 1
        what += f" {case.damage.__name__}"
        try:
            result = command("run", config, "--runs-dir", again, "--json", *arguments)
        except Exception as error:
            print(f"{what}: {type(error).__name__}: {error}", file=sys.stderr)
            found.tracebacks += 1
        else:
            if result.code != 0 or "Traceback" in result.err:
                print(f"{what}: {result.err}", file=sys.stderr)
                found.refused += 1
            elif rows_of(again, name) == whole:
                found.same += 1
            else:
                print(f"{what}: silent wrong numbers", file=sys.stderr)
                found.silent += 1
        shutil.rmtree(again)
    return found


def interrupt(kind: str, patch: pytest.MonkeyPatch, tell: int) -> None:
    """Have the next stage of a kind stop as by Ctrl-C when it tells of its progress for the `tell`-th time."""

    def stopping(body: Any) -> Any:
        def stops(stage: Any, inputs: Any, place: Any) -> Any:
            heard = Counter[str]()

            def hear(*what: Any) -> None:
                place.tell(*what)
                heard["told"] += 1
                if heard["told"] == tell:
                    raise KeyboardInterrupt

            return body(stage, inputs, replace(place, tell=hear))

        return stops

    change_bodies(kind, stopping, patch)


FAST = ("numbers", "cells")
FEW = {"numbers": 2, "cells": 2, "tiny": 1, "mixed": 1}  # ways each file is damaged in outside of the slow tests
MANY = 2  # ways in all where computing a run again takes half a second
BEGIN = {"mixed": MANY}  # its files are those of `tiny`, and meet other damages here
KINDS = {  # of stages, all of which must be reached
    "numbers": {"data", "block"},
    "cells": {"block"},
    "tiny": {"data", "train", "sample", "mix", "eval"},
    "mixed": {"data", "train", "sample", "mix", "eval"},
}
CHECKPOINTS = {"numbers": ("block", 2), "tiny": ("train", 3), "mixed": ("sample", 20)}  # who is interrupted, and where
CHOSEN = (
    "--jobs",
    "1",
    "--set=train.epochs=2",
    "--set=train.select=valid",
)  # a checkpoint of weights, and the best ones


def sweep(
    name: str,
    home: Path,
    *arguments: str,
    choose: Callable[[Path], list[Case]],
    command: Callable[..., e2e.Result] = e2e.collapse,
) -> Found:
    """Damage an experiment's stages in the ways that are chosen of its runs folder."""
    config = EXPERIMENTS[name](home)
    e2e.run(config, home / "runs", "--jobs", "1")
    chosen = choose(home / "runs")
    whole = rows_of(home / "runs", name)
    return damaged_runs(config, home, chosen, whole, *(arguments or ("--jobs", "1")), command=command)


def few(name: str, runs: Path) -> list[Case]:
    """Each file of a stage of each kind, in one way or two."""
    return spread(cases(runs, name), FEW[name], BEGIN.get(name, 0))


def many(name: str, runs: Path) -> list[Case]:
    """Each file of a stage of each kind in two ways, in all where that is cheap, and then of each stage in one; without `few`."""
    chosen = cases(runs, name)
    if name in FAST:
        chosen += spread(cases(runs, name, every=True), by=lambda case: str(case.path.relative_to(runs)))
    else:
        chosen = spread(chosen, MANY)
    return [one for number, one in enumerate(chosen) if one not in few(name, runs) and one not in chosen[:number]]


def sweep_checkpoints(name: str, home: Path, each: int = 0) -> Found:
    """Damage what an interrupted run has left to go on from."""
    config, (kind, tell) = EXPERIMENTS[name](home), CHECKPOINTS[name]
    arguments = CHOSEN if kind == "train" else ("--jobs", "1")
    e2e.run(config, home / "whole", *arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLLAPSE_CHECKPOINT_SECONDS", "0")
        patch.setitem(MOST_SEQUENCES, "cpu", 6)
        interrupt(kind, patch, tell)
        assert e2e.collapse("run", config, "--runs-dir", home / "runs", *arguments).code == 130
    chosen = checkpoint_cases(home / "runs", kind)
    assert chosen, "nothing was left to go on from"
    chosen = spread(chosen, each) if each else chosen
    return damaged_runs(config, home, chosen, rows_of(home / "whole", name), *arguments)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_damaged_file_gives_a_silent_wrong_number(tmp_path: Path, name: str) -> None:
    """Each file of each kind of stage, in one of the ways."""
    found = sweep(name, tmp_path, choose=partial(few, name))
    assert found.faults == (0, 0, 0)
    assert {one.split()[0] for one in found.files} == KINDS[name]
    assert len(found.ways) == len(DAMAGES) or name == "cells", "each damage is met; cells have three files"


def test_no_damaged_file_gives_a_silent_wrong_number_in_workers(tmp_path: Path) -> None:
    found = sweep(
        "numbers", tmp_path, "--jobs", "2", choose=lambda runs: spread(cases(runs, "numbers")), command=in_workers
    )
    assert found.faults == (0, 0, 0)
    assert found.same >= 5


def test_what_a_worker_computes_again_is_an_event_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that is damaged after the plan was made: the worker that needs it makes it again, and that is written down."""
    config, runs, begin = EXPERIMENTS["numbers"](tmp_path), tmp_path / "runs", ProcessExecutor.__enter__
    e2e.run(config, runs, "--jobs", "1")
    whole, events = rows_of(runs, "numbers"), runs / "numbers" / "events.jsonl"
    key = next(stage["key"] for stage in e2e.plan(runs, "numbers") if stage["kind"] == "block")
    for later in later_than(runs, "numbers", key):
        shutil.rmtree(e2e.folder_of(runs, later))
    (runs / "numbers" / "metrics.jsonl").unlink()
    events.unlink()

    def damage_and_begin(self: ProcessExecutor) -> ProcessExecutor:
        flip(e2e.folder_of(runs, key) / "models.safetensors", config)
        return begin(self)

    monkeypatch.setattr(ProcessExecutor, "__enter__", damage_and_begin)
    e2e.run(config, runs, "--jobs", "2")
    told = [event["event"] for event in e2e.read_lines(events) if event["key"] == key]
    assert told == ["cached", "started", "finished"]
    assert rows_of(runs, "numbers") == whole


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_no_damaged_checkpoint_gives_a_silent_wrong_number(tmp_path: Path, name: str) -> None:
    found = sweep_checkpoints(name, tmp_path, each=3)
    assert found.faults == (0, 0, 0)
    assert found.same >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAST, "tiny"])
def test_no_file_damaged_in_several_ways_gives_a_silent_wrong_number(tmp_path: Path, name: str) -> None:
    """Ways that `test_no_damaged_file_gives_a_silent_wrong_number` has not tried; this file as a script does all."""
    found = sweep(name, tmp_path, choose=partial(many, name))
    assert found.faults == (0, 0, 0)
    assert {one.split()[0] for one in found.files} == KINDS[name]


OF_A_RUN = ("run.json", "plan.json", "metrics.jsonl", "events.jsonl")
LOOKING = (("status",), ("report",), ("forecast",), ("list",), ("compare",), ("eval",))


@pytest.mark.parametrize("file", OF_A_RUN)
def test_damaged_run_folders_are_looked_at_without_a_traceback(tmp_path: Path, file: str) -> None:
    """Exit code 0 or 2, whatever is wrong with a file of the run folder; anything else is raised here."""
    config = EXPERIMENTS["numbers"](tmp_path)
    e2e.run(config, tmp_path / "runs")
    runs, again = tmp_path / "runs", tmp_path / "again"
    contents = [b"", b"{}", b"[]", b"3", b"null", b"\xff\xfe", b"[" * 100_000, b'{"stages": [3]}', b'{"config": 3}']
    for number in range(len(contents) + 4):
        shutil.copytree(runs, again)
        path = again / "numbers" / file
        if number < len(contents):
            path.write_bytes(contents[number])
        else:
            (flip, truncate, delete, make_folder)[number - len(contents)](path, path)
        for command, *rest in LOOKING:
            target = {"list": [], "compare": [again / "numbers", runs / "numbers"]}.get(command, [again / "numbers"])
            where = ["--runs-dir", again] if command in ("list",) else []
            result = e2e.collapse(command, *target, *rest, *where)
            assert result.code in (0, 2), (number, command, result.err)
            assert "Traceback" not in result.err
        shutil.rmtree(again)


if __name__ == "__main__":
    for each in EXPERIMENTS:
        with tempfile.TemporaryDirectory() as temporary:
            began = time.monotonic()
            counted = sweep(each, Path(temporary), choose=partial(cases, name=each, every=each in FAST))
            print(f"{each}, {time.monotonic() - began:.0f} s:", counted)
    for each in CHECKPOINTS:
        with tempfile.TemporaryDirectory() as temporary:
            print(f"checkpoints of {each}:", sweep_checkpoints(each, Path(temporary)))
