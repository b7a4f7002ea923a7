"""The whole loop at two commits, in turn: seconds by kind of stage, and the perplexities side by side.

    .venv/bin/python benchmarks/loop.py                       # f9dfc90 and HEAD, the preset quick
    .venv/bin/python benchmarks/loop.py --preset small        # a shortened wikitext2-small
    .venv/bin/python benchmarks/loop.py --commits f9dfc90 .   # against the working tree as it is

Each commit is checked out into a temporary folder and run with this interpreter, in a fresh runs folder. What the two
sample differs by rounding and so by chance: their perplexities must agree within the noise of a seed, not exactly.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report import Report, about_machine

ROOT = Path(__file__).parent.parent
BEFORE = "f9dfc90"


def settings(preset: str, shared: Path) -> list[str]:
    """The arguments of `collapse run`."""
    if preset == "quick":
        return ["--preset", "quick", "--seeds", "0"]
    short = ["--preset", "wikitext2-small", "--generations", "2", "--seeds", "0"]
    changed = ["data.train=valid.txt", "data.test=test.txt", "data.rows=512", "data.eval_rows=256"]
    changed.append(f"model.tokenizer={shared / 'opt-tokenizer'}")
    sets = [part for one in changed for part in ("--set", one)]
    return [*short, "--data", str(shared / "wikitext-2"), *sets]


def collapse_run(checkout: Path, runs: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Run `collapse run` of a checkout in its own process; wall seconds, seconds by kind of stage, perplexities,
    and the tokens/s of training, sampling and scoring.

    Raises:
        SystemExit: when it fails, with its last words.
    """
    command = [sys.executable, "-m", "collapse_cli", "run", *arguments, "--runs-dir", str(runs), "--name", "bench"]
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=checkout,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])},
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(
            f"{' '.join(command)}\nin {checkout} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
        )
    seconds: dict[str, float] = {}
    spent: dict[str, tuple[float, int]] = {}  # by work: seconds and tokens
    for line in (runs / "bench" / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "finished":
            seconds[event["kind"]] = seconds.get(event["kind"], 0.0) + event["seconds"]
            work = event.get("work", event["kind"])
            before = spent.get(work, (0.0, 0))
            spent[work] = (before[0] + event["seconds"], before[1] + event.get("tokens", 0))
    rows = [json.loads(line) for line in (runs / "bench" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    perplexities = {f"{row['policy']}, generation {row['generation']}": row["perplexity"] for row in rows}
    rates = {work: tokens / took for work, (took, tokens) in spent.items() if tokens and took}
    return {"wall": wall, "seconds": seconds, "perplexities": perplexities, "tokens_per_s": rates}


@contextmanager
def checked_out(commit: str, parent: Path) -> Iterator[Path]:
    """A folder that holds the commit; `.` is the working tree itself."""
    if commit == ".":
        yield ROOT
        return
    folder = parent / f"checkout-{commit.replace('/', '-')}"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def measure(commits: Sequence[str], arguments: Sequence[str], rounds: int) -> list[list[dict[str, Any]]]:
    """All runs: a list per commit."""
    found: list[list[dict[str, Any]]] = [[], []]
    with tempfile.TemporaryDirectory(prefix="collapse-loop-") as name:
        parent = Path(name)
        with checked_out(commits[0], parent) as first, checked_out(commits[1], parent) as second:
            for turn in range(rounds):
                for index in (0, 1) if turn % 2 == 0 else (1, 0):
                    print(f"round {turn + 1} of {rounds}: {commits[index]}", file=sys.stderr)
                    runs = parent / f"runs-{turn}-{index}"
                    found[index].append(collapse_run((first, second)[index], runs, arguments))
    return found


def show(commits: Sequence[str], found: Sequence[Sequence[dict[str, Any]]], report: Report) -> None:
    """Medians of seconds by kind, of the whole command, and the perplexities of the last round."""
    kinds = list(dict.fromkeys(kind for runs in found for one in runs for kind in one["seconds"]))

    def line(name: str, pairs: list[tuple[float, float]]) -> list[str]:
        before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs) if all(b > 0 for _, b in pairs) else float("nan")
        return [name, f"{before:.2f}", f"{after:.2f}", f"{ratio:.2f}"]

    both = list(zip(*found, strict=True))
    lines = [
        line(kind, [(a["seconds"].get(kind, 0.0), b["seconds"].get(kind, 0.0)) for a, b in both]) for kind in kinds
    ]
    lines.append(line("all stages", [(sum(a["seconds"].values()), sum(b["seconds"].values())) for a, b in both]))
    lines.append(line("the whole command", [(a["wall"], b["wall"]) for a, b in both]))
    report.table("seconds", ["stage", *commits, "times as fast"], lines)
    before, after = found[0][-1]["perplexities"], found[1][-1]["perplexities"]
    lines = [
        [where, f"{value:.1f}", f"{after[where]:.1f}", f"{after[where] / value:.3f}"] for where, value in before.items()
    ]
    report.table("perplexity", ["model", *commits, "second over first"], lines)


def main() -> None:
    """Run both commits in turn, print tables and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", nargs=2, default=(BEFORE, "HEAD"), metavar="COMMIT", help="`.`: the working tree")
    parser.add_argument("--preset", choices=("quick", "small"), default="quick")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="more settings of `collapse run`"
    )
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data", help="text and tokenizer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there instead of printing it")
    given = parser.parse_args()
    arguments = [
        *settings(given.preset, given.shared.resolve()),
        *(word for each in given.set for word in ("--set", each)),
    ]
    report = Report(given.json, about_machine() | {"commits": given.commits, "arguments": arguments})
    found = measure(given.commits, arguments, given.rounds)
    show(given.commits, found, report)
    report.finish({"runs": dict(zip(("before", "after"), found, strict=True))})


if __name__ == "__main__":
    main()
