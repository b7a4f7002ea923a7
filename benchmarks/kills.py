"""Runs that are killed at random moments, again and again, and how many of them end with other numbers than a run left alone.

    .venv/bin/python benchmarks/kills.py                         # 20 kills of each case; about 20 minutes on two cores
    .venv/bin/python benchmarks/kills.py --only smoke-2 --kills 5 --seed 3

Each case is a shortened preset. It runs once undisturbed. Then, in an empty runs folder, the same command is struck at a
random moment by SIGKILL, SIGTERM, SIGINT or SIGHUP in turn, up to four times, and given again until it ends by itself. A
third of the moments are drawn over the whole command, loading of libraries included, the others over the time in which stages
are computed. A fault is: rows of `metrics.jsonl` that differ (seconds aside), an exit code or an output that is not that of a
run asked to end, a process that outlives the command, a stage whose files are not those of its record, or something left over
of an attempt when all is done.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.record import RECORD
from collapse_cli.files import sha256_of

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
INTERRUPTED = 130
SAID = "collapse: interrupted; the same command goes on where it stopped"
MOST_STRIKES = 4  # of one run
CASES: dict[str, list[str]] = {
    "nature-gaussian": [
        "--preset=nature-gaussian",
        *(f"--set=variants.{name}.loop.generations=9" for name in ("n10", "n100", "n500", "n1000", "n10000")),
        "--seeds=0,1",
    ],
    "nature-gmm": [
        "--preset=nature-gmm",
        "--set=loop.generations=9",
        *(f"--set=variants.{name}.loop.seeds=[0]" for name in ("n500", "n1000", "n10000")),
    ],
    "strong-ridge": ["--preset=strong-ridge", "--set=loop.seeds=[0, 1]", "--set=mixture.rows=[200, 500, 1000]"],
    "ngram": ["--preset=ngram-zipf", "--generations=3", "--seeds=0"],
    "smoke-1": ["--preset=smoke", "--generations=1", "--jobs=1"],
    "smoke-2": ["--preset=smoke", "--generations=1", "--jobs=2"],
}


@dataclass
class Tally:
    """What came of the kills of one case."""

    seconds: float
    runs: int = 0
    ended: int = 0  # strikes that came when the command had just ended
    strikes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def command(case: str, runs: Path) -> list[str]:
    return [sys.executable, "-m", "collapse_cli", "run", "--runs-dir", str(runs), *CASES[case]]


def rows(runs: Path) -> list[str]:
    """All rows of a runs folder, sorted, without what may differ from one time to the next."""
    found = []
    for path in runs.glob("*/metrics.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = {name: said for name, said in json.loads(line).items() if name not in ("seconds", "digest")}
            found.append(path.parent.name + json.dumps(row, sort_keys=True))
    return sorted(found)


def begun(runs: Path) -> bool:
    """Whether stages are computed, by what has been written."""
    return any(path.stat().st_size for path in runs.glob("*/events.jsonl"))


def broken(runs: Path) -> list[str]:
    """Stages whose files are not those that their records name, and what is left of attempts, when all is done."""
    found = []
    for record in (runs / "store").glob(f"??/*/{RECORD}"):
        said = json.loads(record.read_text())["files"]
        there = {path.relative_to(record.parent).as_posix(): path for path in record.parent.rglob("*")}
        kept = {name: sha256_of(path) for name, path in there.items() if path.is_file() and name != RECORD}
        if kept != said:
            found.append(f"stage {record.parent.name[:8]} is not what its record says")
    found += [f"left over: {key[:8]}" for key in FolderStore(runs / "store").unfinished()]
    return found


def strike(case: str, runs: Path, number: signal.Signals, draw: random.Random, tally: Tally) -> bool:
    """Start the command, strike it once, check how it ends; whether it had ended by itself before."""
    with tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(command(case, runs), stdout=subprocess.DEVNULL, stderr=err, start_new_session=True)
        start = time.monotonic()
        if draw.random() > 1 / 3:
            before = begun(runs)
            while child.poll() is None and (not begun(runs) or (before and time.monotonic() - start < 0.3)):
                time.sleep(0.01)
            moment = draw.uniform(0, 0.7 * tally.seconds)
        else:
            moment = draw.uniform(0.1, tally.seconds)
        try:
            child.wait(moment)
        except subprocess.TimeoutExpired:
            struck = time.monotonic() - start
            family = psutil.Process(child.pid).children(recursive=True)
            child.send_signal(number)
            code = child.wait(60)
        else:
            if child.returncode != 0:
                tally.faults.append(f"{case}: a command left alone ended with {child.returncode}")
            tally.ended += 1
            return True
        tally.strikes[number.name] += 1
        err.seek(0)
        said = err.read().strip()
    where = f"{case} {number.name} after {struck:.2f} s"
    _, alive = psutil.wait_procs(family, timeout=15)
    if alive:
        tally.faults.append(f"{where}: {len(alive)} processes outlive it: {alive[0].cmdline()[-3:]}")
    if code == 0:  # it was about to end
        return True
    # Before our handlers are set, the system ends the process in its own way.
    right = {-number} if number == signal.SIGKILL else {INTERRUPTED, *({-number} if number != signal.SIGINT else ())}
    if code not in right or (code == INTERRUPTED and said != SAID) or (code != INTERRUPTED and said):
        tally.faults.append(f"{where}: exit code {code}, {said[-600:]!r}")
    return False


def sweep(case: str, kills: int, draw: random.Random, home: Path) -> Tally:
    """Kill runs of one case until there have been `kills`."""
    start = time.monotonic()
    subprocess.run(command(case, home / "whole"), stdout=subprocess.DEVNULL, check=True)
    tally, right = Tally(time.monotonic() - start), rows(home / "whole")
    if not right:
        raise SystemExit(f"{case}: no rows")
    while tally.strikes.total() < kills:
        runs = home / "struck"
        for _ in range(MOST_STRIKES):
            number = SIGNALS[tally.strikes.total() % len(SIGNALS)]
            if strike(case, runs, number, draw, tally) or tally.strikes.total() >= kills:
                break
        made = subprocess.run(
            command(case, runs), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        tally.runs += 1
        if made.returncode != 0:
            tally.faults.append(f"{case}: the same command again ended with {made.returncode}: {made.stderr[-600:]}")
        elif rows(runs) != right:
            tally.faults.append(f"{case}: other rows")
        tally.faults += [f"{case}: {what}" for what in broken(runs)]
        print(
            f"{case}: {tally.strikes.total()} of {kills} kills, {len(tally.faults)} faults", file=sys.stderr, flush=True
        )
        shutil.rmtree(runs)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--kills", type=int, default=20, help="of each case")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(
        f"| case | seconds undisturbed | runs | kills | {' | '.join(one.name for one in SIGNALS)} | faults |",
        flush=True,
    )
    print("|---|---" + "|---" * (len(SIGNALS) + 3) + "|")
    faults: list[str] = []
    for case in asked.only:
        with tempfile.TemporaryDirectory() as home:
            made = sweep(case, asked.kills, random.Random(f"{asked.seed} {case}"), Path(home))
        counts: list[Any] = [made.runs, made.strikes.total(), *(made.strikes[one.name] for one in SIGNALS)]
        print(f"| {case} | {made.seconds:.1f} | {' | '.join(map(str, counts))} | {len(made.faults)} |", flush=True)
        faults += made.faults
    print("\n".join(["", *faults]))
    return 1 if faults else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
