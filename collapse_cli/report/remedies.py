"""What stopped collapse, and at what price: a table of remedies, and what a selection kept and threw away by generation."""

import math
from collections.abc import Sequence

from collapse_cli.findings.remedies import BASELINE, KNOWN, OneRun, Remedies, Remedy, remedies
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import factors, percent, spread, value
from collapse_cli.records.fields import finite, table
from collapse_cli.records.row import Row
from collapse_cli.report.contents import Contents
from collapse_cli.report.html_elements import cells, folded, heading, how_to_read, of_all, split
from collapse_cli.report.loading import Series
from collapse_cli.report.text import escaped

WIDTH, HEIGHT = 150, 16  # of the sign that shows a ratio
MOST_ROWS = 60  # of the table of one policy's selection
EXAMPLES = 10
EFFECT = (
    "remedy",
    "perplexity at the end",
    "of generation 0's",
    "of the baseline's",
    "",
    "early collapse from",
    "distinct pairs",
    "recall of the rarest tenth",
)
PRICE = (
    "remedy",
    "real rows a generation",
    "rows thrown away a generation",
    "tokens sampled",
    "tokens trained",
    "seconds of work",
)


def what_stopped_it(contents: Contents) -> None:
    """The section; nothing where there are not two policies of language models to compare."""
    runs = [OneRun(run.name, run.config, run.rows) for run in contents.runs if run.text and run.rows]
    compared = remedies(runs)
    inside = _table(contents, compared) if compared is not None else ""
    inside += "".join(_selection(line) for line in contents.series)
    if inside:
        contents.add("remedies", "What stopped it, and at what price", inside)


def _table(contents: Contents, compared: Remedies) -> str:
    lines = {(line.run.name, line.arm): line for line in contents.series}
    shown = sorted(compared.remedies, key=lambda remedy: (not remedy.baseline, remedy.end.mean))
    ends = _axis([remedy.against for remedy in shown if remedy.against is not None])
    base = next((remedy.price for remedy in shown if remedy.baseline), None)
    known = [name for name in KNOWN if any(name in remedy.known for remedy in shown)]
    effects, prices = [], []
    own = [None if line is None else line.index for line in (lines.get((one.run, one.arm)) for one in shown)]
    for remedy in shown:
        line, price = lines.get((remedy.run, remedy.arm)), remedy.price
        name = heading(line) if line is not None else escaped(remedy.arm)
        effects.append(
            [
                f"{name}{f'<small>{escaped(remedy.what, 200)}</small>' if remedy.what else ''}",
                split(spread(remedy.end)),
                split(_times(remedy.ratio)),
                _against(remedy),
                _sign(remedy.against, ends),
                "not called" if remedy.early is None else f"generation {remedy.early}",
                _cell(remedy.diversity),
                _cell(remedy.tail),
                *(_cell(remedy.known.get(name)) for name in known),
            ]
        )
        prices.append(
            [
                name,
                _number(price.real),
                _number(price.thrown),
                _more(price.sampled, base.sampled if base else None),
                _more(price.trained, base.trained if base else None),
                _number(price.seconds),
            ]
        )
    against = (
        f"the baseline is {compared.baseline[1]} of {compared.baseline[0]}"
        if compared.baseline
        else "there is no baseline"
    )
    caption = f"Policies at generation {compared.generation}, the best first; {escaped(against)}. Means over seeds, 95% intervals"
    notes = ". ".join(f"{note[:1].upper()}{note[1:]}" for note in compared.notes)
    reading = how_to_read(
        f"Below 1 of the baseline's perplexity a remedy helped, above it did harm. The baseline is {BASELINE}: nothing real is kept and nothing "
        "else is done. Differences are paired: the same seeds on both sides. The price stands beside: real rows, rows thrown away, and work.",
        "Remedies that were given other budgets: a remedy that keeps real rows has something that the others were not given. "
        "Seconds are of the machine that computed, and of what else it did.",
    )
    tables = cells(
        caption,
        [*EFFECT, *(KNOWN[name] for name in known)],
        effects,
        kind="wide glance remedies",
        row_series=own,
        beside=of_all("seeds"),
    ) + cells(
        "What each took: one seed, generations 1 to the last; beside it in multiples of the baseline's",
        PRICE,
        prices,
        kind="wide glance remedies",
        row_series=own,
    )
    return f'{tables}{reading}<p class="reading">{escaped(notes, 1000)}</p>'


def _times(over: Interval) -> str:
    mean, ends = factors(over)
    return f"{mean} ({ends})" if ends else mean


