"""What a learner is: all that others ask of a model family's class and of a learner at work."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from collapse_cli.config.cell import Cell
from collapse_cli.config.experiment import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import ALL_ROWS as ALL_ROWS
from collapse_cli.engine.stage import Shard as Shard
from collapse_cli.engine.stage import Tell as Tell

Facts = dict[str, Any]
"""What was found out, as JSON; much of it becomes fields of `metrics.jsonl`."""

Arrays = dict[str, np.ndarray]
"""Named arrays, each with its rows in order: what was found of rows."""

# what `Learner.encode` leaves in the folder of the data stage: the original corpus, real rows beyond it, and others to measure
# and to choose by
CORPUS, RESERVE, TEST, VALID = "train.safetensors", "reserve.safetensors", "test.safetensors", "valid.safetensors"
TOKENIZER = "tokenizer"  # its folder, beside the rows of text
WEIGHT_BYTES, TRAINING_BYTES = 4, 16  # of a float32 weight; with its gradient and Adam's two moments

Verb = Literal["data", "train", "sample", "select", "eval", "examine", "between"]
"""A part of a learner's work, by the name that keys of blocks have for it."""


def silent(done: int, total: int, unit: str) -> None:
    """A progress bar that nobody sees."""


@dataclass(frozen=True)
class Hints:
    """Where things are on this machine. None of it is in a key: their content is, by its hash.

    Attributes:
        model, tokenizer: folders; "" where there is none.
        model_id, revision: what the Hub calls the model, and its commit; "" where it is not of the Hub.
        text: the arguments of `data.dataset.load_text`.
        images: the name of a source of images.
        detector: a folder or Hub id of a model that tells real text from synthetic.
        judges: by hash, folders or Hub ids of models that rows are scored by.
        foreign: by hash, files and folders of text that someone else's model wrote.
        foreign_column: the column that holds it.
        encoded: of a stage that reads real data, the folder of the data stage.
        about: the facts of the data stage.
        anchor: the folder of the model that one is held to while it is trained, where that is among the inputs of a stage.
        bases: by the folder of an adapter, the folder of the model it lies on; of those among the inputs of a stage.
        public: of the public text, the arguments of `data.dataset.load_text`; empty where there is none.
        lineages: of an experiment with several, those of each by name.
        devices: how many devices of this machine train one model together.
    """

    model: str = ""
    tokenizer: str = ""
    model_id: str = ""
    revision: str = ""
    text: Mapping[str, str] = field(default_factory=dict)
    images: str = ""
    detector: str = ""
    judges: Mapping[str, str] = field(default_factory=dict)
    foreign: Mapping[str, str] = field(default_factory=dict)
    foreign_column: str = "text"
    encoded: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    anchor: Path | None = None
    bases: Mapping[str, Path] = field(default_factory=dict)
    public: Mapping[str, str] = field(default_factory=dict)
    lineages: Mapping[str, "Hints"] = field(default_factory=dict)
    devices: int = 1

    def of_lineage(self, name: str) -> "Hints":
        """Those of one lineage; of an experiment with one alone its own."""
        return self.lineages.get(name, self)

    def with_devices(self, count: int) -> "Hints":
        """The same, for so many devices."""
        lineages = {name: own.with_devices(count) for name, own in self.lineages.items()}
        return replace(self, devices=count, lineages=lineages)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        bases = {name: str(folder) for name, folder in self.bases.items()}
        lineages = {name: own.record() for name, own in self.lineages.items()}
        places = {name: folder and str(folder) for name, folder in (("encoded", self.encoded), ("anchor", self.anchor))}
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**plain, "bases": bases, "lineages": lineages, **places}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Hints":
        """What `record` gave, after it was JSON."""
        bases = {name: Path(folder) for name, folder in record.get("bases", {}).items()}
        lineages = {name: cls.from_record(own) for name, own in record.get("lineages", {}).items()}
        places = {name: Path(folder) for name in ("encoded", "anchor") if (folder := record.get(name))}
        return cls(**{**record, "bases": bases, "lineages": lineages, **places})

    def real(self, file: str = "") -> Path:
        """The folder of the data stage, or a file in it."""
        assert self.encoded is not None, "a stage without real data among its inputs"
        return self.encoded / file


