"""The synthetic rows that a lineage takes of those that several made: its share of a pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.config.selection import candidates
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import Size, put_together
from collapse_cli.experiment.pool import quota, segment, taken
from collapse_cli.experiment.stages.base import ROWS, at, on_one_thread
from collapse_cli.learners import learner_class


def pool_stage(
    config: Experiment,
    policy: Policy,
    data: Stage,
    members: Sequence[Stage],
    seed: int,
    generation: int,
    *,
    takers: Sequence[int],
    cut: int | None = None,
) -> Stage:
    """The rows of `members` that the corpus of a generation takes, evenly.

    Args:
        data: of the lineage that takes them.
        members: stages that leave rows in its tokens, in order.
        takers: how many lineages take the rows of each member: each is reckoned its part of what they cost.
        cut: the place of the lineage among the members, where all rows are shuffled and cut into disjoint parts.
    """
    inputs = {f"member-{place:05d}": stage for place, stage in enumerate(members, 1)}
    if cut is not None:
        trials = learner_class(config.learner).trials(config)
        params = {"learner": config.learner, "part": cut} | ({"trials": trials} if trials > 1 else {})
        return Stage(POOL, params, inputs, seed_for(seed, "pool", generation))
    which = Shared(policy.at(generation), config.mix.size == "growing", generation, config.select.oversample)
    params = {"learner": config.learner, "takers": list(takers), **which.params()}
    return Stage(POOL, params, {"data": data, **inputs})


@dataclass(frozen=True)
class Shared:
    """How many rows a corpus takes: the attributes are those of `stages.sample.Continued`."""

    policy: Policy
    growing: bool
    generation: int
    oversample: float = 1.0

    def params(self) -> dict[str, Any]:
        """As a stage's parameters have it."""
        return vars(self) | {"policy": self.policy.params()}

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Shared":
        """What a stage's parameters say."""
        own = {name: params[name] for name in ("growing", "generation", "oversample")}
        return cls(Policy.of(params["policy"]), **own)

    def needed(self, rows: int) -> int:
        """Synthetic rows of the newest models that it takes, for an original corpus of so many rows."""
        return mixing.new_rows(self.policy, rows, self.generation, growing=self.growing)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    members = [inputs[name] for name in sorted(name for name in inputs if name.startswith("member-"))]
    rows = _alike([Dataset.load(made.file(ROWS)) for made in members])
    if "part" in stage.params:
        chosen = segment(rows, stage.params["part"], stage.seed, stage.params.get("trials", 1))
        shares, most = [len(chosen) / max(1, sum(map(len, rows)))] * len(rows), [0] * len(rows)
    else:
        which = Shared.of(stage.params)
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


def _alike(members: Sequence[Dataset]) -> list[Dataset]:
    """Rows with the arrays that all members have: some know more of theirs, such as where a sample begins."""
    names = [name for name in members[0].arrays if all(name in rows.arrays for rows in members)]
    return [Dataset({name: rows.arrays[name] for name in names}, rows.origin) for rows in members]


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
    if "part" in stage.params:
        rows = size.rows_of(stage.inputs[f"member-{stage.params['part'] + 1:05d}"])
    else:
        which = Shared.of(stage.params)
        rows = candidates(which.oversample, which.needed(size.rows))
    return put_together(size, rows, 0.1)


POOL = StageKind[Size](name="pool", kind="pool", version=1, product=Product.ROWS, body=body, cost=cost, label=at)
