"""The section `select`: which of the rows that a model made enter the next corpus. Checked without importing what chooses.

`BY` says of each score by name where it is and what it reads, `DO` the same of steps that change rows. A new one is a line here and
a file in `collapse_cli/selection/`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from pydantic import model_validator

from collapse_cli.config.names import nearest
from collapse_cli.families.section import Section, UserPath, added

PLUGIN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
Need = Literal["reference", "maker"]
Input = Literal["detector", "first"]
LOOKED_UP = ("detector", "detector_sha256", "model", "model_sha256", "plugin_sha256")  # options of a step
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
        verdict: whether its numbers are 1 for rows that stay and 0 for others, so that no rule need be named.
        needs: which models it looks at: `reference` is generation 0 of the same policy and seed, `maker` the one that made the rows.
        verb: what the learner has to be able to do, if it must be more than all can (`learners.protocol`).
    """

    where: str
    unit: str = ""
    reads: tuple[str, ...] = ()
    share: bool = False
    text: bool = False
    verdict: bool = False
    needs: tuple[Need, ...] = ()
    verb: str = ""


SCORES = "collapse_cli.selection.scores"
BY: Mapping[str, Kind] = {
    "perplexity": Kind(
        f"{SCORES}.perplexity:Perplexity", "nats/token", reads=("model", "model_sha256"), needs=("reference",)
    ),
    "surprise": Kind(f"{SCORES}.perplexity:Surprise", "nats/token", needs=("maker",)),
    "repetition": Kind(f"{SCORES}.repetition:Repetition", "share", ("gram",), share=True, text=True),
    "length": Kind(f"{SCORES}.length:Length", "tokens", text=True),
    "duplicates": Kind(f"{SCORES}.duplicates:Duplicates", "earlier equal rows"),
    "near-duplicates": Kind(f"{SCORES}.duplicates:NearDuplicates", "earlier near rows", text=True),
    "detector": Kind(f"{SCORES}.detector:Detected", "probability", ("detector", "detector_sha256"), share=True),
    "verifier": Kind(
        f"{SCORES}.verifier:Verifier", "verdict", ("phi", "psi", "tolerance", "signs"), share=True, verdict=True
    ),
    "biased-verifier": Kind(
        f"{SCORES}.verifier:BiasedVerifier", "verdict", ("theta", "radius", "slack"), share=True, verdict=True
    ),
}
OWN_SCORE = Kind(f"{SCORES}.plugin:OwnScore", reads=("plugin_sha256",), share=True)  # a function of the user's
DO: Mapping[str, Kind] = {
    "edit": Kind(
        "collapse_cli.selection.token_editing:Edit",
        reads=("above", "top"),
        text=True,
        needs=("reference",),
        verb="edited",
    ),
    "correct": Kind("collapse_cli.selection.correction:Correct", reads=("gamma", "toward")),
}
RULES = ("highest", "lowest", "middle")  # that keep a number of rows
OWN: Mapping[str, tuple[str, ...]] = {  # options of a rule
    **dict.fromkeys(RULES, ("share",)),
    "threshold": ("threshold", "side"),
    "power": ("bias", "max_repeats"),
    "choice": ("reward",),
    "verdict": (),
}


def candidates(oversample: float, rows: int) -> int:
    """How many rows are made where so many are needed: `oversample` as it is written times that, rounded up."""
    return math.ceil(Fraction(repr(oversample)) * rows)


