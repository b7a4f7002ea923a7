"""Runs compared: what is not comparable, tables, verdicts, and what limits the numbers."""

from typing import Any

from rich.console import Console

from collapse_cli.families import Headline
from collapse_cli.findings.compare import Comparison, measures, perplexities
from collapse_cli.findings.compare.perplexities import INSTRUMENTS, PolicyPerplexity
from collapse_cli.findings.diagnosis import ArmDiagnosis
from collapse_cli.findings.several_models import more_than_one_said
from collapse_cli.metrics import numbers
from collapse_cli.metrics.numbers import factors, spread, value
from collapse_cli.terminal.several_models import more_table
from collapse_cli.terminal.text import Table, line, safe, short
from collapse_cli.where import Arm

LONGEST_VALUE = 200  # characters of an option's value in a table
MOST_PAIRS = 60


def print_comparison(console: Console, comparison: Comparison[Any, Any]) -> None:
    """Runs compared: what is not comparable, the tables, each run's verdict, and what limits the numbers."""
    for warning in comparison.warnings or ():
        line(console, warning, mark="[yellow]warning:[/] ")
    for table in of_text(comparison) if comparison.measure is None else of_families(comparison, comparison.measure):
        console.print(table)
    if comparison.more is not None:
        console.print(more_table(comparison.more))
        for sentence in more_than_one_said(comparison.more):
            line(console, sentence)
        for note in comparison.more.notes:
            line(console, f"note: {note}")
    for run, verdict in comparison.verdicts.items():
        line(console, f"{run}: {verdict}", "bold")
    for note in comparison.notes:
        line(console, f"note: {note}")


def of_text(comparison: Comparison[perplexities.PolicyPerplexity, perplexities.PerplexityRatio]) -> list[Table]:
    """A comparison for the terminal: perplexities and calls, instruments, paired differences, differing options."""
    several = len(comparison.runs) > 1

    def table(title: str, *columns: str) -> Table:
        made = Table(title, keys=2 if columns[:2] in (("run", "policy"), ("first", "second")) else 1)
        for column in columns:
            left = column in ("run", "policy", "calls", "first", "second")
            made.add_column(column, justify="left" if left else "right")
        return made

    def who(run: str, arm: Arm) -> list[str]:
        return [short(run), short(arm)] if several else [short(arm)]

    step = comparison.generation
    heads = ["run", "policy"] if several else ["policy"]
    first = table(f"perplexity on real test text, generation {step}", *heads, "gen 0", f"gen {step}", "change", "calls")
    measured = [name for name in INSTRUMENTS if any(name in entry.instruments for entry in comparison.entries)]
    second = table(
        f"samples and tail deciles, generation 0 → {step}", *heads, *(INSTRUMENTS[name][0] for name in measured)
    )
    for entry in comparison.entries:
        mean, ends = factors(entry.ratio)
        change = f"{mean}\n[dim]{ends}[/]" if ends else mean
        both = (numbers.with_interval(entry.start), numbers.with_interval(entry.now))
        first.add_row(*who(entry.run, entry.arm), *both, change, _said(entry.diagnosis))
        second.add_row(*who(entry.run, entry.arm), *(_instrument(entry, name) for name in measured))
    made = [first, second] if measured else [first]
    if comparison.pairs:
        third = table(
            "perplexity of the first over the second, paired over seeds",
            "first",
            "second",
            "ratio",
            "95% interval",
            "seeds",
        )
        for pair in comparison.pairs:
            ends = "one seed: none"
            if pair.ratio.low is not None and pair.ratio.high is not None:
                ends = f"{value(pair.ratio.low)} to {value(pair.ratio.high)}{'' if pair.told_apart else ' [dim]not told apart[/]'}"
            sides = [" ".join(who(*side)) for side in (pair.first, pair.second)]
            third.add_row(*sides, value(pair.ratio.mean), ends, ", ".join(map(str, pair.seeds)))
        made.append(third)
    if comparison.differences:
        last = table("options in which they differ", "option", *map(short, comparison.runs))
        last.columns[0].justify = "left"
        for key, values in comparison.differences.items():
            last.add_row(short(key), *("" if value is None else safe(value, LONGEST_VALUE) for value in values))
        made.append(last)
    return made


def of_families(
    comparison: Comparison[measures.MeasuredPolicy, measures.MeasureDifference], measure: Headline
) -> list[Table]:
    """A comparison for the terminal: the measure by run and policy, and paired differences."""
    where = f", generation {comparison.generation:,}" if comparison.generation else ""
    first = Table(f"{measure.title}{where}", keys=2)
    second = Table("first minus second, paired over seeds", keys=2)
    starts, theories = (
        any(getattr(entry, name) is not None for entry in comparison.entries) for name in ("first", "theory")
    )
    for column in ("run", "policy", *(("gen. 0",) if starts else ()), "now", *(("theory",) if theories else ())):
        first.add_column(column, justify="left" if column in ("run", "policy") else "right")
    for entry in comparison.entries:
        start = [spread(entry.first) if entry.first else ""] if starts else []
        theory = ["" if entry.theory is None else value(entry.theory)] if theories else []
        first.add_row(short(entry.run), short(entry.arm), *start, spread(entry.now), *theory)
    for column in ("first", "second", "difference", "seeds"):
        second.add_column(column, justify="right" if column in ("difference", "seeds") else "left")
    for pair in comparison.pairs[:MOST_PAIRS]:
        sides = [short(" ".join(map(str, side))) for side in (pair.first, pair.second)]
        second.add_row(*sides, spread(pair.difference), str(len(pair.seeds)))
    if len(comparison.pairs) > MOST_PAIRS:
        second.caption = f"the first {MOST_PAIRS} of {len(comparison.pairs)} pairs; all are in --json"
    return [first, second] if comparison.pairs else [first]


def _said(diagnosis: ArmDiagnosis) -> str:
    """Calls in short, a line each: `early 1`, `late 7`; `none`; `not measured`."""
    called = [call for call in diagnosis.calls.values() if call.generation is not None]
    if called:
        called.sort(key=lambda call: call.generation or 0)
        return "\n".join(f"{call.kind} {call.generation}" for call in called)
    return "none" if any(call.evidence for call in diagnosis.calls.values()) else "not measured"


def _instrument(entry: PolicyPerplexity, name: str) -> str:
    if name not in entry.instruments:
        return "[dim]…[/]"
    first, now = entry.instruments[name]
    form = INSTRUMENTS[name][1]
    return form.format(now.mean) if first is None else f"[dim]{form.format(first.mean)} →[/] {form.format(now.mean)}"
