"""The rules of docs/design.md: who may import whom, and what has no place in the package."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "collapse_cli"
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = Path(__file__).resolve().parents[1]
TEST_FILES = sorted(TESTS.rglob("test_*.py"))


def name_of(path: Path) -> str:
    """The module's name within the package: `loop`, `lm.train`, `learners`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


@cache
def imports_of(path: Path) -> frozenset[str]:
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
    return frozenset(found)


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
    assert {"config", "config.policies", "learners", "experiment.stages.mix"} <= own_imports(MODULES["experiment.loop"])
    assert {"lm.train", "lm.sample", "data.dataset"} <= own_imports(MODULES["learners.lm"])
    assert "run.runner" in own_imports(MODULES["cli.app"]), "an import within a function"
    assert len(MODULES) > 15


# Arrows run downwards: a room may import from those named beside it. What is not here is of no room.
MAY = {
    "errors": "",
    "where": "",
    "groups": "",
    "process": "errors groups",
    "files": "errors",
    "engine": "errors where files process",
    "data": "errors files process",
    "families": "errors files",
    "config": "errors families",
    "foreign": "errors files data",
    "theory": "errors",
    "simulate": "theory",
    "metrics": "errors",
    "lm": "errors files process data engine config",
    "learners": "errors process data engine config families metrics lm",
    "selection": "errors data engine config families metrics lm learners",
    "check": "errors files data metrics selection",
    "records": "errors where files engine config families",
    "tracking": "errors where config records",
    "experiment": "errors where data engine config families metrics foreign learners selection",
    "findings": "errors where config families metrics theory records",
    "terminal": "errors where config families metrics simulate records findings",
    "report": "errors where files engine config families metrics records findings",
    "view": "errors metrics records report",
    "run": "errors where files process data engine config families metrics foreign lm learners selection check records tracking experiment findings terminal report",
    "cli": "errors files process engine config metrics lm theory simulate records findings terminal report view run",
    "__main__": "errors process terminal cli",
    "": "groups",
}
# Within those rooms, what may be imported from them is these modules alone.
OF_THEM = {
    ("lm", "engine"): "engine.checkpoint",
    ("learners", "engine"): "engine.checkpoint engine.child engine.stage",
    ("learners", "config"): "config.cell config.experiment config.families config.pool config.tree",
    ("lm", "config"): "config.tree",
    ("selection", "config"): "config.selection config.experiment",
    ("selection", "engine"): "engine.stage",
    ("experiment", "engine"): "engine.stage engine.checkpoint",
    ("report", "engine"): "engine.sealed",
    ("cli", "engine"): "engine.remote_addresses",
    ("cli", "metrics"): "metrics.numbers",
    ("view", "metrics"): "metrics.numbers",
}


def room_of(name: str) -> str:
    """`findings` of `findings.forecast.laws`."""
    return name.partition(".")[0]


def test_a_room_imports_only_from_those_below_it() -> None:
    for name, path in MODULES.items():
        room = room_of(name)
        others = {own for own in own_imports(path) if room_of(own) != room}
        assert {own for own in others if room_of(own) not in MAY[room].split()} == set(), name
        for (importer, imported), modules in OF_THEM.items():
            if importer == room:
                allowed = {imported, *modules.split()}
                assert {own for own in others if room_of(own) == imported} - allowed == set(), name


def test_what_is_allowed_is_used() -> None:
    """A table that allows more than there is tells nobody how things are."""
    used = {(room_of(name), room_of(own)) for name, path in MODULES.items() for own in own_imports(path)}
    assert {(room, lower) for room, allowed in MAY.items() for lower in allowed.split()} - used == set()
    for (importer, imported), modules in OF_THEM.items():
        importing = (own_imports(path) for name, path in MODULES.items() if room_of(name) == importer)
        assert set(modules.split()) - set().union(*importing) == set(), (importer, imported)


def test_every_room_has_its_line_and_few_files_have_none() -> None:
    assert {room_of(name) for name in MODULES} == MAY.keys()
    assert len(list(PACKAGE.glob("*.py"))) <= 7


ASKS_FOR_GPUS = "records.made_with"  # which only a run that begins, and the doctor, do
READERS = {
    "families",
    "findings",
    "report",
    "terminal",
    "theory",
    "config",
    "engine",
    "metrics",
    "records",
    "tracking",
    "simulate",
    "view",
}


def test_what_only_reads_or_counts_imports_neither_torch_nor_learners() -> None:
    heavy = {
        "torch",
        "transformers",
        "collapse_cli.learners",
        "collapse_cli.lm",
        "collapse_cli.experiment.loop",
        "collapse_cli.experiment.stages",
    }
    for name, path in MODULES.items():
        if room_of(name) in READERS and name != ASKS_FOR_GPUS:
            assert {module for module in imports_of(path) if within(module, heavy)} == set(), name


def test_where_the_store_keeps_its_files_is_known_to_the_store_alone() -> None:
    """A store that is no local folder would be one class, chosen where an address becomes a store."""
    for name in sorted(name for name in MODULES if room_of(name) not in ("engine", "records")):
        for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert "FolderStore" not in ast.unparse(node.func), f"{name}:{node.lineno}: use store_at, store_of"
            if isinstance(node, ast.Attribute) and node.attr == "root":
                assert "store" not in ast.unparse(node.value).lower(), f"{name}:{node.lineno}: {ast.unparse(node)}"


