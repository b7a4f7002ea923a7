"""The plan of the loop for families whose generations take milliseconds: a block of generations is one stage."""

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Generation, Plan
from collapse_cli.experiment.stages.block import block_stage
from collapse_cli.experiment.stages.data import data_stage
from collapse_cli.where import Where


def plan(config: Experiment, hints: learners.Hints, size: int) -> Plan:
    """The stages of an experiment in blocks of `size` generations; generation 0 is a block of its own, of all policies."""
    made, loop = Plan(), config.loop
    summarises = learners.family_class(config.learner).summarises
    for seed in loop.seeds:
        data = data_stage(config, hints, seed)
        first = block_stage(config, hints, None, {"data": data}, seed, 0, 0)
        for policy in config.policies:
            where = Where(policy.name, seed, 0)
            made.add(data, where)
            blocks = [made.add(first, where)]
            made.generations.append(Generation(where, first, first, part=0))
            for start in range(1, loop.generations + 1, size):
                last = min(start + size - 1, loop.generations)
                inputs = {"data": data, "first": blocks[0], "before": blocks[-1]}
                if policy.accumulates and not (policy.rule == "accumulate" and summarises and not config.select.on):
                    inputs |= {f"made-{i:05d}": block for i, block in enumerate(blocks[1:], 1)}
                block = block_stage(config, hints, policy.until(last), inputs, seed, start, last)
                blocks.append(made.add(block, Where(policy.name, seed, start)))
                made.generations += [
                    Generation(Where(policy.name, seed, generation), block, block, part=generation - start)
                    for generation in range(start, last + 1)
                ]
    return made
