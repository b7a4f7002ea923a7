"""What became of one policy in one lineage: what the verdict on a run is made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from collapse_cli.findings.diagnosis.rules import Call
from collapse_cli.findings.forecast.fit import levels_off
from collapse_cli.findings.forecast.history import History
from collapse_cli.metrics.intervals import Interval
from collapse_cli.where import Arm

MOVING = ("collapses", "loses quality")  # states of which it is said where they are going


@dataclass(frozen=True)
class ArmDiagnosis:
    """What became of one policy in one lineage.

    Attributes:
        seeds: those counted: with generation 0 and with `last`.
        last: the last generation looked at.
        state: `collapses`, `loses quality`, `is undecided`, `cannot be judged from one seed` or `holds`;
            `has generation 0 only`. It holds only where no loss is called, and so never beside one.
        trend: `rises`, `level` or `falls`, of the later half of the generations; "" where that is not shown.
        ratios: by generation, perplexity as a multiple of generation 0's: the geometric mean over seeds, with the
            interval of paired log-perplexities (`intervals.log_ratio`); none for one seed.
        granted: whether the last of these intervals rests on prior knowledge of the noise between seeds.
        history: what laws of growth are fitted to; None where nothing can be.
    """

    arm: Arm
    seeds: tuple[int, ...]
    last: int
    state: str
    trend: str
    ratios: Mapping[int, Interval]
    calls: Mapping[str, Call]
    granted: bool = False
    history: History | None = field(default=None, repr=False, compare=False)

    @cached_property
    def forecast_levels_off(self) -> bool:
        """Whether it is forecast to level off, of one that loses and is not level or falling already.

        Asked for, the laws of growth are fitted.
        """
        rising = self.state in MOVING and self.trend not in ("level", "falls")
        return rising and self.history is not None and levels_off(self.history)

    @property
    def ratio(self) -> Interval:
        """Of the last generation."""
        return self.ratios[self.last]

    def record(self) -> dict[str, Any]:
        return {
            **self.arm.record(),
            "seeds": list(self.seeds),
            "last": self.last,
            "state": self.state,
            "trend": self.trend or None,
            "forecast_levels_off": self.forecast_levels_off,
            "perplexity_ratio": [{"generation": step, **ratio.record()} for step, ratio in self.ratios.items()],
            "calls": {kind: call.record() for kind, call in self.calls.items()},
        }
