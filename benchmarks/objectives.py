"""What each training objective costs beside cross-entropy: seconds and tokens/s of the same epoch, in turn.

    .venv/bin/python benchmarks/objectives.py --model opt125m
    .venv/bin/python benchmarks/objectives.py --model small --rows 64 --cpu

A round trains once with each objective, beginning with another one each time, and is compared with itself: figures are
medians over rounds of the ratio to the cross-entropy of the same round, with the range. Replayed tokens count in tokens/s.
"""

import argparse
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import ours
import torch
from common import SHAPES, WIDTH, train_settings
from report import Report, about_machine

from collapse_cli.process import quiet_libraries

PLAIN = "cross-entropy"
OBJECTIVES: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "truncated": {"loss": "truncated"},
    "focal": {"loss": "focal"},
    "smoothed": {"loss": "smoothed"},
    "replay, a quarter": {"replay": 0.25},
    "adversarial": {"adversarial": 0.02},
    "anchor kl": {"anchor": "kl"},
    "anchor distill": {"anchor": "distill"},
    "anchor ewc": {"anchor": "ewc", "anchor_rows": 4},
    "anchor l2": {"anchor": "l2", "anchor_weight": 0.1},
    "adapter of rank 8": {"adapter": 8},
}


def main() -> None:
    """Measure in turn; print a table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="small")
    parser.add_argument("--dtype", default="float32", choices=("bfloat16", "float32"))
    parser.add_argument("--rows", type=int, default=64, help="rows of 64 tokens of the corpus; a step has 16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="one thread, processor time: for a machine with other work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON there instead of printing it")
    asked = parser.parse_args()
    quiet_libraries()
    clock: AbstractContextManager[Any] = nullcontext()
    if asked.cpu:
        torch.set_num_threads(1)
        clock = mock.patch("time.perf_counter", time.process_time)
    report = Report(asked.json, about_machine() | {"model": asked.model, "dtype": asked.dtype, "rows": asked.rows})
    names, found = list(OBJECTIVES), {name: list[float]() for name in OBJECTIVES}
    ours.train(asked.model, asked.dtype, 16, asked.rows)  # what is set up once
    with clock:
        for turn in range(asked.rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                found[name].append(ours.train(asked.model, asked.dtype, 16, asked.rows, **OBJECTIVES[name]))
    lines = []
    for name, seconds in found.items():
        settings = train_settings(16, asked.dtype, **OBJECTIVES[name])
        tokens = asked.rows * WIDTH * 16 / (16 - settings.replayed_rows)
        longer = sorted(own / plain for own, plain in zip(seconds, found[PLAIN], strict=True))
        spread = f"{statistics.median(longer):.2f} ({longer[0]:.2f} to {longer[-1]:.2f})"
        speed = tokens / (asked.rows * WIDTH) / statistics.median(longer)
        lines.append([name, f"{tokens / statistics.median(seconds):,.0f}", f"{speed:.2f}", spread])
    columns = ["objective", "tokens/s", "tokens/s beside cross-entropy", "seconds of an epoch beside it (range)"]
    report.table(f"Training with each objective: {asked.model}, {asked.dtype}", columns, lines)
    report.finish({"seconds": found})


if __name__ == "__main__":
    main()
