"""What each stage of the loop is made from: its parameters, inputs and seed, and so its key.

Nothing here may depend on a policy's name, a run's name, a device, or a batch size of sampling or scoring.
"""

from collections.abc import Mapping
from typing import Any

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.policies import Policy
from collapse_cli.stage import Stage, seed_for

# Raise one when its body changes what comes out: finished stages of the old version are then computed again.
VERSIONS = {"data": 2, "train": 2, "sample": 4, "mix": 1, "eval": 3}


def data_stage(config: Experiment, hints: Mapping[str, Any]) -> Stage:
    params = learners.learner_class(config.learner).data_params(config.model_dump(mode="json"))
    return _stage("data", config, params, {}, 0, hints)


def sample_stage(
    config: Experiment, policy: Policy, model: Stage, data: Stage, corpus: Stage, seed: int, generation: int
) -> Stage:
    """The rows that generation `generation - 1` makes for the corpus of generation `generation`.

    Where the policy takes none, it makes as many as for keep-0: they are only measured.
    """
    policy = policy if policy.needs_samples else Policy("keep")
    params = {
        "sample": config.sample.model_dump(mode="json", exclude={"max_duplicates"}),
        "target": config.train.target,
        "generation": generation,
        "policy": {"rule": "keep", "percent": 0.0} if policy.accumulates else vars(policy),
        "growing": config.mix.size == "growing" and not policy.accumulates,
        "choice": seed_for(seed, "mix", generation),
    }
    inputs = {"model": model, "data": data, "prompts": corpus if config.sample.prompts == "previous" else data}
    return _stage("sample", config, params, inputs, seed_for(seed, "sample", generation))


def mix_stage(
    config: Experiment, policy: Policy, data: Stage, samples: list[Stage], seed: int, generation: int
) -> Stage:
    params = {"policy": vars(policy), "growing": config.mix.size == "growing", "generation": generation}
    inputs = {"data": data, **{f"synthetic-{i:05d}": stage for i, stage in enumerate(samples, 1)}}
    return _stage("mix", config, params, inputs, seed_for(seed, "mix", generation))


def train_stage(
    config: Experiment,
    hints: Mapping[str, Any],
    data: Stage,
    corpus: Stage,
    parents: list[Stage],
    seed: int,
    generation: int,
) -> Stage:
    params = {
        "model": learners.learner_class(config.learner).model_params(config.model_dump(mode="json")),
        "train": config.train.model_dump(mode="json", exclude={"target"}),
        "base": seed_for(seed, "base", 0),
    }
    inputs = {"data": data, "corpus": corpus} | ({"init": parents[-1]} if parents else {})
    return _stage("train", config, params, inputs, seed_for(seed, "train", generation), hints)


def eval_stage(config: Experiment, model: Stage, data: Stage, first: Stage | None) -> Stage:
    """A model on real test data, beside `first`, the same of generation 0."""
    params = {"eval": config.eval.model_dump(mode="json", exclude={"block_size", "samples"})}
    inputs = {"model": model, "data": data} | ({"first": first} if first else {})
    return _stage("eval", config, params, inputs, 0)


def real_stage(config: Experiment, data: Stage, reference: Stage) -> Stage:
    """Real continuations under the model of generation 0 (`reference`): what samples are compared with."""
    return _stage("eval", config, _shape_of_samples(config), {"data": data, "reference": reference}, 0)


def examine_stage(
    config: Experiment, samples: Stage, data: Stage, corpus: Stage, real: Stage, reference: Stage, first: Stage | None
) -> Stage:
    """The rows a model made, under the model of generation 0, beside `real` and `first`, the same of generation 0."""
    params = _shape_of_samples(config)
    inputs = {
        "samples": samples,
        "data": data,
        "prompts": corpus if config.sample.prompts == "previous" else data,
        "reference": reference,
        "real": real,
    }
    return _stage("eval", config, params, inputs | ({"first": first} if first else {}), 0)


def _shape_of_samples(config: Experiment) -> dict[str, Any]:
    """What measuring samples depends on: how long prompts and samples are, not how they were drawn."""
    return {"sample": config.sample.model_dump(mode="json", exclude={"max_duplicates", "decode"})}


def _stage(
    kind: str,
    config: Experiment,
    params: Mapping[str, Any],
    inputs: Mapping[str, Stage],
    seed: int,
    hints: Mapping[str, Any] | None = None,
) -> Stage:
    return Stage(kind, VERSIONS[kind], {"learner": config.learner, **params}, inputs, seed, hints or {})
