"""What the commands print when they are done, where it is more than one table."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from collapse_cli.errors import how_many
from collapse_cli.findings import compare, compare_families, expectations
from collapse_cli.terminal import console as show
from collapse_cli.terminal import outcome
from collapse_cli.terminal.text import Table, line, safe, short


def print_plan(console: Console, plan: Mapping[str, Any]) -> None:
    """What a run will cost, for `--dry-run`."""
    table = Table(f"plan of {short(plan['run'])}", show_footer=True)
    kinds = plan["kinds"].values()
    table.add_column("stage", footer="all")
    for name, total in (
        ("planned", str(plan["stages"])),
        ("cached", str(plan["cached"])),
        ("tokens", show.number(sum(kind["tokens"] for kind in kinds))),
        ("FLOPs", show.number(sum(kind["flops"] for kind in kinds))),
        ("disk", show.size(sum(kind["disk"] for kind in kinds))),
        ("time", show.duration(plan["seconds"])),
    ):
        table.add_column(name, justify="right", footer=total)
    for kind, entry in plan["kinds"].items():
        table.add_row(
            kind,
            str(entry["stages"]),
            str(entry["cached"]),
            show.number(entry["tokens"]),
            show.number(entry["flops"]),
            show.size(entry["disk"]),
            show.duration(entry["seconds"]),
        )
    console.print(table)
    basis = "from the finished stages of this plan" if plan["measured"] else "an estimate from this machine's speed"
    console.print(
        f"{show.number(plan['parameters'])} parameters, {plan['rows']:,} real rows; time is {basis}; disk "
        f"{show.size(plan['disk_needed'])} of {show.size(plan['disk_free'])} free, with a checkpoint",
        highlight=False,
    )
    for note in plan["notes"]:
        line(console, f"note: {note}")
    if plan["disk_needed"] > plan["disk_free"]:
        console.print("[red]this run would be refused: there is too little space on the disk[/]")


def print_rows(console: Console, rows: Sequence[Mapping[str, Any]], tree: Mapping[str, Any]) -> None:
    """The table of what was measured first, what it was measured by, and the rows' warnings."""
    family = expectations.family_of(tree)
    if expectations.is_mixture(tree):
        console.print(outcome.grid_table(rows, tree))
        if (laws := outcome.laws_table(rows, tree)) is not None:
            console.print(laws)
    elif rows or family.perplexity == family.headline.title:
        if family.perplexity != family.headline.title:
            console.print(outcome.generations_table(rows, tree))
        if family.perplexity:
            console.print(show.perplexity_table(rows, family.perplexity))
    for said in show.protocols(rows):
        line(console, said, "dim")
    for warning in show.row_warnings(rows):
        line(console, warning, mark="[yellow]warning:[/] ")


def print_run(console: Console, result: Mapping[str, Any]) -> None:
    """How a run ended: what it measured, beside what was published or proved, what was computed, and where it is."""
    print_rows(console, result["rows"], result["config"])
    if (expected := outcome.expectations_table(result["rows"], result["config"])) is not None:
        console.print(expected)
    if result["computed"] == 0:
        console.print("nothing to compute: all stages are in the store", highlight=False)
    else:
        computed = how_many(result["computed"], "stage")
        console.print(f"{computed} computed, {result['cached']:,} from the store", highlight=False)
    line(console, result["verdict"], "bold")
    line(console, f"{result['folder']}: run.json plan.json metrics.jsonl events.jsonl")
    console.print(f"report: {safe(result['report'])}", highlight=False, soft_wrap=True)


def print_comparison(console: Console, found: compare.Comparison | compare_families.FamilyComparison) -> None:
    """Runs side by side: what is not comparable, the tables, each run's verdict, and what limits the numbers."""
    if isinstance(found, compare.Comparison):
        for warning in found.warnings:
            line(console, warning, mark="[yellow]warning:[/] ")
        tables = compare.tables(found)
    else:
        tables = compare_families.tables(found)
    for table in tables:
        console.print(table)
    for run, verdict in found.verdicts.items():
        line(console, f"{run}: {verdict}", "bold")
    for note in found.notes:
        line(console, f"note: {note}")


def print_variants(console: Console, results: Mapping[str, Any]) -> None:
    """What each cause of error adds, where that is known, and where the variants are laid side by side."""
    if results["sources"]:
        console.print(_sources_table(results["sources"]))
    names = " ".join(result["run"] for result in results["runs"])
    if results["report"]:
        console.print(f"all variants in one report: {safe(results['report'])}", highlight=False, soft_wrap=True)
    console.print(f"in the terminal: collapse compare {safe(names)}", highlight=False, soft_wrap=True)


def _sources_table(found: Mapping[str, Any]) -> Table:
    seeds = ", ".join(map(str, found["seeds"]))
    over = f"seeds {seeds}; 95% intervals" if len(found["seeds"]) > 1 else f"seed {seeds}: no intervals"
    title = f"KL from the truth at generation {found['generation']}, nats/token ({over})"
    table = Table(title)
    table.add_column("variant")
    for name in ("error", "of that, after generation 0", "above the baseline", "share of the causes"):
        table.add_column(name, justify="right")

    def said(interval: Mapping[str, Any] | None, form: str = "{:.3f}") -> str:
        if interval is None:
            return ""
        mean, low, high = (None if each is None else form.format(each) for each in _ends(interval))
        return f"{mean}" if low is None else f"{mean}\n[dim]{low} to {high}[/]"

    for name, cause in found["variants"].items():
        row = (said(cause["error"]), said(cause["growth"]), said(cause["excess"]), said(cause["share"], "{:.0%}"))
        table.add_row(short(name), *row)
    if found["interaction"]:
        table.add_row("all, beyond the sum", "", "", said(found["interaction"], "{:+.3f}"), "")
    return table


def _ends(interval: Mapping[str, Any]) -> tuple[float, float | None, float | None]:
    return interval["mean"], interval["low"], interval["high"]
