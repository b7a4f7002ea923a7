"""A forecast in tables: perplexity to come, when it passes what, and what is behind it."""

import math

from rich.console import Console

from collapse_cli.findings.forecast.sentences import Record, limit, sentences, to_come, when
from collapse_cli.metrics import numbers
from collapse_cli.metrics.numbers import SAME
from collapse_cli.terminal.text import Table, short

UNREADABLE = 1e12  # a perplexity beyond this says no more than that it is beyond


def print_forecast(console: Console, found: Record) -> None:
    """The tables, then what they come to in sentences; a command stays on one line, to be pasted."""
    for table in tables(found):
        console.print(table)
    commands = {option.get("command") for option in found["share"].get("next", [])}
    for sentence in sentences(found):
        console.print(sentence, highlight=False, markup=False, emoji=False, soft_wrap=sentence in commands)


def tables(record: Record) -> list[Table]:
    """Perplexity to come, when it passes what, the laws behind it, and what the shares of real data gave.

    Args:
        record: what `forecast` returned. Policies without enough data appear in `sentences` only.
    """
    known = [one for one in record["policies"] if one["status"] == "ok"]
    found = [_expected(known), _times(known), _laws(known)] if known else []
    return [*found, _ratios(record["share"])] if "ratios" in record["share"] else found


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
    if len({tuple(one["farthest_seeds"]) for one in known}) > 1:  # so their generations 0 are not the same
        table.caption = f"means over the seeds with the most generations: {'; '.join(map(_seeds, known))}"
    for one in known:
        last = one["measured"][-1]
        cells = [
            _perplexity(one["measured"][0]["perplexity"]),
            f"{_perplexity(last['perplexity'])} ({last['generation']})",
        ]
        for entry in one["expected"]:
            if entry["measured"]:
                cells.append(f"{_perplexity(entry['perplexity'])} [dim]measured[/]")
            else:
                said, ends = to_come(entry, one["ceiling"], _perplexity)
                cells.append(f"{said} [dim]{ends}[/]" if ends else said)
        table.add_row(short(one["policy"]), *cells)
    return table


def _seeds(one: Record) -> str:
    seeds = one["farthest_seeds"]
    named = ", ".join(map(str, seeds))
    return f"{short(one['policy'])} over {len(seeds)} (seed{'s' if len(seeds) > 1 else ''} {named})"


def _times(known: list[Record]) -> Table:
    table = Table("first generation at a multiple of generation 0's perplexity")
    table.add_column("policy")
    for time in known[0]["times"]:
        table.add_column(f"{time['factor']:g}×", justify="right")
    for one in known:
        table.add_row(short(one["policy"]), *(when(time, one["generations"][-1]) for time in one["times"]))
    return table


def _laws(known: list[Record]) -> Table:
    table = Table("growth laws of the log-perplexity, best by AICc first", keys=2)
    for column in ("policy", "law", "AICc", "weight", "in forecast", "parameters (90% interval)"):
        table.add_column(column, justify="right" if column in ("AICc", "weight", "in forecast") else "left")
    for one in known:
        least = min(law["aicc"] for law in one["laws"] if law["aicc"] is not None)
        for law in sorted(one["laws"], key=lambda law: -law["weight"]):
            best = law["law"] == one["best"]
            aicc = "[dim]too few steps[/]" if law["aicc"] is None else f"+{law['aicc'] - least:.1f}"
            said = ", ".join(_parameter(*item) for item in one["parameters"].items()) if best else ""
            weight, mixed = f"{law['weight']:.2f}", f"{law['forecast_weight']:.2f}"
            table.add_row(short(one["policy"]) if best else "", law["law"], aicc, weight, mixed, said)
    return table


def _parameter(name: str, found: Record) -> str:
    if found["low90"] is None:
        return f"{name} = {found['value']:.3g}"
    if found["low90"] == found["high90"]:
        return f"{name} = {found['value']:.3g} ({SAME})" if name == "a" else f"{name} = {found['value']:.3g}"
    return f"{name} = {found['value']:.3g} ({found['low90']:.3g} – {found['high90']:.3g})"


def _ratios(share: Record) -> Table:
    table = Table(f"perplexity at generation {share['generation']} against generation 0")
    table.add_column("policy")
    table.add_column("ratio", justify="right")
    table.add_column("90% interval", justify="right")
    table.add_column(f"within {share['factor']:g}×", justify="right")
    for one in share["ratios"]:
        sure = [end <= share["factor"] for end in (one["low90"], one["high90"])]
        within = "yes" if all(sure) else "perhaps" if any(sure) else "no"
        ceiling = one["ceiling"]
        ratio = _ratio(one["ratio"], None if one["measured"] else ceiling) + (
            "" if one["measured"] else " [dim]expected[/]"
        )
        ends = f"{_ratio(one['low90'], ceiling)} – {_ratio(one['high90'], ceiling)}"
        if limit(ceiling) <= one["low90"]:
            ends = f"{_ratio(one['low90'], ceiling)} (guessing evenly)"
        table.add_row(short(one["policy"]), ratio, ends, within)
    return table


def _ratio(value: float, ceiling: float | None) -> str:
    """A multiple of generation 0's perplexity; no figure from that of guessing evenly on, where it is known."""
    if value >= limit(ceiling):
        return f"above ×{ceiling:.3g}"
    return f"×{value:.3g}" if math.isfinite(value) and value < UNREADABLE else "> ×1e12"