def _against(remedy: Remedy) -> str:
    """The ratio to the baseline, and whether the difference is shown."""
    mean, ends = ("baseline" if remedy.baseline else "–", "") if remedy.against is None else factors(remedy.against)
    shown = {True: "shown", False: "not shown", None: ""}[remedy.told_apart]
    return f"{escaped(mean)}<small>{escaped('; '.join(filter(None, (ends, shown))))}</small>"


def _axis(ratios: Sequence[Interval]) -> tuple[float, float]:
    """Ends of the common logarithmic axis, 1 between them."""
    seen = [math.log(end) for ratio in ratios for end in (ratio.low, ratio.mean, ratio.high) if end and end > 0]
    low, high = min(seen, default=0.0), max(seen, default=0.0)
    return min(low, -0.05), max(high, 0.05)


def _sign(ratio: Interval | None, ends: tuple[float, float]) -> str:
    """A dot with its interval on an axis that all rows share; the line stands at 1."""
    low, high = ends

    def at(factor: float) -> float:
        return 4 + (WIDTH - 8) * (math.log(max(factor, 1e-300)) - low) / (high - low)

    middle, parts = HEIGHT / 2, f"M{at(1):.1f} 0V{HEIGHT}"
    if ratio is not None:
        first, last = ratio.low or ratio.mean, ratio.high or ratio.mean
        dot = f"M{at(ratio.mean) - 3:.1f} {middle}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0"
        parts += f"M{at(first):.1f} {middle}H{at(last):.1f}{dot}"
    return f'<svg class="ratio" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" aria-hidden="true"><path d="{parts}"/></svg>'


def _cell(over: Interval | None) -> str:
    return "–" if over is None else split(spread(over))


def _number(amount: float | None) -> str:
    return "–" if amount is None else f"{amount:,.0f}"


def _more(amount: float | None, base: float | None) -> str:
    """A number, and how many times the baseline's it is."""
    if amount is None or not base or abs(amount / base - 1) < 0.005:
        return _number(amount)
    return f"{_number(amount)}<small>×{amount / base:.2f}</small>"


def _selection(line: Series) -> str:
    """What a selection kept and threw away in each generation, and rows to look at, folded."""
    rows = [row for row in line.rows if row.measure("select_candidates") is not None][:MOST_ROWS]
    if not rows:
        return ""
    head = [
        "generation, seed",
        "candidates",
        "kept",
        "different rows",
        "of them real",
        "real rows thrown away wrongly",
        "score before",
        "score after",
    ]
    body = [_audit(row) for row in rows]
    caption = f"What the selection kept under {escaped(line.label)}; scores: median (lowest to highest tenth) of the last step"
    return folded(
        f"{heading(line)}: the selection by generation",
        cells(caption, head, body, classes=["", *["n"] * 5, "", ""]) + _rows_to_look_at(rows[-1]),
    )


def _audit(row: Row) -> list[str]:
    def number(name: str) -> float:
        return row.measure(name) or 0.0

    candidates, kept = number("select_candidates"), number("select_kept")
    rejects = row.measure("select_false_rejects")
    steps = table(row.fields.get("selection")).get("steps")
    last = table(steps[-1]) if isinstance(steps, list) and steps else {}
    return [
        f"{row.where.generation}, {row.where.seed}",
        _number(candidates),
        f"{_number(kept)}<small>{percent(kept / candidates) if candidates else ''}</small>",
        _number(number("select_distinct")),
        _number(number("select_kept_real")),
        "–" if rejects is None else f"{percent(rejects)}<small>of {number('select_held_out'):,.0f} held out</small>",
        _quantiles(last.get("before")),
        _quantiles(last.get("after")),
    ]


def _quantiles(given: object) -> str:
    numbers = [number for each in given if (number := finite(each)) is not None] if isinstance(given, list) else []
    if len(numbers) != 11:
        return "–"
    return f"{value(numbers[5])}<small>{value(numbers[1])} to {value(numbers[9])}</small>"


def _rows_to_look_at(row: Row) -> str:
    """Rows that were thrown away and rows that stay, of one generation."""
    selection, parts = table(row.fields.get("selection")), []
    for name, title in (("thrown", "thrown away"), ("kept", "kept")):
        given = selection.get(name)
        examples = [table(each) for each in given[:EXAMPLES]] if isinstance(given, list) else []
        body = []
        for each in examples:
            score, text = finite(each.get("score")), each.get("text")
            origin = "real" if each.get("origin") == 0 else "synthetic"
            body.append(
                ["–" if score is None else value(score), origin, escaped(text if isinstance(text, str) else "", 300)]
            )
        if body:
            parts.append(
                cells(
                    f"Rows {title} in generation {row.where.generation}, seed {row.where.seed}",
                    ["score", "origin", "row"],
                    body,
                )
            )
    return "".join(parts)
