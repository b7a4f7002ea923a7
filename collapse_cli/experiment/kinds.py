"""Which kinds of stages there are, and which plan an experiment has: the loop, the loop in blocks, or a mixture."""

from collections.abc import Mapping
from typing import Any

from collapse_cli import families, learners
from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Finished, Generation, Plan, StageKind
from collapse_cli.errors import InputError
from collapse_cli.experiment import blocks, loop, mixture
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.stages.answered import ANSWERED
from collapse_cli.experiment.stages.asked import ASKED
from collapse_cli.experiment.stages.between import BETWEEN
from collapse_cli.experiment.stages.block import BLOCK
from collapse_cli.experiment.stages.cells import CELLS
from collapse_cli.experiment.stages.combine import COMBINE
from collapse_cli.experiment.stages.data import DATA
from collapse_cli.experiment.stages.detector import DETECTOR
from collapse_cli.experiment.stages.eval import EVAL, EVAL_SHARD
from collapse_cli.experiment.stages.examine import EXAMINE, EXAMINE_SHARD
from collapse_cli.experiment.stages.generate import GENERATE, GENERATE_SHARD
from collapse_cli.experiment.stages.mix import MIX
from collapse_cli.experiment.stages.pool import POOL
from collapse_cli.experiment.stages.portion import PORTION
from collapse_cli.experiment.stages.public import PUBLIC
from collapse_cli.experiment.stages.real import REAL
from collapse_cli.experiment.stages.sample import SAMPLE, SAMPLE_SHARD
from collapse_cli.experiment.stages.segment import SEGMENT
from collapse_cli.experiment.stages.select import SELECT
from collapse_cli.experiment.stages.together import TOGETHER
from collapse_cli.experiment.stages.train import TRAIN
from collapse_cli.experiment.stages.translate import TRANSLATE
from collapse_cli.experiment.stages.written import WRITTEN

KINDS: tuple[StageKind[Size], ...] = (
    DATA,
    TRAIN,
    SAMPLE,
    SAMPLE_SHARD,  # a part of it
    TRANSLATE,
    POOL,
    SEGMENT,
    PUBLIC,
    DETECTOR,
    SELECT,
    MIX,
    EVAL,
    EVAL_SHARD,
    REAL,
    EXAMINE,
    EXAMINE_SHARD,
    BETWEEN,
    BLOCK,  # many generations
    TOGETHER,  # those of several lineages
    CELLS,  # many cells of a mixture
    GENERATE,
    GENERATE_SHARD,
    WRITTEN,  # text of someone else's model, in files
    PORTION,  # and those rows of it that a corpus takes
    ASKED,  # what a server answers
    ANSWERED,
    COMBINE,
)


def plan(config: Experiment, hints: learners.Hints) -> Plan:
    """The stages of an experiment. `config` is resolved (hashes filled in); `hints` say where its inputs are.

    Raises:
        InputError: for blocks of generations that the learner does not make, or a grid that it does not have.
    """
    if config.kind == "mixture":
        return mixture.plan(config, hints)
    learner = learners.learner_class(config.learner)
    size = config.loop.block or learner.block
    if size > 1 and (why := _by_generations(config)):
        if config.loop.block > 1:
            raise InputError(f"loop.block = {config.loop.block}: {why}; leave loop.block at 0 or 1")
        size = 1
    if size == 1:
        if config.pool.public_rows and not config.pool.public:
            raise InputError(
                f"pool.public_rows = {config.pool.public_rows}: they are of generations that are computed in blocks; leave loop.block at 0, "
                "and pool.rule other than random"
            )
        return loop.plan(config, hints)
    if learner.examines or not issubclass(learner, learners.Family):
        raise InputError(
            f"loop.block = {size}: a generation of {config.learner} has stages of its own; leave loop.block at 0 or 1"
        )
    return blocks.plan(config, hints, size)


def _by_generations(config: Experiment) -> str:
    """Why an experiment is computed generation by generation, whatever its learner could do; "" where blocks of them can be made."""
    pool, alone = config.pool, learners.learner_class(config.learner).block == 1
    if pool.rule == "random" or pool.public or (pool.more_than_pooled and alone):
        return "a public text, shares of the loss and base models that are drawn are computed generation by generation"
    if config.foreign_sources:
        return "rows of pool.foreign are stages of their own"
    if any(step.inputs for step in config.select.chosen):
        return "select looks at rows of generation 0, which is a stage of its own"
    if config.lineage_names != ("",) and families.of(config.learner).text:
        return (
            "lineages of models of text are measured beside each other in each generation, which is a stage of its own"
        )
    return ""


def facts_of(generation: Generation, made: Finished) -> Mapping[str, Any]:
    """The facts of one generation (or cell) in those of its stage."""
    facts: Mapping[str, Any] = made.facts if generation.part is None else made.facts["generations"][generation.part]
    return facts
