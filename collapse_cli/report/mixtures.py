"""The section of a mixture: its measure along every axis of the grid, scaling laws, all cells."""

from collections.abc import Sequence

from collapse_cli.families import SHARE, TEST_LOSS, Headline, Measure, headline_measure
from collapse_cli.findings.diagnosis.headline import headline_of
from collapse_cli.findings.diagnosis.mixtures import laws_of
from collapse_cli.findings.expectations import theory_of
from collapse_cli.findings.grid import NAMES, Point, amount, axes_of, plainly, points
from collapse_cli.findings.scaling import description
from collapse_cli.metrics.numbers import spread, value
from collapse_cli.report.contents import Contents, Opening
from collapse_cli.report.figures import Figure
from collapse_cli.report.grid_figures import TITLES, Cut, Line, cells_of, cuts_of, figures_of, named
from collapse_cli.report.html_elements import cells, folded, how_to_read, plot, split, swatch
from collapse_cli.report.loading import Run
from collapse_cli.report.text import escaped

MOST = 2000  # cells in the table
LOG = '<button type="button" data-log="mixture" aria-pressed="true">logarithmic axis</button>'


def mixtures(contents: Contents) -> None:
    """A section for each run that is a mixture."""
    for index, run in enumerate(contents.runs):
        measured = cells_of(run) if run.mixture and run.compared is None else []  # a check has a section of its own
        if not measured:
            continue
        several = len(contents.runs) > 1
        of = f" · {escaped(run.name)}" if several else ""
        top, measure = headline_of(run.config), headline_measure(run.learner, "mixture", headline_of(run.config).name)
        parts = [how_to_read(f"{measure.reading} {EXPLAINED}", measure.misses)]
        for cut in cuts_of(measured, run.config):
            figures = figures_of(run, cut, f"mixture_{index}_{cut.axis}")
            contents.figures += figures
            if contents.opening is None:  # the largest of the other axes: where most data stand
                first = figures.pop()
                contents.opening = Opening(
                    f"opening-{index}", escaped(headed(top, first, cut)), first, _key(cut, first.group), ""
                )
                if not figures:
                    continue
            parts.append(f"<h3>Against {escaped(TITLES.get(cut.axis, cut.axis))}</h3>{_key(cut, figures[0].group)}")
            if len(figures) == 1:
                parts.append(plot(figures[0], "tall", card=False))
            else:
                kind = "grid pairs" if len(figures) in (2, 4) else "grid"
                parts.append(f'<div class="{kind}">{"".join(plot(figure, "middle") for figure in figures)}</div>')
            if cut.notes:
                parts.append(f'<p class="reading">{escaped("; ".join(cut.notes), 400)}.</p>')
        names, rows = laws_table(run, measured)
        if rows:
            cells_split = [[escaped(row[0]), *(split(text) for text in row[1:])] for row in rows]
            caption = (
                f"Scaling laws: {escaped(measure.name)} = plateau + A · (n - n0)^-b, with 95% intervals over seeds"
            )
            parts.append(
                f"<h3>Where more data stops helping</h3>{cells(caption, names, cells_split, kind='wide glance')}"
            )
            parts.append(how_to_read(LAW, LAW_MISSES))
        names, rows = cells_table(run, measured)
        cells_split = [[escaped(row[0]), *(split(text) for text in row[1:])] for row in rows[:MOST]]
        cut_off = f"; the first {MOST:,} of {len(rows):,}" if len(rows) > MOST else ""
        caption = f"Cells: means over seeds, with 95% intervals where there are several{cut_off}"
        table = cells(caption, [escaped(name) for name in names], cells_split, classes=[""] + ["n"] * (len(names) - 1))
        parts.append(folded(f"All cells ({len(rows):,})", table))
        title = f"{top.title[:1].upper()}{top.title[1:]}, over the grid"
        contents.add(f"mixture-{index}", escaped(title) + of, "".join(parts))


EXPLAINED = (
    "Points are means over seeds, with 95% intervals where there are several; dashed lines are the closed form of theory at "
    "the same cells, where there is one. 0 stands at the left edge of a logarithmic axis, beyond the dotted line."
)
LAW = (
    "The plateau is what no amount of data gets below. It is named where, beyond chance, it makes up half of the error at the "
    "largest size or more; else the largest value that the seeds leave open is said. More data stops helping where doubling "
    "the rows wins less than 5%: extrapolated where that may lie beyond all sizes measured."
)
LAW_MISSES = (
    "n0 stands for rows that an interpolation threshold takes away. Curves of another form, as a sum of two powers, can "
    "flatten for long and go on falling. A single seed says nothing of chance, so no plateau is told from one."
)


def laws_table(run: Run, measured: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    """A line for each share (and place along the other axes) with sizes enough for a law."""
    rows = []
    for law in sorted(laws_of(measured, run.config), key=lambda law: tuple(law.where.values())):
        fitted = f"{law.n_points} sizes, {law.sizes[0]:,.0f} to {law.sizes[1]:,.0f}"
        fitted += f"; {law.left_out} smaller left out" if law.left_out else ""
        rows.append([plainly(law.where), *description.cells_of(law), fitted])
    return ["cells", *description.HEADS, "fitted to"], rows


def cells_table(run: Run, measured: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    """Every cell: where it stands, its headline measure, what theory says, its other measures."""
    axes = list(axes_of(measured, run.config)) or ["rows", "share"]
    top = headline_of(run.config)
    others = [
        measure
        for measure in (*(run.family.grid.measures if run.family.grid else run.family.measures), TEST_LOSS)
        if measure.name != top.name
    ]
    more = {measure.name: (measure, _by_record(run, measure)) for measure in others}
    more = {name: held for name, held in more.items() if held[1]}
    theory = [theory_of(run.config, cell.record) for cell in measured[:MOST]]
    known = any(value is not None for value in theory)
    rows = []
    for index, cell in enumerate(measured):
        place = [value(None) if (at := cell.at(axis)) is None else amount(axis, at) for axis in axes]
        row = [*place, spread(cell.mean)]
        if known:
            row.append(value(theory[index], 4) if index < len(theory) else "")
        for measure, there in more.values():
            other = there.get(tuple(cell.record.items()))
            row.append("–" if other is None else spread(other.mean, share=measure.unit == SHARE))
        rows.append(row)
    names = [
        *(NAMES.get(axis, axis) for axis in axes),
        headline_measure(run.learner, "mixture", headline_of(run.config).name).name,
    ]
    names += ["theory"] if known else []
    return [*names, *(measure.title for measure, _ in more.values())], rows


def headed(top: Headline, figure: Figure, cut: Cut) -> str:
    """The title of a plot that stands alone."""
    place = "" if figure.title == top.title else f", {figure.title}"
    return f"{top.title[:1].upper()}{top.title[1:]}, by {TITLES.get(cut.axis, cut.axis)}{place}"


def _by_record(run: Run, measure: Measure) -> dict[tuple[tuple[str, float], ...], Point]:
    return {tuple(cell.record.items()): cell for cell in points(run.rows, measure.name, run.config)}


def _key(cut: Cut, group: str) -> str:
    """What the colours of a cut mean, and the switch of its axis."""
    items = ""
    for order, told_by in enumerate(cut.values):
        line = Line(told_by, order, ())
        items += f"<li>{swatch(line.colour, line.dash)} {escaped(named(line, cut))}</li>"
    key = f'<ul class="key" aria-label="colours of lines">{items}</ul>' if items else ""
    button = LOG if group else ""
    return f'<div class="tools">{key}{button}</div>' if key or button else ""
