"""What is imported is declared: an environment made from pyproject.toml alone holds every library that is used."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Libraries that are the interface of a declared one, which pins them.
PART_OF = {"pydantic_core": "pydantic", "httpx2": "openai"}


def named(requirement: str) -> str:
    """The library that a requirement names, as the packaging rules spell it: `Huggingface_hub>=1` as `huggingface-hub`."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def imported(path: Path) -> set[str]:
    """The first part of what a file imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def foreign(folder: str) -> Iterator[tuple[str, Path]]:
    """What the files below a folder import that is neither Python's own nor this project's, with a file that does."""
    seen: dict[str, Path] = {}
    own = {"collapse_cli", "support", "tests", *sys.stdlib_module_names}
    if folder != "collapse_cli":  # scripts are found by their folder
        own |= {path.stem for place in (ROOT / "benchmarks", ROOT / "docs") for path in place.rglob("*.py")}
    for path in sorted((ROOT / folder).rglob("*.py")):
        seen.update(dict.fromkeys(imported(path) - own, path))
    yield from seen.items()


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("collapse_cli", ["mlflow", "tensorboard", "wandb", "gguf", "server", "ray"]),
        ("tests", ["dev", "wandb", "gguf", "mlflow", "server", "tensorboard", "cluster"]),
        ("benchmarks", ["dev", "cluster", "s3"]),
        ("docs", ["dev"]),
    ],
)
def test_what_is_imported_is_declared(folder: str, extras: list[str]) -> None:
    """Tests imported a library that an environment held only because someone had installed it by hand."""
    declared = {named(text) for text in (*PROJECT["dependencies"], *(one for name in extras for one in EXTRAS[name]))}
    known = packages_distributions()
    for name, path in foreign(folder):
        # A library that is not installed here is taken to be named as what is imported.
        libraries = {named(library) for library in known.get(name, [name])} | {PART_OF.get(name, "")}
        assert libraries & declared, f"{path.relative_to(ROOT)} imports {name}, which pyproject.toml does not declare"


def test_the_reading_of_imports_finds_some() -> None:
    """The rule above would hold for files that were not read."""
    assert {"torch", "numpy", "transformers", "openai", "wandb"} <= {name for name, _ in foreign("collapse_cli")}
    assert {"zstandard", "hypothesis"} <= {name for name, _ in foreign("tests")}
