"""What computing stages by Ray costs, beside worker processes (`--jobs`) and one process, in turn.

    .venv/bin/python benchmarks/ray_overhead.py                        # 1, 2 and 4 at a time; stages of about a second, and tiny ones
    .venv/bin/python benchmarks/ray_overhead.py --only tiny --generations 2000 --at 2

The cluster is one node of four CPUs on this machine (127.0.0.1, no dashboard), which runs when the commands are given. Each command
is a process of its own with an empty runs folder, one thread a stage. `whole`: seconds of the command. `work`: from the first stage that begins to the last
that ends. `begins`: before that, which is loading libraries, planning, connecting, starting workers. `sum`: what the stages themselves took, added up.
`around a stage`: work times those at a time, less the sum, by stages: what each costs besides itself, waiting for others included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loop import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from support import clusters, e2e

TINY = """
learner = "gaussian"
loop = {{ generations = {generations}, policies = ["keep-0"], seeds = [0, 1, 2, 3], block = 1 }}
data = {{ source = "blobs", rows = 20, eval_rows = 10, blobs = {{ dimensions = 1 }} }}
"""
SECONDS = ("--seeds=0,1,2,3", "--policy=keep-0", "--generations=1", "--set=train.epochs=80")


def measured(command: list[str], runs: Path, environment: dict[str, str], at: int) -> list[str]:
    """The cells of one line of the table."""
    start, first = time.time(), 0.0
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while process.poll() is None and not first:
        first = time.time() if any('"started"' in path.read_text() for path in runs.glob("*/events.jsonl")) else 0.0
        time.sleep(0.02)
    said = process.stderr.read()
    whole = time.time() - start
    if process.wait() != 0:
        raise SystemExit(f"{command}: {said}")
    (path,) = runs.glob("*/events.jsonl")
    ended = [event["seconds"] for event in e2e.read_lines(path) if event["event"] == "finished"]
    work, total = path.stat().st_mtime - first, sum(ended)
    around = 1000 * (work * at - total) / len(ended)
    return [str(len(ended)), *(f"{value:.1f}" for value in (whole, first - start, work, total)), f"{around:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("seconds", "tiny"))
    parser.add_argument("--at", type=int, nargs="+", default=[1, 2, 4], help="how many stages at a time")
    parser.add_argument("--generations", type=int, default=500, help="of tiny stages: 20 stages each")
    asked = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores\n")
    print(
        "| stages | at a time | by | how many | whole (s) | begins (s) | work (s) | sum (s) | around a stage (ms) | whole, by `--jobs` |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as temporary, clusters.Nodes(1, cpus=4) as nodes:
        home = Path(temporary)
        tiny = home / "small.toml"
        tiny.write_text(TINY.format(generations=asked.generations))
        cases = {"seconds": [str(e2e.write_experiment(home)), *SECONDS], "tiny": [str(tiny)]}
        for name, arguments in cases.items():
            if asked.only not in (None, name):
                continue
            for at in asked.at:
                by_jobs = 0.0
                for by in ("--jobs", "ray"):
                    runs = home / f"{name}-{at}-{by}"
                    command = [
                        sys.executable,
                        "-c",
                        clusters.COLLAPSE,
                        "run",
                        *arguments,
                        "--runs-dir",
                        str(runs),
                        "--jobs",
                        str(at),
                    ]
                    command += ["--executor", "ray"] if by == "ray" else []
                    cells = measured(command, runs, dict(nodes.environment), at)
                    by_jobs = by_jobs or float(cells[1])
                    said = f"{float(cells[1]) / by_jobs:.2f}"
                    print(f"| {name} | {at} | {by} | {' | '.join(cells)} | {said} |", flush=True)
    print(f"\nload after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
