"""The page put together: one self-contained HTML file that asks no network for anything."""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from collapse_cli.findings.diagnosis.brief import Brief, brief
from collapse_cli.metrics.intervals import t_quantile
from collapse_cli.report.check import opening_remarks
from collapse_cli.report.contents import Contents
from collapse_cli.report.figures import SEEDS
from collapse_cli.report.forecast import Forecast
from collapse_cli.report.html_elements import folded, of_all, swatch
from collapse_cli.report.loading import Run, Series
from collapse_cli.report.opening import numbers, opening, tiles
from collapse_cli.report.palette import Look
from collapse_cli.report.sections import OLD, SECTIONS, warnings
from collapse_cli.report.summaries import diagnoses, facts, warned
from collapse_cli.report.text import embedded, escaped

FEW = 6  # runs whose sentences stand open
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
    script, browser = asset("page.js"), asset("samples.js")
    short = [brief(diagnosis) for diagnosis in diagnosed]
    first = opening(contents, tiles(numbers(contents, short[0], diagnosed[0])) if len(runs) == 1 else "")
    scripts = " ".join(map(_hash, (plotly(), script, browser)))
    return _filled(
        asset("page.html"),
        {
            "policy": (
                "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
                f"script-src {scripts}; base-uri 'none'; form-action 'none'"
            ),
            "generator": f"collapse {escaped(metadata.version('collapse-cli'))}",
            "title": f"{escaped(', '.join(run.name for run in runs))} · collapse report",
            "style": asset("style.css"),
            "header": _header(runs, short),
            "bar": _bar(runs, series),
            "main": first
            + _links(contents)
            + warnings(runs)
            + "".join(inside for *_, inside in contents.sections)
            + left_out,
            "footer": "<footer>Made by <code>collapse report</code> from the run folder alone. Intervals are 95%, t over "
            "seeds; formulas and limits of every measure: docs/metrics.md.</footer>",
            "figures": embedded(_data(runs, series, contents)),
            "samples": embedded(contents.kept),
            "plotly": plotly(),
            "script": script,
            "browser": browser,
        },
    )


def _data(runs: Sequence[Run], series: Sequence[Series], contents: Contents) -> dict[str, Any]:
    """What the script draws from."""
    return {
        "figures": {
            figure.name: {"traces": figure.traces, "layout": figure.layout, "group": figure.group}
            | ({"row": figure.row} if figure.row else {})
            for figure in contents.figures
        },
        "series": [
            {
                "policy": line.policy_index,
                "run": line.run_index,
                "lineage": line.lineage_index,
                "colour": line.look.colour,
                "dash": line.look.dash,
                "shade": line.look.shade,
                "label": line.label,
                "counted": line.counted,
            }
            for line in series
        ],
        "policies": [name for _, name in sorted({line.policy_index: line.arm.policy for line in series}.items())],
        "lineages": [name for _, name in sorted({line.lineage_index: line.arm.lineage for line in series}.items())],
        "runs": [run.name for run in runs],
        "seeds": seeds_of(series),
        "t": [t_quantile(freedom, 0.975) for freedom in range(1, SEEDS)],
        "log": {"perplexity": True, "histograms": False, "headline": True, "mixture": True},
    }


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


def _header(runs: Sequence[Run], short: Sequence[Brief]) -> str:
    """What happened, in a sentence for each run."""
    parts = []
    for index, (run, said) in enumerate(zip(runs, short, strict=True)):
        all_of_it = "" if run.mixture else of_all()
        if len(runs) == 1 and run.compared is not None:
            parts += [opening_remarks(run), _facts(run)]
        elif len(runs) == 1:
            parts.append(f'<p class="verdict">{escaped(said.sentence)}{all_of_it}</p>')
            parts += [f'<p class="others">{escaped(said.others)}{all_of_it}</p>'] if said.others else []
            parts.append(_facts(run))
        else:
            parts.append(
                f'<p class="verdict brief" data-run="{index}"><b>{escaped(run.name)}</b> {_pill(run)} '
                f"{escaped(said.sentence)}{all_of_it}</p>"
            )
            parts.append(_unfinished(run))
    few, more = (parts[: 2 * FEW], parts[2 * FEW :]) if len(runs) > 1 else (parts, [])
    rest = folded(f"{len(more) // 2} more runs", "".join(more)) if more else ""
    return f"<header>{''.join(few)}{rest}</header>"


