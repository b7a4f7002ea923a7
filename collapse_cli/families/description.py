"""What is said of a model family: by whom its options are read, what it takes, and what it is judged by."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from collapse_cli.families.section import Section

KNOWN = ("zipf", "world")  # values of data.source whose truth is known (data/known.py)
SHARE = "share"
LIMITS = {
    SHARE: (0.0, 1.0),
    "cosine": (-1.0, 1.0),
    "0–1": (0.0, 1.0),
    "0–100": (0.0, 100.0),
    "perplexity": (1.0, math.inf),
} | dict.fromkeys(("of the truth's", "std", "v₀", "W₂², v₀", "L2², squared", "|ŵ − w|²", "squared"), (0.0, math.inf))


@dataclass(frozen=True)
class Measure:
    """One field as a small plot.

    Attributes:
        name: of the field in metrics.jsonl.
        title, unit: of the plot and its vertical axis.
        reading: how to read it, one sentence.
        misses: what it does not see, one sentence.
        part: which entry of a field that is a list, if it is one.
        zero: whether the axis starts at 0.
    """

    name: str
    title: str
    unit: str
    reading: str
    misses: str
    part: int | None = None
    zero: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """What its values cannot be outside of: an interval over seeds that knows nothing of it is cut there."""
        return LIMITS.get(self.unit, (-math.inf, math.inf))


@dataclass(frozen=True)
class Headline:
    """The first measure of a family.

    Attributes:
        name: its field in `metrics.jsonl`.
        title: in words.
        log: whether it changes by factors, and belongs on a logarithmic axis.
        better: whether less or more of it is better; "" where neither is.
    """

    name: str
    title: str
    log: bool = False
    better: str = "less"


@dataclass(frozen=True)
class Theory:
    """Where the closed forms of a family's measures are: functions, `module:function`, imported when they are asked.

    Each takes the configuration as a plain tree first, and says None where no formula is known for that very protocol.

    Attributes:
        loop: of the tree, a field of `metrics.jsonl`, a policy's name and a generation: the field's expected value.
        cell: of the tree and the coordinates of a cell of a mixture: the expected headline measure.
        lineages: as `loop`, of one of several lineages; it takes that lineage's name before the generation.
        law: of the tree and a place of the grid: the threshold and the plateau of error against rows, either may be None.
    """

    loop: str = ""
    cell: str = ""
    law: str = ""
    lineages: str = ""


# options that another one switches off: their keys, whether it does in an experiment, and why nothing reads them
Unread = tuple[tuple[str, ...], Callable[[Any], bool], str]


def always(experiment: Any) -> bool:
    """For `Description.starts_anew`."""
    return True


def never(experiment: Any) -> bool:
    """For `Description.starts_anew`."""
    return False


@dataclass(frozen=True)
class Grid:
    """What a family has in experiments of the kind `mixture`.

    Attributes:
        axes: of the grid, besides rows and shares, those that mean something.
        headline: the measure that stands first.
        truth: the one that stands first in its place where the truth is known (data.source in `KNOWN`); None: the same.
        measures: that are shown, with how to read them.
        in_memory: whether whole cells are computed in memory, each from rows of its own.
        labels_real: whether the generator labels real rows, so that a cell needs as many inputs as it has rows.
        size: the option of the family's section that `mixture.size` stands in for; "" where it is none.
    """

    axes: tuple[str, ...]
    headline: Headline
    measures: tuple[Measure, ...]
    truth: Headline | None = None
    in_memory: bool = False
    labels_real: bool = False
    size: str = ""


@dataclass(frozen=True)
class Description:
    """A model family. All that is asked of a family by its name, without importing its learner.

    Attributes:
        name: as `learner = …` names it.
        learner: where its class is, `module:Class`; imported when it is needed.
        settings: its own section of the configuration, of its name; None where it has several, as `reads` says.
        reads: options and sections that it reads, besides those of its data and of the experiment's kind.
        rows: what a row of its data is.
        sources: the names of `data.source` that it takes; empty where a text or a folder of images is named.
        headline: the measure that stands first over generations.
        measures: of its own, shown over generations with how to read them.
        instruments: measures of samples and of models of text by the section of the page that they stand in.
        numbers: other fields of its rows that are numbers.
        needed: fields without which a row of its is damaged.
        grid: what it has in mixtures; None where it has none.
        light: whether it works without torch and transformers, whose import takes longer than many of its generations.
        diagnosed: whether its verdict is that of the rules of early and late collapse (`findings.diagnosis`).
        begins_with_a_model: whether `model` says what it begins with.
        perplexity: the heading of its table of perplexities; "" where it has none.
        floor: the option that says what counts as the probability of what was never seen; "" where nothing has none.
        may_stand_still: whether a generation may well be measured as the one before it was.
        by_test_row: whether generation 0 is compared with row by row of the test data.
        starts_anew: whether it does not matter in an experiment which model a fit starts from.
        unread: options of its own that another one switches off.
        theory: where the closed forms are; None where there are none.
        own_title: of the section of the page on its own measures, where it stands among other families of text.
    """

    name: str
    learner: str
    settings: type[Section] | None
    reads: tuple[str, ...]
    rows: Literal["text", "images", "numbers"]
    headline: Headline
    measures: tuple[Measure, ...]
    sources: tuple[str, ...] = ()
    instruments: Mapping[str, tuple[Measure, ...]] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()
    grid: Grid | None = None
    light: bool = True
    diagnosed: bool = False
    begins_with_a_model: bool = False
    perplexity: str = ""
    floor: str = ""
    may_stand_still: bool = True
    by_test_row: bool = False
    starts_anew: Callable[[Any], bool] = never
    unread: tuple[Unread, ...] = ()
    theory: Theory | None = None
    own_title: str = ""

    @property
    def text(self) -> bool:
        """Whether it is fitted to text and samples text."""
        return self.rows == "text"

    @property
    def drawn(self) -> bool:
        """Whether its data are a distribution: each seed draws real rows of its own."""
        return bool(self.sources)


TEST_LOSS = Measure(
    "test_loss",
    "Loss on real test rows",
    "loss a row",
    "Mean loss of the model on real rows that it never saw; rising as the model leaves the real distribution.",
    "An average: what is lost in a rare corner moves it little.",
)
