"""Tables of what a run measured: by generation, by cell, and beside what was published or proved."""

import math
import sys
from collections.abc import Sequence

from collapse_cli.config import not_as_published
from collapse_cli.config.cell import AXES
from collapse_cli.findings import expectations
from collapse_cli.findings.diagnosis.headline import headline_of
from collapse_cli.findings.diagnosis.mixtures import laws_of
from collapse_cli.findings.grid import WORDS, Point, axes_of, points
from collapse_cli.findings.predictions import Tree
from collapse_cli.findings.scaling import description
from collapse_cli.metrics import numbers
from collapse_cli.metrics.intervals import logarithmic
from collapse_cli.metrics.numbers import spread, value
from collapse_cli.records.row import Row, by_arm
from collapse_cli.terminal.text import Table, safe, short
from collapse_cli.where import Arm

MOST_ROWS = 25  # generations of a table; of more, some
MOST_CELLS = 48
MOST_COLUMNS = 6
SIGNS = {"inside": "[green]inside[/]", "outside": "[red]outside[/]", "not run": "[dim]not run[/]"}


def generations_table(rows: Sequence[Row], tree: Tree) -> Table:
    """The first measure of a family by generation and policy: mean over seeds with its interval, and the theory's value."""
    measure = headline_of(tree)
    arms = list(by_arm(rows))
    seeds = sorted({row.where.seed for row in rows})
    mean = "geometric mean" if logarithmic(measure.name) else "mean"
    trials = any(row.measure(f"{measure.name}_se") is not None for row in rows)
    alone = "95% interval over its trials" if trials else "no interval"
    over = f"{mean} of {len(seeds)} seeds, 95% interval" if len(seeds) > 1 else f"seed {seeds[0]}: {alone}"
    table = Table(f"{measure.title} ({over})")
    table.add_column("gen.", justify="right")
    proved = [
        name for name in arms if expectations.theory_at(tree, measure.name, name, rows[-1].where.generation) is not None
    ]
    beside = len(arms) + len(proved) <= 5  # else below, or a terminal is too narrow
    for name in arms:
        table.add_column(short(name), justify="right")
        if name in proved and beside:
            table.add_column("theory", justify="right", style="dim")
    measured: dict[tuple[Arm, int], list[Row]] = {}
    for row in rows:
        if row.measure(measure.name) is not None:
            measured.setdefault((row.where.arm, row.where.generation), []).append(row)
    for generation in some(sorted({generation for _, generation in measured})):
        cells = []
        for name in arms:
            own = measured.get((name, generation), [])
            mean_over = (
                expectations.mean_of(own, measure.name) if len(own) == len(seeds) else None
            )  # of some seeds: none
            cells.append("[dim]…[/]" if mean_over is None else spread(mean_over[0]))
            theory = expectations.theory_at(tree, measure.name, name, generation) if name in proved else None
            if name in proved and beside:
                cells.append("" if theory is None else value(theory))
            elif theory is not None:
                cells[-1] += f"\n[dim]th. {value(theory)}[/]"
        table.add_row(f"{generation:,}", *cells)
    return table


def grid_table(rows: Sequence[Row], tree: Tree) -> Table:
    """The cells of a mixture: down the axis with most values, across the others where they are few; else a list."""
    measure = headline_of(tree)
    cells = points(rows, measure.name, tree)
    axes = axes_of(cells, tree)
    seeds = max((cell.mean.n for cell in cells), default=0)
    over = f"mean over {seeds} seeds, 95% interval" if seeds > 1 else "one seed: no interval"
    over += "; th.: theory" if any(expectations.theory_of(tree, cell.record) is not None for cell in cells[:1]) else ""
    table = Table(f"{measure.title} ({over})")
    down = max(axes, key=lambda axis: len(axes[axis]), default="rows")
    others = [axis for axis in axes if axis != down]
    across = list(dict.fromkeys(cell.place(others) for cell in cells))
    if not axes or len(across) > MOST_COLUMNS or len(axes[down]) > MOST_CELLS:
        for axis in axes:
            table.add_column(WORDS.get(axis, axis), justify="right")
        table.add_column(measure.name, justify="right")
        for cell in cells[:MOST_CELLS]:
            table.add_row(*(_number(cell.at(axis)) for axis in axes), _cell(cell, tree))
        if len(cells) > MOST_CELLS:
            table.caption = f"the first {MOST_CELLS} of {len(cells)} cells; all are in metrics.jsonl and in the report"
        return table
    table.add_column(WORDS.get(down, down), justify="right")
    for place in across:
        named = "\n".join(f"{WORDS.get(axis, axis)} = {_number(at)}" for axis, at in zip(others, place, strict=True))
        table.add_column(named or measure.name, justify="right")
    there = {(cell.at(down), cell.place(others)): cell for cell in cells}
    for step in axes[down]:
        shown = (there.get((step, place)) for place in across)
        table.add_row(_number(step), *("" if cell is None else _cell(cell, tree) for cell in shown))
    return table


