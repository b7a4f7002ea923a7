"""The plan of the loop for families whose generations take milliseconds: a block of generations is one stage."""

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Generation, Plan, Stage
from collapse_cli.experiment.pool import Pool
from collapse_cli.experiment.stages.block import Block, block_stage
from collapse_cli.experiment.stages.data import data_stage
from collapse_cli.experiment.stages.together import Together, together_stage
from collapse_cli.where import Where


def plan(config: Experiment, hints: learners.Hints, size: int) -> Plan:
    """The stages of an experiment in blocks of `size` generations; generation 0 is a block of its own, of all policies."""
    if config.lineage_names != ("",) or config.pool.more_than_pooled:
        return _together(config, hints, size)
    made, loop = Plan(), config.loop
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
                if Block.by(config, policy, start, last).carries_rows:
                    inputs |= {f"made-{i:05d}": block for i, block in enumerate(blocks[1:], 1)}
                block = block_stage(config, hints, policy.until(last), inputs, seed, start, last)
                blocks.append(made.add(block, Where(policy.name, seed, start)))
                made.generations += [
                    Generation(Where(policy.name, seed, generation), block, block, part=generation - start)
                    for generation in range(start, last + 1)
                ]
    return made


def _together(config: Experiment, hints: learners.Hints, size: int) -> Plan:
    """The same of several lineages: a block is of all of them. Generation 0 of each is a block of its own, of all policies.

    It is measured once more where all are together: how far its models are from each other.
    """
    made, loop, lineages = Plan(), config.loop, config.of_lineages()
    pool = Pool(config.pool.rule, len(lineages))
    for seed in loop.seeds:
        data = [data_stage(own, hints.of_lineage(name), seed) for name, own in lineages.items()]
        public = _public(config, hints, seed)
        shared = {"public": public} if public else {}
        shares = config.pool.weights
        firsts = [
            block_stage(own, hints.of_lineage(name), None, {"data": real, **shared}, seed, 0, 0, shares)
            for real, (name, own) in zip(data, lineages.items(), strict=True)
        ]
        for policy in config.policies:
            for name, real, first in zip(lineages, data, firsts, strict=True):
                made.add(real, Where(policy.name, seed, 0, name))
                if public:
                    made.add(public, Where(policy.name, seed, 0, name))
                made.add(first, Where(policy.name, seed, 0, name))
            blocks: list[Stage] = []
            for start in (0, *range(size + 1, loop.generations + 1, size)):
                last = min(start + size - (start > 0), loop.generations)
                block = together_stage(
                    lineages, pool, hints, policy.until(last), data, firsts, blocks, seed, start, last, shares, public
                )
                blocks.append(block)
                for place, (name, first) in enumerate(zip(lineages, firsts, strict=True)):
                    made.add(block, Where(policy.name, seed, start, name))
                    made.generations += [
                        Generation(
                            Where(policy.name, seed, generation, name),
                            block if generation else first,
                            block,
                            part=Together.of(block).part(place, generation),
                        )
                        for generation in range(start, last + 1)
                    ]
    return made


def _public(config: Experiment, hints: learners.Hints, seed: int) -> Stage | None:
    """Real rows that all lineages share, drawn as theirs are, of the truth that none has moved; None where there are none.

    They are those behind the last that any lineage may have, of one and the same sequence: more rows begin with the same rows.
    """
    if not config.pool.public_rows:
        return None
    rows = max(own.data.rows for own in config.of_lineages().values())
    drawn = config.data.model_copy(update={"rows": rows + config.pool.public_rows, "reserve": 0, "eval_rows": 1})
    return data_stage(config.model_copy(update={"data": drawn}), hints, seed, behind=rows)
