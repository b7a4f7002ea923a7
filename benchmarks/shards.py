"""Sampling in two shards by two workers beside one process, in turn: seconds of the stage and of the command, and whether the rows are the same.

The model is trained once, in a store that each turn begins with a copy of; a turn is `collapse run` in a process of its own, which samples
from it. One process has as many threads as there are cores, each of the workers its share of them. `python benchmarks/shards.py`: two minutes.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

RUN = ["--generations", "0", "--policy", "keep-0", "--preset", "quick"]
WAYS = {"one process": ["--jobs", "1"], "2 shards, 2 workers": ["--jobs", "2", "--shards", "2"]}


def collapse(runs: Path, name: str, *more: str) -> float:
    """Seconds of a `collapse run`, which must succeed."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "collapse_cli", "run", *RUN, "--name", name, "--runs-dir", str(runs), *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def sampling(run: Path) -> float:
    """Seconds from the beginning of the first stage that samples to the end of the last."""
    lines = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    events = [line for line in lines if line["event"] in ("started", "finished") and line["work"] == "sample"]
    first, last = (datetime.fromisoformat(events[at]["time"]) for at in (0, -1))
    return (last - first).total_seconds()


def rows(runs: Path) -> bytes:
    """What was sampled."""
    (stage,) = list((runs / "store").glob("??/*/shown.safetensors"))
    return (stage.parent / "rows.safetensors").read_bytes()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--rows", type=int, default=4096, help="of the corpus, each of which is continued")
    asked.add_argument("--set", action="append", default=[], help="as of collapse run")
    given = asked.parse_args()
    settings = [f"--set={one}" for one in (f"data.rows={given.rows}", "train.epochs=1", *given.set)]
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    made = set()
    with tempfile.TemporaryDirectory() as temporary:
        trained = Path(temporary) / "trained"
        collapse(trained, "before", "--jobs", "1", "--set=eval.samples=false", *settings)
        for turn in range(given.rounds):
            for way, how in [*WAYS.items()][:: 1 if turn % 2 == 0 else -1]:
                runs = Path(temporary) / f"{turn}-{len(found[way])}-{way[0]}"
                shutil.copytree(trained, runs)
                seconds = collapse(runs, "now", *how, *settings)
                found[way].append({"sampling": sampling(runs / "now"), "command": seconds, "load": os.getloadavg()[0]})
                made.add(rows(runs))
    print(f"{given.rows} rows, {os.cpu_count()} cores; the rows are {'the same' if len(made) == 1 else 'NOT the same'}")
    for what in ("sampling", "command"):
        times = {way: [turn[what] for turn in turns] for way, turns in found.items()}
        one, two = times.values()
        ratio = statistics.median(a / b for a, b in zip(one, two, strict=True))
        said = "; ".join(f"{way} {statistics.median(each):.1f} s" for way, each in times.items())
        print(f"{what}: {said}; ratio {ratio:.2f} (pair by pair)")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
