"""What it costs a run that the store's files are compared with their hashes before they are used.

    .venv/bin/python benchmarks/checking.py                      # a run like smoke; and one whose models are files of 500 MB
    .venv/bin/python benchmarks/checking.py --only smoke --rounds 5

The worst case for the check: every model is there and only measured again (`eval` stages are removed), so each file is read
for its hash and little is computed. A run from the beginning checks nothing that it made itself. With and without the check
take turns, round by round; the share is the time within the check by that of the whole command.
"""

import argparse
import contextlib
import io
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from collapse_cli.__main__ import main as command
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.record import RECORD

SIZES: dict[str, list[str]] = {
    "smoke": [],
    "500 MB": [
        "loop.generations=0",
        "model.config.hidden_size=768",
        "model.config.word_embed_proj_dim=768",
        "model.config.ffn_dim=3072",
        "model.config.num_hidden_layers=18",
        "model.config.num_attention_heads=12",
        "data.rows=16",
        "data.eval_rows=400",
        "train.epochs=1",
    ],
}


def run(runs: Path, settings: list[str]) -> float:
    """Seconds of a run."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        sets = [f"--set={one}" for one in settings]
        code = command(["run", "--preset", "smoke", "--name", "run", "--jobs", "1", "--runs-dir", str(runs), *sets])
    if code != 0:
        raise SystemExit(f"the run ended with code {code}")
    return time.perf_counter() - start


def forget_measures(runs: Path) -> None:
    """Remove what the next run is to compute again."""
    for record in (runs / "store").glob(f"??/*/{RECORD}"):
        if json.loads(record.read_text())["kind"] == "eval":
            shutil.rmtree(record.parent)
    (runs / "run" / "metrics.jsonl").unlink()


def measure(runs: Path, settings: list[str], rounds: int) -> dict[str, float]:
    """Seconds with and without the check, those within it, and the megabytes that it read."""
    check, spent, checked = FolderStore._fault_of_files, [0.0], [0]

    def timed(self: FolderStore, key: str) -> str:
        start = time.perf_counter()
        fault = check(self, key)
        spent[0] += time.perf_counter() - start
        checked[0] += sum(path.stat().st_size for path in self.folder(key).rglob("*") if path.is_file())
        return fault

    def unchecked(self: FolderStore, key: str) -> str:
        return ""

    run(runs, settings)
    took: dict[str, list[float]] = {"checked": [], "unchecked": [], "within": [], "megabytes": []}
    for _ in range(rounds):
        for name, way in (("unchecked", unchecked), ("checked", timed)):
            spent[0], checked[0] = 0.0, 0
            setattr(FolderStore, "_fault_of_files", way)  # noqa: B010 - mypy lets no method be assigned
            forget_measures(runs)
            took[name].append(run(runs, settings))
        took["within"].append(spent[0])
        took["megabytes"].append(checked[0] / 1e6)
    setattr(FolderStore, "_fault_of_files", check)  # noqa: B010
    return {name: statistics.median(values) for name, values in took.items()}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    asked: Any = parser.parse_args()
    print("| run | read, MB | s without the check | s with it | s within it | share |")
    print("|---|---|---|---|---|---|")
    for name, settings in SIZES.items():
        if asked.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                found = measure(Path(folder), settings, asked.rounds)
            cells = [f"{found[key]:.3g}" for key in ("megabytes", "unchecked", "checked", "within")]
            print(f"| {name} | {' | '.join(cells)} | {found['within'] / found['checked']:.2%} |", flush=True)


if __name__ == "__main__":
    main()
