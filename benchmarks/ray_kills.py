"""Runs on a Ray cluster whose nodes are killed at random moments of each kind of stage, beside the same runs in one process.

    .venv/bin/python benchmarks/ray_kills.py                             # 20 strikes; about 20 minutes on two cores
    .venv/bin/python benchmarks/ray_kills.py --only text --strikes 8 --seed 3

The cluster is of three nodes of one CPU, each a family of processes of this machine on 127.0.0.1, without a dashboard. Each case
runs once in one process. Then, in an empty runs folder, it is run by the cluster, and struck up to four times: when a stage of the
kind whose turn it is has been at work for a part, drawn at random, of the time that it took in one process, all processes of its
node get SIGKILL; the node begins again two seconds later. Every fourth strike is at the head: it and all other nodes begin again. No
one touches the run. A fault is: rows of `metrics.jsonl` that differ (seconds aside), an exit code that is not 0, a stage that was
published twice or whose first publication is gone, a stage of the plan that is not there, one whose files are not those of its
record, something left over of an attempt, or anything to compute when the same command is given again.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kills import broken, rows
from loop import ROOT

from collapse_cli.engine.record import RECORD

sys.path.insert(0, str(ROOT / "tests"))
from support import clusters, e2e

MOST_STRIKES = 4  # of one run
HEAD = 4  # every so manieth strike is at the head
HERE = ("data", "public")  # which the run's own process does, before it has anything else computed
DOWN = 2.0  # seconds that a node is gone
SELECT = """
[select]
oversample = 1.5
by = "perplexity"
keep = "lowest"
over = "pool"
[store]
keep_models = "all"
"""
CASES: dict[str, list[str]] = {
    "text": ["--set=data.rows=120", "--set=train.epochs=6", "--generations=2"],
    "blocks": [
        "--preset=nature-gmm",
        "--set=loop.generations=9",
        *(f"--set=variants.n{n}.loop.seeds=[0]" for n in (500, 1000, 10000)),
    ],
    "cells": ["--preset=strong-ridge", "--set=loop.seeds=[0, 1, 2, 3]", "--set=mixture.rows=[200, 500, 1000]"],
    "images": [
        "--preset=strong-mlp",
        "--set=loop.seeds=[0, 1]",
        "--set=variants.rows.mixture.rows=[100, 200]",
        "--set=variants.width.mixture.size=[25, 50]",
    ],
}


@dataclass
class Struck:
    """What came of the strikes of one case."""

    seconds: float
    stages: int = 0
    runs: int = 0
    at: Counter[str] = field(default_factory=Counter)
    head: int = 0
    at_work: int = 0
    again: int = 0
    faults: list[str] = field(default_factory=list)


class Case:
    """One experiment: its command, and what one process makes of it."""

    def __init__(self, name: str, home: Path, environment: dict[str, str]) -> None:
        self.name, self.home, self.environment = name, home, environment
        self.arguments = CASES[name]
        if name == "text":
            self.arguments = [str(self._text()), *self.arguments]
        start = time.monotonic()
        self.whole = home / "whole"
        self.said = subprocess.run(
            self.command(self.whole, "local"), env=environment, capture_output=True, text=True, check=False
        )
        if self.said.returncode != 0:
            raise SystemExit(f"{name}: {self.said.stderr}")
        self.seconds = time.monotonic() - start
        self.rows = rows(self.whole)
        self.took = took(self.whole)

    def command(self, runs: Path, executor: str) -> list[str]:
        return [
            sys.executable,
            *("-c", clusters.COLLAPSE, "run", *self.arguments, "--runs-dir", str(runs), "--executor", executor),
            *(() if executor == "ray" else ("--jobs", "1")),
        ]

    def _text(self) -> Path:
        return e2e.write_lineages(self.home, SELECT, public_lines=400)


def took(runs: Path) -> dict[str, float]:
    """By work: the median of the seconds that its stages took."""
    by_work: dict[str, list[float]] = {}
    for path in runs.glob("*/events.jsonl"):
        for event in e2e.read_lines(path):
            if event["event"] == "finished":
                by_work.setdefault(event["work"], []).append(event["seconds"])
    return {work: sorted(every)[len(every) // 2] for work, every in by_work.items()}


class Watch:
    """Sees each publication of a stage in a store: the file of its record, which is another when it is published again."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.seen: dict[str, tuple[int, int]] = {}
        self.faults: list[str] = []

    def look(self) -> None:
        there = {}
        for record in self.store.glob(f"??/*/{RECORD}"):
            about = record.stat()
            there[record.parent.name] = about.st_ino, about.st_mtime_ns
        for key, seen in self.seen.items():
            if there.get(key, seen) != seen:
                self.faults.append(f"stage {key[:8]} was published twice")
            if key not in there:
                self.faults.append(f"stage {key[:8]} was published, and is gone")
        self.seen = there


def strike(
    case: Case,
    nodes: clusters.Nodes,
    process: subprocess.Popen[str],
    watch: Watch,
    made: Struck,
    work: str,
    *,
    head: bool,
    part: float,
) -> bool:
    """Kill the node at which a stage of that work is, or the head while there is one; whether there was one before the run's end.

    A stage of milliseconds may be over before it is seen: then the node that is struck is any.
    """
    before = begun(watch.store.parent, work)
    while (node := nodes.at(work)) is None and begun(watch.store.parent, work) == before:
        if process.poll() is not None:
            return False
        watch.look()
    time.sleep(part * case.took[work])
    made.at_work += node is not None and node.works_at(work)
    made.at[work] += 1
    made.head += head
    nodes.kill(nodes.head if head else node or nodes.others[0], down=DOWN)
    watch.look()
    return True


