"""Everything the commands print at 80 columns: no line is wider, no word is cut, nothing ends in dots."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from support import e2e
from support.instrumented import write_run
from support.mixed import FAMILIES, cell_error, families_rows, mixture_rows, tree_of, write

from collapse_cli.cli import doctor
from collapse_cli.terminal import text as terminal

LONG = "a-run-with-a-rather-long-name-of-fifty-characters-x1"
POLICIES = ("keep-0", "keep-10", "keep-20", "accumulate-subsample", "accumulate", "fresh-5")
WARNING = "something smells here, and this is a long warning that must be wrapped between words and not within one"
WHOLE = ("collapse ", "report: ")  # commands to be pasted, and paths, stay on one line


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands believe that they print on a terminal of 80 columns."""

    def console(*, stderr: bool = False, **options: Any) -> terminal.Terminal:
        options |= {"width": 80, "force_terminal": True, "color_system": None, "highlight": False, "emoji": False}
        return terminal.Terminal(stderr=stderr, **options)

    monkeypatch.setattr(terminal, "console", console)
    monkeypatch.setenv("TERM", "dumb")  # no progress bars among the lines


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind, with long names."""
    folder = tmp_path_factory.mktemp("tables")
    warned = {("keep-0", 0, 3): [WARNING]}
    published = [{"what": "perplexity", "value": 50.0, "source": "a paper " * 20, "note": "a note " * 30}]
    write_run(folder, LONG, policies=POLICIES, seeds=(0, 1, 2), generations=9, warnings=warned, expect=published)
    write_run(folder, "other", policies=("keep-0", "accumulate-subsample"))
    for learner, fields in FAMILIES.items():
        loop = {"generations": 12, "policies": ["keep-0", "accumulate-subsample", "keep-10"], "seeds": [0, 1]}
        tree = tree_of(learner, loop=loop)
        write(folder, f"{learner}-{LONG[:60]}", tree, families_rows(tree, fields))
    grid = {"rows": [200, 500, 100_000], "share": [0.0, 0.01, 0.1, 0.5, 0.9], "quality": [0.0, 0.5, 1.0]}
    tree = tree_of("ridge", kind="mixture", mixture=grid, loop={"seeds": [0, 1, 2]})
    rows = mixture_rows(
        tree, lambda row, random: {"error": cell_error(row.coordinates) * float(np.exp(0.01 * random.normal()))}
    )
    write(folder, f"grid-{LONG[:60]}", tree, rows)
    return folder


def checked(*arguments: str | Path, code: int = 0) -> str:
    """What a command prints, after it was looked through."""
    result = e2e.collapse(*arguments)
    assert result.code == code, result.err
    for line in result.out.splitlines():
        assert cell_len(line) <= 80 or line.startswith(WHOLE), line
        cells = [cell.strip() for cell in line.split("│")]
        assert not any(len(cell) > 1 and cell.endswith("…") for cell in cells), line
    return result.out


def words(printed: str) -> set[str]:
    return {word.strip("│┃,:;()") for word in printed.split()}


def test_status_of_many_policies(runs: Path) -> None:
    out = checked("status", LONG, "--runs-dir", runs)
    assert set(POLICIES) <= words(out)
    assert " ".join(out.split()).count(WARNING) == 1
    assert "success" in out


@pytest.mark.parametrize("command", ["compare", "forecast"])
def test_side_by_side_and_ahead(runs: Path, command: str) -> None:
    names = (LONG, "other") if command == "compare" else (LONG,)
    out = checked(command, *names, "--runs-dir", runs)
    assert set(POLICIES) <= words(out)
    assert LONG in words(out) or command == "forecast"


def test_list_of_runs(runs: Path) -> None:
    out = checked("list", "--runs-dir", runs)
    assert {"other", LONG, f"grid-{LONG}"} <= words(out)


@pytest.mark.parametrize("learner", FAMILIES)
def test_status_and_comparison_of_families(runs: Path, learner: str) -> None:
    name = f"{learner}-{LONG[:60]}"
    assert "accumulate-subsample" in words(checked("status", name, "--runs-dir", runs))
    checked("compare", name, "--runs-dir", runs)


def test_a_grid(runs: Path) -> None:
    out = checked("status", f"grid-{LONG}", "--runs-dir", runs)
    assert "100,000" in words(out)


@pytest.mark.parametrize(
    "model", ["ridge", "projections", "weighted", "iterative", "generational", "accumulate", "gaussian"]
)
def test_theory(model: str) -> None:
    checked("theory", model, "--simulate", "2", *(() if model in ("accumulate", "gaussian") else ("--n", "2000")))


def test_presets_and_options() -> None:
    assert "generational-regression" in words(checked("presets"))
    out = checked("options")
    assert {"sample.decode.repetition_penalty", "data.regression.noise_synthetic"} <= words(out)


def test_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = {"GPU": "NVIDIA H100 80GB HBM3, " * 8, "Hub cache": "/a/long/path" * 20, "runs folder": "x: writable"}
    monkeypatch.setattr(doctor, "examine", lambda runs: facts)
    assert "HBM3" in words(checked("doctor", "--runs-dir", tmp_path))


def test_a_run_and_its_plan_and_its_evaluation(tmp_path: Path) -> None:
    """A real one: progress, the end table, what a plan costs, models scored again, leftovers removed."""
    config, runs = e2e.write_experiment(tmp_path), tmp_path / "runs"
    named = ("--name", LONG, "--runs-dir", runs)
    many = [part for policy in ("keep-0", "accumulate-subsample", "accumulate") for part in ("--policy", policy)]
    checked("run", config, *named, *many, "--dry-run")
    out = checked("run", config, *named, *many)
    assert {"keep-0", "accumulate-subsample", "accumulate"} <= words(out)
    assert "accumulate-subsample" in words(checked("eval", LONG, "--runs-dir", runs))
    checked("list", "--runs-dir", runs)
    checked("gc", "--runs-dir", runs)
