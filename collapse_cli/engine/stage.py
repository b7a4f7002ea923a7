"""A stage: one unit of work whose key is a hash of all that can change its result, and of nothing else. And plans."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Never, Protocol, TypeVar

from collapse_cli.where import Where

Circumstances = TypeVar("Circumstances", contravariant=True)
ALL_POLICIES = "all policies"  # in the place of one, where a stage works for a model that they share
SEVERAL_LINEAGES = "several lineages"  # the same of lineages

KEY = re.compile(r"[0-9a-f]{64}")  # of a stage
LEAVES = frozenset((str, int, bool, type(None)))


def canonical(value: object) -> bytes:
    """JSON bytes of `value`, the same on every machine: keys sorted, no spaces, unknown types refused.

    Raises:
        TypeError: for anything but dict with string keys, list, tuple, str, bool, int, finite float and None.
            Hashing such a thing as null would give two different stages one key.
    """
    if not _plain(value):
        _refuse_unknown(value, "value")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _plain(value: Any) -> bool:
    """Whether all of `value` is of the usual types themselves, which is seen several times as fast as `_refuse_unknown` looks through it."""
    kind = type(value)
    if kind is dict:
        if any(type(key) is not str for key in value):
            return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return kind in LEAVES or (kind is float and math.isfinite(value))
    return all(type(item) in LEAVES or _plain(item) for item in value)


def _refuse_unknown(value: object, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where}: the key {key!r} is not a string")
            _refuse_unknown(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_unknown(item, f"{where}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{where}: {value} has no place in a key")
    elif not (value is None or isinstance(value, str | bool | int)):
        raise TypeError(f"{where}: a {type(value).__name__} has no place in a key")


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def seed_for(run_seed: int, kind: str, generation: int, lineage: str = "") -> int:
    """The seed, in 0..2^63-1, of one kind of randomness at one generation of one run.

    Policies of a run share their seeds (the same prompts are drawn, the same rows are kept first), so that
    differences between policies are paired.

    Args:
        lineage: separates streams of random numbers that lineages must not share; "" where there is one alone, and for what is
            one and the same of all that are alike, such as generation 0.
    """
    text = canonical([run_seed, kind, generation, lineage])
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Shard:
    """A part of the rows that a long stage works on.

    Attributes:
        number: which, from 1 on.
        of: how many there are.
    """

    number: int = 1
    of: int = 1

    def rows(self, there: int) -> slice:
        """Which of so many rows it has: shards are next to each other, and none has more than one row more than another."""
        return slice((self.number - 1) * there // self.of, self.number * there // self.of)


ALL_ROWS = Shard()


@dataclass(frozen=True)
class Cost:
    """What a stage is estimated to need.

    Attributes:
        rows: how many rows it leaves for other stages.
        tokens: trained on, sampled or scored.
        flops: floating-point operations.
        disk: bytes that it leaves in the store.
        steps: passes of the model.
        efficiency: the share of the speed of matrix products that it reaches.
        step_seconds: what a pass costs besides, for a model of no layers; each four layers cost as much again.
        fixed_seconds: its time where that is not counted in operations.
        amount: what its time grows with, where that is neither tokens nor the rows it leaves: rows, times the passes over them.
        parts: how many generations or cells it does, each of which takes a time of its own besides.
    """

    rows: int = 0
    tokens: int = 0
    flops: float = 0.0
    disk: int = 0
    steps: int = 0
    efficiency: float = 1.0
    step_seconds: float = 0.0
    fixed_seconds: float = 0.0
    amount: float = 0.0
    parts: int = 1

    @property
    def work(self) -> float:
        """What its time grows with: tokens where it has some, or rows; in no unit that other kinds of stages share."""
        return float(self.amount or self.tokens or self.rows)

    def seconds(self, speed: float, layers: int) -> float:
        """A first guess of the time at `speed` FLOP/s, for a model of so many layers."""
        if self.fixed_seconds:
            return self.fixed_seconds
        return self.flops / (speed * self.efficiency) + self.steps * self.step_seconds * (1 + layers / 4)


class Product(Enum):
    """What a stage leaves in the store for others."""

    DATA = "real data, as the learner takes them"
    MODEL = "a model, whose weights may be pruned once nothing needs them"
    ROWS = "rows: samples, or a corpus"
    PART = "what a shard found, for the whole stage alone"
    MEASURES = "facts about a model or its samples: why a plan is computed at all"


def tokens_a_second(stage: "Stage", made: "Finished") -> str:
    """How fast the tokens of a stage were worked on; empty where it has none."""
    tokens = stage.tokens(made)
    return f"{tokens / max(made.seconds, 1e-3):,.0f} tokens/s" if tokens else ""


# what of a stage's parameters its learner's speed hangs on; the others say which rows it works on
OF_LEARNERS = ("learner", "model", "train", "sample", "target", "eval", "tried", "how", "regression")


def by_learner(stage: "Stage") -> object:
    """What its learner works by."""
    return {name: value for name, value in stage.params.items() if name in OF_LEARNERS}


def never_split(stage: "Stage", number: int) -> "Sequence[Stage]":
    """Of a kind whose stages are computed whole."""
    return ()


@dataclass(frozen=True, kw_only=True)
class StageKind(Generic[Circumstances]):
    """All that stages of one kind have in common.

    `Circumstances` are what costs depend on besides the stage: a type of the experiment's, of which nothing is known here.

    Attributes:
        name: what such a stage is called in `events.jsonl` and on the terminal.
        kind: the word for it in keys and in records of the store. Kinds that share one differ in their parameters or inputs.
        version: raised when the body changes what comes out: finished stages of the old version are then computed again.
        product: what a stage leaves.
        body: what a stage does.
        cost: what a stage needs, by the circumstances of the experiment (`experiment/costs.py`).
        label: for which models a stage works, in words: of the first of them.
        note: what came out of a stage, in a few words.
        counts: the fact that says how many tokens it trained on (once an epoch), sampled or scored.
        listed: whether a finished one is a line for the user, where bars show the others.
        apart: what the time of such a stage hangs on besides how much it does; it is compared as canonical JSON.
        here: whether its work is done on this machine alone, so that a short trial of it may be made; not where it asks a server.
        split: so many shards of a stage, each a stage of its own with the same inputs, from which the body puts it together; none where
            it is computed whole.
    """

    name: str
    kind: str
    version: int
    product: Product
    body: "Body"
    cost: "Callable[[Stage, Circumstances], Cost]"
    label: "Callable[[Stage, Where], str]"
    note: "Callable[[Stage, Finished], str]" = tokens_a_second
    counts: str = ""
    listed: bool = False
    apart: "Callable[[Stage], object]" = by_learner
    here: bool = True
    split: "Callable[[Stage, int], Sequence[Stage]]" = never_split


@dataclass(frozen=True, eq=False)
class Stage:
    """One unit of work: what it is made from and how.

    `params` and `seed` must hold all that can change the result. `hints` say where things are found on this
    machine (folders, Hub ids); they are not part of the key, because their content hashes are in `params`. Nor are its
    `shards`: what is put together from parts is what one process makes of the whole.
    """

    of: StageKind[Never]
    params: Mapping[str, Any]
    inputs: Mapping[str, "Stage"] = field(default_factory=dict, repr=False)
    seed: int = 0
    hints: object = None
    shards: "tuple[Stage, ...]" = field(default=(), repr=False)

    @property
    def needs(self) -> "Mapping[str, Stage]":
        """By name, the stages that must be in the store before this one is computed: its inputs, and its shards in order."""
        if not self.shards:
            return self.inputs
        return {**self.inputs, **{f"shard-{number:05d}": shard for number, shard in enumerate(self.shards, 1)}}

    @property
    def kind(self) -> str:
        return self.of.kind

    @property
    def version(self) -> int:
        return self.of.version

    @property
    def work(self) -> str:
        """What it is called in `events.jsonl` and on the terminal."""
        return self.of.name

    def tokens(self, made: "Finished") -> int:
        """Tokens it trained on (once an epoch), sampled or scored; 0 where none were."""
        return int(made.facts.get(self.of.counts, 0)) if self.of.counts else 0

    @cached_property
    def key(self) -> str:
        """64 hex digits; equal keys mean equal results."""
        return digest(
            {
                "kind": self.kind,
                "version": self.version,
                "params": self.params,
                "inputs": {name: stage.key for name, stage in self.inputs.items()},
                "seed": self.seed,
            }
        )


@dataclass(frozen=True)
class Generation:
    """One model of the experiment, and the stages that made and measured it, and measured what it made.

    Attributes:
        between: where there are several lineages, the stage that measures them beside each other.
        part: which of the generations (or cells) that its stage makes; None for a stage that makes one.
        about: fields of its row in `metrics.jsonl` that are known before it is made: of a mixture, its cell.
    """

    where: Where
    train: Stage
    eval: Stage
    samples: Stage | None = None
    between: Stage | None = None
    part: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measured(self) -> tuple[Stage, ...]:
        """The stages whose facts make its row of `metrics.jsonl`: of the model, of the samples it made, of its lineage beside others."""
        return tuple(stage for stage in (self.eval, self.samples, self.between) if stage is not None)


@dataclass
class Plan:
    """All stages in order, each with the models it serves (`serves`, by key), and the generations in order."""

    stages: dict[str, Stage] = field(default_factory=dict)
    serves: dict[str, list[Where]] = field(default_factory=dict)
    generations: list[Generation] = field(default_factory=list)

    def add(self, stage: Stage, where: Where) -> Stage:
        self.stages.setdefault(stage.key, stage)
        self.serves.setdefault(stage.key, []).append(where)
        return self.stages[stage.key]

    def in_shards(self, number: Mapping[str, int]) -> "Plan":
        """The same plan where stages are put together from shards, which stand before them.

        Args:
            number: by key, of how many; stages of kinds that do not split stay whole.
        """
        if not number:
            return self
        made, new = Plan(), dict[str, Stage]()
        for key, stage in self.stages.items():
            inputs = {name: new[other.key] for name, other in stage.inputs.items()}
            whole = replace(stage, inputs=inputs)
            new[key] = replace(whole, shards=tuple(whole.of.split(whole, number[key])) if key in number else ())
            for each in (*new[key].shards, new[key]):
                made.stages[each.key], made.serves[each.key] = each, self.serves[key]
        for one in self.generations:
            samples, between = (stage and new[stage.key] for stage in (one.samples, one.between))
            own = replace(one, train=new[one.train.key], eval=new[one.eval.key], samples=samples, between=between)
            made.generations.append(own)
        return made

    @property
    def shards(self) -> dict[str, int]:
        """What `in_shards` was given to make this plan of the whole one."""
        return {key: len(stage.shards) for key, stage in self.stages.items() if stage.shards}

    @property
    def shard_of(self) -> dict[str, Stage]:
        """By the key of each shard, the stage that is put together from it."""
        return {shard.key: stage for stage in self.stages.values() for shard in stage.shards}

    def place(self, key: str) -> Where:
        """For whom a stage works: the first that it serves, or all policies, and several lineages, where they share it."""
        first = self.serves[key][0]
        if first.generation:
            return first
        policies, lineages = ({getattr(where, name) for where in self.serves[key]} for name in ("policy", "lineage"))
        policy = ALL_POLICIES if len(policies) > 1 else first.policy
        lineage = SEVERAL_LINEAGES if len(lineages) > 1 else first.lineage
        return replace(first, policy=policy, lineage=lineage)

    def record(self) -> list[dict[str, Any]]:
        """The plan as JSON: what each stage is, what it is made from, and for which generations; of a shard, which stage it is a part of."""
        parts = {shard: {"shard_of": whole.key} for shard, whole in self.shard_of.items()}
        return [
            {
                "kind": stage.kind,
                "key": key,
                "inputs": {name: made.key for name, made in stage.inputs.items()},
                "for": [where.record() for where in self.serves[key]],
                **parts.get(key, {}),
            }
            for key, stage in self.stages.items()
        ]


@dataclass(frozen=True)
class Finished:
    """A stage that is in the store: its files, and the facts its body returned.

    Attributes:
        folder: where all of its files are on this machine, as a learner saves and loads them.
    """

    kind: str
    key: str
    folder: Path
    facts: Mapping[str, Any]
    seconds: float

    def file(self, name: str) -> Path:
        """Where one of its files is on this machine; there is nothing there when the stage made none of that name."""
        return self.folder / name


class NotYetHere(Finished):
    """A finished stage whose files are elsewhere: they are brought to this machine when its folder is asked for."""

    @classmethod
    def of(
        cls, kind: str, key: str, facts: Mapping[str, Any], seconds: float, bring: Callable[[], Path]
    ) -> "NotYetHere":
        made = object.__new__(cls)
        made.__dict__.update(kind=kind, key=key, facts=facts, seconds=seconds, _bring=bring)
        return made

    def __getattr__(self, name: str) -> Any:
        if name != "folder":
            raise AttributeError(name)
        self.__dict__["folder"] = self.__dict__["_bring"]()
        return self.__dict__["folder"]


Tell = Callable[[int, int, str], None]
"""How much is done, of how much, and of what."""


@dataclass(frozen=True)
class Workplace:
    """Where a stage body works.

    Attributes:
        folder: an empty folder; what is written there becomes the stage's files.
        scratch: a folder that survives a kill and is never published, for checkpoints.
        tell: moves the progress bar.
    """

    folder: Path
    scratch: Path
    tell: Tell


class Body(Protocol):
    """The work of a stage: reads the folders of its inputs, writes into `place.folder`, returns facts (JSON)."""

    def __call__(self, stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]: ...
