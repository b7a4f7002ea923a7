"""Which plan an experiment has, and which body a stage: the loop, the loop in blocks, or a mixture."""

from collections.abc import Mapping
from typing import Any

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Body, Finished, Plan, Stage, Workplace
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


def _body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    if "cells" in stage.params:
        body: Body = mixture.cells_body
    elif stage.kind == "block":
        body = blocks.block_body
    elif "mixture" in stage.params:
        body = {"sample": mixture.generate_body, "mix": mixture.combine_body}[stage.kind]
    else:
        body = loop.BODIES[stage.kind]
    if not issubclass(learners.learner_class(stage.params["learner"]), Family):
        return body(stage, inputs, place)
    # NumPy's sums depend on how many threads share them, and small products are slower on two
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        return body(stage, inputs, place)


BODIES: dict[str, Body] = dict.fromkeys((*loop.BODIES, "block"), _body)
