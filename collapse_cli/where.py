"""Which model of an experiment something is of: the one type, for rows, stages and plans alike; and which arm of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Arm:
    """What seeds are repetitions of: one policy in one lineage, or one cell of a mixture.

    Whatever groups models (tables, verdicts, plots, trackers) groups them by this, and by nothing of its own: two lineages
    of one policy are never one.

    Attributes:
        policy: how its corpora were put together; of a mixture the label of the cell.
        lineage: which line of descent; "" where an experiment has one.
    """

    policy: str
    lineage: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Arm":
        """That of what `record` made."""
        return cls(str(record["policy"]), str(record.get("lineage", "")))

    def record(self) -> dict[str, str]:
        """As JSON; an experiment of one lineage names none."""
        return {"policy": self.policy, "lineage": self.lineage} if self.lineage else {"policy": self.policy}

    def __str__(self) -> str:
        """`keep-0`, `keep-0/a`: for people, and as the name of a file or a metric."""
        return f"{self.policy}/{self.lineage}" if self.lineage else self.policy


@lru_cache(maxsize=4096)
def _arm(policy: str, lineage: str) -> Arm:
    """One value for each, so that thousands of rows are told apart at a glance."""
    return Arm(policy, lineage)


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
    def arm(self) -> Arm:
        """What its seed is a repetition of."""
        return _arm(self.name, self.lineage)

    @property
    def policy_first(self) -> str:
        """`keep-0, seed 1, generation 2`: as rows are told apart in warnings; `str` is how stages at work are."""
        return f"{self.arm}, seed {self.seed}, generation {self.generation}"

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
