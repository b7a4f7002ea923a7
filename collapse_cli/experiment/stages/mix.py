"""The next corpus: real rows and synthetic rows, as the policy says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import Size, put_together
from collapse_cli.experiment.stages.base import CORPUS, RESERVE, ROWS, at, on_one_thread, with_history


def mix_stage(
    config: Experiment, policy: Policy, data: Stage, samples: Sequence[Stage], seed: int, generation: int
) -> Stage:
    """The corpus of a generation, of real rows and of what `samples` made."""
    now = policy.at(generation)
    mixed = Mixed(now, config.mix.size == "growing", generation, trials_apart(config, now))
    params = {"learner": config.learner, **mixed.params()}
    inputs = {"data": data, **{f"synthetic-{i:05d}": stage for i, stage in enumerate(samples, 1)}}
    return Stage(MIX, params, inputs, mixing.order_seed(policy, seed, generation))


@dataclass(frozen=True)
class Mixed:
    """How a corpus is put together.

    Attributes:
        growing: whether it grows with the generations.
        generation: whose corpus it is.
        trials: how many draw their rows apart.
    """

    policy: Policy
    growing: bool
    generation: int
    trials: int = 1

    def params(self) -> dict[str, Any]:
        """As a stage's parameters have it; a key has trials only where there are several."""
        params = vars(self) | {"policy": self.policy.params()}
        return params if self.trials > 1 else {name: value for name, value in params.items() if name != "trials"}

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Mixed":
        """What a stage's parameters say."""
        return cls(Policy.of(params["policy"]), params["growing"], params["generation"], params.get("trials", 1))


def trials_apart(config: Experiment, policy: Policy) -> int:
    """How many trials draw their rows apart: 1 where the policy draws none."""
    return learners.learner_class(config.learner).trials(config) if policy.draws else 1


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    mixed, data = Mixed.of(stage.params), inputs["data"]
    names = sorted(name for name in inputs if name.startswith("synthetic-"))
    corpus = mixing.mix(
        mixed.policy,
        Dataset.load(data.file(CORPUS)),
        Dataset.load_mapped(data.file(RESERVE)),
        [Dataset.load(inputs[name].file(ROWS)) for name in names],
        mixed.generation,
        stage.seed,
        growing=mixed.growing,
        trials=mixed.trials,
    )
    corpus.save(place.folder / CORPUS)
    made = names and mixed.policy.needs_samples(
        mixed.generation
    )  # or the newest rows there are were made for one before
    return with_history(stage, inputs, names[-1]) if made else {"sample_tokens": 0}


def cost(stage: Stage, size: Size) -> Cost:
    mixed = Mixed.of(stage.params)
    rows = sum(mixing.rows_in_corpus(mixed.policy, size.rows, mixed.generation, growing=mixed.growing))
    return put_together(size, rows, 0.1)


MIX = StageKind[Size](name="mix", kind="mix", version=1, product=Product.ROWS, body=body, cost=cost, label=at)
