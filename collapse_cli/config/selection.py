"""The section `select`: which of the rows that a model made enter the next corpus. Checked without importing what chooses.

`BY` says of each score by name where it is and what it reads, `DO` the same of steps that change rows. A new one is a line here and
a file in `collapse_cli/selection/`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pydantic import model_validator

from collapse_cli.config.names import nearest
from collapse_cli.families.section import Section, added

PLUGIN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
Need = Literal["reference", "maker"]
MOST_CANDIDATES = 1000  # for each row that is needed


@dataclass(frozen=True)
class Kind:
    """A score, or a way to change rows, as a step may name it.

    Attributes:
        where: its class, `module:Class`; imported when it is needed.
        unit: of its numbers; "" where it has none to tell.
        reads: options of a step that it reads, besides those of the rule.
        share: whether its numbers are shares or probabilities, 0 to 1, so that `weight = "power"` can take them.
        text: whether it takes rows of text alone.
        needs: which models it looks at: `reference` is generation 0 of the same policy and seed, `maker` the one that made the rows.
    """

    where: str
    unit: str = ""
    reads: tuple[str, ...] = ()
    share: bool = False
    text: bool = False
    needs: tuple[Need, ...] = ()


SCORES = "collapse_cli.selection.scores"
BY: Mapping[str, Kind] = {
    "perplexity": Kind(f"{SCORES}.perplexity:Perplexity", "nats/token", needs=("reference",)),
    "surprise": Kind(f"{SCORES}.perplexity:Surprise", "nats/token", needs=("maker",)),
    "repetition": Kind(f"{SCORES}.repetition:Repetition", "share", ("gram",), share=True, text=True),
    "length": Kind(f"{SCORES}.length:Length", "tokens", text=True),
    "duplicates": Kind(f"{SCORES}.duplicates:Duplicates", "earlier equal rows"),
}
DO: Mapping[str, Kind] = {}
RULES = ("highest", "lowest", "middle")  # that keep a number of rows
OWN: Mapping[str, tuple[str, ...]] = {  # options of a rule
    **dict.fromkeys(RULES, ("share",)),
    "threshold": ("threshold", "side"),
    "power": ("bias", "max_repeats"),
}


def candidates(oversample: float, rows: int) -> int:
    """How many rows are made where so many are needed: `oversample` as it is written times that, rounded up."""
    return math.ceil(Fraction(repr(oversample)) * rows)


class Step(Section):
    """One choice among rows, or one change of them."""

    by: str = added("")
    """The score that rows are chosen by: perplexity (under generation 0, or `model`), surprise (perplexity under the model that made
    them), repetition, duplicates, length. Losses are in nats per token, the logarithm of the perplexity."""
    do: str = added("")
    """Instead of `by`: how rows are changed, none thrown away."""
    keep: Literal["", "highest", "lowest", "middle", "threshold"] = added("")
    """Which rows stay: those with the highest or the lowest score, those in the middle, or all on one side of `threshold`."""
    share: float = added(0.0, ge=0, lt=1)
    """Of highest, lowest and middle, before the last step: the share of the rows that stays. The last step keeps as many as are needed."""
    threshold: float | None = added(None)
    """Of `keep = "threshold"`: the score at the border. A row at the border itself stays."""
    side: Literal["", "above", "below"] = added("")
    """Of `keep = "threshold"`: the side that stays."""
    weight: Literal["", "power"] = added("")
    """Instead of `keep`: rows are drawn at random, with weight (1 - score) ** bias; of scores from 0 to 1, in the last step."""
    bias: float = added(1.0, gt=0, le=1000)
    """Of `weight = "power"`: its exponent. The higher, the more it is the lowest scores alone."""
    max_repeats: int = added(1, ge=1, le=1000)
    """Of `weight = "power"`: how often a row may be drawn at most."""
    gram: int = added(3, ge=1, le=16)
    """Of repetition: tokens of a phrase. The score is the share of a row's phrases that are repetitions within it."""

    @property
    def name(self) -> str:
        """What it does, in a word."""
        return self.by or self.do

    @property
    def rule(self) -> str:
        """How it chooses: a value of `keep`, or of `weight`."""
        return self.keep or self.weight

    @property
    def kind(self) -> Kind:
        """What its score is, or its change; of a function of the user's own nothing is known but where it is."""
        return DO[self.do] if self.do in DO else BY.get(self.by, Kind(self.by, share=True))

    @property
    def needs(self) -> tuple[Need, ...]:
        """The models that it looks at."""
        return self.kind.needs

    def fault(self, *, last: bool) -> str:
        """What is wrong with it, in words; empty where nothing is."""
        if self.do:
            return self._of_the_change()
        if self.by not in BY and not PLUGIN.fullmatch(self.by):
            return f"by = {self.by!r} is no score{nearest(self.by, BY)}; known: {', '.join(BY)}"
        if self.keep and self.weight:
            return f"keep = {self.keep} and weight = {self.weight} exclude each other; leave one out"
        if not self.rule:
            return f'by = {self.by} says no rule; add keep = "highest", "lowest", "middle" or "threshold", or weight = "power"'
        return self._of_the_rule(last) or self._unread()

    def _of_the_change(self) -> str:
        if self.by or self.rule:
            return f"do = {self.do} changes rows and throws none away; give by, keep and weight a step of their own"
        if self.do not in DO:
            return f"do = {self.do!r} is no change of rows{nearest(self.do, DO)}; known: {', '.join(DO)}"
        return self._unread()

    def _of_the_rule(self, last: bool) -> str:
        if self.keep == "threshold" and (self.threshold is None or not self.side):
            return 'keep = threshold needs the threshold and the side that stays: threshold = NUMBER and side = "above" or "below"'
        if self.weight and not self.kind.share:
            return f"weight = power takes scores from 0 to 1, and {self.by} is in {self.kind.unit}; say keep instead"
        if self.weight and not last:
            return "weight = power draws as many rows as are needed, so it must be the last step"
        if self.keep in RULES and last and self.share:
            return f"share = {self.share:g} is for steps before the last, which keeps as many rows as are needed; say oversample"
        if self.keep in RULES and not last and not self.share:
            return f"keep = {self.keep} before the last step needs share, the share of the rows that stays"
        return ""

    def _unread(self) -> str:
        """The first option that says something to another rule or score."""
        read = {*OWN.get(self.rule, ()), *self.kind.reads, "by", "do", "keep", "weight"}
        for name, field in type(self).model_fields.items():
            if name in Step.model_fields and name not in read and getattr(self, name) != field.get_default():
                rule = f" and {'keep' if self.keep else 'weight'} = {self.rule}" if self.rule else ""
                return f"nothing reads {name} with {'do' if self.do else 'by'} = {self.name}{rule}"
        return ""


