"""The list of files that come first in the suite names files that are there."""

import ast
from pathlib import Path


def test_files_that_come_first_are_there(project: Path) -> None:
    tree = ast.parse((project / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(line.value)
        for line in tree.body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "LONGEST"
    )
    assert [name for name in names if not (project / "tests" / name).is_file()] == []
    assert len(set(names)) == len(names) > 10
