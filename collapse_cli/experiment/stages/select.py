"""The rows that enter a corpus: chosen among those that the newest model made, or among the whole pool, real rows with them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli import families, learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.config.selection import Input, Need, Step
from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.errors import InputError
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import Size, scored
from collapse_cli.experiment.stages.base import (
    CORPUS,
    ROWS,
    TEST,
    at,
    hints_of,
    learner_of,
    on_one_thread,
    stage_of,
    with_history,
)
from collapse_cli.families.section import for_key, from_key
from collapse_cli.selection import audit
from collapse_cli.selection.score import Material
from collapse_cli.selection.steps import Survivors, survivors

HELD = 1000  # real rows at most that the rules are tried on


def select_stage(
    config: Experiment,
    hints: learners.Hints,
    policy: Policy,
    data: Stage,
    rows: Stage,
    models: Mapping[Need, Stage],
    others: Mapping[Input, Stage],
    seed: int,
    generation: int,
    lineage: str = "",
) -> Stage:
    """The rows that stay of those of the stage `rows`: a sample, or with `select.over = "pool"` a corpus.

    Args:
        models: those that scores may need; the stage has those that its steps do.
        others: what else its steps look at.
    """
    which = Selected.by(Choosing.by(config), policy, seed, generation, growing=config.mix.size == "growing")
    inputs: dict[str, Stage] = {"data": data, "rows": rows}
    inputs.update((need, models[need]) for need in which.how.needs)
    inputs.update((name, stage) for name, stage in others.items())
    own_seed = seed_for(seed, "select", generation, lineage)
    return stage_of(SELECT, config, inputs, own_seed, hints, verb="select", **which.params())


@dataclass(frozen=True)
class Choosing:
    """How rows are chosen: `steps`, `over` and `short` as the section `select` has them. No steps: all enter.

    `blobs` is the section of that source, where a verifier has to know what is right.
    """

    steps: tuple[Step, ...] = ()
    over: str = "synthetic"
    short: str = "error"
    blobs: Mapping[str, Any] | None = None

    @classmethod
    def by(cls, config: Experiment) -> "Choosing":
        """As a configuration says. How many candidates there are is no part of it: the rows that were made are an input."""
        verifies = config.data.source == "blobs" and any(step.by == "verifier" for step in config.select.chosen)
        blobs = for_key(config.data.blobs) if verifies else None
        return cls(config.select.chosen, config.select.over, config.select.short, blobs)

    def params(self) -> dict[str, Any]:
        """As a stage's parameters have it."""
        params = vars(self) | {"steps": [for_key(step.in_key) for step in self.steps]}
        return params if self.blobs else {name: value for name, value in params.items() if name != "blobs"}

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Choosing":
        """What a stage's parameters say."""
        own = {field.name: params[field.name] for field in fields(cls) if field.name in params}
        return cls(**own | {"steps": tuple(from_key(Step, step) for step in own["steps"])})

    @property
    def among(self) -> str:
        """Among which rows it is chosen, as a `Lineage` has it."""
        return self.over if self.steps else ""

    @property
    def needs(self) -> tuple[Need, ...]:
        """The models that its scores look at."""
        return tuple(dict.fromkeys(need for step in self.steps for need in step.needs))

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What else its steps look at."""
        return tuple(dict.fromkeys(name for step in self.steps for name in step.inputs))


@dataclass(frozen=True)
class Selected:
    """Which rows are chosen for the corpus of a generation.

    Attributes:
        how: by which steps.
        policy, growing, generation: whose corpus it is, and so how many rows it takes.
        choice: the seed of the order of real rows, as `mixing.prompt_rows` has it.
    """

    how: Choosing
    policy: Policy
    growing: bool
    generation: int
    choice: int

    @classmethod
    def by(cls, how: Choosing, policy: Policy, seed: int, generation: int, *, growing: bool) -> "Selected":
        """Those of a policy, by the seed of the run."""
        return cls(how, policy.at(generation), growing, generation, mixing.order_seed(policy, seed, generation))

    def params(self) -> dict[str, Any]:
        """As a stage's parameters have it."""
        return vars(self) | {"how": self.how.params(), "policy": self.policy.params()}

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Selected":
        """What a stage's parameters say."""
        own = {field.name: params[field.name] for field in fields(cls)}
        return cls(**own | {"how": Choosing.of(own["how"]), "policy": Policy.of(own["policy"])})

    @property
    def pool(self) -> bool:
        """Whether it is chosen among all rows of a corpus."""
        return self.how.over == "pool"

    def needed(self, rows: int) -> int:
        """How many rows are to stay, for an original corpus of so many."""
        if self.pool:
            return sum(mixing.rows_in_corpus(self.policy, rows, self.generation, growing=self.growing))
        return mixing.new_rows(self.policy, rows, self.generation, growing=self.growing)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    which, data = Selected.of(stage.params), inputs["data"]
    file = CORPUS if which.pool else ROWS

    def model(need: Need) -> learners.Learner:
        learner = learner_of(stage, inputs, place)
        learner.load(inputs[need].folder)
        return learner

    rows, facts = selected(
        Dataset.load(inputs["rows"].file(file)),
        Dataset.load(data.file(CORPUS)),
        Dataset.load(data.file(TEST)),
        which,
        model,
        hints_of(stage, inputs),
        learner=stage.params["learner"],
        seed=stage.seed,
        scratch=place.scratch,
        tell=place.tell,
        folders={name: inputs[name].folder for name in which.how.inputs},
    )
    rows.save(place.folder / file)
    return with_history(stage, inputs, "rows") | facts


