"""What stands around the pages: the list of runs, the bar above a report, and the page in place of one that cannot be made."""

import re
import time
from collections.abc import Sequence
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from collapse_cli.errors import how_many
from collapse_cli.metrics import numbers
from collapse_cli.records.elsewhere import is_copy, place_of
from collapse_cli.records.listing import few, seeds_said
from collapse_cli.report.text import escaped, one_line
from collapse_cli.view.runs import State

LOOK = {"view.css": "text/css", "follow.js": "text/javascript", "list.js": "text/javascript"}  # the files of `look`
COLUMNS = ("", "run", "state", "done", "learner", "policies", "seeds", "changed")


def look(name: str) -> str:
    """A style sheet or a script of `LOOK`."""
    return resources.files(__package__ or "").joinpath(name).read_text(encoding="utf-8")


def runs_list(states: Sequence[State], more: int, folder: Path, chosen: Sequence[str]) -> str:
    """The first page: all runs with their states."""
    heads = "".join(f'<th scope="col">{column}</th>' for column in COLUMNS)
    title = "the runs that were named" if chosen else f"runs in {one_line(place_of(folder), 300)}"
    return _page(
        "list.html",
        title=escaped(title),
        heads=heads,
        lines=lines(states, more, folder, chosen),
        look="list.js",
        runs="",
    )


def lines(states: Sequence[State], more: int, folder: Path, chosen: Sequence[str]) -> str:
    """The lines of the list, and how many more runs there are than it shows; it holds no text but escaped text."""
    if not states:
        missing = "" if folder.is_dir() or is_copy(folder) else ", a folder that does not exist (yet)"
        none = (
            f"no runs in {one_line(place_of(folder), 300)}{missing}; <code>collapse run --preset smoke</code> makes one"
        )
        return f'<tr><td colspan="{len(COLUMNS)}">{none}</td></tr>'
    shown = "".join(_line(state) for state in states)
    if not more:
        return shown
    left = (
        f"{how_many(more, 'more run')} changed before these: give their names to <code>collapse view</code> to see them"
    )
    return f'{shown}<tr><td colspan="{len(COLUMNS)}">{left}</td></tr>'


def bar(names: Sequence[str], states: Sequence[State]) -> dict[str, Any]:
    """What the bar above a report says of its runs: plain text, for the script to write."""
    return {
        "title": ", ".join(names),
        "runs": [
            {
                "name": state.name,
                "said": state.label,
                "kind": state.kind,
                "done": state.facts.progress,
                "changed": _changed(state),
                "doing": one_line(state.doing),
            }
            for state in states
        ],
        "ended": all(state.ended for state in states),
    }


def frame(names: Sequence[str]) -> str:
    """The page with the bar above, which shows the report below it and follows its runs."""
    address = ",".join(names)
    return _page("frame.html", title=escaped(", ".join(names)), look="follow.js", runs=escaped(address, 5000))


def failure(message: str) -> str:
    """A page that says one line."""
    return _page("failure.html", title="no page", message=escaped(one_line(message, 1000)), style=look("view.css"))


def _line(state: State) -> str:
    facts = state.facts
    name = escaped(state.name, 120)
    link = f'<a href="/run/{name}">{name}</a>' if state.linked else name
    tick = f'<input type="checkbox" value="{name}" aria-label="show {name} beside others">' if state.linked else ""
    told = facts.error or state.doing
    why = f'<p class="why">{escaped(one_line(told, 300))}</p>' if told else ""
    cells = (
        f'<span class="pill {state.kind}">{escaped(state.label)}</span>',
        _progress(state),
        escaped(one_line(facts.learner, 60)),
        escaped(one_line(few(facts.policies))),
        escaped(seeds_said(facts.seeds)),
        escaped(_changed(state)),
    )
    rest = "".join(f'<td data-is="{what}">{cell}</td>' for what, cell in zip(COLUMNS[2:], cells, strict=True))
    return f'<tr><td class="tick">{tick}</td><th scope="row">{link}{why}</th>{rest}</tr>'


def _progress(state: State) -> str:
    facts = state.facts
    gauge = f'<progress value="{facts.done}" max="{facts.planned}" aria-hidden="true"></progress>'
    return escaped(facts.progress) + (gauge if facts.planned and not state.ended else "")


def _changed(state: State) -> str:
    """How long ago one of its files was last written."""
    if not state.changed:
        return ""
    past = time.time() - state.changed
    if past < 1:
        return "now"
    return (
        f"{numbers.duration(past)} ago"
        if past < 86400
        else time.strftime("%Y-%m-%d %H:%M", time.localtime(state.changed))
    )


@cache
def _template(name: str) -> str:
    return look(name)


def _page(template: str, **parts: str) -> str:
    """The template with its `{{names}}` replaced in one pass: what is put in is not looked at again."""
    parts["generator"] = f"collapse {metadata.version('collapse-cli')}"
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], _template(template))
