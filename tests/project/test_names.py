"""One word, one thing: no two classes of the package have one name, and modules of one name say why."""

import ast
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "collapse_cli"
FILES = sorted(PACKAGE.rglob("*.py"))
# Rooms in which a module is named for what it is about, which another room is about as well: a family, a theorem's model, a
# verb of the loop, what a command or a page shows.
SAME = {
    **dict.fromkeys(
        ("gaussian", "gmm", "lm", "mlp", "ngram", "projections", "ridge", "vae"),
        "a family is described in families/, fitted in learners/, and may have theorems in theory/",
    ),
    "regression": "the source of learners, and theorems about it",
    "between": "the kind of stage, and what it measures of models of text",
    "sample": "the kind of stage, and how a language model does it",
    "train": "the kind of stage, and how a language model does it",
    "theory": "the command, and what it prints",
    "forecast": "the page's section, and what is printed",
    "progress": "the observer, and what it draws",
    "check": "the command, the run behind it, what its record says, and how that is printed and shown",
    "causes": "causes of error as a finding, and the page's section on them",
    "remedies": "what was compared as a finding, and the page's section on it",
    "several_models": "what several models came to as a finding, what is printed of it, and the page's sections on it",
    "written": "files of another model's text, and the kind of stage that makes rows of it",
    "selection": "how it is asked for, what it did as a finding, and theorems about it",
    "rules": "what calls something collapse, and what chooses rows by their scores",
    "score": "how a language model scores text, and what a score of rows is",
    "repetition": "of samples as a measure, and of a row as a score to choose it by",
    "pool": "how it is asked for, whose rows and how many of whose, and the kind of stage that puts them together",
    "base": "what the files of a folder share: executors, kinds of stages, comparisons",
    "names": "of options, in messages; and what the things of the world are called",
    "description": "of a family, and of how a fitted law is told",
    "detector": "the score, and the kind of stage that fits what it needs",
    "listing": "the command, and what is known of each run",
    "mixtures": "what is found in a mixture, and the page's section on it",
    "runs": "a folder of runs, and which of them may be looked at",
    "costs": "of one stage, and of a whole run",
    "kept_texts": "the observer, and what it keeps",
    "world": "the source, and the page's section on it",
    "text": "where text from outside is made harmless: for the page, for the terminal; and text as language models read it",
}


def classes(files: Sequence[Path]) -> Mapping[str, list[str]]:
    """Where each class is defined that another module could import."""
    found = defaultdict(list)
    for path in files:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(f"{path.name}:{node.lineno}")
    return found


def modules(files: Sequence[Path]) -> Mapping[str, list[Path]]:
    found = defaultdict(list)
    for path in files:
        if path.stem not in ("__init__", "__main__"):
            found[path.stem].append(path.relative_to(PACKAGE))
    return found


def test_no_two_classes_have_one_name() -> None:
    there = classes(FILES)
    assert len(there) > 150
    assert {name: places for name, places in there.items() if len(places) > 1} == {}


def test_modules_of_one_name_stand_in_different_rooms_and_there_is_a_reason() -> None:
    twice = {name: places for name, places in modules(FILES).items() if len(places) > 1}
    assert sorted(twice.keys() - SAME.keys()) == []
    assert sorted(SAME.keys() - twice.keys()) == [], "no longer so"


def test_a_second_class_of_a_name_would_be_found(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"m{number}.py").write_text("class Page:\n    pass\n", encoding="utf-8")
    assert classes(sorted(tmp_path.glob("*.py"))) == {"Page": ["m1.py:1", "m2.py:1"]}
