"""Runs that are the variants of one experiment, each with one cause of error turned up: what each cause adds."""

from collections.abc import Sequence

from collapse_cli.findings import causes
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import percent, spread
from collapse_cli.report.html_elements import cells, how_to_read, split
from collapse_cli.report.loading import Run
from collapse_cli.report.text import escaped


def causes_table(runs: Sequence[Run]) -> str:
    """HTML; nothing where the runs are no such variants, or the truth is not known."""
    starts = (run.name.removesuffix(causes.BASELINE) for run in runs if run.name.endswith(f"-{causes.BASELINE}"))
    prefix = next(starts, "")  # runs are named EXPERIMENT-VARIANT
    variants = {run.name.removeprefix(prefix): run.rows for run in runs if run.name.startswith(prefix)}
    shared_out = causes.shares(variants) if prefix else None
    if shared_out is None:
        return ""

    def with_interval(interval: Interval | None) -> str:
        return "" if interval is None else split(spread(interval))

    def shared(interval: Interval | None) -> str:  # below 0 where a cause does good
        if interval is None or interval.low is None or interval.high is None:
            return "" if interval is None else percent(interval.mean)
        return split(f"{percent(interval.mean)} ({percent(interval.low)} to {percent(interval.high)})")

    rows = [
        [
            escaped(name),
            with_interval(cause.error),
            with_interval(cause.growth),
            with_interval(cause.excess),
            shared(cause.share),
        ]
        for name, cause in shared_out.variants.items()
    ]
    if shared_out.interaction:
        rows.append(["all, beyond the sum", "", "", with_interval(shared_out.interaction), ""])
    seeds = f"{len(shared_out.seeds)} seeds, 95% intervals" if len(shared_out.seeds) > 1 else "one seed: no intervals"
    head = ["variant", "error", "of that, after generation 0", "above the baseline", "share of the causes"]
    caption = f"KL divergence from the truth at generation {shared_out.generation}, nats per token; {seeds}"
    reading = how_to_read(
        "Each variant turns one cause up: a finite sample, a model that cannot be the truth, training that stops early.",
        "How far each was turned up is the configuration's choice, so shares say nothing about other settings.",
    )
    return cells(caption, head, rows, kind="wide glance") + reading
