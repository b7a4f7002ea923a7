"""Text from local files: which files of a folder are which split, and the rows that they hold.

A name is a name, never a pattern or an address; what is passed over is said.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from collapse_cli import files
from collapse_cli.data.textformats import FORMATS, PACKED, unpacked
from collapse_cli.data.textformats import format_of as format_of
from collapse_cli.errors import InputError

SPLITS = ("train", "valid", "test")
SPLIT_WORDS = {
    "train": {"train", "training"},
    "valid": {"valid", "validation", "val", "dev"},
    "test": {"test", "testing"},
}
WORDS = {"train": "training", "valid": "validation", "test": "test"}
COLUMN = "text"  # that holds the text, where nobody says another
PLAIN = FORMATS[".txt"]
SHARD = re.compile(r"(\d{1,9})-of-(\d{1,6})", re.IGNORECASE)
MARK = "\ufeff"  # a byte order mark
NAMED = 3  # files or columns that a message names of many


def read_source(path: Path, column: str, chosen: Mapping[str, str]) -> tuple[dict[str, Sequence[str]], list[str]]:
    """The rows of a file or of the files of a folder, by split, and notes on what was passed over.

    Args:
        column: where formats have columns, the one that holds the text.
        chosen: by split, the file of the folder to use; empty: found by name.

    Raises:
        InputError: for anything that is missing, unreadable or ambiguous.
    """
    if files.what_is(path) == "folder":
        groups, notes = _groups(path, chosen)
    elif any(chosen.values()):
        raise InputError(f"data.source = {str(path)!r} is a file; to name files by split, give their folder")
    else:
        groups, notes = {"train": [path]}, []
    splits = {split: _read(group, column, notes) for split, group in groups.items()}
    if column != COLUMN and all(FORMATS[format_of(file) or ""] is PLAIN for group in groups.values() for file in group):
        notes.append(f"data.text = {column} is not used: it names a column, and files of plain text have none")
    return splits, notes


def read_all(path: Path, column: str) -> tuple[Sequence[str], list[str]]:
    """The rows of a file, or of all text files of a folder in natural order, whatever their names say; and notes.

    Raises:
        InputError: for anything that is missing or unreadable.
    """
    group, notes = [path], list[str]()
    if files.what_is(path) == "folder":
        inside = in_natural_order(files.in_folder(path))
        group = [file for file in inside if file.is_file() and format_of(file) and not file.name.startswith(".")]
        if not group:
            raise InputError(f"{path} holds no text files ({' '.join(FORMATS)} are read)")
        notes = _passed_over(path, [file for file in inside if file not in group], named=False)
    return _read(group, column, notes), notes


def in_natural_order(names: Iterable[Path]) -> list[Path]:
    """By name, with numbers in names as numbers: 2 before 10."""
    return sorted(names, key=lambda path: [(part.isdigit(), int(part) if part.isdigit() else 0, part)
                                           for part in re.split(r"([0-9]+)", path.name)])  # fmt: skip


def _groups(folder: Path, chosen: Mapping[str, str]) -> tuple[dict[str, list[Path]], list[str]]:
    """Which files of a folder are which split, and notes on those that are none."""
    inside = in_natural_order(files.in_folder(folder))
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise InputError(
            f"{folder} was written by datasets' save_to_disk, which collapse does not read; write each split as Parquet: "
            "dataset['train'].to_parquet('train.parquet')"
        )
    there = [file for file in inside if file.is_file() and format_of(file) and not file.name.startswith(".")]
    listed = _names(there) or "no text files"
    groups: dict[str, list[Path]] = {}
    outside: list[str] = []
    for split, name in chosen.items():
        if name:
            if not files.what_is(folder / name):
                raise InputError(f"data.{split} = {name!r}: there is no such file in {folder} (there: {listed})")
            groups[split] = [folder / name]
            if os.path.relpath(folder / name, folder).startswith(os.pardir):
                outside.append(f"the {WORDS[split]} text is {folder / name}, which is outside the folder {folder}")
    taken = {file for group in groups.values() for file in group}
    for split in SPLITS:
        fitting = [file for file in there if file not in taken and _split_of(file) == split]
        if split not in groups and fitting:
            shards = {re.sub(r"\d+", "", file.name) for file in fitting}
            if len(shards) > 1:
                raise InputError(
                    f"{folder}: which file is the {WORDS[split]} text? ({_names(fitting)}) Say --set data.{split}=FILE"
                )
            groups[split] = fitting
    if "train" not in groups:
        if len(there) == 1 and not groups:
            groups["train"] = there
        else:
            also = "".join(f"; {note}" for note in _passed_over(folder, inside, True))
            raise InputError(f"{folder}: which file is the training text? ({listed}) Say --set data.train=FILE{also}")
    shared = _shared(groups)
    used = {file for group in groups.values() for file in group}
    rest = [path for path in inside if path not in used]
    parts = [note for group in groups.values() if not taken & {*group} for note in _parts(group)]
    return groups, [*shared, *outside, *parts, *_passed_over(folder, rest, bool(any(chosen.values())))]


def _parts(parts: Sequence[Path]) -> list[str]:
    """Notes on files called `train-00001-of-00003` and the like that are not there: 0 to 2, or 1 to 3.

    Raises:
        InputError: when they are parts of two sets, which would be read one behind the other.
    """
    sets: dict[int, set[int]] = {}
    for file in parts:
        if match := SHARD.search(file.name):
            sets.setdefault(int(match[2]), set()).add(int(match[1]))
    if len(sets) > 1:
        raise InputError(
            f"{parts[0].parent} holds parts of {len(sets)} sets, of {' and of '.join(map(str, sorted(sets)))} files "
            f"({_names(parts)}); keep those of one"
        )
    return [
        f"not all parts of a text are there: {len(numbers)} of {count} ({_names(parts)}); only these are read"
        for count, numbers in sets.items()
        if numbers not in ({*range(count)}, {*range(1, count + 1)})
    ]


def _shared(groups: Mapping[str, Sequence[Path]]) -> list[str]:
    """Notes on files that serve two splits, be it under another name: by a link, or by a path that leads back.

    Raises:
        InputError: when they are the training and the test text.
    """
    real = {split: {os.path.realpath(path): path for path in group} for split, group in groups.items()}
    notes = []
    for split, other in (("train", "test"), ("train", "valid"), ("valid", "test")):
        for place in real.get(split, {}).keys() & real.get(other, {}).keys():
            path, again = real[split][place], real[other][place]
            also = "" if path == again else f" (as {again})"
            both = f"{path} is named as {WORDS[split]} and as {WORDS[other]} text{also}"
            if {split, other} == {"train", "test"}:
                raise InputError(f"{both}; test text must be other text")
            notes.append(both)
    return notes


def _passed_over(folder: Path, rest: Sequence[Path], named: bool) -> list[str]:
    """Notes on what of a folder is not read though it looks like text.

    Args:
        named: whether the user named files; then the folder's other texts were left out on purpose.
    """
    links = [path for path in rest if path.is_symlink() and not path.exists()]
    nested = [path for path in rest if path.is_dir() and any(format_of(file) for file in _inside(path))]
    texts = [
        path for path in rest if path.is_file() and format_of(path) and not path.name.startswith(".") and not named
    ]
    pipes = [path for path in rest if format_of(path) and files.is_special(path)]
    odd = [path for path in rest if path.is_file() and not format_of(path) and _split_of(path)
           and not path.name.startswith(".")]  # fmt: skip
    reasons = {
        "links to files that are not there": links,
        "named pipes, sockets or devices": pipes,
        "folders with text in them (only the folder itself is read)": nested,
        "files whose names do not say training, validation or test": texts,
        f"files of formats that are not read ({' '.join(FORMATS)} are)": odd,
    }
    return [f"not read in {folder}: {what}: {_names(paths)}" for what, paths in reasons.items() if paths]


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _names(paths: Sequence[Path]) -> str:
    rest = len(paths) - NAMED
    return ", ".join(path.name for path in paths[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _split_of(file: Path) -> str | None:
    words = set(re.split(r"[^a-z]+", file.name.lower()))
    return next((split for split in SPLITS if words & SPLIT_WORDS[split]), None)


def _read(group: Sequence[Path], column: str, notes: list[str]) -> Sequence[str]:
    rows: list[str] = []
    missing = marks = 0
    for path in group:
        ending = format_of(path)
        if ending is None:
            raise InputError(f"{path}: the format is not known; known: {' '.join(FORMATS)}, also with {PACKED}")
        for row in FORMATS[ending](path, unpacked(path), column):
            missing += row is None
            marks += row is not None and MARK in row
            rows.append(row or "")
    if missing:
        notes.append(
            f"{_names(group)}: rows without text (null): {missing:,} of {len(rows):,}; they are read as blank lines"
        )
    if marks:
        notes.append(
            f"{_names(group)}: rows with a byte order mark (U+FEFF), as when files were joined: {marks:,} of {len(rows):,}; it is "
            "read as text"
        )
    return rows
