"""Maps of losses by how frequent tokens are, a map for every policy on one scale of colour."""

import math
from collections.abc import Sequence

from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import spread
from collapse_cli.report.figures import Figure, layout_of, rounded
from collapse_cli.report.loading import Series


def decile_maps(series: Sequence[Series]) -> list[Figure]:
    """Loss by frequency decile against generation 0, a map per series, one scale of colour for all."""
    changes = {}
    for line in series:
        cells = {
            (g, decile): there
            for decile in range(10)
            for g, there in line.means("nll_change_by_decile", decile).items()
        }
        if cells:
            changes[line.index] = cells
    if not changes:
        return []
    every = [there.mean for cells in changes.values() for there in cells.values()]
    lowest, highest = min(0.0, *every), max(0.0, *every)
    if highest - lowest == 0:
        highest = 1.0
    ticks = ticks_of(lowest, highest)
    figures = []
    for line in series:
        if line.index not in changes:
            continue
        cells = changes[line.index]
        generations = sorted({g for g, _ in cells})
        z: list[list[float | None]] = []
        marks: list[list[str]] = []
        lines_said = []
        for decile in range(10):
            row = [cells.get((g, decile)) for g in generations]
            z.append([None if there is None else rounded(there.mean) for there in row])
            sure = [_beyond_zero(line, g, decile, there) for g, there in zip(generations, row, strict=True)]
            marks.append(["" if yes or there is None else "·" for yes, there in zip(sure, row, strict=True)])
            lines_said.append([f"decile {decile + 1}", *(spread(there) for there in row)])
        layout = layout_of("", 0)
        layout["xaxis"] = {"title": {"text": "generation"}, "type": "category", "fixedrange": True}
        layout["yaxis"] = {
            "tickvals": [0, 4, 9],
            "ticktext": ["frequent", "middle", "rare"],
            "fixedrange": True,
            "showgrid": False,
        }
        layout["hovermode"] = "closest"
        trace = {
            "type": "heatmap",
            "x": [str(g) for g in generations],
            "y": list(range(10)),
            "z": [[None if value is None else rounded(root(value)) for value in row] for row in z],
            "zmin": rounded(root(lowest)),
            "zmax": rounded(root(highest)),
            "text": marks,
            "texttemplate": "%{text}",
            "customdata": [[[decile + 1, value] for value in z[decile]] for decile in range(10)],
            "hovertemplate": "generation %{x}, decile %{customdata[0]}<br>%{customdata[1]:+.3f} nats/token<extra></extra>",
            "xgap": 1,
            "ygap": 1,
            "colorbar": {
                "thickness": 10,
                "title": {"text": "nats", "side": "right"},
                "outlinewidth": 0,
                "len": 1,
                "tickvals": [rounded(root(tick)) for tick in ticks],
                "ticktext": [f"{tick:+g}" if tick else "0" for tick in ticks],
            },
            "meta": {"s": line.index, "role": "heat"},
        }
        last = generations[-1]
        at_last = [cells.get((last, decile)) for decile in (0, 9)]
        figures.append(
            Figure(
                f"deciles_{line.index}",
                line.label,
                "",
                "",
                f"Change of loss by frequency decile against generation 0, {line.label}. At generation {last}: most "
                f"frequent {spread(at_last[0])}, rarest {spread(at_last[1])} nats per token.",
                [trace],
                layout,
                height=280,
                series=line,
                numbers=(["", *(f"generation {g}" for g in generations)], lines_said),
            )
        )
    return figures


def root(change: float) -> float:
    """The signed square root: colours tell small changes apart beside large ones, and 0 stays 0."""
    return math.copysign(math.sqrt(abs(change)), change)


def ticks_of(lowest: float, highest: float) -> list[float]:
    """Round numbers of a scale of colours, at most six, so far apart that they do not touch."""
    ticks = [0.0]
    width = root(highest) - root(lowest)
    for tick in sorted((sign * digit * 10.0**power for sign in (1, -1) for power in range(-3, 3) for digit in (1, 2, 5)),
                       key=abs, reverse=True):  # fmt: skip
        if lowest <= tick <= highest and all(abs(root(tick) - root(other)) >= width / 7 for other in ticks):
            ticks.append(tick)
    return sorted(ticks)


def _beyond_zero(line: Series, generation: int, decile: int, there: Interval | None) -> bool:
    """Whether a change is further from 0 than its interval; over test rows where there is one seed."""
    if there is None:
        return False
    if there.low is not None and there.high is not None:
        return there.low > 0 or there.high < 0
    rows = [row for row in line.at(generation) if row.where.seed in line.counted]
    error = rows[0].measure("nll_change_by_decile_se", decile) if len(rows) == 1 else None
    return error is not None and abs(there.mean) > 1.96 * error
