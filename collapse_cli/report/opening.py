"""The first screen: a short sentence, the chart that shows it, and a few numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collapse_cli.families import INSTRUMENTS, SHARE, Measure, headline, headline_measure, measures_of
from collapse_cli.findings.diagnosis import Diagnosis
from collapse_cli.findings.diagnosis.brief import Brief
from collapse_cli.findings.diagnosis.headline import headline_of
from collapse_cli.findings.diagnosis.mixtures import contrast_of
from collapse_cli.findings.grid import Point, axes_of, plainly
from collapse_cli.findings.shares import ShareVerdict
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import factors, percent, spread, value
from collapse_cli.report.contents import Contents
from collapse_cli.report.figures import bounded, perplexities
from collapse_cli.report.grid_figures import cells_of
from collapse_cli.report.html_elements import how_to_read, of_all, place, sign
from collapse_cli.report.html_elements import numbers as figure_numbers
from collapse_cli.report.loading import Run, Series
from collapse_cli.report.text import escaped

MOST = 4  # numbers
TOLD = (
    "breeds_left",
    "facts_left",
    "tail_change",
    "distinct_2",
    "vocabulary_coverage",
    "low_share",
)  # the first come first
COUNTED = ("breeds", "facts")  # units that are things to be counted


@dataclass(frozen=True)
class Number:
    """A number of the first screen.

    Attributes:
        big: the number.
        what: of what, and what it was; plain text.
        series: whose it is; None of a grid.
    """

    big: str
    what: str
    series: Series | None = None


def numbers(contents: Contents, summary: Brief, diagnosis: Diagnosis) -> list[Number]:
    """The few numbers of the first run: of the policy that its sentence is about, else of the first; or of its grid."""
    run, series = contents.runs[0], contents.of_run(0)
    if run.verdict is not None:
        return _of_check(run.verdict)
    if run.mixture:
        return _of_grid(run)
    own = [line for line in series if line.arm == summary.arm] or list(series)
    if not own:
        return []
    line = own[0]
    there = [_perplexity(line, diagnosis), *_measures(line)] if line.run.text else _measures(line)
    return [number for number in there if number is not None][:MOST]


def _of_check(verdict: ShareVerdict) -> list[Number]:
    """Of a comparison of two texts: what all synthetic text does, what adding does, and the best share."""
    found: list[Number] = []
    for effects, what in ((verdict.replaced, "all real text replaced"), (verdict.added, "synthetic text added")):
        if not effects or effects[-1].ratio is None:
            continue
        big, ends = factors(effects[-1].ratio)
        told = "" if effects[-1].sign else "; not told apart" if ends else "; one seed"
        amount = "" if effects is verdict.replaced and effects[-1].amount == 1 else f" ({percent(effects[-1].amount)})"
        found.append(Number(big, f"perplexity on real text with {what}{amount}{f', {ends}' if ends else ''}{told}"))
    if verdict.best and len(verdict.best) < len(verdict.replaced):
        shares = dict.fromkeys([percent(verdict.best[0]), percent(verdict.best[-1])])
        found.append(Number(" to ".join(shares), "best share of synthetic text, of those that were tried"))
    if verdict.replaced:
        mean, _, ends = spread(verdict.replaced[0].perplexity).partition(" (")
        found.append(Number(mean, f"perplexity with real text alone{f' ({ends}' if ends else ''}"))
    return found[:MOST]


def _of_grid(run: Run) -> list[Number]:
    """Of a mixture: synthetic data against real data alone where there is most data; the ends of the grid."""
    top, measured = headline_of(run.config), cells_of(run)
    if not measured:
        return []
    title = top.title[:1].lower() + top.title[1:]
    found: list[Number] = []
    there = contrast_of(measured, run.config)
    if there is not None:
        share, place = f"{percent(there.cell.share)} synthetic rows", plainly(there.place)
        if there.ratio is not None:
            big, ends = factors(there.ratio)
            sure = f" ({ends})" if ends else "; one seed"
            told = "" if there.told or there.ratio.n == 1 else "; not told apart"
            found.append(Number(big, f"{title}: {share} against {there.of_same}{sure}{told}"))
        found.append(_of_cell(there.alone, f"{title} with {there.of_same}, at {place}"))
        found.append(_of_cell(there.cell, f"{title} with {share} at that place"))
    axes = axes_of(measured, run.config)
    for name, pick in (("least", min), ("largest", max)):
        cell = pick(measured, key=lambda cell: cell.mean.mean)
        at = plainly({axis: cell.at(axis) for axis in axes})
        found.append(_of_cell(cell, f"{title}, the {name} of {len(measured):,} cells{f': {at}' if at else ''}"))
    return found[:MOST]


def _of_cell(cell: Point, what: str) -> Number:
    mean, _, ends = spread(cell.mean).partition(" (")
    return Number(mean, f"{what}{f' ({ends}' if ends else ''}")


def opening(contents: Contents, beside: str) -> str:
    """HTML of the chart that opens the page, with what stands beside it; "" where nothing is measured."""
    first = contents.opening
    if first is None:
        return ""
    figure = first.figure
    return (
        f'<section id="{first.name}" class="opening" aria-labelledby="{first.name}-title"><div class="screen">'
        f'<figure id="plot-{figure.name}"><div class="tools"><h2 id="{first.name}-title">{first.title}</h2>{first.tools}</div>'
        f"{place(figure, 'first')}</figure>{beside}</div>"
        f"{how_to_read(figure.reading, figure.misses)}{first.below}{figure_numbers(figure)}</section>"
    )


def tiles(chosen: Sequence[Number]) -> str:
    """Their HTML."""
    if not chosen:
        return ""

    def hides(number: Number) -> str:
        return "" if number.series is None else f' data-series="{number.series.index}"'

    items = "".join(
        f"<li{hides(number)}><b>{escaped(number.big, 40)}</b><span>{escaped(number.what, 300)}</span></li>"
        for number in chosen
    )
    whose, line = "", chosen[0].series
    if line is not None:
        whose = f'<p class="whose">{sign(line)} {escaped(line.label)}{of_all("seeds")}</p>'
    return f'<div class="numbers"{hides(chosen[0])}>{whose}<ul>{items}</ul></div>'


def _perplexity(line: Series, diagnosis: Diagnosis) -> Number | None:
    policy = next((there for there in diagnosis.arms if there.arm == line.arm and there.last), None)
    means = perplexities(line)
    if policy is None or 0 not in means or policy.last not in means:
        return None
    mean, ends = factors(policy.ratio)
    return Number(
        mean,
        f"perplexity on real text: {value(means[0].mean)} → {value(means[policy.last].mean)}"
        f"{f' (change {ends})' if ends else ''}",
        line,
    )


def _measures(line: Series) -> list[Number | None]:
    if not line.run.text:
        top = headline(line.run.learner, "generational").name
        first = headline_measure(line.run.learner, "generational")
        rest = [measure for measure in measures_of(line.run.learner) if measure.name != top]
        return [_measure(line, measure) for measure in (first, *rest)]
    every = {measure.name: measure for measure in (*line.run.family.measures, *INSTRUMENTS) if measure.part is None}
    return [_measure(line, every[name]) for name in TOLD if name in every]


def _measure(line: Series, measure: Measure) -> Number | None:
    """Where a measure began and where it is; None where it is not measured, or has not moved."""
    means: Mapping[int, Interval] = bounded(line, measure)
    last = max(means, default=0)
    change = measure.name.endswith("_change")  # against generation 0, of which there is none
    if not last or (not change and (0 not in means or means[0].mean == means[last].mean)):
        return None
    share = measure.unit == SHARE
    formatted = percent if share else _count if measure.unit in COUNTED else value
    big = f"{means[last].mean:+.2f}" if change else formatted(means[last].mean)
    low, high = means[last].low, means[last].high
    if measure.unit in COUNTED:
        ends = "" if low is None or high is None else f"{low:,.0f} to {high:,.0f})"
    else:
        _, _, ends = spread(means[last], share=share).partition(" (")
    unit = "" if share or measure.unit in COUNTED else f", {measure.unit}"
    began = "" if change else f": {formatted(means[0].mean)} → {formatted(means[last].mean)}"
    title = measure.title[:1].lower() + measure.title[1:]
    return Number(big, f"{title}{unit}{began}{f' ({ends}' if ends else ''}", line)


def _count(mean: float) -> str:
    """A number of things: 43, of a mean 43.3."""
    return f"{mean:,.0f}" if mean == round(mean) else f"{mean:,.1f}"