class Step(Section):
    """One choice among rows, or one change of them."""

    by: str = added("")
    """The score that rows are chosen by: perplexity (under generation 0, or `model`), surprise (perplexity under the model that made
    them), repetition, duplicates, near-duplicates, length, detector (the probability of being synthetic), verifier, biased-verifier, or
    a function of your own, "package.module:function". Losses are in nats per token, the logarithm of the perplexity."""
    do: str = added("")
    """Instead of `by`: how rows are changed, none thrown away: edit (tokens that generation 0 is all too sure of are drawn anew) or
    correct (some rows give way to rows of the original corpus, or of generation 0)."""
    keep: Literal["", "highest", "lowest", "middle", "threshold", "choice"] = added("")
    """Which rows stay: those with the highest or the lowest score, those in the middle, all on one side of `threshold`, or of the
    candidates of each place one, chosen by its reward as Bradley and Terry have it (choice). A verifier needs none: what it accepts stays."""
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
    model: UserPath = added("")
    """Of perplexity: a folder or Hub id of a transformers model, whose own tokenizer reads the rows. Empty: generation 0 of the same seed."""
    model_sha256: str = added("")
    """Hash of `model`. Filled in when found; if given, it must match."""
    gram: int = added(3, ge=1, le=16)
    """Of repetition: tokens of a phrase. The score is the share of a row's phrases that are repetitions within it."""
    reward: float = added(1.0)
    """Of `keep = "choice"`: what a score is multiplied by to be a reward. Below 0 low scores are preferred."""
    detector: UserPath = added("")
    """Of detector: a folder or Hub id of a transformers model that classifies texts, with two labels, used as it is. Empty: a small
    classifier, fitted in the run on real rows against those of generation 1."""
    detector_sha256: str = added("")
    """Hash of `detector`. Filled in when found; if given, it must match."""
    plugin_sha256: str = added("")
    """Hash of the source file of a function of your own. Filled in when found; if given, it must match."""
    phi: float | None = added(None, ge=0, le=1)
    """Of verifier: the probability that a right row stays."""
    psi: float | None = added(None, ge=0, le=1)
    """Of verifier: the probability that a wrong row stays."""
    tolerance: float | None = added(None, ge=0)
    """Of verifier: what is still right: the distance of a label from the true one (empty: two standard deviations of real labels), or of a
    document of `world` the share of its sentences that may be wrong (empty: none)."""
    signs: bool = added(False)
    """Of verifier, for labels of `regression`: a label is right if it has the sign of the true one."""
    theta: tuple[float, ...] = added((), max_length=100_000)
    """Of biased-verifier: the weights that it takes for the truth, one for each dimension or one for all."""
    radius: float = added(0.0, ge=0)
    """Of biased-verifier: how far from its line a label may be, for each unit of length of the inputs."""
    slack: float = added(0.0, ge=0)
    """Of biased-verifier: how far from its line a label may be besides."""
    above: float = added(0.99, gt=0, lt=1)
    """Of edit: the probability under generation 0 above which a token is drawn anew."""
    top: int = added(8, ge=2, le=64)
    """Of edit: from how many of the most probable tokens."""
    gamma: float = added(0.0, ge=0, le=1e6)
    """Of correct: rows of p give way to rows of p*, so that the mixture is (p + gamma p*) / (1 + gamma)."""
    toward: Literal["real", "gen0"] = added("real")
    """Of correct: p*: the original corpus, or what generation 0 made."""

    @property
    def name(self) -> str:
        """What it does, in a word."""
        return self.by or self.do

    @property
    def rule(self) -> str:
        """How it chooses: a value of `keep`, or of `weight`; `verdict` where the score says itself what stays."""
        return self.keep or self.weight or ("verdict" if self.kind.verdict else "")

    @property
    def kind(self) -> Kind:
        """What its score is, or its change; of a function of the user's own nothing is known but where it is."""
        return DO[self.do] if self.do in DO else BY.get(self.by, OWN_SCORE)

    @property
    def needs(self) -> tuple[Need, ...]:
        """The models that it looks at."""
        return () if self.model or self.model_sha256 else self.kind.needs

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What else it looks at: the `detector` of the lineage, the rows that generation 0 made `first`."""
        if self.by == "detector":
            return ("detector",)
        return ("first",) if self.do == "correct" and self.toward == "gen0" else ()

    @property
    def in_key(self) -> "Step":
        """Without where things are on this machine: their content is in a key by its hash."""
        names = {"detector": self.detector_sha256, "model": self.model_sha256}
        return self.model_copy(update={name: "" for name, sha256 in names.items() if sha256})

    @property
    def own(self) -> bool:
        """Whether it names a function of the user's own."""
        return PLUGIN.fullmatch(self.by) is not None

    def fault(self, *, last: bool) -> str:
        """What is wrong with it, in words; empty where nothing is."""
        if self.do:
            return self._of_the_change()
        if self.by not in BY and not PLUGIN.fullmatch(self.by):
            known = ", ".join(BY)
            return f"by = {self.by!r} is no score{nearest(self.by, BY)}; known: {known}, and package.module:function of your own"
        if self.keep and self.weight:
            return f"keep = {self.keep} and weight = {self.weight} exclude each other; leave one out"
        if not self.rule:
            return f'by = {self.by} says no rule; add keep = "highest", "lowest", "middle", "threshold" or "choice", or weight = "power"'
        return self._of_the_rule(last) or self._unread() or self._of_the_verifier()

    def _of_the_verifier(self) -> str:
        if self.by == "verifier":
            if self.phi is None or self.psi is None:
                return "by = verifier needs its rates: phi, with which a right row stays, and psi, with which a wrong one does"
            if self.psi >= self.phi:
                return (
                    f"phi = {self.phi:g} and psi = {self.psi:g}: a verifier that keeps wrong rows as readily as right ones is none; "
                    "phi must be above psi"
                )
            if self.signs and self.tolerance is not None:
                return "signs = true needs no tolerance; leave one of them out"
        if self.by == "biased-verifier" and not self.theta:
            return "by = biased-verifier needs theta, the weights that it takes for the truth"
        if self.by == "biased-verifier" and self.radius == self.slack == 0:
            return "by = biased-verifier with radius = 0 and slack = 0 keeps no row; give one of them"
        return ""

    def _of_the_change(self) -> str:
        if self.by or self.rule:
            return f"do = {self.do} changes rows and throws none away; give by, keep and weight a step of their own"
        if self.do not in DO:
            return f"do = {self.do!r} is no change of rows{nearest(self.do, DO)}; known: {', '.join(DO)}"
        if self.do == "correct" and self.gamma == 0:
            return "do = correct with gamma = 0 changes nothing; gamma = 1 takes half of the rows from p*, for example"
        return self._unread()

    def _of_the_rule(self, last: bool) -> str:
        if self.keep == "threshold" and (self.threshold is None or not self.side):
            return 'keep = threshold needs the threshold and the side that stays: threshold = NUMBER and side = "above" or "below"'
        if self.keep == "choice" and not last:
            return "keep = choice takes one row for each that is needed, so it must be the last step"
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

    def identity(self) -> dict[str, Any]:
        """As JSON, without the names of what a hash says already."""
        steps = [step.in_key.model_dump(mode="json") for step in self.chosen]
        return self.model_dump(mode="json", include={"oversample", "over", "short"}) | {"steps": steps}

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

    def _of_the_choice(self) -> str:
        """What is wrong with a choice of one among the candidates of each place, which needs all of them."""
        choosing = [step for step in self.chosen if not step.do]
        if not any(step.keep == "choice" for step in choosing):
            return ""
        if len(choosing) > 1:
            return "keep = choice chooses among all candidates of a place; leave out the other steps that choose"
        if self.over == "pool":
            return "keep = choice chooses among the candidates of a place, which real rows do not have; leave over = pool out"
        if self.oversample < 2 or self.oversample != int(self.oversample):
            return (
                f"keep = choice with oversample = {self.oversample:g}: each place needs a whole number of candidates, 2 or more; "
                "oversample = 4, for example, for one of four"
            )
        return ""

    @model_validator(mode="after")
    def _means_something(self) -> "SelectConfig":
        steps = self.chosen
        if self.steps and any(getattr(self, name) != field.get_default() for name, field in Step.model_fields.items()):
            raise ValueError("give one step in [select] itself, or several as [[select.steps]], not both")
        choosing = [number for number, step in enumerate(steps, 1) if not step.do]
        if sum(step.by == "detector" for step in steps) > 1:
            raise ValueError("two steps name a detector; a lineage has one")
        if fault := self._of_the_choice():
            raise ValueError(fault)
        for number, step in enumerate(steps, 1):
            if fault := step.fault(last=number == max(choosing, default=0)):
                raise ValueError(f"step {number}: {fault}" if self.steps else fault)
        if not steps:
            given = [
                name for name, field in type(self).model_fields.items() if getattr(self, name) != field.get_default()
            ]
            if given:
                readers = [
                    f'{key} = "{name}"'
                    for key, kinds in (("by", BY), ("do", DO))
                    for name, kind in kinds.items()
                    if given[0] in kind.reads
                ]
                example = readers[0] if readers else 'by = "surprise" and keep = "highest"'
                raise ValueError(f"{given[0]} alone chooses and changes nothing; say {example}, for example")
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