@dataclass(frozen=True)
class Resolved:
    """A configuration with all that had to be looked up: hashes, revisions, dtypes; and what it says of the model.

    Attributes:
        config: the configuration, filled in.
        hints: where the model, the tokenizer and the data are on this machine.
        parameters: all weights of the model.
        layer_parameters, head_parameters: those of the layers, and of the output head, for counting FLOPs.
        layers: how many layers there are.
        positions: how many tokens the model takes at once; None where there is no limit.
        row_bytes, row_flops: of families that are no language models: what a row of data holds, and what fitting one
            costs, all epochs together; 0 for language models, whose costs follow from their parameters.
        notes: what the user should know before anything is computed.
        adapter_parameters: those that are trained where `train.adapter` is; 0 where all are.
    """

    config: Experiment
    hints: Hints
    parameters: int
    layer_parameters: int = 0
    head_parameters: int = 0
    layers: int = 1
    positions: int | None = None
    row_bytes: int = 0
    row_flops: float = 0.0
    notes: tuple[str, ...] = ()
    adapter_parameters: int = 0


@dataclass(frozen=True)
class Outcome:
    """Rows that were made or measured, and what was found out about them."""

    rows: Dataset
    facts: Facts


@dataclass(frozen=True)
class Fewer:
    """What a large language model does less of in a short trial, by which its work is timed. 0: no less.

    Attributes:
        steps: of a training.
        batch: rows of a step, at most.
        prompt_tokens, new_tokens: of rows that are continued, at most.
    """

    steps: int = 0
    batch: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0


ALL = Fewer()


class Learner(Protocol):
    """A model family. Every verb takes its seed, and returns what it made together with what it found out.

    What is asked before anything runs is asked of the class, with a configuration. A learner at work is made from the
    parameters of its stage: what it depends on must be among them, and nothing else can be read.

    Class attributes: `examines`, whether samples are measured under generation 0's model (`look_at_real`, `examine`);
    `block`, how many generations make a stage unless the configuration says so. What is asked of a family without its
    learner stands in `families`.
    """

    examines: ClassVar[bool]
    block: ClassVar[int]

    # --- what is looked up before anything runs -----------------------------------------------------------------------

    @classmethod
    def resolve(cls, config: Experiment) -> Resolved:
        """Find what a configuration names, and check that it fits together.

        Raises:
            InputError: for whatever is missing or does not fit.
        """
        ...

    @classmethod
    def params(cls, config: Experiment, verb: Verb) -> dict[str, Any]:
        """What a stage depends on that does this part of the work, of a resolved configuration."""
        ...

    @classmethod
    def written_in(cls, config: Experiment) -> Mapping[str, Any]:
        """What rows are written in, of a resolved configuration: who has an equal one can read them as they are.

        Of learners of text it is their tokenizer; others can read the rows of all lineages.
        """
        ...

    @classmethod
    def drawn(cls, config: Experiment) -> bool:
        """Whether each seed draws real rows of its own, because the source is a distribution."""
        ...

    @classmethod
    def trials(cls, config: Experiment) -> int:
        """Independent experiments that lie beside each other in every row, (rows, trials, ...); 1 where there is one alone."""
        ...

    @classmethod
    def with_tokenizer_of(cls, config: Experiment, encoded: Path | None) -> Experiment:
        """A configuration whose data are other ones, read as a fitted model of the run reads them.

        Args:
            encoded: the folder of the run's data stage, with the tokenizer that it made from its text, if it
                made one; None where the store has that no longer.

        Raises:
            InputError: when that is needed and gone.
        """
        ...

    @classmethod
    def about(cls, scored: Mapping[str, Any], own: Mapping[str, Any]) -> Facts:
        """Facts of the data that a model is scored on, with those of its `own` data that its measures refer to.

        Raises:
            InputError: when those are needed and not known.
        """
        ...

    @classmethod
    def passes(cls, config: Experiment, rows: int) -> float:
        """How many times a fit goes over a corpus of so many rows."""
        ...

    @classmethod
    def in_one_pass(cls, config: Experiment, fewer: Fewer = ALL) -> Experiment:
        """The configuration of a short trial, by which work is timed: a fit goes over its rows once, and is otherwise what it was.

        Args:
            fewer: what a language model does less of besides.
        """
        ...

    # --- the verbs ----------------------------------------------------------------------------------------------------

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        """`params`: of the stage at work, as the class gave them. A model is made or loaded when it is first needed."""

    def encode(self, folder: Path, *, seed: int) -> Facts:
        """Turn real data into Datasets in `folder`: `CORPUS`, `TEST`, `RESERVE` and perhaps `VALID`.

        Returns:
            `splits`, with the `rows` of each; `notes`, what the user should know; and what else is known of them.
        """
        ...

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts:
        """Be the model of a corpus, from the model that was loaded or from the base model; `train_loss` and more."""
        ...

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Outcome:
        """Make rows to train the next generation on: one row out for each row in.

        Args:
            prompts: the rows, `stream` (a number of its own for each), and `extra`: rows that are only to be shown, and
                do not count in the facts.
        """
        ...

    def score(self, data: Dataset) -> np.ndarray:
        """(rows,) one loss per row; lower is better."""
        ...

    def measure(self, test: Dataset, first: Dataset | None = None) -> Outcome:
        """Score the test data: measures, and what generation 0 is to be remembered by.

        Args:
            first: the rows that this returned for generation 0, to compare with.
        """
        ...

    def look_at_real(self, folder: Path) -> Facts:
        """Leave in `folder` what samples are to be compared with: real rows as this model sees them."""
        ...

    def examine(
        self, samples: Dataset, shown: Dataset, prompts: Dataset, *, real: Path, first: Dataset | None
    ) -> Outcome:
        """Measure rows that another model made, with this model for a reference.

        Args:
            samples, shown: what `sample` made of rows of `prompts` (`row` says which), and of the rows to show.
            real: where `look_at_real` left what it did.
            first: the rows that this returned for generation 0; None for that itself.
        """
        ...

    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...


