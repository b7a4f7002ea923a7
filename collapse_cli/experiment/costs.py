"""What the costs of stages depend on, and what they have in common. What each costs stands with its kind in `stages/`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Cost, Plan, Product, Stage, StageKind
from collapse_cli.learners.protocol import TRAINING_BYTES, WEIGHT_BYTES

ROW_BYTES = 4
RECORD_BYTES, FACTS_BYTES = (
    2000,
    500,
)  # of the record of a stage (ours have 1,000 to 4,000), and of what it says of a generation or cell
NUMBER_BYTES = 8  # of what is fitted without a network, and of what is measured of a row
ROW_MEASURES, TOKEN_MEASURES = 180, 48  # bytes of what is measured of a row of test text, and of each of its tokens
REAL_ROWS = 5000  # of real text, that samples are compared with
TOGETHER, TOGETHER_ROW = 0.2, 2e-5  # seconds in which a stage puts together what its shards found, and for each row
TWENTIETH = 1 / 20  # of fitting a row, that sampling or scoring one costs a family of numbers
# Shares of the speed of matrix products that stages reach, and seconds a step costs besides, are rough, from runs on two
# CPU cores. Times of finished stages of the same plan replace them.


def trains_adapter(stage: Stage) -> bool:
    """Whether what a stage leaves is an adapter, which lies on another model."""
    return bool(stage.of.product is Product.MODEL and stage.params.get("train", {}).get("adapter"))


@dataclass(frozen=True)
class Size:
    """What costs depend on.

    Attributes:
        parameters: all weights of the model.
        layer_parameters, head_parameters, layers: as `learners.Resolved` has them.
        rows, test_rows: of the original corpus, and of the test corpus.
        row_bytes, row_flops, adapter_parameters: as `learners.Resolved` has them: 0 for language models, and for those of
            which all weights are trained.
        public_rows: of the public text, in the lineage's tokens.
        data_bytes, tokenizer_bytes: of the real data as they are kept, and of the tokenizer, which is kept with each model, too; 0 where
            there is none, or nobody has looked.
    """

    config: Experiment
    parameters: int
    layer_parameters: int
    head_parameters: int
    layers: int
    rows: int
    test_rows: int
    row_bytes: int = 0
    row_flops: float = 0.0
    adapter_parameters: int = 0
    public_rows: int = 0
    data_bytes: int = 0
    tokenizer_bytes: int = 0

    @property
    def width(self) -> int:
        """About how many numbers the state of a language model is: a layer has 12 times its square of weights, or somewhat more."""
        return math.isqrt(self.layer_parameters // (12 * max(1, self.layers)))

    @property
    def through(self) -> int:
        """Weights that a token passes of which the next one is predicted."""
        return self.layer_parameters + self.head_parameters

    def trained_parameters(self, stage: Stage) -> int:
        """How many numbers a stage trains, and keeps: those of an adapter, or all of the model."""
        return self.adapter_parameters if trains_adapter(stage) else self.parameters

    def cost_of(self, stage: Stage) -> Cost:
        """What a stage needs; of one that is put together from shards, beside these."""
        kind = cast("StageKind[Size]", stage.of)  # as all of `KINDS`; the engine does not know what costs depend on
        cost = kind.cost(stage, self)
        cost = replace(cost, disk=cost.disk + RECORD_BYTES)
        if not stage.shards:
            return cost
        return replace(
            cost, tokens=0, flops=0.0, steps=0, amount=0.0, fixed_seconds=TOGETHER + cost.rows * TOGETHER_ROW
        )

    def rows_of(self, stage: Stage) -> int:
        """How many rows a stage leaves for others."""
        return self.cost_of(stage).rows

    def passes(self, rows: int) -> float:
        """How many times a fit goes over so many rows."""
        return learners.learner_class(self.config.learner).passes(self.config, rows)

    def row_disk(self, rows: int, tokens: int) -> int:
        """Bytes of rows that are kept, each of so many tokens where the model is one of language."""
        return rows * self.row_bytes if self.row_flops else ROW_BYTES * rows * tokens


@dataclass(frozen=True)
class Sizes:
    """What costs depend on, of each lineage by name; "" of one alone. A stage that several share is reckoned for the first."""

    lineages: Mapping[str, Size]
    plan: Plan

    def of(self, stage: Stage) -> Size:
        return self.lineages[self.plan.serves[stage.key][0].lineage]

    def cost_of(self, stage: Stage) -> Cost:
        """What a stage needs."""
        return self.of(stage).cost_of(stage)

    def seconds(self, stage: Stage, speed: float) -> float:
        """A first guess of the time of a stage at `speed` FLOP/s."""
        size = self.of(stage)
        return size.cost_of(stage).seconds(speed, size.layers)

    def trained_parameters(self, stage: Stage) -> int:
        return self.of(stage).trained_parameters(stage)

    def row_bytes(self, stage: Stage) -> int:
        """Of the rows that a stage leaves or goes through."""
        size = self.of(stage)
        return size.row_disk(max(size.cost_of(stage).rows, size.rows), size.config.data.block_size)

    def training_bytes(self, stage: Stage) -> int:
        """Of the model while a stage trains it (weights, gradients, Adam's two moments), or works with it."""
        size = self.of(stage)
        trained = size.trained_parameters(stage) if stage.of.product is Product.MODEL else 0
        return TRAINING_BYTES * trained + (WEIGHT_BYTES * size.parameters if trained != size.parameters else 0)

    @property
    def config(self) -> Experiment:
        """What all lineages share of their configurations can be asked of this one."""
        return self._first.config

    @property
    def _first(self) -> Size:
        return next(iter(self.lineages.values()))

    @property
    def parameters(self) -> int:
        """Of the largest model."""
        return max(size.parameters for size in self.lineages.values())

    @property
    def layers(self) -> int:
        """Of the deepest model."""
        return max(size.layers for size in self.lineages.values())

    @property
    def rows(self) -> int:
        """Of the largest original corpus."""
        return max(size.rows for size in self.lineages.values())

    @property
    def known(self) -> bool:
        """Whether a family says what its rows cost at the nominal speed."""
        return self._first.row_flops > 0


def put_together(size: Size, rows: int, seconds: float) -> Cost:
    """The cost of rows that are read or chosen, and left for others."""
    disk, flops = size.row_disk(rows, size.config.data.block_size), rows * size.row_flops * TWENTIETH
    return Cost(rows=rows, flops=flops, disk=disk, fixed_seconds=seconds)


def scored(size: Size, rows: int, efficiency: float = 0.4) -> Cost:
    """The cost of a family of numbers that looks at so many rows, and keeps a number of each."""
    return Cost(flops=rows * size.row_flops * TWENTIETH, disk=NUMBER_BYTES * rows, efficiency=efficiency, amount=rows)


def of_continuation(size: Size, prompt: int, new: int) -> float:
    """Tokens of a row that is continued: of a prompt, whose tokens do not pass the model's head, and new ones, each as many as there are beams."""
    return prompt * size.layer_parameters / max(1, size.through) + new


def continued(size: Size, rows: int) -> Cost:
    """The cost of a language model that looks at so many continuations."""
    sample = size.config.sample
    prompt = 1 if sample.prompts == "none" else sample.prompt_tokens
    passed = of_continuation(size, prompt, sample.new_tokens)
    return Cost(
        tokens=rows * sample.new_tokens,
        amount=rows * passed,
        flops=2.0 * rows * size.through * passed,
        disk=40 * rows,
        steps=-(-rows // 32),
        efficiency=0.4,
        step_seconds=0.01,
    )
