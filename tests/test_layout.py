"""The rules of docs/design.md, section 6: who may import whom, and what has no place in the package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "collapse_cli"
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module's name within the package: `loop`, `lm.train`, `learners`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports_of(path: Path) -> set[str]:
    """All modules that a file imports anywhere, those within functions too; `from x import y` as `x` and `x.y`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def own_imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, named as in `MODULES`; the package itself is ''."""
    own = {
        name.removeprefix("collapse_cli").lstrip(".") for name in imports_of(path) if name.startswith("collapse_cli")
    }
    return (own & MODULES.keys()) - {""}


def within(name: str, allowed: set[str]) -> bool:
    """Whether a module is one of `allowed`, or below one of them."""
    return any(name == other or name.startswith(f"{other}.") for other in allowed)


def test_the_reading_of_imports_finds_some() -> None:
    """The rules below would hold for files that were not read."""
    assert {"config", "policies", "learners", "data"} <= own_imports(MODULES["loop"])
    assert {"lm.train", "lm.sample", "data"} <= own_imports(MODULES["learners.lm"])
    assert "runner" in own_imports(MODULES["cli"]), "an import within a function"
    assert len(MODULES) > 15


ONLY = {
    "stage": set(),
    "errors": set(),
    "files": {"errors"},
    "textformats": {"errors", "files"},
    "textfiles": {"errors", "files", "textformats"},
    "data": {"errors", "files", "textfiles", "zipf"},
    "zipf": set(),
    "sources": {"metrics"},
    "config": {"config", "files"},
    "theory": {"theory"},
    "simulate": {"simulate", "theory"},
    "terminal": set(),
    "once": set(),
    "theory_commands": {"theory", "simulate", "terminal", "theory_printing", "once"},
    "theory_printing": {"simulate", "terminal"},
    "tracking": {"config", "tracking"},
    "policies": {"data"},
    "metrics": {"data", "metrics"},
    "images": {"data", "errors", "files"},
    "learners": {"data", "learners", "cell", "images", "checkpoint"},
    "cell": set(),
    "checkpoint": {"errors", "files"},
    "predictions": {"theory"},
    "scaling": {"cell", "scaling"},
    "learners.lm": {"data", "metrics", "lm", "learners", "zipf"},
    "learners.ngram": {"data", "metrics", "lm", "learners", "zipf"},
    "learners.reading": {"data", "lm", "learners", "zipf"},
    "learners.lm_measures": {"data", "metrics", "lm", "zipf"},
    "lm": {"checkpoint", "data", "files", "lm"},
    "executors": {"process", "stage", "store"},
    "side_by_side": {"executors", "stage", "store"},
    "report": {
        *("report", "rundir", "config", "metrics", "diagnosis", "forecast", "sources", "store"),
        *("cell", "expectations", "predictions", "scaling", "theory"),
    },
    "expectations": {"cell", "metrics", "predictions", "theory"},
    "diagnosis": {"diagnosis", "metrics", "cell", "expectations", "scaling"},
    "forecast": {"forecast", "config", "console", "metrics", "policies", "rundir", "terminal"},
    "compare": {"compare", "config", "console", "diagnosis", "metrics", "rundir", "terminal"},
    "compare_families": {"config", "diagnosis", "expectations", "metrics", "rundir", "terminal"},
    "outcome": {"cell", "config", "console", "diagnosis", "expectations", "metrics", "terminal"},
    "process": set(),
    "store": {"errors", "files", "stage"},
}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_only_what_it_may(name: str) -> None:
    rules = [rule for rule in ONLY if within(name, {rule})]
    if rules:
        allowed = ONLY[max(rules, key=len)]
        assert {own for own in own_imports(MODULES[name]) if not within(own, allowed)} == set()


@pytest.mark.parametrize(
    "name", sorted(name for name in MODULES if within(name, {"loop", "stages", "blocks", "mixture", "kinds"}))
)
def test_the_loop_knows_no_store_executor_run_folder_or_command_line(name: str) -> None:
    forbidden = {"store", "executors", "rundir", "runner", "cli", "console", "evaluate", "__main__"}
    assert own_imports(MODULES[name]) & forbidden == set()


def test_executors_know_neither_loop_nor_learners() -> None:
    those = {"loop", "stages", "blocks", "mixture", "kinds", "learners", "lm"}
    assert {own for own in own_imports(MODULES["executors"]) if within(own, those)} == set()


def test_nothing_imports_the_command_line_but_main() -> None:
    assert {name for name, path in MODULES.items() if "cli" in own_imports(path)} == {"__main__"}


READERS = {
    *("report", "forecast", "compare", "compare_families", "status", "diagnosis", "sources", "theory", "expectations"),
    *("config", "stage", "store", "policies", "metrics"),
}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if within(name, READERS)))
def test_what_only_reads_or_counts_imports_neither_torch_nor_learners(name: str) -> None:
    heavy = {"torch", "transformers", "collapse_cli.learners", "collapse_cli.lm", "collapse_cli.loop"}
    assert {module for module in imports_of(MODULES[name]) if within(module, heavy)} == set()


def test_no_module_is_imported_in_a_circle() -> None:
    graph = {name: own_imports(path) - {name} for name, path in MODULES.items()}
    while graph:
        leaves = {name for name, wanted in graph.items() if not wanted & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: wanted for name, wanted in graph.items() if name not in leaves}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_is_no_more_than_400_lines_and_not_called_utils(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert path.stem not in ("utils", "util", "helpers", "common", "misc")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_unpickles_or_runs_downloaded_code(path: Path) -> None:
    unsafe = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert imports_of(path) & unsafe == set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            where = f"{path.name}:{node.lineno}: {called}"
            assert called not in ("torch.load", "torch.save", "eval", "exec"), where
            words = {word.arg: word.value for word in node.keywords}
            for name in ("trust_remote_code", "allow_pickle"):
                value = words.get(name, ast.Constant(False))
                assert isinstance(value, ast.Constant), where
                assert not value.value, where


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys, collapse_cli.cli, collapse_cli.__main__\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy', 'pydantic'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
