"""What a run will cost, before it begins."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from collapse_cli.metrics import numbers
from collapse_cli.terminal.text import Table, line, safe, short

SHARDS = ", shards"  # behind the word of a kind: its stages that are parts of others


@dataclass
class KindCosts:
    """What the stages of one kind need together: those that are not there yet, but for the counts of `stages` and `cached`.

    `seconds` are those of all, one after another; `guessed`: how many of them have a time that nothing was measured for.
    """

    stages: int = 0
    cached: int = 0
    tokens: int = 0
    flops: float = 0.0
    disk: int = 0
    seconds: float = 0.0
    guessed: int = 0


@dataclass(frozen=True)
class PlanCosts:
    """What a run will cost.

    Attributes:
        stages, cached: how many it has, and how many of them need not be computed, or are with another run of the same command.
        kinds: by kind of stage.
        parameters: of the model.
        rows: of the original corpus.
        disk_needed, disk_free: bytes.
        seconds: from the command to its end.
        measured: whether all of `seconds` follows from stages that were timed; else some are guessed.
        notes: what the user should know of model and data.
        begin: seconds of it until the first stage begins.
        end: seconds of it after the last one: the report, and what is printed.
        libraries: seconds of these in which libraries are loaded, once a command.
        workers: how many stages are computed at the same time.
        executor: what computes them; `seconds` are those of this machine, whatever computes them.
        devices: how many devices train one model together.
        timed: seconds in which short versions of the stages were timed for this; 0: none were.
        fault: why that ended before all was timed, where something went wrong.
        assumed: of which part of the work these were, and what is taken for granted of the rest, where a model is large.
        memory_needed, memory_free: bytes, at the peak and free now; on a GPU, of its own.
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
    begin: float = 0.0
    end: float = 0.0
    libraries: float = 0.0
    workers: int = 1
    executor: str = "local"
    devices: int = 1
    timed: float = 0.0
    fault: str = ""
    assumed: str = ""
    memory_needed: int = 0
    memory_free: int = 0

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
        ("time", numbers.duration(sum(kind.seconds for kind in kinds))),
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
    size = f"{numbers.prefixed(plan.parameters)} parameters, {plan.rows:,} real rows"
    disk = f"disk {numbers.size(plan.disk_needed)} of {numbers.size(plan.disk_free)} free"
    if plan.memory_needed:  # there is something to compute
        disk += ", with a checkpoint"
        memory = (
            f"memory at its peak about {numbers.size(plan.memory_needed)}, of {numbers.size(plan.memory_free)} free now"
        )
        console.print(f"{size}; {disk}; {memory}", highlight=False)
    else:
        console.print(f"{size}; {disk}", highlight=False)
    console.print(f"time: {basis(plan)}", highlight=False)
    for note in plan.notes:
        line(console, f"note: {note}")
    if plan.disk_needed > plan.disk_free:
        console.print("[red]this run would be refused: there is too little space on the disk[/]")
    if plan.memory_needed > plan.memory_free:
        console.print(
            "[red]memory will hardly do:[/] end what else is running, take a smaller model or batch, or fewer stages at a time (--jobs 1)"
            if plan.workers > 1
            else "[red]memory will hardly do:[/] end what else is running, or take a smaller model or batch"
        )


def basis(plan: PlanCosts) -> str:
    """How long a run takes from the command to its end, and what that is known from."""
    if plan.cached == plan.stages:
        return "none: all stages are there"
    said = [
        f"{numbers.duration(plan.seconds)} in all, {numbers.duration(plan.begin)} of it to begin and {numbers.duration(plan.end)} for the report"
    ]
    if plan.workers > 1:
        said.append(f"{plan.workers} stages at a time")
    if plan.executor != "local":
        said.append(
            "as if this machine computed all of it, with a guess of how long Ray takes to be there, for what a cluster's nodes take is not timed"
        )
    if plan.devices > 1:
        said.append(f"models trained on {plan.devices} devices")
    known = []
    if plan.timed:
        known.append(
            f"short trials of {numbers.duration(plan.timed)} here and now, with what else this machine does"
            + (f" ({plan.assumed})" if plan.assumed else "")
        )
    if plan.measured and not plan.timed:
        known.append("stages of each kind that are finished, or were timed for a run before this one")
    guessed = [f"{kind} ({entry.guessed})" for kind, entry in plan.kinds.items() if entry.guessed]
    if guessed:
        known.append(f"a guess for {', '.join(guessed)}")
    text = f"{', '.join(said)}; from {' and '.join(known)}"
    return f"{text}; a trial failed: {safe(plan.fault)}" if plan.fault else text


@dataclass(frozen=True)
class Total:
    """What several runs of one command cost together; stages that they share are counted once.

    Attributes:
        runs: how many.
        seconds: one after the other, and for the report on all of them, as long as for those of each.
        disk_needed: bytes of all.
        memory_needed: of the one that needs most.
    """

    runs: int
    stages: int
    cached: int
    seconds: float
    disk_needed: int
    memory_needed: int

    @classmethod
    def of(cls, plans: Sequence[PlanCosts]) -> "Total":
        return cls(
            len(plans),
            sum(plan.stages for plan in plans),
            sum(plan.cached for plan in plans),
            sum(plan.seconds for plan in plans)
            + (sum(plan.end - plan.libraries for plan in plans) if len(plans) > 1 else 0.0),
            sum(plan.disk_needed for plan in plans),
            max(plan.memory_needed for plan in plans),
        )

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def print_total(console: Console, total: Total) -> None:
    """What several runs cost together; nothing of one alone, whose plan says it."""
    if total.runs > 1:
        console.print(
            f"all {total.runs} runs: {numbers.duration(total.seconds)}, {total.stages - total.cached:,} stages to compute, disk "
            f"{numbers.size(total.disk_needed)}, memory {numbers.size(total.memory_needed)}",
            highlight=False,
        )
