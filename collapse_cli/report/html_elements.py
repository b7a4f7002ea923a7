"""Small pieces of HTML: every text that comes in is escaped here, once."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from collapse_cli.records.fields import table
from collapse_cli.report.figures import Figure
from collapse_cli.report.loading import Series
from collapse_cli.report.palette import COUNT, SHADES
from collapse_cli.report.text import LONGEST, escaped


def swatch(colour: int | None, dash: int = 0, shade: float = 0.0) -> str:
    """The sign of a line, as `palette.Look` has it and the script draws it; None: of no one's colour.

    A line of SVG, for borders know three patterns only.
    """
    tone = "" if colour is None else f" c{colour % COUNT}"
    tone += f" k{SHADES.index(shade)}" if shade in SHADES and shade else ""
    return f'<svg class="swatch{tone} d{dash}" viewBox="0 0 30 5" aria-hidden="true"><path d="M0 2.5H30"/></svg>'


def sign(line: Series) -> str:
    """The sign of a series."""
    return swatch(line.look.colour, line.look.dash, line.look.shade)


def of_all(*what: str) -> str:
    """A place in which the script says `of all seeds` where some are hidden, beside what goes on counting them.

    Args:
        what: `seeds`, `policies`; both by default.
    """
    return f'<small class="of-all" data-of="{" ".join(what or ("seeds", "policies"))}"></small>'


def heading(line: Series) -> str:
    return f"{sign(line)} {escaped(line.label)}"


def cells(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    kind: str = "",
    series: Sequence[int | None] = (),
    row_series: Sequence[int | None] = (),
    classes: Sequence[str] = (),
    row_classes: Sequence[str] = (),
    beside: str = "",
) -> str:
    """A table that scrolls on its own where it is too wide; cells are HTML already.

    Args:
        series: for each column the index of its series, so that it hides with it.
        row_series: for each row.
        beside: HTML behind the caption.
        classes: for each column.
        row_classes: for each row.
    """

    def attributes(column: int) -> str:
        name = classes[column] if column < len(classes) else ""
        css = f' class="{name}"' if name else ""
        shown = series[column] if column < len(series) else None
        return css + (f' data-series="{shown}"' if shown is not None else "")

    tops = "".join(f'<th scope="col"{attributes(i)}>{text}</th>' for i, text in enumerate(head))
    top = f"<thead><tr>{tops}</tr></thead>" if any(head) else ""
    body = []
    for index, row in enumerate(rows):
        name = row_classes[index] if index < len(row_classes) else ""
        first = f'<th scope="row"{attributes(0)}>{row[0]}</th>' if row else ""
        rest = "".join(f"<td{attributes(i)}>{text}</td>" for i, text in enumerate(row) if i > 0)
        shown = row_series[index] if index < len(row_series) else None
        hides = "" if shown is None else f' data-series="{shown}"'
        css = f' class="{name}"' if name else ""
        body.append(f"<tr{css}{hides}>{first}{rest}</tr>")
    css = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table{css}>'
        f"<caption>{caption}{beside}</caption>{top}<tbody>{''.join(body)}</tbody></table></div>"
    )


def folded(summary: str, inside: str, *, opened: bool = False, kind: str = "") -> str:
    css = f' class="{kind}"' if kind else ""
    return f"<details{css}{' open' if opened else ''}><summary>{summary}</summary>{inside}</details>"


def how_to_read(reading: str, misses: str) -> str:
    """The line under a plot."""
    text = f"<b>How to read it.</b> {escaped(reading)}" if reading else ""
    return f'<p class="reading">{text} <b>What it misses.</b> {escaped(misses)}</p>' if misses else ""


def plot(figure: Figure, size: str, *, card: bool = True) -> str:
    """A place for a plot, the words around it, and its numbers: as a table, folded, and to take away."""
    hides = f' data-series="{figure.series.index}"' if figure.series is not None else ""
    hides += f' data-policy="{figure.policy}"' if figure.policy is not None else ""
    title = heading(figure.series) if figure.series is not None else escaped(figure.title)
    top = f"<h3>{title}{of_all('seeds') if follows_no_seed(figure) else ''}</h3>" if card else ""
    kind = ' class="card"' if card else ""
    return (
        f'<figure{kind} id="plot-{figure.name}"{hides}>{top}{place(figure, size)}'
        f"<figcaption>{how_to_read(figure.reading, figure.misses)}</figcaption>{numbers(figure)}</figure>"
    )


def follows_no_seed(figure: Figure) -> bool:
    """Whether a plot of policies goes on counting seeds that are hidden: it has no lines of single ones."""
    single = any(trace["meta"]["role"] == "seed" for trace in figure.traces)
    return not single and any("s" in trace["meta"] for trace in figure.traces)


def place(figure: Figure, size: str) -> str:
    """Where the script draws a plot."""
    return f'<div class="plot {size}" data-figure="{figure.name}" role="img" aria-label="{escaped(figure.alt)}"></div>'


def numbers(figure: Figure) -> str:
    """The numbers of a plot: a table, folded, and buttons that copy or save them."""
    take = (
        f'<span class="take"><button type="button" data-copy="{figure.name}">copy</button>'
        f'<button type="button" data-csv="{figure.name}">CSV</button></span>'
    )
    names, rows = figure.numbers
    if not names:
        return f'<div class="taken">{take}</div>'
    split_rows = [[split(cell) for cell in row] for row in rows]
    inside = cells(
        f"{escaped(figure.title)}: mean over all seeds and 95% interval",
        [escaped(name) for name in names],
        split_rows,
        series=[None, *(line.index for line in figure.columns)],
        classes=["", *["n"] * (len(names) - 1)],
    )
    return f'<div class="taken">{folded("the numbers", inside)}{take}</div>'


def section(name: str, title: str, inside: str) -> str:
    """A section of the page, with a link to itself."""
    link = f'<a class="anchor" href="#{name}" aria-label="link to this section"></a>'
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}{link}</h2>{inside}</section>'


def split(cell: str) -> str:
    """A mean with its interval below it in small."""
    mean, _, ends = cell.partition(" (")
    return f"{escaped(mean)}<small>{escaped(ends.rstrip(')'))}</small>" if ends else escaped(mean)


def note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A configuration's leaves by dotted name, as text that is not yet escaped."""
    flat: dict[str, str] = {}
    for name, inside in tree.items():
        if table(inside) and len(prefix) < 200:
            flat |= leaves(inside, f"{prefix}{name}.")
        else:
            text = inside if isinstance(inside, str) else json.dumps(inside, default=str)
            flat[f"{prefix}{name}"] = text[: LONGEST * 2]
    return flat
