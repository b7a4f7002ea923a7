"""What documents, presets and docstrings cite of our own pages is there: headings by their names, no numbers of a list."""

import re
from pathlib import Path

import pytest

from collapse_cli.config import presets, read_toml

ROOT = Path(__file__).resolve().parents[2]
TEXTS = sorted(
    path
    for folder, kinds in (
        ("collapse_cli", "py"),
        ("configs", "toml"),
        ("docs", "md"),
        ("tests", "py"),
        ("benchmarks", "py"),
    )
    for path in (ROOT / folder).rglob(f"*.{kinds}")
    if path.name not in ("lab_notebook.md", Path(__file__).name)
)
HEADINGS = set(re.findall(r"^#+ (.+)$", (ROOT / "docs" / "theory.md").read_text(encoding="utf-8"), re.MULTILINE))


def test_no_numbered_item_of_a_page_without_numbers_is_cited() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match}"
        for path in TEXTS
        for match in re.findall(
            r"theory\.md,?\s+items?\s+\w+|\b[Ii]tems? \d+[a-z]? of (?:the theory|docs)",
            path.read_text(encoding="utf-8"),
        )
    ]
    assert not found


def test_headings_of_the_theory_that_are_cited_exist() -> None:
    cited = set()
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        cited |= {
            (path.name, name.strip()) for name in re.findall(r"docs/theory\.md: ([A-Z][a-z]+(?: [A-Za-z]+)*)", text)
        }
    assert {name for _, name in cited} >= {"Ridge on a mixture", "Weighted mixing", "Iterative mixing"}
    assert {(where, name) for where, name in cited if name not in HEADINGS} == set()


UNCOMPARED = re.compile(r"(2410\.04840, Theorem|2404\.01413|Nature.*Theorem)")


@pytest.mark.parametrize("name", sorted(presets()))
def test_a_theorem_whose_printed_form_was_not_compared_says_so(name: str) -> None:
    """Those of 2402.07712 were read in the paper; these were not."""
    entries = [*read_toml(presets()[name]).get("expect", [])]
    for variant in read_toml(presets()[name]).get("variants", {}).values():
        entries += variant.get("expect", [])
    for entry in entries:
        if UNCOMPARED.search(entry["source"]):
            assert "printed form not compared" in entry.get("note", ""), entry


FUTURE = {"engine/executors/ray.py"}  # what a page says that one would write
HISTORY = re.compile(
    r"^\|.*\bbefore\b.*\n\|[-| ]+(?:\n\|.*)*", re.MULTILINE
)  # tables of what changes touched, and touch


def modules_named(text: str) -> set[str]:
    """Files of Python that a text names, as `loop.py` or `experiment/loop.py`; `NAME.py` stands for any."""
    named = re.findall(r"(?<![\w/.-])((?:\./)?(?:\w+/)*\w+\.py)\b", HISTORY.sub("", text))
    return {name.removeprefix("./") for name in named if not name.endswith("NAME.py")}


def test_modules_that_are_named_exist() -> None:
    folders = ("collapse_cli", "tests", "benchmarks", "docs")
    there = {"/" + path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(path for path in TEXTS if path.parts[-2] != "project")]
    assert "experiment/loop.py" in modules_named(pages[1].read_text(encoding="utf-8"))
    absent = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in pages
        for name in modules_named(path.read_text(encoding="utf-8")) - FUTURE
        if not any(known.endswith("/" + name) for known in there)
    }
    assert absent == set()


def test_folders_that_contributors_are_sent_to_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("## Where a change belongs") : text.index("## Rules")]
    named = set(re.findall(r"`(\w[\w/]*/(?:\w+\.py)?)`", table))
    assert len(named) > 20
    outside = {"collapse_cli/", "configs/", "benchmarks/", "tests/"}
    assert {name for name in named - outside if not (ROOT / "collapse_cli" / name).exists()} == set()
    rooms = {path.name for path in (ROOT / "collapse_cli").iterdir() if (path / "__init__.py").is_file()}
    picture = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").partition("## The picture")[2]
    assert {name for name in rooms if f"`{name}/`" not in picture.partition("\n## ")[0]} == set()
