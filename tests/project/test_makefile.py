"""The Makefile: which Python an environment is of. Nothing is installed: make only says what it would do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = sys.version.split()[0]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone without an environment."""
    if shutil.which("make") is None:
        pytest.skip("this machine has no make")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def environment(clone: Path, version: str) -> None:
    """What a finished setup with that Python leaves."""
    (clone / ".venv" / "bin").mkdir(parents=True)
    python = clone / ".venv" / "bin" / "python"
    python.write_text(f"#!/bin/sh\necho {version}\n")
    python.chmod(0o755)
    (clone / ".venv" / "ready").touch()


def plan(clone: Path, *words: str) -> str:
    """What make would do."""
    own = {
        name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    done = subprocess.run(["make", "-n", *words], cwd=clone, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_clone_gets_an_environment_of_the_python_that_was_named(clone: Path) -> None:
    said = plan(clone, "test", f"PYTHON={sys.executable}")
    assert f"{sys.executable} -m venv" in said
    assert "pip install" in said
    assert "pytest -n 2" in said


def test_an_environment_of_another_python_is_made_anew_and_one_of_the_same_is_kept(clone: Path) -> None:
    """`make test PYTHON=python3.12` after a setup with 3.11 ran the tests with 3.11 and did not say so."""
    environment(clone, "3.10.99")
    assert f"{sys.executable} -m venv --clear .venv" in plan(clone, "test", f"PYTHON={sys.executable}")
    assert "-m venv" not in plan(clone, "test"), "who names no Python has what there is"


def test_an_environment_of_the_same_python_is_kept(clone: Path) -> None:
    environment(clone, OURS)
    assert "-m venv" not in plan(clone, "test", f"PYTHON={sys.executable}")


def test_what_only_tests_need_is_installed_for_tests_alone(clone: Path) -> None:
    """Ray is large, and not to be had everywhere: the demonstration asks for nothing of it, and tests go on without."""
    asked = f"PYTHON={sys.executable}"
    assert "[cluster]" not in plan(clone, "demo", asked) + plan(clone, "check", asked) + plan(clone, "setup", asked)
    for words in ("test", "test-fast"):
        said = plan(clone, words, asked)
        assert said.index("'.[dev]'") < said.index("'.[cluster]'") < said.index("-m pytest")
        assert "|| echo" in said


def test_the_lowest_versions_have_an_environment_of_their_own(clone: Path) -> None:
    said = plan(clone, "test-lowest", f"PYTHON={sys.executable}")
    assert "--resolution lowest-direct" in said
    assert ".venv-lowest/bin/python -m pytest" in said
    assert " .venv\n" not in said
