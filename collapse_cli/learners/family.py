"""What the families that are no language models have in common: how they are set up, saved and measured."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from collapse_cli import families
from collapse_cli.config.experiment import Experiment
from collapse_cli.config.families import DRAWN
from collapse_cli.config.pool import Segment
from collapse_cli.data.dataset import WEIGHTS, Dataset
from collapse_cli.errors import InputError
from collapse_cli.families.section import for_key
from collapse_cli.learners.protocol import ALL, Facts, Fewer, Hints, Outcome, Resolved, Tell, Verb

MODEL = "model.safetensors"
State = dict[str, np.ndarray]


class Family(ABC):
    """A model family whose state is a few arrays. Implements `Learner`; subclasses say what is their own.

    Class attributes:
        section: its section of the configuration, also its name.
        examines, block: as `Learner` has them. `block` above 1 is for families whose generations take
            milliseconds: many make one stage, and `state` and `restore` carry a model from one to the next.
        summarises: whether a fit needs only sums over rows (`summarise`, `merge`, `fit_summary`), so that a corpus that
            accumulates is never held as rows.
    """

    section: ClassVar[str]
    examines: ClassVar[bool] = False
    block: ClassVar[int] = 1
    summarises: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        """Subclasses read `params` as settings of their own."""
        self.hints, self._tell = hints, tell
        self._segment, self._behind = Segment(*params.get("segment", (1, 1))), int(params.get("behind", 0))

    # --- what is looked up before anything runs -----------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def resolve(cls, config: Experiment) -> Resolved: ...

    @classmethod
    def params(cls, config: Experiment, verb: Verb) -> dict[str, Any]:
        """By default: the data section's part for `data`, the family's own section for all else."""
        return cls.real_params(config) if verb == "data" else {"model": for_key(getattr(config, cls.section))}

    @classmethod
    def real_params(cls, config: Experiment) -> dict[str, Any]:
        """`data_params`, and the part of the original corpus that a lineage has, where it has not all of it."""
        segment = config.data.segment
        return cls.data_params(config) | ({} if segment.whole else {"segment": [segment.part, segment.of]})

    @classmethod
    @abstractmethod
    def data_params(cls, config: Experiment) -> dict[str, Any]:
        """What the rows of real data depend on."""

    @classmethod
    def written_in(cls, config: Experiment) -> Mapping[str, Any]:
        return {}

    @classmethod
    def drawn(cls, config: Experiment) -> bool:
        return config.data.source in DRAWN

    @classmethod
    def trials(cls, config: Experiment) -> int:
        return 1

    @classmethod
    def with_tokenizer_of(cls, config: Experiment, encoded: Path | None) -> Experiment:
        """Rows of numbers are read as they are."""
        return config

    @classmethod
    def about(cls, scored: Mapping[str, Any], own: Mapping[str, Any]) -> Facts:
        return dict(scored)

    @classmethod
    def passes(cls, config: Experiment, rows: int) -> float:
        """Once, by default: what a fit does besides takes as long for any number of passes."""
        return 1.0

    @classmethod
    def in_one_pass(cls, config: Experiment, fewer: Fewer = ALL) -> Experiment:
        return config

    @classmethod
    def check_source(cls, source: str) -> None:
        """Whether the source is one that the family takes, where all have names.

        Raises:
            InputError: naming those that are.
        """
        sources = families.of(cls.section).sources
        if source not in sources:
            known = ", ".join(sources)
            raise InputError(f"data.source = {source!r} cannot be taken by the learner {cls.section}; it takes {known}")

    # --- verbs --------------------------------------------------------------------------------------------------------

    def encode(self, folder: Path, *, seed: int) -> Facts:
        """The real rows, as `real` gives them, and how many there are."""
        parts, notes = self.real(seed)
        for name, rows in () if self._segment.whole else [*parts.items()]:
            if name in ("train", "reserve"):
                parts[name] = rows.take(np.arange(len(rows))[self._segment.rows(len(rows))])
        if self._behind:
            parts["train"] = parts["train"].take(np.arange(self._behind, len(parts["train"])))
        if not len(parts["train"]):
            raise InputError(
                f"data.segment = {self._segment}: the original corpus has fewer rows than parts; raise data.rows"
            )
        for name, part in parts.items():
            part.save(folder / f"{name}.safetensors")
        return {"splits": {name: {"rows": len(part)} for name, part in parts.items()}, "notes": notes}

    @abstractmethod
    def real(self, seed: int) -> tuple[dict[str, Dataset], list[str]]:
        """`train`, `test` and `reserve` rows, and what the user should know of them."""

    @abstractmethod
    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts: ...

    @abstractmethod
    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Outcome: ...

    @abstractmethod
    def score(self, data: Dataset) -> np.ndarray: ...

    def measure(self, test: Dataset, first: Dataset | None = None) -> Outcome:
        """Mean loss on the test rows as `test_loss`, and the measures of the family; losses of the rows."""
        width, own = test.arrays["x"].shape[1:], self.width
        if width != own:
            there, made = (" x ".join(map(str, shape)) for shape in (width, own))
            raise InputError(
                f"the rows to score hold {there} numbers each, but the model was made of rows of {made}; give it such rows"
            )
        losses = self.score(test)
        mean = float(losses.mean(dtype=np.float64))
        if not math.isfinite(mean):
            raise InputError(f"the model's loss on the test rows is {mean}; {self.section} cannot go on from there")
        facts = {"test_loss": mean, **self.own_measures(test, first)}
        return Outcome(self.remembered(test, losses), facts)

    def remembered(self, test: Dataset, losses: np.ndarray) -> Dataset:
        """What generation 0 is to be remembered by, for later ones to be compared with: its losses on the test rows."""
        return Dataset({"loss": losses}, test.origin)

    def own_measures(self, test: Dataset, first: Dataset | None) -> Facts:
        """Measures beside `test_loss`; numbers only."""
        return {}

    def beside(self, others: Sequence[State]) -> Facts:
        """How the model stands to those of other lineages at the same generation: numbers; none of a family that has no measure of it."""
        return {}

    def look_at_real(self, folder: Path) -> Facts:
        raise NotImplementedError

    def examine(
        self, samples: Dataset, shown: Dataset, prompts: Dataset, *, real: Path, first: Dataset | None
    ) -> Outcome:
        raise NotImplementedError

    @property
    @abstractmethod
    def width(self) -> tuple[int, ...]:
        """The shape of `x` in a row that the fitted model can score."""

    # --- state --------------------------------------------------------------------------------------------------------

    @abstractmethod
    def state(self) -> State:
        """The model as named arrays: all that `restore` needs to sample and to score."""

    @abstractmethod
    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Be the model of a `state`."""

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(array) for name, array in self.state().items()}, folder / MODEL)

    def load(self, folder: Path) -> None:
        self.restore(Dataset.load_arrays(folder / MODEL))

    # --- sums over rows, where `summarises` ---------------------------------------------------------------------------

    def summarise(self, rows: Dataset) -> State:
        """Sufficient statistics of rows."""
        raise NotImplementedError

    def merge(self, before: State, more: State) -> State:
        """Sufficient statistics of two sets of rows together."""
        raise NotImplementedError

    def fit_summary(self, summary: State) -> Facts:
        """The model of sufficient statistics."""
        raise NotImplementedError

    def scaled(self, summary: State, weight: float) -> State:
        """Sufficient statistics of the same rows where each counts so many times."""
        raise NotImplementedError

    def weighed(self, real: State, synthetic: State, weights: tuple[float, float]) -> State:
        """Sufficient statistics of a corpus of real and synthetic rows, each of which has its weight."""
        return self.merge(self.scaled(real, weights[0]), self.scaled(synthetic, weights[1]))

    def summary_of(self, data: Dataset) -> State:
        """Sufficient statistics of a corpus, merged generation by generation: to the last bit what a running sum gives.

        Rows of one kind have one weight: there are few weights.
        """
        if (weights := data.arrays.get(WEIGHTS)) is not None:
            plain = Dataset({name: array for name, array in data.arrays.items() if name != WEIGHTS}, data.origin)
            kinds = [
                (np.flatnonzero(there & (weights == weight)), float(weight))
                for there in (data.origin == 0, data.origin != 0)
                for weight in dict.fromkeys(weights[there].tolist())
            ]
            first, *others = (self.scaled(self.summary_of(plain.take(rows)), weight) for rows, weight in kinds)
            for other in others:
                first = self.merge(first, other)
            return first
        parts = [data.take(np.flatnonzero(data.origin == origin)) for origin in np.unique(data.origin)]
        summary = self.summarise(parts[0])
        for part in parts[1:]:
            summary = self.merge(summary, self.summarise(part))
        return summary


def generator(seed: int) -> np.random.Generator:
    """Random numbers of one stage."""
    return np.random.Generator(np.random.Philox(seed))


def normals(prompts: Dataset, shape: Sequence[int], seed: int) -> np.ndarray:
    """(rows, *shape) standard normal numbers; a row's depend on its `stream` and the seed, not on the rows beside it.

    Numbers are drawn for streams 0..max and then picked: a little more work than rows, and no state per row.
    """
    streams = prompts.arrays["stream"]
    if len(streams) == 0:
        return np.empty((0, *shape))
    drawn = generator(seed).standard_normal((int(streams.max()) + 1, *shape))
    picked: np.ndarray = drawn[streams]
    return picked
