"""The synthetic rows that a lineage takes of those that several made: its share of a pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.config.selection import candidates
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import Size, put_together
from collapse_cli.experiment.pool import quota, taken
from collapse_cli.experiment.stages.base import ROWS, at, on_one_thread


def pool_stage(
    config: Experiment,
    policy: Policy,
    data: Stage,
    members: Sequence[Stage],
    generation: int,
    *,
    takers: Sequence[int],
) -> Stage:
    """The rows of `members` that the corpus of a generation takes, evenly.

    Args:
        data: of the lineage that takes them.
        members: stages that leave rows in its tokens, in order.
        takers: how many lineages take the rows of each member: each is reckoned its part of what they cost.
    """
    which = Taken(policy.at(generation), config.mix.size == "growing", generation, config.select.oversample)
    params = {"learner": config.learner, "takers": list(takers), **which.params()}
    return Stage(POOL, params, {"data": data, **as_inputs(members)})


def as_inputs(members: Sequence[Stage]) -> dict[str, Stage]:
    """The members of a pool by the names that they have among the inputs of a stage, in order."""
    return {f"member-{place:05d}": stage for place, stage in enumerate(members, 1)}


def members_of(inputs: Mapping[str, Finished]) -> tuple[list[Finished], list[Dataset]]:
    """The members of a pool in order, and their rows, with the arrays that all have: some know where a sample begins, others do not."""
    members = [inputs[name] for name in sorted(name for name in inputs if name.startswith("member-"))]
    every = [Dataset.load(made.file(ROWS)) for made in members]
    names = [name for name in every[0].arrays if all(name in rows.arrays for rows in every)]
    return members, [Dataset({name: rows.arrays[name] for name in names}, rows.origin) for rows in every]


@dataclass(frozen=True)
class Taken:
    """How many rows a corpus takes: the attributes are those of `stages.sample.Continued`."""

    policy: Policy
    growing: bool
    generation: int
    oversample: float = 1.0

    def params(self) -> dict[str, Any]:
        """As a stage's parameters have it."""
        return vars(self) | {"policy": self.policy.params()}

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Taken":
        """What a stage's parameters say."""
        own = {name: params[name] for name in ("growing", "generation", "oversample")}
        return cls(Policy.of(params["policy"]), **own)

    def needed(self, rows: int) -> int:
        """Synthetic rows of the newest models that it takes, for an original corpus of so many rows."""
        return mixing.new_rows(self.policy, rows, self.generation, growing=self.growing)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    (members, rows), which = members_of(inputs), Taken.of(stage.params)
    needed = which.needed(inputs["data"].facts["splits"]["train"]["rows"])
    most = [candidates(which.oversample, quota(needed, len(rows), one)) for one in range(len(rows))]
    chosen, shares = taken(rows, needed, most), [1 / takers for takers in stage.params["takers"]]
    chosen.save(place.folder / ROWS)
    foreign = [
        {"rows": count, **made.facts["source"]}
        for made, count in zip(members, most, strict=True)
        if "source" in made.facts  # text of another model, not of a lineage
    ]
    return history(members, shares) | ({"foreign_rows": foreign} if foreign else {})


def history(members: Sequence[Finished], shares: Sequence[float]) -> dict[str, Any]:
    """What a corpus hands on of the rows that it took: its share of the tokens and seconds of each member, other numbers as their mean.

    So the tokens that lineages sampled are the sum over their rows.
    """
    weights = [share * made.facts.get("sample_tokens", 0) for made, share in zip(members, shares, strict=True)]
    whole = sum(weights) or 1.0
    facts: dict[str, Any] = {"sample_tokens": round(sum(weights)), "seconds": {}}
    for made, share in zip(members, shares, strict=True):
        for kind, seconds in {**made.facts.get("seconds", {}), made.kind: made.seconds}.items():
            facts["seconds"][kind] = facts["seconds"].get(kind, 0.0) + share * seconds
    for name in ("duplicate_share", "special_token_share"):
        if all(name in made.facts for made in members):
            facts[name] = sum(weight * made.facts[name] for made, weight in zip(members, weights, strict=True)) / whole
    return facts


def cost(stage: Stage, size: Size) -> Cost:
    which = Taken.of(stage.params)
    return put_together(size, candidates(which.oversample, which.needed(size.rows)), 0.1)


POOL = StageKind[Size](name="pool", kind="pool", version=1, product=Product.ROWS, body=body, cost=cost, label=at)
