"""What `collapse run --dry-run` says that a preset takes, beside what it takes: in one go, on one machine.

    python benchmarks/estimates.py [PRESET ...] [--jobs N]

Of each preset: the dry run, then the run itself into a folder of its own, then their ratio, with and without what is no stage (the
start, the report). Both see what else this machine does, but not at the same moment: on a machine that others use, ratios differ from one
time to the next. The load average before and after is printed with each. Without names: the presets that end within minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHORT = (
    "smoke",
    "strong-ridge",
    "strong-weighted",
    "strong-projections",
    "ngram-zipf",
    "generational-regression",
    "quick",
)


def collapse(*arguments: str) -> Any:
    """What a command says as JSON.

    Raises:
        SystemExit: when it fails.
    """
    command = [sys.executable, "-m", "collapse_cli", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def stage_seconds(runs: Path) -> float:
    """Of all stages that a run made, one after another, by their records."""
    return sum(float(json.loads(path.read_text())["seconds"]) for path in (runs / "store").rglob("stage.json"))


def measure(preset: str, jobs: int) -> dict[str, Any]:
    """Predicted and measured seconds of a preset."""
    with tempfile.TemporaryDirectory(prefix="estimates-") as folder:
        runs = Path(folder) / "runs"
        asked = ("run", "--preset", preset, "--runs-dir", str(runs), "--jobs", str(jobs))
        load, began = os.getloadavg()[0], time.perf_counter()
        said = collapse(*asked, "--dry-run")
        tried, began = time.perf_counter() - began, time.perf_counter()
        collapse(*asked)
        took, plans = time.perf_counter() - began, said.get("runs", [said])
        kinds = [kind for plan in plans for kind in plan["kinds"].values()]
        return {
            "preset": preset,
            "predicted": sum(plan["seconds"] for plan in plans),
            "measured": took,
            "stages predicted": sum(kind["seconds"] for kind in kinds),
            "stages measured": stage_seconds(runs),
            "guessed": sum(kind["guessed"] for kind in kinds),
            "dry run": tried,
            "load": (load, os.getloadavg()[0]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("presets", nargs="*", default=SHORT)
    parser.add_argument("--jobs", type=int, default=0, help="as that of `collapse run`")
    asked = parser.parse_args()
    print("| preset | predicted | measured | ratio | stages: predicted | measured | ratio | the dry run took | load |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for preset in asked.presets:
        one = measure(preset, asked.jobs)
        ratio, of_stages = (one[f"{name}predicted"] / one[f"{name}measured"] for name in ("", "stages "))
        print(
            f"| `{preset}` | {one['predicted']:.1f} s | {one['measured']:.1f} s | {ratio:.2f} | {one['stages predicted']:.1f} s | "
            f"{one['stages measured']:.1f} s | {of_stages:.2f} | {one['dry run']:.1f} s | {one['load'][0]:.1f}, {one['load'][1]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
