"""A forecast in tables: perplexity to come, when it passes what, and what is behind it."""

import math

from rich.console import Console

from collapse_cli.findings.forecast.sentences import Record, limit, sentences, shares_of, to_come, when
from collapse_cli.metrics import numbers
from collapse_cli.metrics.numbers import SAME
from collapse_cli.terminal.text import Table, short
from collapse_cli.where import Arm

UNREADABLE = 1e12  # a perplexity beyond this says no more than that it is beyond


def print_forecast(console: Console, record: Record) -> None:
    """The tables, then what they come to in sentences; a command stays on one line, to be pasted."""
    for table in tables(record):
        console.print(table)
    commands = {option.get("command") for share in shares_of(record) for option in share.get("next", [])}
    for sentence in sentences(record):
        console.print(sentence, highlight=False, markup=False, emoji=False, soft_wrap=sentence in commands)


def tables(record: Record) -> list[Table]:
    """Perplexity to come, when it passes what, the laws behind it, and what the shares of real data gave.

    Args:
        record: what `forecast` returned. Policies without enough data appear in `sentences` only.
    """
    known = [policy for policy in record["policies"] if policy["status"] == "ok"]
    tables_made = [_expected(known), _times(known), _laws(known)] if known else []
    return [*tables_made, *(_ratios(share) for share in shares_of(record) if "ratios" in share)]


def _perplexity(value: float | None) -> str:
    if value is None:
        return "[dim]…[/]"
    return numbers.perplexity(value) if value < UNREADABLE else "> 1e12"


def _expected(known: list[Record]) -> Table:
    table = Table("perplexity to come: median (90% interval)")
    table.add_column("policy")
    table.add_column("generation 0", justify="right")
    table.add_column("last measured (its generation)", justify="right")
    for entry in known[0]["expected"]:
        table.add_column(f"generation {entry['generation']}", justify="right")
    if len({tuple(policy["farthest_seeds"]) for policy in known}) > 1:  # so their generations 0 are not the same
        table.caption = f"means over the seeds with the most generations: {'; '.join(map(_seeds, known))}"
    for policy in known:
        last = policy["measured"][-1]
        cells = [
            _perplexity(policy["measured"][0]["perplexity"]),
            f"{_perplexity(last['perplexity'])} ({last['generation']})",
        ]
        for entry in policy["expected"]:
            if entry["measured"]:
                cells.append(f"{_perplexity(entry['perplexity'])} [dim]measured[/]")
            else:
                middle, ends = to_come(entry, policy["ceiling"], _perplexity)
                cells.append(f"{middle} [dim]{ends}[/]" if ends else middle)
        table.add_row(short(Arm.of(policy)), *cells)
    return table


def _seeds(policy: Record) -> str:
    seeds = policy["farthest_seeds"]
    named = ", ".join(map(str, seeds))
    return f"{short(Arm.of(policy))} over {len(seeds)} (seed{'s' if len(seeds) > 1 else ''} {named})"


def _times(known: list[Record]) -> Table:
    table = Table("first generation at a multiple of generation 0's perplexity")
    table.add_column("policy")
    for time in known[0]["times"]:
        table.add_column(f"{time['factor']:g}×", justify="right")
    for policy in known:
        table.add_row(short(Arm.of(policy)), *(when(time, policy["generations"][-1]) for time in policy["times"]))
    return table


def _laws(known: list[Record]) -> Table:
    table = Table("growth laws of the log-perplexity, best by AICc first", keys=2)
    for column in ("policy", "law", "AICc", "weight", "in forecast", "parameters (90% interval)"):
        table.add_column(column, justify="right" if column in ("AICc", "weight", "in forecast") else "left")
    for policy in known:
        least = min(law["aicc"] for law in policy["laws"] if law["aicc"] is not None)
        for law in sorted(policy["laws"], key=lambda law: -law["weight"]):
            best = law["law"] == policy["best"]
            aicc = "[dim]too few steps[/]" if law["aicc"] is None else f"+{law['aicc'] - least:.1f}"
            parameters = ", ".join(_parameter(*item) for item in policy["parameters"].items()) if best else ""
            weight, mixed = f"{law['weight']:.2f}", f"{law['forecast_weight']:.2f}"
            table.add_row(short(Arm.of(policy)) if best else "", law["law"], aicc, weight, mixed, parameters)
    return table


def _parameter(name: str, record: Record) -> str:
    said = f"{name} = {numbers.value(record['value'])}"
    if record["low90"] is None:
        return said
    if record["low90"] == record["high90"]:
        return f"{said} ({SAME})" if name == "a" else said
    return f"{said} ({numbers.value(record['low90'])} – {numbers.value(record['high90'])})"


def _ratios(share: Record) -> Table:
    of = f" of {short(share['lineage'])}" if "lineage" in share else ""
    table = Table(f"perplexity{of} at generation {share['generation']} against generation 0")
    table.add_column("policy")
    table.add_column("ratio", justify="right")
    table.add_column("90% interval", justify="right")
    table.add_column(f"within {share['factor']:g}×", justify="right")
    for entry in share["ratios"]:
        sure = [end <= share["factor"] for end in (entry["low90"], entry["high90"])]
        within = "yes" if all(sure) else "perhaps" if any(sure) else "no"
        ceiling = entry["ceiling"]
        ratio = _ratio(entry["ratio"], None if entry["measured"] else ceiling) + (
            "" if entry["measured"] else " [dim]expected[/]"
        )
        ends = f"{_ratio(entry['low90'], ceiling)} – {_ratio(entry['high90'], ceiling)}"
        if limit(ceiling) <= entry["low90"]:
            ends = f"{_ratio(entry['low90'], ceiling)} (guessing evenly)"
        table.add_row(short(entry["policy"]), ratio, ends, within)
    return table


def _ratio(value: float, ceiling: float | None) -> str:
    """A multiple of generation 0's perplexity; no figure from that of guessing evenly on, where it is known."""
    if value >= limit(ceiling):
        return f"above ×{numbers.value(ceiling)}"
    return f"×{numbers.value(value)}" if math.isfinite(value) and value < UNREADABLE else "> ×1e12"
