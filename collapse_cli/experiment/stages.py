"""What each stage of the loop is made from: its parameters, inputs and seed, and so its key.

Nothing here may depend on a policy's name, a run's name, a device, or a batch size of sampling or scoring.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.cell import Cell
from collapse_cli.engine.stage import Stage, seed_for
from collapse_cli.experiment.policies import Policy

# Raise one when its body changes what comes out: finished stages of the old version are then computed again.
VERSIONS = {"data": 2, "train": 2, "sample": 4, "mix": 1, "eval": 3, "block": 1}


def data_stage(config: Experiment, hints: Mapping[str, Any], seed: int = 0) -> Stage:
    """Real data; for a run's seed where each draws its own."""
    learner, tree = learners.learner_class(config.learner), config.model_dump(mode="json")
    drawn = seed_for(seed, "data", 0) if learner.drawn(tree) else 0
    return _stage("data", config, {}, {}, drawn, hints)


def sample_stage(
    config: Experiment, policy: Policy, model: Stage, data: Stage, corpus: Stage, seed: int, generation: int
) -> Stage:
    """The rows that generation `generation - 1` makes for the corpus of generation `generation`."""
    params = sampling(policy, seed, generation, growing=config.mix.size == "growing")
    inputs = {"model": model, "data": data, "prompts": corpus if config.sample.prompts == "previous" else data}
    return _stage("sample", config, params, inputs, seed_for(seed, "sample", generation))


def sampling(policy: Policy, seed: int, generation: int, *, growing: bool) -> dict[str, Any]:
    """Which rows are continued for the corpus of a generation.

    Where the policy takes none, as many are made as for keep-0: they are only measured.
    """
    policy = policy if policy.needs_samples else Policy("keep")
    return {
        "generation": generation,
        "policy": {"rule": "keep", "percent": 0.0} if policy.accumulates else vars(policy),
        "growing": growing and not policy.accumulates,
        "choice": seed_for(seed, "mix", generation),
    }


def mix_stage(
    config: Experiment, policy: Policy, data: Stage, samples: list[Stage], seed: int, generation: int
) -> Stage:
    params = {"policy": vars(policy), "growing": config.mix.size == "growing", "generation": generation}
    params |= _apart(config, policy)
    inputs = {"data": data, **{f"synthetic-{i:05d}": stage for i, stage in enumerate(samples, 1)}}
    return _stage("mix", config, params, inputs, seed_for(seed, "mix", generation))


def _apart(config: Experiment, policy: Policy) -> dict[str, Any]:
    """How many trials draw their rows apart, where there are several and the policy draws; nothing else has a key for it."""
    if not policy.draws:
        return {}
    trials = learners.learner_class(config.learner).trials(config.model_dump(mode="json"))
    return {"trials": trials} if trials > 1 else {}


def train_stage(
    config: Experiment,
    hints: Mapping[str, Any],
    data: Stage,
    corpus: Stage,
    parents: list[Stage],
    seed: int,
    generation: int,
) -> Stage:
    inputs = {"data": data, "corpus": corpus} | ({"init": parents[-1]} if parents else {})
    params = {"base": seed_for(seed, "base", 0)}
    return _stage("train", config, params, inputs, seed_for(seed, "train", generation), hints)


def eval_stage(config: Experiment, model: Stage, data: Stage, first: Stage | None) -> Stage:
    """A model on real test data, beside `first`, the same of generation 0."""
    inputs = {"model": model, "data": data} | ({"first": first} if first else {})
    return _stage("eval", config, {}, inputs, 0)


def real_stage(config: Experiment, data: Stage, reference: Stage) -> Stage:
    """Real continuations under the model of generation 0 (`reference`): what samples are compared with."""
    return _stage("eval", config, {}, {"data": data, "reference": reference}, 0, work="examine")


def examine_stage(
    config: Experiment, samples: Stage, data: Stage, corpus: Stage, real: Stage, reference: Stage, first: Stage | None
) -> Stage:
    """The rows a model made, under the model of generation 0, beside `real` and `first`, the same of generation 0."""
    inputs = {
        "samples": samples,
        "data": data,
        "prompts": corpus if config.sample.prompts == "previous" else data,
        "reference": reference,
        "real": real,
    }
    return _stage("eval", config, {}, inputs | ({"first": first} if first else {}), 0, work="examine")


def block_stage(
    config: Experiment,
    hints: Mapping[str, Any],
    policy: Policy | None,
    inputs: Mapping[str, Stage],
    seed: int,
    first: int,
    last: int,
) -> Stage:
    """Generations `first` to `last` of one policy (generation 0 is of all) in one stage; it is made as they would be.

    The run's seed itself is part of it: each generation's own follow from it.
    """
    learner, tree = learners.learner_class(config.learner), config.model_dump(mode="json")
    params = {
        "verbs": {kind: learner.params(tree, kind) for kind in ("train", "sample", "eval")},
        "policy": vars(policy) if policy else {},
        "growing": config.mix.size == "growing",
        "prompts": config.sample.prompts,
        "init": config.loop.init,
        "generations": [first, last],
        "learner": config.learner,
    } | (_apart(config, policy) if policy else {})
    return Stage("block", VERSIONS["block"], params, inputs, seed, hints)


def cells_stage(config: Experiment, hints: Mapping[str, Any], chosen: Sequence[Cell], seed: int) -> Stage:
    """Several cells of a mixture in one stage: each is drawn, mixed, fitted and measured in memory, from the run's seed."""
    learner, tree = learners.learner_class(config.learner), config.model_dump(mode="json")
    params = {
        "learner": config.learner,
        **learner.params(tree, "train"),
        **learner.params(tree, "data"),
        "mixture": {"real_data": config.mixture.real_data},
        "cells": [vars(cell) for cell in chosen],
    }
    return Stage("block", VERSIONS["block"], params, {}, seed, hints)


def generate_stage(config: Experiment, model: Stage, data: Stage, rows: int, seed: int) -> Stage:
    """The first `rows` rows that a mixture's generator makes, in the order of the real rows that they continue."""
    params = {"mixture": {"rows": rows, "order": seed_for(seed, "mix", 0)}}
    return _stage("sample", config, params, {"model": model, "data": data}, seed_for(seed, "sample", 0))


def combine_stage(
    config: Experiment, data: Stage, made: Stage | None, real: int, synthetic: int, seed: int, *, end: bool = False
) -> Stage:
    """A cell's corpus: the first `real` real rows, then as many synthetic ones; `end`: the last real rows, for a generator."""
    cell = {"real": real, "synthetic": synthetic, "order": seed_for(seed, "mix", 0), "end": end}
    inputs = {"data": data} | ({"made": made} if made else {})
    return _stage("mix", config, {"mixture": cell}, inputs, 0)


def _stage(
    kind: str,
    config: Experiment,
    params: Mapping[str, Any],
    inputs: Mapping[str, Stage],
    seed: int,
    hints: Mapping[str, Any] | None = None,
    work: str = "",
) -> Stage:
    """A stage with what its learner says that its work depends on."""
    own = (
        {}
        if kind == "mix"
        else learners.learner_class(config.learner).params(config.model_dump(mode="json"), work or kind)
    )
    return Stage(kind, VERSIONS[kind], {"learner": config.learner, **own, **params}, inputs, seed, hints or {})
