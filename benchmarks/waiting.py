"""How OpenMP's threads should wait: training with threads that spin and with threads that sleep, alone and beside other work.

    .venv/bin/python benchmarks/waiting.py                       # the models of quick and wikitext2-small, 0 to 2 busy processes
    .venv/bin/python benchmarks/waiting.py --models small --busy 0 --rounds 7

Each measurement is a process of its own, for OpenMP reads its settings once. Spinning and sleeping take turns, round by round.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collapse_cli import SLEEPING

WAYS: dict[str, dict[str, str]] = {
    "spin": {"GOMP_SPINCOUNT": "300000"},  # what GNU's OpenMP does where nothing is set
    "sleep": SLEEPING,
}
STEPS, BATCH = {"quick": 60, "small": 12, "opt125m": 2}, 32


@contextmanager
def busy(count: int) -> Iterator[None]:
    """That many processes beside us, each of which keeps a core at work."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measured(model: str, threads: int, way: str) -> float:
    """Tokens/s of training in a new process whose threads wait in that way."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, str(Path(__file__)), "--measure", model, "--threads", str(threads)]
    environment = clean | WAYS[way] | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def train(model: str) -> float:
    """Tokens/s of training here, without the first steps."""
    from common import WIDTH
    from ours import train as trained

    trained(model, "float32", BATCH, 2 * BATCH)
    rows = STEPS[model] * BATCH
    return rows * WIDTH / trained(model, "float32", BATCH, rows)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="quick,small", help="of quick, small, opt125m")
    parser.add_argument("--busy", default="0,1,2", help="how many busy processes beside")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(train(asked.measure))
        return
    print(f"load average before: {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores, {asked.threads} threads\n")
    print(
        "| model | busy processes beside | spin, tokens/s | sleep, tokens/s | sleep / spin, median of pairs (range) |"
    )
    print("|---|---:|---:|---:|---:|")
    for model in asked.models.split(","):
        for count in map(int, asked.busy.split(",")):
            with busy(count):
                pairs = [(measured(model, asked.threads, "spin"), measured(model, asked.threads, "sleep"))
                         for _ in range(asked.rounds)]  # fmt: skip
            ratios = sorted(slept / spun for spun, slept in pairs)
            spun, slept = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(f"| {model} | {count} | {spun:,.0f} | {slept:,.0f} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