def laws_table(rows: Sequence[Row], tree: Tree) -> Table | None:
    """The scaling law of each share: where its error is heading, and where more data stops helping. None without one."""
    cells = points(rows, headline_of(tree).name, tree)
    fitted = laws_of(cells, tree)
    if not fitted:
        return None
    axes = [axis for axis in ("share", *AXES) if len({law.where.get(axis) for law in fitted}) > 1]
    table = Table("scaling laws: does more data help?")
    table.caption = f"{description.RULE}."
    for name in (", ".join(WORDS.get(axis, axis) for axis in axes), *description.HEADS):
        table.add_column(name, justify="right")
    for law in sorted(fitted, key=lambda law: tuple(law.where.get(axis, 0.0) for axis in axes))[:MOST_CELLS]:
        table.add_row(", ".join(_number(law.where.get(axis)) for axis in axes), *description.cells_of(law))
    return table


def expectations_table(rows: Sequence[Row], tree: Tree) -> Table | None:
    """Every published or theoretical value that the configuration names beside ours; None where it names none."""
    judged = expectations.judge(rows, tree)
    if not judged:
        return None
    table = Table("measured against published numbers and theory", keys=2)
    for name in ("what", "where", "value", "ours", "is", "from"):
        right = name in ("value", "ours", "from")
        table.add_column(name, justify="right" if right else "left")
    sources: list[str] = []
    for entry in judged:
        source = f"{entry.source}: {entry.note}" if entry.note else entry.source
        if source not in sources:
            sources.append(source)
        limits = "" if entry.value is None else f"{value(entry.value)} [dim]{entry.limits}[/]"
        ours = "" if entry.ours is None else spread(entry.ours)
        sign = SIGNS[entry.verdict] + (f"\n[dim]{safe(entry.why)}[/]" if entry.why else "")
        where = safe(entry.where)
        table.add_row(short(entry.what.replace("_", " ")), where, limits, ours, sign, f"({sources.index(source) + 1})")
    counts = {name: sum(entry.verdict == name for entry in judged) for name in SIGNS}
    head = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    other = not_as_published(tree)
    table.caption = "\n".join(
        [head, *([other] if other else []), *(f"({index}) {safe(source)}" for index, source in enumerate(sources, 1))]
    )
    return table


def perplexity_table(rows: Sequence[Row], title: str) -> Table:
    """Perplexity by generation and policy with the change from generation 0.

    Of several seeds the geometric mean with the 95% t interval of the mean logarithm, and the geometric mean of their
    changes (as in the verdict); of one the number, and that it has no interval. Numbers whose rows carry warnings are marked.
    """
    from collapse_cli.metrics.intervals import over_seeds

    arms = list(by_arm(rows))
    seeds = sorted({row.where.seed for row in rows})
    over = f"seed {seeds[0]}; one seed: no interval"
    if len(seeds) > 1:
        over = f"seeds {', '.join(map(str, seeds))}: geometric means"
    table = Table(f"{title} ({over})")
    table.add_column("gen.", justify="right")
    for arm in arms:
        table.add_column(short(arm), justify="right")
    measured: dict[tuple[Arm, int], dict[int, float]] = {}
    doubtful: set[tuple[Arm, int]] = set()
    for row in rows:
        where = row.where
        if (perplexity := row.perplexity) is not None:
            measured.setdefault((where.arm, where.generation), {})[where.seed] = perplexity
        if row.warnings:
            doubtful.add((where.arm, where.generation))
    whole = {where: values for where, values in measured.items() if len(values) == len(seeds)}
    for generation in sorted({row.where.generation for row in rows}):
        cells = []
        for arm in arms:
            values, first = whole.get((arm, generation)), whole.get((arm, 0))
            if values is None:
                cells.append("[dim]…[/]")
                continue
            cell = numbers.with_factor(over_seeds("perplexity", list(values.values())))
            known = first is not None and sys.float_info.max not in (*values.values(), *first.values())
            if generation and first is not None and known:
                logs = [math.log(value) - math.log(first[seed]) for seed, value in values.items()]
                cell += f" [dim]{numbers.change(math.exp(sum(logs) / len(logs)), 1.0):>6}[/]"
            cells.append(cell + (" [bold yellow]![/]" if (arm, generation) in doubtful else ""))
        table.add_row(str(generation), *cells)
    captions = ["×÷: the 95% interval, on the log scale: 50 ×÷2 is from 25 to 100"] if len(seeds) > 1 else []
    if doubtful:
        captions.append("[bold yellow]![/] there are warnings about the rows behind this number")
    table.caption = "\n".join(captions) or None
    return table


def some(generations: Sequence[int]) -> list[int]:
    """All of a few generations; of many 0, 1, 2, 5, 10, 20 … and the last."""
    if len(generations) <= MOST_ROWS:
        return list(generations)
    round_ones = {digit * 10**power for power in range(9) for digit in (1, 2, 5)} | {0, generations[-1]}
    return [generation for generation in generations if generation in round_ones]


def _cell(cell: Point, tree: Tree) -> str:
    theory = expectations.theory_of(tree, cell.record)
    return spread(cell.mean) + ("" if theory is None else f"\n[dim]th. {value(theory)}[/]")


def _number(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:,.0f}" if number >= 1000 and math.isclose(number, round(number)) else f"{number:g}"