def _links(contents: Contents) -> str:
    """The sections, by name."""
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in contents.sections)
    return f'<nav aria-label="Contents"><ul class="contents">{links}</ul></nav>'


def _facts(run: Run) -> str:
    items = [f"<li>{_pill(run)}</li>"]
    if run.trained:
        items += [f"<li>{name}: {escaped(text, 200)}</li>" for name, text in facts(run).items()]
    if kinds := len(warned([run])):
        items.append(f'<li><a href="#warnings">{kinds} guard rail{"s" if kinds > 1 else ""} gave warnings</a></li>')
    return f'<ul class="facts">{"".join(items)}</ul>{_unfinished(run)}'


def _pill(run: Run) -> str:
    label, kind = ENDED.get(run.status, ("not finished", "open"))
    if run.status == "success" and not run.finished:
        label, kind = "rows are missing", "open"
    return f'<span class="pill {kind}">{label}</span>'


def _unfinished(run: Run) -> str:
    """What is still to come, of a run that is not finished."""
    if run.finished:
        return ""
    if run.lacking:
        return f'<p class="note"><b>Rows are missing</b>: {escaped(run.lacking)}. All below is of those measured.</p>'
    last = run.events[-1].get("time") if run.events else None
    seen = f", as of {escaped(last, 40)}" if isinstance(last, str) else ""
    error = run.record.get("error")
    why = f" It stopped with: {escaped(error, 500)}" if error else ""
    return (
        f'<p class="note"><b>This run is not finished</b>: {len(run.rows)} of {max(run.planned, len(run.rows))} models '
        f"are measured{seen}. All below is of those.{why}</p>"
    )


def _bar(runs: Sequence[Run], series: Sequence[Series]) -> str:
    """What the page is about, and what all plots show."""
    names = ", ".join(escaped(run.name) for run in runs)
    looks: dict[str, dict[int, Look]] = {"policy": {}, "run": {}, "lineage": {}}
    for line in series:
        for what, key in (("policy", line.policy_index), ("run", line.run_index), ("lineage", line.lineage_index)):
            looks[what].setdefault(key, line.look)

    def sign(what: str, key: int, *, dashed: bool) -> str:
        """The part of a line's look that is of one policy, run or lineage."""
        look = looks[what][key]
        shade = look.shade if what == "lineage" else 0.0
        return swatch(look.colour if look.of == what else None, look.dash if dashed else 0, shade)

    policies = {line.policy_index: line.arm.policy for line in series}
    lineages = {line.lineage_index: line.arm.lineage for line in series}
    chips = [
        _chip("policy", index, sign("policy", index, dashed=False), name) for index, name in sorted(policies.items())
    ]
    for index, name in sorted(lineages.items()) if len(lineages) > 1 else ():
        chips.append(_chip("lineage", index, sign("lineage", index, dashed=len(runs) == 1), name or "one lineage"))
    for index, run in enumerate(runs if len(runs) > 1 else ()):
        if index in looks["run"]:
            chips.append(_chip("run", index, sign("run", index, dashed=True), run.name))
    seeds = [_chip("seed", seed, "", f"seed {seed}") for seed in seeds_of(series)]
    some = '<span id="some" role="status"></span>' if seeds else ""
    tools = (
        '<span class="push"><button type="button" id="link" title="copy the address of what is shown now">link</button>'
        '<button type="button" id="theme" aria-label="switch between light and dark">light / dark</button></span>'
    )
    return (
        f'<div class="bar"><div role="toolbar" aria-label="What all plots show"><h1 title="{names}">'
        f'<span class="unseen">Report{"s" if len(runs) > 1 else ""} on </span>{names}</h1>'
        f"{''.join(chips)}{f'<span class=seeds>{chr(32).join(seeds)}</span>' if seeds else ''}{some}{tools}</div></div>"
    )


def seeds_of(series: Sequence[Series]) -> list[int]:
    """The seeds that can be chosen: where there are several, and each has a line."""
    seeds = sorted({seed for line in series for seed in line.seeds})
    return seeds if 1 < len(seeds) <= SEEDS else []


def _chip(kind: str, key: int, sign: str, name: str) -> str:
    return (
        f'<button type="button" class="chip" data-toggle="{kind}" data-key="{key}" aria-pressed="true">'
        f"{sign}{escaped(name, 60)}</button>"
    )


def _filled(template: str, parts: dict[str, str]) -> str:
    """The template with its `{{names}}` replaced in one pass: what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], template)


@cache  # of three scripts, one of them of 5 MB
def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
