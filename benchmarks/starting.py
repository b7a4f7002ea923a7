"""How long commands take that compute nothing, at two commits in turn: `--help`, `status`, and a finished run that says so.

    .venv/bin/python benchmarks/starting.py --commits be2790c .
    .venv/bin/python benchmarks/starting.py --commits be2790c . --preset quick --rounds 20

Each commit makes the run itself. Then the commands take turns, round by round, each in a process of its own. Processor time
(user and system, children included) says on a busy machine what the clock cannot.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loop import checked_out
from report import Report, about_machine

from collapse_cli import SLEEPING

COMMANDS = {
    "--help": ["--help"],
    "status RUN": ["status", "made"],
    "run, finished": ["run"],
}


def measured(checkout: Path, arguments: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of the processor that a command of a checkout takes.

    Raises:
        SystemExit: when it fails.
    """
    command = [sys.executable, "-m", "collapse_cli", *arguments]
    environment = os.environ | SLEEPING | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}\nin {checkout} ended with {process.returncode}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", nargs=2, default=("HEAD", "."), metavar="COMMIT", help="`.`: the working tree")
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there instead of printing it")
    asked = parser.parse_args()
    report = Report(asked.json, about_machine() | {"commits": asked.commits})
    found: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="collapse-starting-") as name:
        folder = Path(name)
        with checked_out(asked.commits[0], folder) as first, checked_out(asked.commits[1], folder) as second:
            runs = folder / "runs-first", folder / "runs-second"
            arguments = [["--runs-dir", str(path)] for path in runs]
            again = ["run", "--preset", asked.preset, "--name", "made"]
            for checkout, where in zip((first, second), arguments, strict=True):
                measured(checkout, [*again, *where])
            for label, command in COMMANDS.items():
                found[label] = ([], [])
                for turn in range(asked.rounds + 1):
                    for side in (0, 1) if turn % 2 == 0 else (1, 0):
                        words = [] if label == "--help" else arguments[side]
                        whole = [*(again if label.startswith("run") else command), *words]
                        taken = measured((first, second)[side], whole)
                        if turn > 0:  # the first fills caches of bytecode and of the disk
                            found[label][side].append(taken)
    table = []
    for label, sides in found.items():
        for number, what in enumerate(("by the clock", "of the processor")):
            before, after = ([taken[number] for taken in side] for side in sides)
            ratios = [b / a for a, b in zip(before, after, strict=True)]
            table.append([
                f"{label}, s {what}",
                *(f"{min(side):.2f}, {statistics.median(side):.2f}" for side in (before, after)),
                f"{min(after) / min(before):.2f}, {statistics.median(ratios):.2f}",
            ])  # fmt: skip
    columns = [f"{commit}: least, median" for commit in asked.commits]
    report.table(f"preset {asked.preset}", ["command", *columns, "second over first: of least, median of pairs"], table)
    report.finish({"seconds": found})


if __name__ == "__main__":
    main()
