"""What a run will cost, before it begins."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from collapse_cli.metrics import numbers
from collapse_cli.terminal.text import Table, line, short


@dataclass
class KindCosts:
    """What the stages of one kind need together: those that are not there yet, but for the counts of `stages` and `cached`."""

    stages: int = 0
    cached: int = 0
    tokens: int = 0
    flops: float = 0.0
    disk: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class PlanCosts:
    """What a run will cost.

    Attributes:
        stages, cached: how many it has, and how many of them need not be computed.
        kinds: by kind of stage.
        parameters: of the model.
        rows: of the original corpus.
        disk_needed, disk_free: bytes.
        measured: whether `seconds` follow from finished stages, or are guessed.
        notes: what the user should know of model and data.
    """

    run: str
    stages: int
    cached: int
    kinds: Mapping[str, KindCosts]
    parameters: int
    rows: int
    disk_needed: int
    disk_free: int
    seconds: float
    measured: bool
    notes: Sequence[str]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def print_plan(console: Console, plan: PlanCosts) -> None:
    """What a run will cost, for `--dry-run`."""
    table = Table(f"plan of {short(plan.run)}", show_footer=True)
    kinds = plan.kinds.values()
    table.add_column("stage", footer="all")
    for name, total in (
        ("planned", str(plan.stages)),
        ("cached", str(plan.cached)),
        ("tokens", numbers.prefixed(sum(kind.tokens for kind in kinds))),
        ("FLOPs", numbers.prefixed(sum(kind.flops for kind in kinds))),
        ("disk", numbers.size(sum(kind.disk for kind in kinds))),
        ("time", numbers.duration(plan.seconds)),
    ):
        table.add_column(name, justify="right", footer=total)
    for kind, entry in plan.kinds.items():
        table.add_row(
            kind,
            str(entry.stages),
            str(entry.cached),
            numbers.prefixed(entry.tokens),
            numbers.prefixed(entry.flops),
            numbers.size(entry.disk),
            numbers.duration(entry.seconds),
        )
    console.print(table)
    basis = "from the finished stages of this plan" if plan.measured else "an estimate from this machine's speed"
    console.print(
        f"{numbers.prefixed(plan.parameters)} parameters, {plan.rows:,} real rows; time is {basis}; disk "
        f"{numbers.size(plan.disk_needed)} of {numbers.size(plan.disk_free)} free, with a checkpoint",
        highlight=False,
    )
    for note in plan.notes:
        line(console, f"note: {note}")
    if plan.disk_needed > plan.disk_free:
        console.print("[red]this run would be refused: there is too little space on the disk[/]")
