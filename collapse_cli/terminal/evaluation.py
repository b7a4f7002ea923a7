"""What `collapse eval` found, beside what was logged."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from collapse_cli.findings.evaluated import Evaluated
from collapse_cli.metrics import NO_WORDS, numbers
from collapse_cli.terminal.run import DOCUMENTS, protocol, protocols
from collapse_cli.terminal.run_tables import some
from collapse_cli.terminal.text import Table, facts_table, line, short


def print_evaluation(console: Console, evaluated: Sequence[Evaluated], run: str) -> None:
    """Every generation of a run as logged and as evaluated again, and by which protocols."""
    console.print(evaluation_table(evaluated, run))
    for protocol_line in protocols([model.again for model in evaluated if model.again is not None]):
        line(console, protocol_line, "dim")


def print_model(console: Console, measured: Mapping[str, Any]) -> None:
    """What a model of any origin came to."""
    for note in measured["notes"]:
        line(console, f"note: {note}")
    facts = {
        "perplexity": numbers.perplexity(measured["perplexity"]),
        "word perplexity": numbers.word_perplexity(measured["word_perplexity"]),
        "bits per byte": _digits(measured["bits_per_byte"]),
        "protocol": protocol(measured["protocol"], measured["predicted_tokens"], documents=DOCUMENTS in measured),
    }
    console.print(facts_table(facts, f"{measured['model']} on the test text of {measured['data']}"))


def evaluation_table(evaluated: Sequence[Evaluated], run: str) -> Table:
    """Perplexity (or loss) as logged and as evaluated again, and of text word perplexity and bits per byte."""
    measure = evaluated[0].measure if evaluated else "perplexity"
    text = measure == "perplexity"
    title = f"{short(run)}, evaluated again" + ("" if text else f": {measure.replace('_', ' ')}")
    table = Table(title, keys=3)
    names = ("policy", "seed", "gen", "logged", "again", "differ", *(("word ppl", "bits/byte") if text else ()))
    for column in names:
        table.add_column(column, justify="left" if column == "policy" else "right")
    few = set(some(sorted({model.where.generation for model in evaluated})))
    for model in (model for model in evaluated if model.where.generation in few):
        where = (short(model.where.arm), str(model.where.seed), str(model.where.generation))
        logged = _digits(model.logged)
        if model.again is None:
            table.add_row(
                *where, logged, f"[dim]{'pruned' if model.made else 'not made yet'}[/]", *[""] * (len(names) - 5)
            )
            continue
        difference = "" if model.difference is None else f"{model.difference:.1e}"
        of_text = []
        if text:
            words = model.again.measure("word_perplexity")
            of_text = [
                "–" if words is None else numbers.perplexity(words),
                _digits(model.again.measure("bits_per_byte")),
            ]
        table.add_row(*where, logged, _digits(model.value), difference, *of_text)
    measured = [model.again for model in evaluated if model.again is not None]
    if text and any(row.measure("word_perplexity") is None for row in measured):
        table.caption = f"–: word perplexity is {NO_WORDS}"
    return table


def _digits(value: float | None) -> str:
    """In four decimals, so that small differences show; nothing where it is not known."""
    return "" if value is None else f"{value:,.4f}"