def selected(
    candidates: Dataset,
    real: Dataset,
    test: Dataset,
    which: Selected,
    model: Callable[[Need], learners.Learner],
    hints: learners.Hints,
    *,
    learner: str,
    seed: int,
    scratch: Path,
    tell: learners.Tell,
    folders: Mapping[str, Path] | None = None,
) -> tuple[Dataset, learners.Facts]:
    """The rows that stay, and the audit.

    Args:
        real, test: the original corpus, and the real rows that the rules are tried on.
        model: what loads a model that a score needs.

    Raises:
        InputError: when fewer rows stay than are needed, and that is not provided for.
    """
    candidates = _alone(candidates, real)
    needed = which.needed(len(real))
    material = Material(
        real,
        held_out(_alone(test, real), candidates),
        needed,
        which.generation,
        model,
        text_of(learner, hints),
        hints.real(),
        {**hints.about, **({"blobs": which.how.blobs} if which.how.blobs else {})},
        seed,
        scratch,
        tell,
        folders or {},
        hints.detector,
        hints.judges,
    )
    # who comes first where no rule says: the rows that there would be without a choice; in a pool nobody by its place
    turn = mixing.seeded_order(len(candidates), seed) if which.pool else np.arange(len(candidates))
    left = survivors(candidates, which.how.steps, needed, turn, material)
    rows, filled = _enough(left, real, which, needed, len(candidates))
    return rows, audit.counts(candidates, left.chosen, filled) | left.facts


def _alone(rows: Dataset, real: Dataset) -> Dataset:
    """Rows with the arrays that real rows have: what else is known of a sample does not enter a corpus."""
    return Dataset({name: rows.arrays[name] for name in real.arrays}, rows.origin)


def held_out(test: Dataset, candidates: Dataset) -> Dataset:
    """Real rows that no model was fitted on, evenly spaced over the test rows; of text no longer than the longest that was made."""
    some = test.take(np.linspace(0, len(test) - 1, min(HELD, len(test))).round().astype(np.int64))
    if "lengths" not in some.arrays:
        return some
    made = candidates.arrays["lengths"][candidates.origin > 0]
    most = int(made.max(initial=0)) or int(some.arrays["lengths"].max(initial=0))
    lengths = np.minimum(some.arrays["lengths"], most).astype(np.int32)
    columns = {name: array[:, :most] for name, array in some.arrays.items() if name in ("tokens", MASK)}
    return Dataset({**some.arrays, **columns, "lengths": lengths}, some.origin)


def text_of(learner: str, hints: learners.Hints) -> Callable[[Dataset], list[str]] | None:
    """What makes text of rows; None where they are none."""
    if not families.of(learner).text:
        return None
    from collapse_cli.learners.text_measures import spoken

    return partial(spoken, encoded=hints.real())


def _enough(left: Survivors, real: Dataset, which: Selected, needed: int, candidates: int) -> tuple[Dataset, int]:
    """The rows that stay, filled up as `select.short` says; and how many real rows were added for that.

    Raises:
        InputError: when there are too few and nothing is to be added, or none at all.
    """
    missing = needed - len(left.rows)
    if missing <= 0:
        return left.rows, 0
    if which.how.short == "real":
        order = mixing.seeded_order(len(real), which.choice)
        there = mixing.rows_in_corpus(which.policy, len(real), which.generation, growing=which.growing)[0]
        more = np.resize(np.roll(order, -there), missing)  # behind those that keep-P has of this order
        return Dataset.concat([left.rows, real.take(more)]), missing
    if which.how.short == "error" or not len(left.rows):
        raise InputError(_too_few(len(left.rows), which, needed, candidates))
    return left.rows, 0


def _too_few(left: int, which: Selected, needed: int, candidates: int) -> str:
    """What to say where fewer rows stay than are needed."""
    steps = ", then ".join(step.name for step in which.how.steps)
    advice = ["loosen the rule"]
    if left:
        advice += [f"make about {math.ceil(10 * needed / left) / 10:g} times as many candidates (select.oversample)"]
    fill = 'fill up with real rows (select.short = "real")'
    advice += [f'train on fewer (select.short = "shrink") or {fill}'] if left else [fill]
    return (
        f"generation {which.generation} of {which.policy}: {left:,} of {candidates:,} candidates stay after select ({steps}), and "
        f"{needed:,} are needed; {', '.join(advice[:-1])}, or {advice[-1]}; "
        "with another selection it is another run: give it a --name of its own"
    )


def cost(stage: Stage, size: Size) -> Cost:
    which = Selected.of(stage.params)
    rows, kept = size.rows_of(stage.inputs["rows"]), which.needed(size.rows)
    disk = size.row_disk(kept, size.config.data.block_size)
    if size.row_flops:
        looked = scored(size, rows * len(which.how.needs))
        amount = rows * max(1, len(which.how.needs))
        return Cost(kept, 0, looked.flops, disk, efficiency=looked.efficiency, fixed_seconds=0.1, amount=amount)
    tokens = rows * size.config.data.block_size * len(which.how.needs)
    weights = size.layer_parameters + size.head_parameters
    if not tokens:
        return Cost(rows=kept, disk=disk, fixed_seconds=0.5, amount=rows)
    return Cost(rows=kept, tokens=tokens, flops=2.0 * weights * tokens, disk=disk, steps=-(-rows // 64), efficiency=0.4)


def note(stage: Stage, made: Finished) -> str:
    kept, candidates = made.facts["select_kept"], made.facts["select_candidates"]
    real = made.facts["select_kept_real"]
    return f"kept {kept:,} of {candidates:,} rows" + (f", {real:,} of them real" if real else "")


SELECT = StageKind[Size](
    name="select", kind="select", version=1, product=Product.ROWS, body=body, cost=cost, label=at, note=note
)