class Sizable(Learner, Protocol):
    """A learner whose cells of a mixture are stages of the loop, each with a model of its own size."""

    @classmethod
    def sized(cls, config: Experiment, size: int) -> Experiment:
        """The configuration with a model of that size.

        Raises:
            InputError: for a model that has one already.
        """
        ...


class Comparable(Learner, Protocol):
    """A learner of text whose models can be held against each other, token by token."""

    @property
    def unseen_nll(self) -> float:
        """What a token without any probability counts as in losses, in nats."""
        ...

    def continued(self, prompts: Dataset) -> Dataset:
        """What of each row it continues when it samples."""
        ...

    def token_losses(self, rows: Dataset) -> np.ndarray:
        """(rows, width - 1) float64 loss of each token but the first in nats; NaN where nothing is predicted, inf without probability."""
        ...

    def continuation_losses(self, prompts: Dataset, new: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """(rows,) summed losses in nats of what continues prompts, and how many of its tokens are predicted."""
        ...

    def divergences(self, other: "Comparable", rows: Dataset) -> np.ndarray:
        """As `token_losses`, the Jensen-Shannon divergence of both models' predictions in bits; `other` is of the same class."""
        ...


class Mixing(Learner, Protocol):
    """A learner that does whole cells of a mixture in memory."""

    def cell(self, cell: Cell, *, seed: int, scratch: Path) -> dict[str, float]:
        """One cell, from its rows to its measures."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """A learner that does its long work on some of the rows alone: what it finds of a row is the same whatever rows are beside it.

    `sample` is `sampled` of what `continue_part` gives for all shards, one behind the other: of `ALL_ROWS`, or of several. So are
    `measure` and `examine`.
    """

    def continue_part(self, prompts: Dataset, shard: Shard, *, seed: int, scratch: Path) -> Arrays:
        """The new tokens of those prompts that a shard has; `prompts` are all of them."""
        ...

    def sampled(self, prompts: Dataset, found: Arrays) -> Outcome:
        """As `Learner.sample`, of what was found of all prompts."""
        ...

    def score_part(self, test: Dataset, shard: Shard) -> Arrays:
        """What of those test rows that a shard has is to be measured; `test` are all of them."""
        ...

    def measured(self, test: Dataset, first: Dataset | None, found: Arrays) -> Outcome:
        """As `Learner.measure`, of what was found of all test rows."""
        ...

    def examine_part(self, samples: Dataset, prompts: Dataset, shard: Shard) -> Arrays:
        """What of those samples that a shard has is to be measured; `samples` are all of them."""
        ...

    def examined(
        self,
        samples: Dataset,
        shown: Dataset,
        prompts: Dataset,
        *,
        real: Path,
        first: Dataset | None,
        found: Arrays,
    ) -> Outcome:
        """As `Learner.examine`, of what was found of all samples."""
        ...


@runtime_checkable
class Editing(Protocol):
    """A learner that can say of each token of a row how probable it is, and draw others."""

    def edited(self, rows: Dataset, *, above: float, top: int, seed: int) -> Outcome:
        """Rows whose tokens above a probability are drawn anew from the `top` most probable ones; `changed_rows` and more."""
        ...
