"""Where a command starts, and where its output goes: what is wrong there is one line in the right words."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import e2e

COLLAPSE = [sys.executable, "-m", "collapse_cli"]
FULL = Path("/dev/full")
TINY = """
learner = "gaussian"
loop = { generations = 1, policies = ["keep-0"] }
data = { source = "blobs", rows = 20, blobs = { dimensions = 1 } }
gaussian = { trials = 2 }
"""


def says(code: int, err: str, *words: str) -> None:
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("collapse: ")
    for word in words:
        assert word in err, err


needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@needs_full
@pytest.mark.parametrize("command", [["list"], ["options"], ["options", "--json"], ["--help"], ["--version"]])
def test_an_output_that_is_full(tmp_path: Path, command: list[str]) -> None:
    """Little and much of it: what is printed at once, and what waits in a buffer until the end."""
    with FULL.open("w") as out:
        made = subprocess.run([*COLLAPSE, *command], stdout=out, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    says(made.returncode, made.stderr, "the output", "cannot be written", "No space left on device")
    assert "runs folder" not in made.stderr
    assert "gc" not in made.stderr


@needs_full
def test_a_run_whose_output_is_full_can_go_on(tmp_path: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(TINY)
    command = ["run", str(config), "--runs-dir", str(tmp_path / "runs"), "--jobs", "1"]
    with FULL.open("w") as out:
        made = subprocess.run([*COLLAPSE, *command], stdout=out, stderr=subprocess.PIPE, text=True)
    says(made.returncode, made.stderr, "the output", "cannot be written", "kept")
    assert e2e.collapse(*command).code == 0
    assert json.loads((tmp_path / "runs" / "tiny" / "run.json").read_text())["status"] == "success"


@needs_full
def test_nobody_hears_of_a_mistake_but_its_code(tmp_path: Path) -> None:
    with FULL.open("w") as err:
        made = subprocess.run([*COLLAPSE, "lisst"], stdout=subprocess.PIPE, stderr=err, text=True, cwd=tmp_path)
    assert (made.returncode, made.stdout) == (2, "")


def test_an_output_that_is_closed(tmp_path: Path) -> None:
    made = subprocess.run(
        f"exec {sys.executable} -m collapse_cli list >&-", shell=True, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert (made.returncode, made.stderr) == (0, "")


@pytest.mark.parametrize("command", ["list", "run --preset smoke --dry-run", "doctor", "theory ridge", "--version"])
def test_a_folder_that_was_removed_beneath_the_command(tmp_path: Path, command: str) -> None:
    there = f"mkdir gone && cd gone && rmdir ../gone && exec {sys.executable} -m collapse_cli {command}"
    made = subprocess.run(
        there, shell=True, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(e2e.ROOT)}
    )
    says(made.returncode, made.stderr, "the folder that you are in was removed", "cd")
    assert made.stdout == ""


COMMANDS = [["list"], ["gc"], ["run", "tiny.toml"], ["status", "x"], ["doctor"], ["report", "x"], ["eval", "x"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("kind", ["nowhere", "itself", "file", "pipe", "below nowhere"])
def test_a_runs_folder_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], kind: str
) -> None:
    """A link that leads nowhere or in a circle, a file, a named pipe: named as what it is, by every command."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    runs = Path("there")
    if kind in ("nowhere", "below nowhere"):
        runs.symlink_to("not-here")
    elif kind == "itself":
        runs.symlink_to("there")
    elif kind == "file":
        runs.write_text("")
    else:
        os.mkfifo(runs)
    where = runs / "runs" if kind == "below nowhere" else runs
    found = e2e.collapse(*command, "--runs-dir", where)
    words = {"itself": "back to itself", "file": "is a file", "pipe": "is a pipe"}.get(kind, "not-here, which is not")
    if kind != "below nowhere":
        says(found.code, found.err, "there", words)
    elif command[0] == "run":
        says(found.code, found.err, "there is a link to not-here", words)
    assert "Traceback" not in found.err
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.toml", "there"}


def test_the_usual_runs_folder_that_is_a_link_to_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to("not-here")
    found = e2e.collapse("list")
    says(found.code, found.err, "runs is a link to not-here")


ODD = "caf\udce9"  # as Python reads the Latin-1 bytes of café from a command line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", ODD],
        ["--set", f"data.source={ODD}"],
        ["--set", f"data.source='{ODD}'"],
        ["--data", "wikitext2", "--set", f"data.train={ODD}"],
        ["--model", ODD],
        ["--set", f"model.tokenizer={ODD}"],
        ["--policy", ODD],
        ["--name", ODD],
        ["--set", f"{ODD}=3"],
        ["--preset", ODD],
        ["--runs-dir", ODD],
        ["--seeds", ODD],
        [ODD],
    ],
)
def test_what_is_not_utf8_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """In one line, that can be printed, and never as text of a wrong type."""
    monkeypatch.chdir(tmp_path)
    preset = [] if arguments[0] in ("--preset", ODD) else ["--preset", "smoke"]
    found = e2e.collapse("run", *preset, *arguments)
    says(found.code, found.err.encode("utf-8").decode(), "caf")
    assert "must be text" not in found.err
    if any(word in str(arguments) for word in ("data", "model", "runs")):
        assert "not UTF-8" in found.err
    assert list(tmp_path.iterdir()) == []
