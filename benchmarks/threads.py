"""How many threads and workers pay: alone on the machine, and beside busy processes.

    .venv/bin/python benchmarks/threads.py                     # models of quick and wikitext2-small, 0 to 2 busy processes
    .venv/bin/python benchmarks/threads.py --models quick,small,medium --busy 0
    .venv/bin/python benchmarks/threads.py --models opt125m --busy 0 --rounds 1 --rows 8        # a model whose batches take seconds
    .venv/bin/python benchmarks/threads.py --models quick --works train --busy 0 --rounds 7

The ways take turns, round by round: one process with one thread, one with a thread a core (whose threads sleep, or spin, while they
wait), and a process with one thread a core, each at work of its own, whose tokens are added up. Each process is started once,
does the work once without being measured, and then waits for its turn. float32.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from waiting import WAYS, busy

SECONDS = 1.0  # about how long a turn takes


@dataclass(frozen=True)
class Way:
    """So many processes of so many threads, which wait as `waiting` says."""

    name: str
    processes: int
    threads: int
    waiting: str


class Process:
    """A process that does one kind of work whenever it is told to."""

    def __init__(self, model: str, work: str, way: Way, rows: int) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
        environment = clean | WAYS[way.waiting] | {"OMP_NUM_THREADS": str(way.threads)}
        command = [sys.executable, __file__, "--serve", model, "--works", work, "--rows", str(rows)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def go(self, seconds: float) -> None:
        """Begin to work for about so long."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")

    def done(self) -> float:
        """Tokens/s of what it began, once it is done."""
        assert self.process.stdout is not None
        return float(json.loads(self.process.stdout.readline()))

    def end(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(model: str, work: str, rows: int) -> None:
    """Work for the seconds that each line of the standard input says, and answer with tokens/s."""
    from common import DECODES, WIDTH
    from ours import sample, score_blocks, train

    def seconds(units: int) -> float:
        if work == "train":
            return train(model, "float32", rows, units * rows)
        if work == "score":
            return score_blocks(model, units * rows)
        return sample(model, "float32", DECODES["temperature 1"], units * rows)

    def tokens(units: int) -> float:
        return units * rows * WIDTH / seconds(units)

    tokens(2)
    speed = tokens(2)
    for line in sys.stdin:
        units = max(1, round(float(line) * speed / (rows * WIDTH)))
        speed = tokens(units)
        print(json.dumps(speed), flush=True)


def measured(
    model: str, work: str, ways: list[Way], counts: list[int], rounds: int, rows: int
) -> dict[int, list[list[float]]]:
    """By number of busy processes, for each round the tokens/s of each way."""
    started = [[Process(model, work, way, rows) for _ in range(way.processes)] for way in ways]
    try:
        for processes in started:  # each is ready when it has answered once
            for process in processes:
                process.go(0)
        for processes in started:
            for process in processes:
                process.done()
        found: dict[int, list[list[float]]] = {}
        for count in counts:
            with busy(count):
                time.sleep(0.2)
                found[count] = [[together(processes) for processes in started] for _ in range(rounds)]
        return found
    finally:
        for processes in started:
            for process in processes:
                process.end()


def together(processes: list[Process]) -> float:
    """Tokens/s of processes that work at the same time."""
    for process in processes:
        process.go(SECONDS)
    return sum(process.done() for process in processes)


def main() -> None:
    """Measure and print a Markdown table."""
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="quick,small", help="of quick, small, medium, opt125m")
    parser.add_argument("--works", default="train,sample,score")
    parser.add_argument("--busy", default="0,1,2", help="how many busy processes beside")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--rows", type=int, default=32, help="of a step of training; a process works on multiples of it"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked.works, asked.rows)
        return
    ways = [
        Way("1 thread", 1, 1, "sleep"),
        Way(f"{cores} threads that sleep", 1, cores, "sleep"),
        Way(f"{cores} threads that spin", 1, cores, "spin"),
        Way(f"{cores} workers of 1 thread", cores, 1, "sleep"),
    ]
    print(
        f"load average before: {os.getloadavg()[0]:.2f}, {cores} cores; tokens/s, medians of {asked.rounds}; beside them"
    )
    print("how many times the first column, medians of rounds (range)\n")
    print("| model | work | busy processes beside | " + " | ".join(way.name for way in ways) + " |")
    print("|---|---|---:|" + "---:|" * len(ways))
    for model in asked.models.split(","):
        for work in asked.works.split(","):
            counts = [int(count) for count in asked.busy.split(",")]
            for count, rounds in measured(model, work, ways, counts, asked.rounds, asked.rows).items():
                cells = []
                for way, speeds in enumerate(zip(*rounds, strict=True)):
                    cell = f"{statistics.median(speeds):,.0f}"
                    if way:
                        ratios = sorted(speed / first[0] for speed, first in zip(speeds, rounds, strict=True))
                        cell += f", {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
                    cells.append(cell)
                print(f"| {model} | {work} | {count} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
