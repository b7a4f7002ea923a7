"""Tables of `datasets`: those of the Hub, and folders that its `save_to_disk` wrote. No code of others is run."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_cli import files
from collapse_cli.data.forms import WantedForm
from collapse_cli.data.rowreader import RowReader
from collapse_cli.data.textformats import AT_ONCE, PAIRED, cells_of, check_text, no_column, texts_of
from collapse_cli.errors import InputError, first_line

if TYPE_CHECKING:
    import datasets

NAMES = {"train": "train", "valid": "validation", "test": "test"}  # of splits, as `datasets` calls them


def library() -> Any:
    """`datasets`, without progress bars and advice between our own lines. Loading it takes seconds: only where its tables are read."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it cannot read is said by our own errors
    return datasets


class SavedTable:
    """A table of `datasets` as `Records`."""

    def __init__(self, table: "datasets.Dataset", where: str) -> None:
        self.table, self.where = table, where
        self.names: list[str] = table.column_names

    def _check_column(self, column: str) -> None:
        if column not in self.names:
            raise InputError(no_column(self.where, column, self.names) + PAIRED)

    def _tables(self, columns: Sequence[str]) -> Iterator[Any]:
        some: Iterator[Any] = self.table.select_columns(list(dict.fromkeys(columns))).with_format("arrow").iter(AT_ONCE)
        return some

    def texts(self, column: str) -> Iterable[str | None]:
        self._check_column(column)
        check_text(self.table.features.arrow_schema.field(column).type, column, self.where)
        return texts_of(self._tables([column]), column, self.where)

    def cells(self, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
        for column in columns:
            self._check_column(column)
        return cells_of(self._tables(columns), columns, self.where)


def read_tables(
    tables: "Mapping[str, datasets.Dataset]", what: str, asked: WantedForm, chosen: Mapping[str, str]
) -> tuple[dict[str, Sequence[str]], list[str]]:
    """The rows of each split, as `textfiles.read_source` gives them.

    Args:
        what: the tables, for people.
        chosen: by split, the name of the table to use; empty: that which is usual.

    Raises:
        InputError: when a split is missing, and as `RowReader` does.
    """
    splits: dict[str, Sequence[str]] = {}
    reader = RowReader(asked)
    for split, usual in NAMES.items():
        name = chosen[split] or usual
        if name in tables:
            splits[split] = reader.read(f"{what}, {name}", [SavedTable(tables[name], f"{what}, {name}")])
        elif chosen[split] or split == "train":
            raise InputError(f"{what} has no split {name!r} (there: {', '.join(tables)}); say --set data.{split}=SPLIT")
    return splits, reader.notes


def read_saved(
    folder: Path, asked: WantedForm, chosen: Mapping[str, str]
) -> tuple[dict[str, Sequence[str]], list[str]]:
    """The rows of a folder that `save_to_disk` wrote: of several splits, or of one table, which is the training text.

    Raises:
        InputError: for one that is damaged, and as `read_tables` does.
    """
    if odd := next((path for path in sorted(folder.rglob("*")) if files.what_is(path) == "other"), None):
        raise InputError(f"{odd} is a pipe or a device, which a folder of datasets' save_to_disk has none of")
    datasets = library()
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # what datasets and Arrow raise for damaged files is of many kinds
        raise InputError(
            f"{folder} was written by datasets' save_to_disk, and cannot be read: {first_line(error)}"
        ) from None
    tables = loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    return read_tables(tables, str(folder), asked, chosen)
