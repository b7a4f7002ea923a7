"""Several models in the terminal: how they stand to each other, and whether more than one hold longer."""

from collections.abc import Sequence

from collapse_cli.findings.several_models import HEADS, HELD, Between, MoreThanOne
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import factors, spread, value
from collapse_cli.terminal.run_tables import some
from collapse_cli.terminal.text import Table, short

MOST_MODELS = 8  # of a table of each model on each lineage's text; larger ones are on the page
COURSES = ("distance", "single", "mixture_perplexity", "mixture_variance")  # that a terminal has room for
MATRICES = {
    "bits_per_byte_on": "bits/byte of each model (down) on each lineage's text (across)",
    "cross_bits_per_byte": "bits/byte of each lineage's samples (across) under each model (down)",
}


def between_tables(found: Sequence[Between]) -> list[Table]:
    """By policy the distance between the models by generation, one alone beside all together; and the last generation's matrices."""
    made = []
    for one in found:
        courses = {"distance": one.distance, "single": one.single, **one.together}
        there = {name: course for name, course in courses.items() if course and name in COURSES}
        over = f"mean over {len(one.lineages)} lineages, {_seeds(one)}"
        table = Table(f"{short(one.policy)}: between the lineages ({over})")
        for head in ("gen.", *(HEADS[name] for name in there)):
            table.add_column(head, justify="right")
        for step in some(one.generations):
            table.add_row(str(step), *(spread(course.get(step)) for course in there.values()))
        made.append(table)
        for field, title in MATRICES.items():
            if field in one.matrices and len(one.lineages) <= MOST_MODELS:
                step = max(one.matrices[field])
                matrix = Table(f"{short(one.policy)}, generation {step}: {title}")
                matrix.add_column("model")
                for other in one.lineages:
                    matrix.add_column(short(other), justify="right")
                for own in one.lineages:
                    cells = (one.matrices[field][step].get((own, other)) for other in one.lineages)
                    matrix.add_row(short(own), *("" if cell is None else value(cell.mean) for cell in cells))
                made.append(matrix)
    return made


def more_table(found: MoreThanOne) -> Table:
    """Runs with more and fewer lineages beside each other."""
    step = found.generation
    table = Table(f"does more than one hold longer? (means over lineages, generation {step})", keys=2)
    several = len({one.policy for one in found.runs}) > 1
    heads = (
        "run",
        "lineages",
        "gen. 0",
        f"gen. {step}",
        "growth",
        f"mean within {HELD:g}×",
        "against the fewest",
        "verdict",
    )
    for head in heads:
        table.add_column(head, justify="left" if head in ("run", "verdict") else "right")
    for one in found.runs:
        name = f"{one.run} {one.policy}" if several else one.run
        against = "" if one.longer is None else _factor(one.longer)
        table.add_row(
            short(name),
            str(one.lineages),
            _two(spread(one.perplexity.get(0))),
            _two(spread(one.perplexity.get(step))),
            _factor(one.growth.get(step)),
            f"until {one.until}",
            against,
            one.verdict,
        )
    return table


def _seeds(one: Between) -> str:
    return f"95% intervals over {len(one.seeds)} seeds" if len(one.seeds) > 1 else "one seed: no interval"


def _factor(over: Interval | None) -> str:
    if over is None:
        return ""
    mean, ends = factors(over)
    return f"{mean}\n[dim]{ends}[/]" if ends else mean


def _two(text: str) -> str:
    """A mean with its interval below it."""
    mean, _, ends = text.partition(" (")
    return f"{mean}\n[dim]{ends.rstrip(')')}[/]" if ends else mean