class SelectConfig(Step):
    """Which of the rows that a model made enter the next corpus; without a score all do."""

    oversample: float = added(1.0, ge=1, le=MOST_CANDIDATES)
    """Rows that are made for each that is needed; the first are those that would be made without it."""
    over: Literal["synthetic", "pool"] = added("synthetic")
    """What is chosen among: the rows that the newest model made; or the whole pool, in which the policy's real rows compete, too."""
    short: Literal["error", "shrink", "real"] = added("error")
    """When fewer rows stay than are needed: stop, train on fewer, or fill up with real rows of the original corpus."""
    steps: tuple[Step, ...] = added((), max_length=16)
    """Several steps in order, each a table with the options above but oversample, over and short."""

    @property
    def on(self) -> bool:
        """Whether anything is chosen or changed."""
        return bool(self.name or self.steps)

    @property
    def among(self) -> str:
        """Among which rows it is chosen: as `over`; "" where all of them enter."""
        return self.over if self.on else ""

    @property
    def chosen(self) -> tuple[Step, ...]:
        """The steps, in order."""
        own = {name: getattr(self, name) for name in Step.model_fields}
        return self.steps or ((Step.model_construct(**own),) if self.name else ())

    @model_validator(mode="after")
    def _means_something(self) -> "SelectConfig":
        steps = self.chosen
        if self.steps and any(getattr(self, name) != field.get_default() for name, field in Step.model_fields.items()):
            raise ValueError("give one step in [select] itself, or several as [[select.steps]], not both")
        choosing = [number for number, step in enumerate(steps, 1) if not step.do]
        for number, step in enumerate(steps, 1):
            if fault := step.fault(last=number == max(choosing, default=0)):
                raise ValueError(f"step {number}: {fault}" if self.steps else fault)
        if not steps:
            if any(getattr(self, name) != field.get_default() for name, field in type(self).model_fields.items()):
                raise ValueError('it chooses nothing; say by what: by = "surprise" and keep = "highest", for example')
            return self
        if not choosing and (self.oversample > 1 or self.over == "pool"):
            raise ValueError(
                "its steps change rows and choose none; leave oversample and over out, or add a step with by and keep"
            )
        if (
            self.oversample == 1
            and self.over == "synthetic"
            and len(choosing) == 1
            and steps[choosing[0] - 1].keep in RULES
        ):
            raise ValueError(
                f"keep = {steps[choosing[0] - 1].keep} with oversample = 1 keeps every row; raise oversample (2: two candidates for each row)"
            )
        return self
