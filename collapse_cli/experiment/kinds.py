"""Which plan an experiment has: the loop, the loop in blocks, or a mixture."""

from collections.abc import Mapping
from typing import Any

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Finished, Plan
from collapse_cli.errors import InputError
from collapse_cli.experiment import blocks, loop, mixture
from collapse_cli.learners.family import Family


def plan(config: Experiment, hints: Mapping[str, Any]) -> Plan:
    """The stages of an experiment. `config` is resolved (hashes filled in); `hints` say where its inputs are.

    Raises:
        InputError: for blocks of generations that the learner does not make, or a grid that it does not have.
    """
    if config.kind == "mixture":
        return mixture.plan(config, hints)
    learner = learners.learner_class(config.learner)
    size = config.loop.block or learner.block
    if size == 1:
        return loop.plan(config, hints)
    if learner.examines or not issubclass(learner, Family):
        raise InputError(
            f"loop.block = {size}: a generation of {config.learner} has stages of its own; leave loop.block at 0 or 1"
        )
    return blocks.plan(config, hints, size)


def facts_of(generation: Any, made: Finished) -> Mapping[str, Any]:
    """The facts of one generation (or cell) in those of its stage."""
    found: Mapping[str, Any] = made.facts if generation.part is None else made.facts["generations"][generation.part]
    return found
