"""A training step on one device of one thread, on one of two, and on two of one thread each, in turn; and what starting the second takes.

    .venv/bin/python benchmarks/devices.py --model small --rounds 3

Devices are processes on this CPU. Seconds of a step are the median over all steps but the first two of each round.
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import SHAPES, WIDTH, fresh_model, rows_of

from collapse_cli.config.tree import TrainConfig
from collapse_cli.families.section import for_key
from collapse_cli.learners.lm import LanguageModel
from collapse_cli.learners.protocol import Hints

WAYS = {"1 device x 1 thread": (1, 1), "1 device x 2 threads": (1, 2), "2 devices x 1 thread": (2, 2)}


def timed(folder: Path, settings: TrainConfig, rows: int, vocabulary: int, devices: int) -> tuple[float, list[float]]:
    """Seconds until the end of the first step, and those of each step but the first two."""
    began = time.perf_counter()
    told: list[float] = []
    learner = LanguageModel(
        {"model": {"sha256": "0"}, "train": for_key(settings)},
        Hints(model=str(folder), encoded=folder, devices=devices),
        lambda done, total, unit: told.append(time.perf_counter()),
    )
    with tempfile.TemporaryDirectory() as scratch:
        learner.fit(rows_of(rows, vocabulary), seed=1, scratch=Path(scratch))
    return told[0] - began, [after - before for before, after in itertools.pairwise(told[1:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="small")
    parser.add_argument("--rows", type=int, default=128, help="of a step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    settings = TrainConfig(
        epochs=1, steps=asked.steps, batch_size=asked.rows, dtype="float32", schedule="constant", warmup=0.0
    )
    model = fresh_model(asked.model)
    vocabulary = int(model.config.vocab_size)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    first: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for number in range(asked.rounds):
            order = [*WAYS.items()]
            for way, (devices, threads) in order if number % 2 == 0 else reversed(order):
                torch.set_num_threads(threads)
                until, steps = timed(Path(folder), settings, asked.rows, vocabulary, devices)
                first[way].append(until)
                seconds[way] += steps
    medians = {way: statistics.median(taken) for way, taken in seconds.items()}
    alone = medians["1 device x 1 thread"]
    print(f"{asked.model}, {asked.rows} rows of {WIDTH} tokens a step; load {os.getloadavg()[0]:.1f}")
    for way, taken in medians.items():
        until = statistics.median(first[way])
        print(
            f"{way:22}{1000 * taken:10.1f} ms a step{alone / taken:8.2f} times as fast{until:8.1f} s to the end of the first"
        )
    print(json.dumps({"model": asked.model, "rows": asked.rows, "seconds": medians, "first": first}))


if __name__ == "__main__":
    main()
