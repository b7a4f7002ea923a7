"""What runs with remedies say beside each other: a table of effect and price, and the picture of it."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from collapse_cli.findings.remedies import OneRun, Remedies, Remedy, remedies
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import factors, spread
from collapse_cli.records.rundir import RunFolder


def of(folders: Sequence[RunFolder]) -> Remedies | None:
    """The comparison; None where none of the runs has a remedy besides its policies."""
    found = remedies([OneRun(folder.name, folder.record()["config"], folder.rows()) for folder in folders])
    return found if found is not None and any(remedy.what for remedy in found.remedies) else None


def sections(compared: Remedies, prefix: str, picture: Path) -> list[str]:
    """The parts of a page, as lines of Markdown; `picture` is made beside it. Names of runs are shown without `prefix`."""
    shown = sorted(compared.remedies, key=lambda remedy: (not remedy.baseline, remedy.end.mean))
    draw(shown, prefix, compared.generation, picture)
    assert compared.baseline is not None
    base = next(remedy.price for remedy in shown if remedy.baseline)
    lines = [
        f"Generation {compared.generation}, the best first; the baseline is {compared.baseline[1]} of `{compared.baseline[0].removeprefix(prefix)}`. Means over seeds, 95% intervals; differences are paired by seed.",
        "",
        "| remedy | perplexity | of the baseline's | early collapse from | distinct pairs | recall of the rarest tenth | facts stated rightly | sentences of the grammar |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for remedy in shown:
        against = "baseline" if remedy.against is None else times(remedy.against)
        told = {True: "", False: " (not shown)", None: ""}[remedy.told_apart]
        early = "not called" if remedy.early is None else f"generation {remedy.early}"
        lines.append(
            f"| {named(remedy, prefix)} | {spread(remedy.end)} | {against}{told} | {early} | {cell(remedy.diversity)} | {cell(remedy.tail)} | {cell(remedy.known.get('facts_left'))} | {cell(remedy.known.get('sentences_accepted'))} |"
        )
    lines += [
        "",
        "What each took, one seed, generations 1 to the last; in brackets multiples of the baseline's:",
        "",
        "| remedy | options | real rows a generation | rows thrown away a generation | tokens sampled | tokens trained | seconds of work |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for remedy in shown:
        price = remedy.price
        options = f"`{remedy.what}`" if remedy.what else "–"
        lines.append(
            f"| {named(remedy, prefix)} | {options} | {amount(price.real)} | {amount(price.thrown)} | {amount(price.sampled, base.sampled)} | "
            f"{amount(price.trained, base.trained)} | {amount(price.seconds)} |"
        )
    notes = [f"{note[:1].upper()}{note[1:]}." for note in compared.notes]
    return [
        *lines,
        "",
        " ".join(
            [
                *notes,
                "Seconds are of a machine that did other work as well, more at first (`none`, `real`, `schedule`) than later: they do not compare. What each objective costs beside cross-entropy, measured in turn: docs/benchmarks.md.",
            ]
        ),
        "",
    ]


def named(remedy: Remedy, prefix: str) -> str:
    """Variant and policy."""
    return f"{remedy.run.removeprefix(prefix)}, {remedy.arm}"


def times(ratio: Interval) -> str:
    """A ratio with its interval."""
    mean, ends = factors(ratio)
    return f"{mean} ({ends})" if ends else mean


def cell(over: Interval | None) -> str:
    """A mean with its interval; a dash where nothing was measured."""
    return "–" if over is None else spread(over)


def amount(number: float | None, base: float | None = None) -> str:
    """A number, and how many times the baseline's it is where it differs."""
    if number is None:
        return "–"
    differs = base and abs(number / base - 1) >= 0.005
    return f"{number:,.0f}{f' (×{number / base:.2f})' if base and differs else ''}"


def draw(shown: Sequence[Remedy], prefix: str, generation: int, target: Path) -> None:
    """Perplexity as a multiple of the baseline's, a line for each remedy, the best on top."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullFormatter

    there = [(remedy, remedy.against) for remedy in shown if remedy.against is not None]
    figure, axis = plt.subplots(figsize=(8.2, 0.31 * len(there) + 1.1), dpi=160, layout="constrained")
    for place, (remedy, against) in enumerate(reversed(there)):
        kept = bool(remedy.price.real)
        colour = "#0072b2" if kept else "#d55e00"
        low, high = against.low or against.mean, against.high or against.mean
        axis.plot([low, high], [place, place], color=colour, linewidth=1.6)
        axis.plot([against.mean], [place], "o", color=colour, markersize=5)
    axis.axvline(1, color="0.4", linewidth=1, linestyle="--")
    axis.set_yticks(range(len(there)), [named(remedy, prefix) for remedy, _ in reversed(there)], fontsize=8)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda factor, _: f"×{factor:g}"))
    axis.set_xticks(
        [
            factor
            for factor in (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5)
            if axis.get_xlim()[0] <= factor <= axis.get_xlim()[1]
        ]
    )
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(f"perplexity at generation {generation} over that of keep-0; 95% intervals, paired by seed")
    axis.spines[["top", "right"]].set_visible(False)
    blue, orange = (axis.plot([], [], "o-", color=colour)[0] for colour in ("#0072b2", "#d55e00"))
    axis.legend([blue, orange], ["keeps real rows", "keeps none"], fontsize=8, frameon=False, loc="lower right")
    figure.savefig(target, facecolor="white")
    plt.close(figure)
