"""The page put together: one self-contained HTML file that asks no network for anything."""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import metadata, resources
from pathlib import Path

from collapse_cli.report.contents import Contents
from collapse_cli.report.forecast import Forecast
from collapse_cli.report.html_elements import dash, swatch
from collapse_cli.report.loading import Run, Series
from collapse_cli.report.sections import OLD, SECTIONS, warnings
from collapse_cli.report.summaries import diagnoses, facts
from collapse_cli.report.text import embedded, escaped

ENDED = {
    "success": ("finished", "good"),
    "error": ("ended with an error", "bad"),
    "interrupted": ("interrupted", "open"),
}


def html(runs: Sequence[Run], series: Sequence[Series], forecasts: Sequence[Forecast | None]) -> str:
    """The whole page; `forecasts` one for each run, None where there is none."""
    diagnosed = diagnoses(runs)
    contents = Contents(runs, series, diagnosed, forecasts)
    for fill in SECTIONS:
        fill(contents)
    left_out = ""
    if contents.missing:
        left_out = f'<p class="reading">Left out, because the run {OLD}: {escaped("; ".join(contents.missing))}.</p>'
    names = ", ".join(run.name for run in runs)
    script = asset("page.js")
    figures = {
        figure.name: {"traces": figure.traces, "layout": figure.layout, "group": figure.group}
        for figure in contents.figures
    }
    data = {
        "figures": figures,
        "series": [
            {"policy": line.policy_index, "run": line.run_index, "colour": line.colour, "dash": dash(line.run_index)}
            for line in series
        ],
        "log": {"perplexity": True, "histograms": False, "headline": True, "mixture": True},
    }
    return _filled(
        asset("page.html"),
        {
            "policy": (
                "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
                f"script-src {_hash(plotly())} {_hash(script)}; base-uri 'none'; form-action 'none'"
            ),
            "generator": f"collapse {escaped(metadata.version('collapse-cli'))}",
            "title": f"{escaped(names)} · collapse report",
            "style": asset("style.css"),
            "header": _header(runs, [diagnosis.verdict for diagnosis in diagnosed], contents),
            "bar": _bar(runs, series),
            "main": warnings(runs) + "".join(section for *_, section in contents.sections) + left_out,
            "footer": "<footer>Made by <code>collapse report</code> from the run folder alone. Intervals are 95%, t over "
            "seeds; formulas and limits of every measure: docs/metrics.md.</footer>",
            "figures": embedded(data),
            "plotly": plotly(),
            "script": script,
        },
    )


def asset(name: str) -> str:
    """A file of this package; line ends as HTML has them, for its hash is in the page."""
    return resources.files(__package__ or "").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


@cache
def plotly() -> str:
    """The library that draws, from the installed package; nothing of its Python half is imported.

    Raises:
        RuntimeError: when it holds what would end the script element.
    """
    file = Path(str(metadata.distribution("plotly").locate_file("plotly/package_data/plotly.min.js")))
    text = file.read_text(encoding="utf-8").replace("\r\n", "\n").replace("\r", "\n")
    if re.search(r"</script|<!--", text, re.IGNORECASE):
        raise RuntimeError(f"{file} cannot be put into a page: it holds </script or <!--")
    return text


def _header(runs: Sequence[Run], verdicts: Sequence[str], contents: Contents) -> str:
    names = ", ".join(f"<b>{escaped(run.name)}</b>" for run in runs)
    parts = [f"<h1>{'Report on' if len(runs) == 1 else 'Reports on'} {names}</h1>"]
    for run, verdict in zip(runs, verdicts, strict=True):
        whose = f"<small>{escaped(run.name)}</small>" if len(runs) > 1 else ""
        kind = "verdict long" if len(verdict) > 110 else "verdict"
        if any(name == "causes" for name, *_ in contents.sections):  # the variants say it together, first of all
            kind = "verdict brief"
        parts.append(f'<p class="{kind}">{whose}{escaped(verdict)}</p>')
        parts.append(_facts(run))
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in contents.sections)
    return f'<header>{"".join(parts)}<nav aria-label="Contents"><ul class="contents">{links}</ul></nav></header>'


def _facts(run: Run) -> str:
    state, kind = ENDED.get(run.status, ("not finished", "open"))
    if run.status == "success" and not run.finished:
        state, kind = "rows are missing", "open"
    items = [f'<li><span class="pill {kind}">{state}</span></li>']
    items += [f"<li>{name}: {escaped(text, 200)}</li>" for name, text in facts(run).items()]
    lines = f'<ul class="facts">{"".join(items)}</ul>'
    if not run.finished:
        last = run.events[-1].get("time") if run.events else None
        seen = f", as of {escaped(last, 40)}" if isinstance(last, str) else ""
        error = run.record.get("error")
        why = f" It stopped with: {escaped(error, 500)}" if error else ""
        lines += (
            f'<p class="note"><b>This run is not finished</b>: {len(run.rows)} of {max(run.planned, len(run.rows))} models '
            f"are measured{seen}. All below is of those.{why}</p>"
            if not run.lacking
            else f'<p class="note"><b>Rows are missing</b>: {escaped(run.lacking)}. All below is of those measured.</p>'
        )
    return lines


def _bar(runs: Sequence[Run], series: Sequence[Series]) -> str:
    policies = {line.policy_index: line.policy for line in series}
    own = {
        line.run_index: line.colour for line in series if line.colour != line.policy_index
    }  # runs with a colour each
    signs = {index: swatch(None if own else index, 0) for index in policies}
    chips = [_chip("policy", index, signs[index], name) for index, name in sorted(policies.items())]
    for index, run in enumerate(runs if len(runs) > 1 else ()):
        if run.mixture:
            continue
        chips.append(_chip("run", index, swatch(index if own else None, index), run.name))
    return (
        f'<div class="bar"><div role="toolbar" aria-label="What all plots show">{"".join(chips)}'
        '<button type="button" id="theme" class="push" aria-label="switch between light and dark">light / dark</button>'
        "</div></div>"
    )


def _chip(kind: str, key: int, sign: str, name: str) -> str:
    return (
        f'<button type="button" class="chip" data-toggle="{kind}" data-key="{key}" aria-pressed="true">'
        f"{sign}{escaped(name, 60)}</button>"
    )


def _filled(template: str, parts: dict[str, str]) -> str:
    """The template with its `{{names}}` replaced in one pass: what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], template)


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