def begun(runs: Path, work: str) -> int:
    """How many stages of that work have begun, by what was written of it."""
    lines = (line for path in runs.glob("*/events.jsonl") for line in path.read_text(encoding="utf-8").splitlines())
    return sum('"started"' in line and f'"work": "{work}"' in line for line in lines)


def begun_by_key(events: list[dict[str, Any]]) -> Counter[str]:
    """How often each stage that has begun did so, as far as the run heard of it."""
    return Counter(event["key"] for event in events if event["event"] == "started")


def sweep(case: Case, nodes: clusters.Nodes, strikes: list[tuple[str, bool, float]]) -> Struck:
    """Strike runs of a case until all strikes have been.

    Args:
        strikes: the work, whether it is at the head, and when, in parts of the time that a stage of that work took.
    """
    made = Struck(case.seconds)
    todo = list(strikes)
    idle = 0
    while todo and idle < 3:
        runs = case.home / "struck"
        process = subprocess.Popen(
            case.command(runs, "ray"),
            env=case.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        watch, before = Watch(runs / "store"), len(todo)
        for work, head, part in todo[:MOST_STRIKES]:
            if not strike(case, nodes, process, watch, made, work, head=head, part=part):
                break  # that work was over before its turn: in the next run
            todo.remove((work, head, part))
        idle = 0 if len(todo) < before else idle + 1
        while process.poll() is None:
            watch.look()
            nodes.mend()
            time.sleep(0.05)
        watch.look()
        made.runs += 1
        made.faults += judged(case, runs, process, watch, made)
        print(
            f"{case.name}: {made.at.total()} strikes, {made.runs} runs, {len(made.faults)} faults",
            file=sys.stderr,
            flush=True,
        )
        shutil.rmtree(runs)
        nodes.wait()
    made.faults += [f"{case.name}: no stage '{work}' was at work when one was to be struck" for work, _, _ in todo]
    return made


def judged(case: Case, runs: Path, process: subprocess.Popen[str], watch: Watch, made: Struck) -> list[str]:
    """The faults of a run that has ended."""
    assert process.stderr is not None
    said = process.stderr.read()
    if process.returncode != 0:
        return [f"{case.name}: ended with {process.returncode}: {said[-600:]}"]
    found = [f"{case.name}: {what}" for what in [*watch.faults, *broken(runs)]]
    if rows(runs) != case.rows:
        found.append(f"{case.name}: other rows")
    planned = {stage["key"] for path in runs.glob("*/plan.json") for stage in json.loads(path.read_text())["stages"]}
    if lost := planned - watch.seen.keys():
        found.append(f"{case.name}: {len(lost)} stages of the plan are not there")
    events = [event for path in runs.glob("*/events.jsonl") for event in e2e.read_lines(path)]
    twice = Counter(event["key"] for event in events if event["event"] == "finished")
    found += [f"{case.name}: stage {key[:8]} was finished {count} times" for key, count in twice.items() if count > 1]
    made.stages = len(planned)
    # not those that were published by then, which the run heard of as cached: they began once
    made.again += sum(count - 1 for count in begun_by_key(events).values())
    seen = dict(watch.seen)
    again = subprocess.run(
        case.command(runs, "local"), env=case.environment, capture_output=True, text=True, check=False
    )
    watch.look()
    if again.returncode != 0 or watch.seen != seen or "nothing to compute" not in again.stdout:
        found.append(f"{case.name}: the same command again: {again.returncode} {again.stderr[-300:]}")
    return found


def drawn(cases: list[Case], count: int, draw: random.Random) -> dict[str, list[tuple[str, bool, float]]]:
    """`count` strikes: each kind of stage in turn, in the order in which a run comes to them."""
    kinds = [(case.name, work) for case in cases for work in case.took if work not in HERE]
    chosen = kinds * (count // len(kinds)) + draw.sample(kinds, count % len(kinds))
    strikes: dict[str, list[tuple[str, bool, float]]] = {case.name: [] for case in cases}
    for number, (name, work) in enumerate(sorted(chosen, key=kinds.index)):
        strikes[name].append((work, number % HEAD == HEAD - 1, draw.random()))
    return strikes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--strikes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as home, clusters.Nodes() as nodes:
        environment = {**nodes.environment, "COLLAPSE_CHECKPOINT_SECONDS": "0.5"}
        cases = []
        for name in asked.only:
            (folder := Path(home, name)).mkdir()
            cases.append(Case(name, folder, environment))
        strikes = drawn(cases, asked.strikes, random.Random(asked.seed))
        print(
            "| case | stages | seconds in one process | runs | strikes | of these the head | still at work | begun again | struck at | faults |"
        )
        print("|---|---:|---:|---:|---:|---:|---:|---:|---|---:|", flush=True)
        for case in cases:
            made = sweep(case, nodes, strikes[case.name])
            at = ", ".join(f"{work}{f' ({times})' if times > 1 else ''}" for work, times in made.at.items())
            counts = [made.stages, f"{made.seconds:.0f}", made.runs, made.at.total(), made.head, made.at_work]
            print(
                f"| {case.name} | {' | '.join(map(str, counts))} | {made.again} | {at} | {len(made.faults)} |",
                flush=True,
            )
            faults += made.faults
    print("\n".join(["", *faults]))
    return 1 if faults else 0


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
