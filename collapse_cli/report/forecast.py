"""What the forecast says, for the report: sentences, a table, and the fan of perplexities to come."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.findings.forecast import forecast_rows, sentences, vocabularies_of
from collapse_cli.findings.forecast.sentences import limit, to_come, when
from collapse_cli.metrics.numbers import value
from collapse_cli.report.figures import (
    CEILING,
    NEAR,
    Figure,
    Trace,
    layout_of,
    level_line,
    log_ticks,
    perplexities,
    rounded,
)
from collapse_cli.report.loading import Run, Series
from collapse_cli.report.text import label
from collapse_cli.where import Arm

FARTHEST = 20  # generation the fan reaches
HIGHEST = 1e4  # times the largest measured perplexity that the fan's axis shows


@dataclass(frozen=True)
class Forecast:
    """The record of `collapse_cli.findings.forecast`, and what it comes to in words."""

    record: Mapping[str, Any]
    sentences: Sequence[str]


def look(run: Run) -> Forecast | None:
    """The forecast of a run; None where nothing was measured.

    Rows that the forecast has no use for (a policy nobody knows, say) give a sentence that says so.
    """
    if not run.rows:
        return None
    try:
        record = forecast_rows(run.rows, vocabulary=vocabularies_of(run.config))
    except ValueError as error:
        return Forecast({"policies": [], "share": {}}, [f"there is no forecast: {error}"])
    return Forecast(record, sentences(record))


def outlook(forecast: Forecast) -> tuple[list[str], list[list[str]]]:
    """Perplexity to come, and when it passes what: a line per policy."""
    known = [policy for policy in forecast.record["policies"] if policy["status"] == "ok"]
    if not known:
        return [], []
    head = ["policy", "law", *(f"generation {at['generation']}" for at in known[0]["expected"])]
    head += [f"{time['factor']:g}× at generation" for time in known[0]["times"]]
    rows = []
    for policy in known:
        row = [str(Arm.of(policy)), policy["best"]]
        for at in policy["expected"]:
            if at["measured"]:
                row.append(f"{value(at['perplexity'])}, measured" if at["perplexity"] is not None else "–")
            else:
                row.append(" ".join(to_come(at, policy["ceiling"], _far, "to")).rstrip())
        row += [when(time, policy["generations"][-1]) for time in policy["times"]]
        rows.append(row)
    return head, rows


def fan(series: Sequence[Series], forecasts: Sequence[Forecast | None]) -> Figure | None:
    """Perplexity measured, and its 90% interval to come; straight between the generations that were worked out."""
    traces: list[Trace] = []
    ends_said = []
    measured: list[float] = []
    for line in series:
        forecast = forecasts[line.run_index]
        policies = forecast.record["policies"] if forecast is not None else []
        there = next((p for p in policies if Arm.of(p) == line.arm and p["status"] == "ok"), None)
        means = perplexities(line)
        if there is None or not means:
            continue
        most = limit(there["ceiling"])  # beyond guessing evenly there is no figure, and so no line
        ahead = [
            at
            for at in there["expected"]
            if not at["measured"] and at["generation"] <= FARTHEST and at["perplexity_low90"] < most
        ]
        name = label(line.label)
        if ahead:
            traces += _band(line, name, there["measured"][-1], ahead, most)
            far = to_come(ahead[-1], there["ceiling"], _far)[0]
            ends_said.append(f"{line.label}: {far} expected at generation {ahead[-1]['generation']}")
        shown = {g: there.mean for g, there in means.items()}
        measured += shown.values()
        traces.append(
            {
                "x": list(shown),
                "y": [rounded(y) for y in shown.values()],
                "mode": "lines+markers",
                "name": name,
                "hovertemplate": f"{name}: %{{y:.3g}} measured<extra></extra>",
                "showlegend": True,
                "meta": {"s": line.index, "role": "mean"},
            }
        )
    if not traces:
        return None
    seen = [y for trace in traces for y in trace["y"]]
    known = {
        entry["ceiling"]
        for forecast in forecasts
        if forecast is not None
        for entry in forecast.record["policies"]
        if entry.get("ceiling")
    }
    traces += [level_line(ceiling, FARTHEST, CEILING, "ceiling") for ceiling in sorted(known)]
    seen += [ceiling for ceiling in known if ceiling <= NEAR * max(seen)]
    top = min(max(seen), max(measured) * HIGHEST)
    layout = layout_of("perplexity", FARTHEST) | {"showlegend": True}
    layout["yaxis"] |= {"type": "log"} | log_ticks(min(seen), top)
    if top < max(seen) or any(ceiling > top for ceiling in known):
        layout["yaxis"]["logrange"] = log_range(min(seen), top)
    return Figure(
        "forecast",
        "Perplexity to come",
        "Solid is measured; dotted is what is expected, with a band that holds 90% of the paths the fitted laws allow.",
        "Whatever changes after the last measured generation: it is the same recipe, continued.",
        f"Perplexity measured and expected by generation. {'; '.join(ends_said)}.",
        traces,
        layout,
        height=430,
        group="perplexity",
        columns=series,
    )


def _band(
    line: Series, name: str, last: Mapping[str, Any], ahead: Sequence[Mapping[str, Any]], most: float
) -> list[Trace]:
    """What is expected behind the last generation measured, and its 90% interval."""
    begin = {f"perplexity{end}": last["perplexity"] for end in ("", "_low90", "_high90")} | {
        "generation": last["generation"]
    }
    points = [begin, *ahead]
    common = {"x": [at["generation"] for at in points], "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    traces: list[Trace] = []
    for role, end in (("edge", "_low90"), ("band", "_high90"), ("ahead", "")):
        y = [rounded(min(at[f"perplexity{end}"], most, 1e290)) for at in points]
        traces.append(common | {"y": y, "name": name, "meta": {"s": line.index, "role": role}})
    traces[1]["fill"] = "tonexty"
    traces[2] |= {"hoverinfo": "all", "hovertemplate": f"{name}: %{{y:.3g}} expected<extra></extra>"}
    return traces


def log_range(low: float, high: float) -> list[float]:
    """Ends of a logarithmic axis with a little room, as plotly wants them."""
    room = 0.03 * (math.log10(high / low) or 1.0)
    return [math.log10(low) - room, math.log10(high) + room]


def _far(number: float) -> str:
    return value(number) if number < 1e12 else "> 1e12"