def test_no_module_is_imported_in_a_circle() -> None:
    graph = {name: own_imports(path) - {name} for name, path in MODULES.items()}
    while graph:
        leaves = {name for name, wanted in graph.items() if not wanted & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: wanted for name, wanted in graph.items() if name not in leaves}


def test_a_file_is_named_for_what_is_in_it() -> None:
    assert {path.stem for path in FILES} & {"utils", "util", "helpers", "common", "misc"} == set()


def test_nothing_unpickles_or_runs_downloaded_code() -> None:
    unsafe = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in FILES:
        assert imports_of(path) & unsafe == set(), path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                where = f"{path}:{node.lineno}: {called}"
                assert called not in ("torch.load", "torch.save", "eval", "exec"), where
                words = {word.arg: word.value for word in node.keywords}
                for name in ("trust_remote_code", "allow_pickle"):
                    value = words.get(name, ast.Constant(False))
                    assert isinstance(value, ast.Constant), where
                    assert not value.value, where


def test_a_test_file_is_on_its_own() -> None:
    """What two of them share is in tests/support/; each runs alone, and stands in the room that it tests."""
    files = {path.stem for path in TEST_FILES}
    assert len(files) == len(TEST_FILES) > 50, "two of one name, or none were found"
    for path in TEST_FILES:
        named = re.findall(r"^\s*(?:from|import) ([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert {part for name in named for part in name.split(".")} & files == set(), path.name
        assert path.parent.name in MAY.keys() | {"project", "whole"}, path.name


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys, collapse_cli.cli.app, collapse_cli.__main__\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy', 'pydantic'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_datasets_is_loaded_where_its_tables_are_read() -> None:
    """In one place, where it is made quiet: it takes a second and a half, and most runs read local text."""
    loading = re.compile(r"^\s*(import|from) datasets\b|import_module\(.datasets", re.MULTILINE)
    found = [path for path in FILES if loading.search(path.read_text(encoding="utf-8"))]
    assert found == [PACKAGE / "data" / "tables.py"]


# where the names of theorems and of their models are asked for, some of which are those of families
ASKS_BY_NAME = {"cli.theory", "terminal.theory", "simulate", "theory"}


def names_compared(path: Path, names: set[str]) -> list[str]:
    """Where a file compares with a learner's name, looks one up, or lists some: what `families` describes once."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        asked: list[ast.expr | None] = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            asked = node.keys
        elif isinstance(node, ast.Set | ast.Tuple | ast.List):
            asked = list(node.elts)
        elif isinstance(node, ast.MatchValue):
            asked = [node.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            asked = list(node.args) if node.func.attr in ("get", "pop") else []
        said = {one.value for one in asked if isinstance(one, ast.Constant) and isinstance(one.value, str)}
        found += [f"{path.name}:{getattr(node, 'lineno', 0)}: {name}" for name in sorted(said & names)]
    return found


OUTSIDE = sorted(name for name in MODULES if room_of(name) != "families" and name not in ASKS_BY_NAME)


def test_what_a_family_is_stands_in_families_alone() -> None:
    """A new family is a file there, a line in its list, and a learner; nothing else asks for it by name."""
    from collapse_cli.families import FAMILIES

    for name in OUTSIDE:
        assert names_compared(MODULES[name], set(FAMILIES)) == [], name


def test_the_search_for_names_of_learners_finds_them(tmp_path: Path) -> None:
    file = tmp_path / "asks.py"
    for line in (
        'x == "lm"',
        'x in ("ngram", "vae")',
        '{"ridge": 1}',
        'tree.get("learner", "lm")',
        "match x:\n    case 'gmm':\n        pass",
        'x != "mlp"',
    ):
        file.write_text(line + "\n", encoding="utf-8")
        assert names_compared(file, {"lm", "ngram", "vae", "ridge", "gmm", "mlp"}), line
    file.write_text('show("ridge", 1)\ntree["lm"]\n"""lm"""\n', encoding="utf-8")
    assert names_compared(file, {"lm", "ridge"}) == []


SHOWING = ("findings", "terminal", "report", "view", "tracking")
AVERAGES = "findings.arms"  # the one place where lineages become one, and say so


def test_what_shows_rows_groups_them_by_arm_and_builds_no_keys_of_its_own() -> None:
    """By policy alone two lineages would overwrite or average each other, and nothing would say so."""
    allowed = (
        "_name(where.",  # report.loading makes the names of all arms fit to show
        "(where.name, where.lineage)",
        "first.setdefault(row.where.lineage, row)",  # a row of each lineage, to look at its protocol
    )
    for name in sorted(name for name in MODULES if room_of(name) in SHOWING and name != AVERAGES):
        text = MODULES[name].read_text(encoding="utf-8")
        alone = [line for line in text.splitlines() if re.search(r"\bwhere\.(policy|name|lineage)\b", line)]
        assert [line for line in alone if not any(part in line for part in allowed)] == [], name
