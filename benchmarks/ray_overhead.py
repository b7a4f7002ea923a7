"""What computing stages by Ray costs, beside worker processes (`--jobs`) and one process, in turn.

    .venv/bin/python benchmarks/ray_overhead.py                        # 1, 2 and 4 at a time; stages of about a second, and 10,012 tiny ones
    .venv/bin/python benchmarks/ray_overhead.py --only tiny --generations 2000 --at 2 --by jobs ray

The cluster is one node of four CPUs on this machine (127.0.0.1, no dashboard), which runs when the commands are given. Each command
is a process of its own with an empty runs folder, one thread a stage. `whole`: seconds of the command. `work`: from the first stage that begins to the last
that ends. `begins`: before that, which is loading libraries, planning, connecting, starting workers. `sum`: what the stages themselves took, added up.
`around a stage`: work times those at a time, less the sum, by stages: what each costs besides itself, waiting for others included.
`processor`: seconds of all processes of the command and of the cluster's node, whose own work when it is idle is in them: of a busy machine
these say more than the clock.
"""

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from loop import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from support import clusters, e2e

TINY = """
learner = "gaussian"
loop = {{ generations = {generations}, policies = ["keep-0"], seeds = [0, 1, 2, 3], block = 1 }}
data = {{ source = "blobs", rows = 20, eval_rows = 10, blobs = {{ dimensions = 1 }} }}
"""
SECONDS = ("--seeds=0,1,2,3", "--policy=keep-0", "--generations=1", "--set=train.epochs=80")


class Spent:
    """Processor seconds of all commands that have ended, and of a node's processes, looked at twice a second: Ray's workers end
    with their command, and who began them does not count what they took.
    """

    def __init__(self, node: clusters.Node) -> None:
        self._node, self._of = node, dict[tuple[int, float], float]()
        threading.Thread(target=self._keep_looking, daemon=True).start()

    def _keep_looking(self) -> None:
        while True:
            self._look()
            time.sleep(0.5)

    def _look(self) -> None:
        for process in self._node.processes():
            with contextlib.suppress(psutil.Error):
                self._of[process.pid, process.create_time()] = sum(process.cpu_times()[:2])

    def seconds(self) -> float:
        self._look()
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime + sum(list(self._of.values()))


def measured(command: list[str], runs: Path, environment: dict[str, str], at: int, spent: Spent) -> dict[str, float]:
    """The numbers of one line of the table."""
    start, first, before = time.time(), 0.0, spent.seconds()
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
    return {
        "how many": len(ended),
        "whole": whole,
        "begins": first - start,
        "work": work,
        "sum": total,
        "around": 1000 * (work * at - total) / len(ended),
        "processor": spent.seconds() - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("seconds", "tiny"))
    parser.add_argument("--at", type=int, nargs="+", default=[1, 2, 4], help="how many stages at a time")
    parser.add_argument("--generations", type=int, default=625, help="of tiny stages: 16 stages each, and 12")
    parser.add_argument(
        "--by", nargs="+", choices=("jobs", "ray"), default=["jobs", "ray"], help="jobs, ray, or both in turn"
    )
    asked = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores\n")
    print(
        "| stages | at a time | by | how many | whole (s) | begins (s) | work (s) | sum (s) | around a stage (ms) | processor (s) | whole, processor by `--jobs` | load |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as temporary, clusters.Nodes(1, cpus=4) as nodes:
        home, spent = Path(temporary), Spent(nodes.head)
        tiny = home / "small.toml"
        tiny.write_text(TINY.format(generations=asked.generations))
        cases = {"seconds": [str(e2e.write_experiment(home)), *SECONDS], "tiny": [str(tiny)]}
        for name, arguments in cases.items():
            if asked.only not in (None, name):
                continue
            for at in asked.at:
                by_jobs = dict[str, float]()
                for by in asked.by:
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
                    found = measured(command, runs, dict(nodes.environment), at, spent)
                    by_jobs = by_jobs or found
                    cells = [
                        f"{value:.{what in ('whole', 'begins', 'work', 'sum', 'processor'):d}f}"
                        for what, value in found.items()
                    ]
                    ratios = ", ".join(f"{found[what] / by_jobs[what]:.2f}" for what in ("whole", "processor"))
                    print(
                        f"| {name} | {at} | {by} | {' | '.join(cells)} | {ratios} | {os.getloadavg()[0]:.1f} |",
                        flush=True,
                    )
    print(f"\nload after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
