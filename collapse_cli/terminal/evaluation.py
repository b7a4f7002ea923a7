"""What `collapse eval` found, beside what was logged."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from collapse_cli.metrics import NO_WORDS, numbers
from collapse_cli.terminal.run import protocol, protocols
from collapse_cli.terminal.run_tables import some
from collapse_cli.terminal.text import Table, facts_table, line, short


def print_evaluation(console: Console, rows: Sequence[Mapping[str, Any]], run: str) -> None:
    """Every generation of a run as logged and as evaluated again, and by which protocols."""
    console.print(evaluation_table(rows, run))
    for said in protocols([row for row in rows if not row["pruned"]]):
        line(console, said, "dim")


def print_model(console: Console, measured: Mapping[str, Any]) -> None:
    """What a model of any origin came to."""
    for note in measured["notes"]:
        line(console, f"note: {note}")
    facts = {
        "perplexity": numbers.perplexity(measured["perplexity"]),
        "word perplexity": numbers.word_perplexity(measured["word_perplexity"]),
        "bits per byte": f"{measured['bits_per_byte']:.4f}",
        "protocol": protocol(measured["protocol"], measured["predicted_tokens"]),
    }
    console.print(facts_table(facts, f"{measured['model']} on the test text of {measured['data']}"))


def evaluation_table(rows: Sequence[Mapping[str, Any]], run: str) -> Table:
    """Perplexity (or loss) as logged and as evaluated again, and of text word perplexity and bits per byte."""
    measure = rows[0]["measure"] if rows else "perplexity"
    text = measure == "perplexity"
    title = f"{short(run)}, evaluated again" + ("" if text else f": {measure.replace('_', ' ')}")
    table = Table(title, keys=3)
    names = ("policy", "seed", "gen", "logged", "again", "differ", *(("word ppl", "bits/byte") if text else ()))
    for column in names:
        table.add_column(column, justify="left" if column == "policy" else "right")
    few = set(some(sorted({row["generation"] for row in rows})))
    for row in (row for row in rows if row["generation"] in few):
        where = (short(row["policy"]), str(row["seed"]), str(row["generation"]))
        logged = "" if row["logged"] is None else f"{row['logged']:,.4f}"
        if row["pruned"]:
            table.add_row(*where, logged, "[dim]pruned[/]", *[""] * (len(names) - 5))
            continue
        difference = "" if row["difference"] is None else f"{row['difference']:.1e}"
        of_text = (
            (
                "–" if (said := row["word_perplexity"]) is None else numbers.perplexity(said),
                f"{row['bits_per_byte']:.4f}",
            )
            if text
            else ()
        )
        table.add_row(*where, logged, f"{row[measure]:,.4f}", difference, *of_text)
    if text and any(row.get("word_perplexity", 0.0) is None for row in rows):
        table.caption = f"–: word perplexity is {NO_WORDS}"
    return table
