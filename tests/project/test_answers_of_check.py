"""docs/results/check.md: the order of generations that it claims, and the commands that make it anew."""

import re
import shlex
import sys
from types import ModuleType

import pytest
from support.scripts import PROJECT, script

PAGE = PROJECT / "docs" / "results" / "check.md"
NUMBER = r"[+-]?\d+(?:\.\d+)?"


@pytest.fixture(scope="module")
def answers() -> ModuleType:
    return script("benchmarks/check_answers.py")


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    """The cells of the page's table, by what the synthetic text is."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {name: rest for name, *rest in cells}


def interval(cell: str) -> tuple[float, float, float]:
    """A number with its interval."""
    found = re.fullmatch(rf"({NUMBER})%? \(({NUMBER})%? to ({NUMBER})%?\)", cell)
    assert found is not None, cell
    value, low, high = map(float, found.groups())
    return value, low, high


def test_generations_are_told_apart_and_hurt_in_their_order(rows: dict[str, list[str]], answers: ModuleType) -> None:
    told, hurt = (
        [interval(rows[answers.CASES[f"generation-{g}"]][column]) for g in answers.GENERATIONS] for column in (0, 2)
    )
    for found in (told, hurt):
        assert [value for value, _, _ in found] == sorted(value for value, _, _ in found)
        assert found[-1][1] > max(found[0][2], found[1][2]), "generation 9 is worse beyond chance"
    assert told[1][1] > told[0][2], "and 3 is told apart better than 1"


def test_the_page_has_the_cases_of_the_script_in_its_order(rows: dict[str, list[str]], answers: ModuleType) -> None:
    assert list(rows) == list(answers.CASES.values())


def test_the_commands_that_make_the_page_anew_are_the_scripts(
    answers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command of the page is read by the script as it stands; nothing is computed."""
    said = [line.strip() for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("    python ")]
    called: list[str] = []
    for name in ("texts", "run", "page"):
        monkeypatch.setattr(answers, name, lambda *_, name=name: called.append(name) or {"trained": name})
    for command in said:
        _, path, *arguments = shlex.split(command)
        assert path == "benchmarks/check_answers.py"
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        answers.main()
    assert list(dict.fromkeys(called)) == ["texts", "run", "page"]
    assert f"collapse check REAL SYNTHETIC {' '.join(answers.ASKED)}`" in PAGE.read_text(encoding="utf-8")
