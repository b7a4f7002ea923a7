"""What a run will cost, before it begins."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from collapse_cli.metrics import numbers
from collapse_cli.terminal.text import Table, line, short


def print_plan(console: Console, plan: Mapping[str, Any]) -> None:
    """What a run will cost, for `--dry-run`."""
    table = Table(f"plan of {short(plan['run'])}", show_footer=True)
    kinds = plan["kinds"].values()
    table.add_column("stage", footer="all")
    for name, total in (
        ("planned", str(plan["stages"])),
        ("cached", str(plan["cached"])),
        ("tokens", numbers.prefixed(sum(kind["tokens"] for kind in kinds))),
        ("FLOPs", numbers.prefixed(sum(kind["flops"] for kind in kinds))),
        ("disk", numbers.size(sum(kind["disk"] for kind in kinds))),
        ("time", numbers.duration(plan["seconds"])),
    ):
        table.add_column(name, justify="right", footer=total)
    for kind, entry in plan["kinds"].items():
        table.add_row(
            kind,
            str(entry["stages"]),
            str(entry["cached"]),
            numbers.prefixed(entry["tokens"]),
            numbers.prefixed(entry["flops"]),
            numbers.size(entry["disk"]),
            numbers.duration(entry["seconds"]),
        )
    console.print(table)
    basis = "from the finished stages of this plan" if plan["measured"] else "an estimate from this machine's speed"
    console.print(
        f"{numbers.prefixed(plan['parameters'])} parameters, {plan['rows']:,} real rows; time is {basis}; disk "
        f"{numbers.size(plan['disk_needed'])} of {numbers.size(plan['disk_free'])} free, with a checkpoint",
        highlight=False,
    )
    for note in plan["notes"]:
        line(console, f"note: {note}")
    if plan["disk_needed"] > plan["disk_free"]:
        console.print("[red]this run would be refused: there is too little space on the disk[/]")
