"""The next corpus: real rows and synthetic rows, as the policy says."""

from collections.abc import Mapping, Sequence
from typing import Any

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.stages.base import CORPUS, RESERVE, ROWS, at, on_one_thread, with_history


def mix_stage(
    config: Experiment, policy: Policy, data: Stage, samples: Sequence[Stage], seed: int, generation: int
) -> Stage:
    """The corpus of a generation, of real rows and of what `samples` made."""
    params = {
        "learner": config.learner,
        "policy": policy.params(),
        "growing": config.mix.size == "growing",
        "generation": generation,
        **apart(config, policy),
    }
    inputs = {"data": data, **{f"synthetic-{i:05d}": stage for i, stage in enumerate(samples, 1)}}
    return Stage(MIX, params, inputs, seed_for(seed, "mix", generation))


def apart(config: Experiment, policy: Policy) -> dict[str, Any]:
    """How many trials draw their rows apart, where there are several and the policy draws; nothing else has a key for it."""
    if not policy.draws:
        return {}
    trials = learners.learner_class(config.learner).trials(config)
    return {"trials": trials} if trials > 1 else {}


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    params, data = stage.params, inputs["data"]
    names = sorted(name for name in inputs if name.startswith("synthetic-"))
    corpus = mixing.mix(
        Policy.of(params["policy"]),
        Dataset.load(data.file(CORPUS)),
        Dataset.load(data.file(RESERVE)),
        [Dataset.load(inputs[name].file(ROWS)) for name in names],
        params["generation"],
        stage.seed,
        growing=params["growing"],
        trials=params.get("trials", 1),
    )
    corpus.save(place.folder / CORPUS)
    return with_history(stage, inputs, names[-1]) if names else {"sample_tokens": 0}


def cost(stage: Stage, size: Size) -> Cost:
    params = stage.params
    rows = sum(
        mixing.rows_in_corpus(Policy.of(params["policy"]), size.rows, params["generation"], growing=params["growing"])
    )
    disk, flops = size.row_disk(rows, size.config.data.block_size), rows * size.row_flops / 20
    return Cost(rows=rows, flops=flops, disk=disk, fixed_seconds=0.1)


MIX = StageKind[Size](name="mix", kind="mix", version=1, product=Product.ROWS, body=body, cost=cost, label=at)
