"""Through how many files of the package a row of text goes, and two values of a configuration, at two commits.

    .venv/bin/python benchmarks/ways.py --commits be2790c .

A row of text: the files in which a function is given rows while the preset `smoke` runs (one generation, one process): a
`Dataset`, a `Text`, or whole numbers in two dimensions, which are rows of tokens. A value: the files whose code reads it from
the configuration, as `loop.policies` or `["loop"]["policies"]`, and `decode.beams` or `["decode"]["beams"]`.
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

VALUES = {
    "loop.policies": re.compile(r"\bloop('\])?(\.|\[')policies\b"),
    "sample.decode.beams": re.compile(r"\bdecode('\])?(\.|\[')beams\b"),
}
RUN = ["run", "--preset", "smoke", "--generations", "1", "--policy", "keep-10", "--jobs", "1"]


def are_rows(value: Any) -> bool:
    """Whether that is rows of text, or of tokens."""
    if type(value).__name__ in ("Dataset", "Text"):
        return True
    return getattr(value, "ndim", 0) == 2 and "int" in str(getattr(value, "dtype", ""))


def passed(package: Path, arguments: list[str]) -> list[str]:
    """Run a command here, and list the files of the package that were given rows."""
    from collapse_cli.__main__ import main

    found: set[str] = set()

    def watch(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(package)) or code.co_filename in found:
            return
        given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        values = [frame.f_locals[name] for name in given if name in frame.f_locals]
        if any(map(are_rows, values)):
            found.add(code.co_filename)

    sys.setprofile(watch)
    try:
        code = main(arguments)
    finally:
        sys.setprofile(None)
    if code != 0:
        sys.exit(f"the run ended with {code}")
    return sorted(Path(name).relative_to(package).as_posix() for name in found)


def reading(package: Path, value: re.Pattern[str]) -> list[str]:
    """The files whose code reads a value."""
    found = []
    for path in sorted(package.rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if any(value.search(ast.unparse(node)) for node in nodes if isinstance(node, ast.Attribute | ast.Subscript)):
            found.append(path.relative_to(package).as_posix())
    return found


def ways(checkout: Path) -> dict[str, list[str]]:
    """The files of each, in a process of its own for the row."""
    with tempfile.TemporaryDirectory(prefix="collapse-ways-") as runs:
        command = [sys.executable, "-P", str(Path(__file__)), "--watch", str(checkout), *RUN, "--runs-dir", runs]
        environment = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{Path(__file__).parent}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    package = checkout / "collapse_cli"
    row: list[str] = json.loads(done.stdout.splitlines()[-1])
    return {"a row of text": row} | {name: reading(package, value) for name, value in VALUES.items()}


def main() -> None:
    """Count at both commits; print a table and the files."""
    if sys.argv[1:2] == ["--watch"]:
        print(json.dumps(passed(Path(sys.argv[2]).resolve() / "collapse_cli", sys.argv[3:])))
        return
    from loop import checked_out  # which import the package of today: not in the process of an earlier commit
    from report import Report, about_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", nargs=2, default=("HEAD", "."), metavar="COMMIT", help="`.`: the working tree")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there instead of printing it")
    asked = parser.parse_args()
    report = Report(asked.json, about_machine() | {"commits": asked.commits})
    with (
        tempfile.TemporaryDirectory(prefix="collapse-ways-") as name,
        checked_out(asked.commits[0], Path(name)) as first,
        checked_out(asked.commits[1], Path(name)) as second,
    ):
        found = [ways(first), ways(second)]
    counted = [[what, *(str(len(side[what])) for side in found)] for what in found[0]]
    report.table("files", ["what goes through them", *asked.commits], counted)
    report.finish({"files": dict(zip(("first", "second"), found, strict=True))})


if __name__ == "__main__":
    main()
