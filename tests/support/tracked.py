"""A run folder whose rows are mirrored, and rows with every kind of field."""

from pathlib import Path
from typing import Any

from support.rows import row_of

from collapse_cli import tracking
from collapse_cli.config import Experiment, load
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder

HOSTILE = "<script>alert(1)</script></style>\x1b[31m\ud800 generated text"


RECORD = {
    "created": "2026-01-01T00:00:00+00:00",
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "git": {"commit": "c044e3c", "dirty": False},
}


def a_row(policy: str, seed: int, generation: int) -> Row:
    """A row with a field of each shape; all numbers differ from row to row."""
    x = generation + seed / 10 + len(policy) / 1000
    measured: dict[str, Any] = {
        "model_key": "0" * 64,
        "model_dir": "store/00",
        "perplexity": 30 + x,
        "predicted_tokens": 8064 + generation,
        "mauve": None if generation == 1 else 0.9 - x / 100,
        "nll_by_decile": [1.5 + x, None, *[2.5 + x + i for i in range(8)]],
        "sample_log_perplexity_quantiles": [x + i / 100 for i in range(99)],
        "seconds": {"train": 4.25 + x, "eval": 0.5},
        "protocol": {"protocol": "block", "context": 64},
        "warnings": [HOSTILE],
        "sample_histogram": {"low": 1.5, "width": 0.25, "counts": [3, 0, 5 + generation]},
        "top_8grams": [{"tokens": [1] * 8, "text": HOSTILE, "count": 9, "samples": 3}],
        "examples": [{"row": 1, "prompt": HOSTILE, "text": HOSTILE}],
    }
    return row_of(policy, seed, generation, **measured)


def rows_of(generations: int = 3) -> list[Row]:
    return [
        a_row(policy, seed, generation)
        for seed in (0, 1)
        for generation in range(generations)
        for policy in ("keep-0", "accumulate")
    ]


def config_of(*names: str, **more: Any) -> Experiment:
    tree = {"loop": {"policies": ["keep-0", "accumulate"], "seeds": [0, 1], "generations": 2}}
    return load({**tree, "tracking": {"to": list(names), **more}}, "test")


class Run:
    """A run folder whose `metrics.jsonl` is written as the runner does: first the file, then the mirrors."""

    def __init__(self, runs: Path, config: Experiment, name: str = "a-run") -> None:
        self.folder, self.config = RunFolder(runs, name), config
        self.folder.path.mkdir(parents=True, exist_ok=True)

    def go(self, rows: list[Row], record: dict[str, Any] = RECORD) -> None:
        with tracking.open_mirrors(
            self.config, self.folder.path, self.folder.name, record, self.folder.rows
        ) as mirrors:
            for row in rows:
                self.folder.add_rows([row])
                mirrors.add(row)

    def metrics(self) -> str:
        return (self.folder.path / "metrics.jsonl").read_text(encoding="utf-8")
