"""Which model of an experiment something is of: the one type, for rows, stages and plans alike."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """The place of one model in an experiment, or of what is made for it.

    Attributes:
        policy: how its corpus was put together; "" in a mixture, which has cells in their place.
        seed: of the repetition.
        generation: 0 is fitted on real rows only; models of a mixture are all of generation 0.
        lineage: which line of descent; "" where an experiment has one.
        cell: the label of its cell in a mixture's grid; "" in a generational experiment.
    """

    policy: str
    seed: int
    generation: int
    lineage: str = ""
    cell: str = ""

    @property
    def name(self) -> str:
        """What the field `policy` of `metrics.jsonl` and `plan.json` holds: the policy, or the label of the cell."""
        return self.cell or self.policy

    @property
    def policy_first(self) -> str:
        """`keep-0, seed 1, generation 2`: as rows are told apart in warnings; `str` is how stages at work are."""
        return f"{self.name}, seed {self.seed}, generation {self.generation}"

    def record(self) -> list[str | int]:
        """As `plan.json` and `events.jsonl` have it."""
        return [self.name, self.seed, self.generation, *([self.lineage] if self.lineage else [])]

    def __str__(self) -> str:
        where = (
            f"seed {self.seed}, {self.cell}"
            if self.cell
            else f"seed {self.seed}, generation {self.generation}, {self.policy}"
        )
        return f"{self.lineage}, {where}" if self.lineage else where
