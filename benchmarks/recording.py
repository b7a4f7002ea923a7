"""Milliseconds of a training step of OPT-125m's shape on a GPU, its kernels recorded and not (lm/recorded.py).

    .venv/bin/python benchmarks/recording.py [--steps 120] [--batch 128]

Two trainings of a length each, whose difference is the steps between them: what a training does once does not count.
"""

import argparse

import ours
import torch
from common import Counts, on_gpu

from collapse_cli.lm import recorded
from collapse_cli.process import quiet_libraries


def main() -> None:
    """Print milliseconds a step, TFLOP/s by the standard count, and the most memory that torch held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120, help="that are measured")
    parser.add_argument("--batch", type=int, default=128, help="rows of a step")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    given = parser.parse_args()
    if not on_gpu():
        parser.error("steps are recorded on a GPU, and torch sees none")
    quiet_libraries()
    flops, first = Counts.of("opt125m").trained() * given.batch, recorded.WORTH + 10
    ours.train(
        "opt125m", given.dtype, given.batch, given.batch * first
    )  # what libraries set up once would count against the shorter one
    for name, worth in (("recorded", recorded.WORTH), ("not recorded", 10**9)):
        recorded.WORTH = worth
        torch.cuda.reset_peak_memory_stats()
        seconds = [
            ours.train("opt125m", given.dtype, given.batch, given.batch * steps)
            for steps in (first, first + given.steps)
        ]
        a_step = (seconds[1] - seconds[0]) / given.steps
        most = torch.cuda.max_memory_allocated() / 2**30
        print(f"{name}: {a_step * 1e3:.1f} ms a step, {flops / a_step / 1e12:.0f} TFLOP/s, {most:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
