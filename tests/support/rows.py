"""Rows of `metrics.jsonl` for tests of what reads them: built here alone, of the one type."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collapse_cli.records.row import Row
from collapse_cli.where import Where


def row_of(policy: str, seed: int, generation: int, /, **measured: Any) -> Row:
    """A row of a generational experiment."""
    return Row.at(Where(policy, seed, generation), measured)


def cell_of(label: str, seed: int, /, **measured: Any) -> Row:
    """A row of a cell of a mixture; its coordinates are among what is measured, as in the file."""
    return Row.at(Where("", seed, 0, cell=label), measured)


def changed(row: Row, **measured: Any) -> Row:
    """The same row with other fields, or more."""
    return Row(row.where, {**row.fields, **measured})


def without(row: Row, *names: str) -> Row:
    """The same row without some of its fields."""
    return Row(row.where, {name: value for name, value in row.fields.items() if name not in names})


def as_lines(rows: Sequence[Row]) -> str:
    """As versions wrote them that knew no digests."""
    return "".join(json.dumps(row.record()) + "\n" for row in rows)


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """The file of a run's folder."""
    (folder / "metrics.jsonl").write_text(as_lines(rows), encoding="utf-8")


def read_rows(folder: Path) -> list[Row]:
    """What the file holds, line by line; all of it must be rows."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [Row.of({name: value for name, value in json.loads(line).items() if name != "digest"}) for line in lines]
    assert None not in rows
    return [row for row in rows if row is not None]
