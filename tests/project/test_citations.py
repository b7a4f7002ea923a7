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
