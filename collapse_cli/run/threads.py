"""How many threads a stage has, of those that this process may use.

Nothing that is measured while a run is at work has a say: the number of threads decides how sums are rounded, and the same command is to give the
same numbers.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from collapse_cli import SLEEPING, families
from collapse_cli.engine.stage import Product, Stage
from collapse_cli.experiment.costs import Sizes

# benchmarks/threads.py: below, two threads that sleep between products sample at .34 to .83 of the speed of one (docs/benchmarks.md)
SMALL_LAYER = 200_000  # parameters; of 50,000 it was measured
LARGE_HEAD = 1_000_000  # parameters; a head of 3,200,000 makes two threads 1.26 times as fast in training


def that_pay(stage: Stage, sizes: Sizes, cores: int, devices: int = 1) -> int:
    """How many threads a stage is given that has so many cores to itself.

    Args:
        devices: how many devices share what a training is given.
    """
    if (
        not families.of(sizes.config.learner).begins_with_a_model
        or os.environ.get("OMP_WAIT_POLICY") != SLEEPING["OMP_WAIT_POLICY"]
    ):
        return cores
    size, product = sizes.of(stage), sizes.plan.shard_of.get(stage.key, stage).of.product
    if size.layer_parameters >= SMALL_LAYER * size.layers or (product is Product.MODEL and devices > 1):
        return cores
    whole_text = product in (Product.MODEL, Product.MEASURES)  # the head has many rows at once
    return cores if whole_text and size.head_parameters >= LARGE_HEAD else 1


@contextmanager
def of_this_process(light: bool = False) -> Iterator[Callable[[int], None]]:
    """What sets how many threads the next stage has in this process; afterwards there are as many as before.

    Args:
        light: whether nothing here computes with torch, which then is not loaded.
    """
    if light:
        yield lambda threads: None
        return
    import torch

    before = torch.get_num_threads()
    try:
        yield lambda threads: torch.set_num_threads(threads or before)
    finally:
        torch.set_num_threads(before)
