"""What a person reads of a run: what it measured, how it was measured, how it ended, and what its variants add up to."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from collapse_cli.errors import how_many
from collapse_cli.findings import expectations
from collapse_cli.findings.causes import Causes
from collapse_cli.findings.foreign_text import given_by_sources, sources_said
from collapse_cli.findings.known_world import world_said
from collapse_cli.findings.predictions import Tree
from collapse_cli.findings.run_result import Results, RunResult, row_warnings
from collapse_cli.findings.selection import selection_said
from collapse_cli.findings.several_models import between_said
from collapse_cli.metrics import floored
from collapse_cli.metrics.intervals import Interval
from collapse_cli.records.elsewhere import said
from collapse_cli.records.row import Row
from collapse_cli.terminal.run_tables import (
    expectations_table,
    generations_table,
    grid_table,
    laws_table,
    perplexity_table,
)
from collapse_cli.terminal.several_models import between_tables
from collapse_cli.terminal.text import Table, line, safe, short

DOCUMENTS = "kl_truth_se"  # a field that rows have where the blocks of the text are whole documents (docs/metrics.md)


def print_rows(console: Console, rows: Sequence[Row], tree: Tree) -> None:
    """The table of what was measured first, what it was measured by, and the rows' warnings."""
    family = expectations.family_of(tree)
    if expectations.is_mixture(tree):
        console.print(grid_table(rows, tree))
        if (laws := laws_table(rows, tree)) is not None:
            console.print(laws)
    elif rows or family.perplexity == family.headline.title:
        if family.perplexity != family.headline.title:
            console.print(generations_table(rows, tree))
        if family.perplexity:
            console.print(perplexity_table(rows, family.perplexity))
    for protocol_line in protocols(rows):
        line(console, protocol_line, "dim")
    for warning in row_warnings(rows):
        line(console, warning, mark="[yellow]warning:[/] ")


def print_run(console: Console, result: RunResult) -> None:
    """How a run ended: what it measured, beside what was published or proved, what was computed, and where it is."""
    print_rows(console, result.rows, result.tree)
    for table in between_tables(result.between):
        console.print(table)
    if (expected := expectations_table(result.rows, result.tree)) is not None:
        console.print(expected)
    if result.computed == 0:
        console.print("nothing to compute: all stages are in the store", highlight=False)
    else:
        computed = how_many(result.computed, "stage")
        console.print(f"{computed} computed, {result.cached:,} from the store", highlight=False)
    line(console, result.verdict, "bold")
    others = [*sources_said(given_by_sources(result.rows)), *between_said(result.between)]
    for sentence in (*world_said(result.world), *selection_said(result.selected), *others):
        line(console, sentence)
    line(console, f"{said(result.folder)}: run.json plan.json metrics.jsonl events.jsonl")
    if result.report is not None:
        console.print(f"report: {safe(result.report)}", highlight=False, soft_wrap=True)


def print_variants(console: Console, results: Results) -> None:
    """What each cause of error adds, where that is known, and where the variants are compared."""
    if results.causes is not None:
        console.print(_causes_table(results.causes))
    names = " ".join(result.run for result in results.runs)
    if results.report is not None:
        console.print(f"all variants in one report: {safe(results.report)}", highlight=False, soft_wrap=True)
    console.print(f"in the terminal: collapse compare {safe(names)}", highlight=False, soft_wrap=True)


def _causes_table(shared: Causes) -> Table:
    seeds = ", ".join(map(str, shared.seeds))
    over = f"seeds {seeds}; 95% intervals" if len(shared.seeds) > 1 else f"seed {seeds}: no intervals"
    title = f"KL from the truth at generation {shared.generation}, nats/token ({over})"
    table = Table(title)
    table.add_column("variant")
    for name in ("error", "of that, after generation 0", "above the baseline", "share of the causes"):
        table.add_column(name, justify="right")

    def shown(interval: Interval | None, form: str = "{:.3f}") -> str:
        if interval is None:
            return ""
        mean = form.format(interval.mean)
        if interval.low is None or interval.high is None:
            return mean
        return f"{mean}\n[dim]{form.format(interval.low)} to {form.format(interval.high)}[/]"

    for name, cause in shared.variants.items():
        row = (shown(cause.error), shown(cause.growth), shown(cause.excess), shown(cause.share, "{:.0%}"))
        table.add_row(short(name), *row)
    if shared.interaction is not None:
        table.add_row("all, beyond the sum", "", "", shown(shared.interaction, "{:+.3f}"), "")
    return table


def protocols(rows: Sequence[Row]) -> list[str]:
    """The protocols behind rows of `metrics.jsonl`, each in a line."""
    return list(
        dict.fromkeys(
            protocol(row.protocol, int(row.measure("predicted_tokens") or 0), documents=DOCUMENTS in row.fields)
            for row in rows
            if "protocol" in row.fields
        )
    )


def protocol(given: Mapping[str, Any], predicted: int, *, documents: bool = False) -> str:
    """What a perplexity means: protocol, context, stride, tokens, BOS policy; and what an unseen token counts as.

    Args:
        documents: whether a block is a whole document, between a token that begins it and one that ends it.
    """
    lines = "a BOS token before every line" if given.get("line_bos") else "no BOS tokens"
    if documents and given.get("protocol") != "sliding":
        how, lines = (
            "each block is a document",
            "a BOS token before each, which is not predicted, and a token for its end",
        )
    elif given.get("protocol") != "sliding":
        how = f"blocks of {given.get('context', '?')} tokens, the first of each not predicted"
    else:
        how = f"a sliding window of {given.get('context', '?')} tokens moved by {given.get('stride', '?')}"
    if given.get("counted") == "answers":
        how = f"rows of up to {given.get('context', '?')} tokens, of which only what the assistant says is predicted"
        lines = "each time with the token that ends it"
    dtype = given.get("dtype", "float32")
    arithmetic = "" if dtype in ("float32", "float64") else f"; in {short(dtype)}"
    floor = f"; {floored(given['floor'])}" if "floor" in given else ""
    return f"token-weighted over {predicted:,} predicted tokens; {how}; {lines}{arithmetic}{floor}"
