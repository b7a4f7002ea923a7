"""Each kind of file of a small run is damaged in turn, what came after it is made again, and wrong numbers are counted.

A number that differs from the undamaged run's and was not announced by an error is a silent wrong number: there must be
none. `python tests/test_damage.py` prints the count of each experiment.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import e2e
import pytest

NUMBERS = """
learner = "gaussian"
loop = { generations = 5, policies = ["keep-0", "accumulate"], block = 2 }
data = { source = "blobs", rows = 50, blobs = { dimensions = 1 } }
gaussian = { trials = 5 }
"""
CELLS = """
kind = "mixture"
learner = "ridge"
loop.seeds = [0, 1, 2]
data = { source = "regression", regression = { dimensions = 10 } }
mixture = { rows = [20, 40, 80], share = [0.0, 0.5], quality = [0.5] }
"""


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


def replace(path: Path, other: Path) -> None:
    """By the file of the same name of another stage."""
    shutil.copy(other, path)


DAMAGES = [flip, flip_last, truncate, empty, delete, make_folder, replace]


@dataclass
class Found:
    """How often the same command, given again after a damage, ended how."""

    same: int = 0
    refused: int = 0
    silent: int = 0
    tracebacks: int = 0


def rows_of(runs: Path, name: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
    without = [
        {key: value for key, value in row.items() if key not in ("seconds", "speed", "peak_memory_mb")} for row in rows
    ]
    return sorted(without, key=lambda row: json.dumps([row["policy"], row["seed"], row["generation"]]))


def later_than(runs: Path, name: str, key: str) -> set[str]:
    """The keys of the stages that are made from a stage, however far."""
    later = {key}
    for stage in e2e.plan(runs, name):  # inputs before their users
        if later & set(stage["inputs"].values()):
            later.add(stage["key"])
    return later - {key}


def cases(runs: Path, name: str, *, every: bool) -> Iterator[tuple[str, Path, Path, Callable[[Path, Path], None]]]:
    """A stage's key, one of its files, and another stage's file of that name: for each kind of stage, or each stage."""
    seen: set[tuple[str, str]] = set()
    store = runs / "store"
    for stage in e2e.plan(runs, name):
        folder = e2e.folder_of(runs, stage["key"])
        for path in sorted(folder.rglob("*")):
            kind = (stage["kind"], path.name)
            if path.is_dir() or (kind in seen and not every):
                continue
            others = [one for one in sorted(store.glob(f"??/*/{path.relative_to(folder)}")) if one != path]
            different = [one for one in others if one.read_bytes() != path.read_bytes()]
            seen.add(kind)
            for damage in DAMAGES:
                if damage is not replace or different:
                    yield stage["key"], path, different[0] if different else path, damage


def damaged_runs(config: Path, home: Path, *arguments: str, every: bool = False, most: int = 10**9) -> Found:
    """Damage, take away what came later, run again, compare."""
    runs, name = home / "runs", config.stem
    e2e.run(config, runs, *arguments)
    whole, found = rows_of(runs, name), Found()
    chosen = list(cases(runs, name, every=every))
    step = max(1, -(-len(chosen) // most))
    for key, path, other, damage in chosen[::step]:
        again = home / "again"
        shutil.copytree(runs, again)
        damage(again / path.relative_to(runs), again / other.relative_to(runs))
        for later in later_than(runs, name, key):
            shutil.rmtree(e2e.folder_of(again, later), ignore_errors=True)
        (again / name / "metrics.jsonl").unlink()
        try:
            result = e2e.collapse("run", config, "--runs-dir", again, "--json", *arguments)
        except Exception as error:
            print(f"{path.name} {damage.__name__}: {type(error).__name__}: {error}", file=sys.stderr)
            found.tracebacks += 1
        else:
            if result.code == 2:
                print(f"{path.name} {damage.__name__}: {result.err}", file=sys.stderr)
                found.refused += 1
            elif rows_of(again, name) == whole:
                found.same += 1
            else:
                print(f"{path.name} {damage.__name__}: silent wrong numbers", file=sys.stderr)
                found.silent += 1
        shutil.rmtree(again)
    return found


def write(home: Path, name: str, text: str) -> Path:
    path = home / f"{name}.toml"
    path.write_text(text)
    return path


def write_mixture(home: Path) -> Path:
    """The tiny language model on mixtures of real and generated rows."""
    path = e2e.write_experiment(home)
    text = path.read_text().replace('generations = 1\npolicies = ["keep-0", "keep-10"]\n', "")
    head = 'kind = "mixture"\n[mixture]\nreal_rows = [8, 16]\nshare = [0.0, 0.5]\n[loop]'
    return write(home, "mixed", text.replace("[loop]", head))


EXPERIMENTS: dict[str, Callable[[Path], Path]] = {
    "numbers": lambda home: write(home, "numbers", NUMBERS),
    "cells": lambda home: write(home, "cells", CELLS),
    "tiny": e2e.write_experiment,
    "mixed": write_mixture,
}


FAST = ("numbers", "cells")


@pytest.mark.parametrize("name", FAST)
def test_no_damaged_file_of_numbers_gives_a_silent_wrong_number(tmp_path: Path, name: str) -> None:
    found = damaged_runs(EXPERIMENTS[name](tmp_path), tmp_path, most=14)
    assert (found.silent, found.tracebacks, found.refused) == (0, 0, 0)
    assert found.same >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_no_damaged_file_gives_a_silent_wrong_number(tmp_path: Path, name: str) -> None:
    most = 10**9 if name in FAST else 30  # the script does all, in about ten minutes
    found = damaged_runs(EXPERIMENTS[name](tmp_path), tmp_path, every=name in FAST, most=most)
    assert (found.silent, found.tracebacks, found.refused) == (0, 0, 0)
    assert found.same >= 5


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
    for each, make in EXPERIMENTS.items():
        with tempfile.TemporaryDirectory() as temporary:
            print(each, damaged_runs(make(Path(temporary)), Path(temporary), every=each in FAST))
