"""How many rows of a run's corpora came from text that other models wrote: figures by source, and sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from collapse_cli.records.row import Row

MOST = 8  # sources that are named
LONGEST = 100  # characters of a name
NAMED = 3  # models of one server
DIGITS = 12  # of a hash


@dataclass(frozen=True)
class GivenBy:
    """What one source gave to the corpora of a run.

    Attributes:
        source: the file, folder or server, as the run named it.
        least, most: rows that it gave to a corpus that has some of its rows; candidates, where rows were chosen.
        sha256: of a file's text; "" of a server.
        models: what a server said that it answered with.
    """

    source: str
    least: int
    most: int
    sha256: str
    models: Sequence[str]
    chosen: bool = False
    """Whether a selection chose among them."""


def given_by_sources(rows: Sequence[Row]) -> list[GivenBy]:
    """What each source gave, in the order in which rows name them; none where no text is another model's."""
    counts: dict[tuple[str, str], list[int]] = {}
    models: dict[tuple[str, str], dict[str, None]] = {}
    chosen: set[tuple[str, str]] = set()
    for row in rows:
        for given in row.foreign_rows:
            if given.rows <= 0:
                continue
            which = (given.source, given.sha256)
            counts.setdefault(which, []).append(int(given.rows))
            models.setdefault(which, {}).update(dict.fromkeys(given.models))
            if row.measure("select_candidates") is not None:
                chosen.add(which)
    return [
        GivenBy(source, min(every), max(every), sha256, list(models[source, sha256]), (source, sha256) in chosen)
        for (source, sha256), every in counts.items()
    ]


def sources_said(found: Sequence[GivenBy]) -> list[str]:
    """A sentence for each source."""
    said = []
    for one in found[:MOST]:
        rows = f"{one.most:,}" if one.least == one.most else f"{one.least:,} to {one.most:,}"
        if one.sha256:
            what = f"SHA-256 {one.sha256[:DIGITS]}…"
        else:
            named = ", ".join(name[:LONGEST] for name in one.models[:NAMED]) or "nothing of its model"
            if len(one.models) > NAMED:
                named += f" and {len(one.models) - NAMED:,} other models"
            what = f"the server said {named}; its answers are those that the store keeps"
        given = "candidates for" if one.chosen else "rows to"
        said.append(
            f"Text of another model: {one.source[:LONGEST]} gave {rows} {given} each corpus that has rows of it ({what})."
        )
    if len(found) > MOST:
        said.append(f"Text of {len(found) - MOST} further sources is in the rows of metrics.jsonl.")
    return said
