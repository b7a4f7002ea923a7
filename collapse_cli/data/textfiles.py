"""Text from local files: which files of a folder are which split, and the rows that they hold.

A name is a name, never a pattern or an address; what is passed over is said.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from collapse_cli import files
from collapse_cli.data import tables
from collapse_cli.data.forms import TEXT, WantedForm
from collapse_cli.data.longtext import joined
from collapse_cli.data.rowreader import NAMED, RowReader
from collapse_cli.data.textformats import FORMATS, PLAIN, records
from collapse_cli.data.textformats import format_of as format_of
from collapse_cli.errors import InputError

SPLITS = ("train", "valid", "test")
SPLIT_WORDS = {
    "train": {"train", "training"},
    "valid": {"valid", "validation", "val", "dev"},
    "test": {"test", "testing"},
}
WORDS = {"train": "training", "valid": "validation", "test": "test"}
SHARD = re.compile(r"(\d{1,9})-of-(\d{1,6})", re.IGNORECASE)
# names of files that are about others
ABOUT = ("readme", "license", "licence", "changelog", "contributing", "citation", "notice")
DEEPEST, MOST_FILES = 32, 200_000  # of a folder that is walked


def read_source(
    path: Path,
    column: str,
    chosen: Mapping[str, str],
    *,
    form: str = "auto",
    prompt: str = "",
    completion: str = "",
) -> tuple[dict[str, Sequence[str]], list[str]]:
    """The rows of a file or of the files of a folder, by split, and notes on what was passed over.

    Args:
        column: where formats have columns, the one that holds the text (or the chats, with `form` chat).
        chosen: by split, the file of the folder to use, or a folder in it, all of whose files are read; empty: found by name.
        form: what rows are, as `data.format` says it: `auto`, `text`, `chat` or `pairs`.
        prompt, completion: of pairs, the columns; empty: found by name.

    Returns:
        Rows that end in a newline but for what formats with columns hold; of chats and pairs each is a `Dialogue`.

    Raises:
        InputError: for anything that is missing, unreadable or ambiguous.
    """
    asked = WantedForm(form, column, prompt, completion)
    if files.what_is(path) == "folder":
        if is_saved(path):
            return tables.read_saved(path, asked, chosen)
        groups, notes = _groups(path, chosen)
    elif any(chosen.values()):
        raise InputError(f"data.source = {str(path)!r} is a file; to name files by split, give their folder")
    else:
        groups, notes = {"train": [path]}, []
    reader = RowReader(asked)
    splits = {split: reader.read(_names(group), map(records, group)) for split, group in groups.items()}
    if column != TEXT and all((format_of(file) or "") in PLAIN for group in groups.values() for file in group):
        notes.append(f"data.text = {column} is not used: it names a column, and files of plain text have none")
    return splits, [*notes, *reader.notes]


def read_all(
    path: Path, column: str, *, form: str = "auto", prompt: str = "", completion: str = ""
) -> tuple[Sequence[str], list[str]]:
    """The rows of a file, or of all text files of a folder and of those in it in natural order, whatever their names say; and notes.

    Rows and arguments are those of `read_source`.

    Raises:
        InputError: for anything that is missing or unreadable.
    """
    asked = WantedForm(form, column, prompt, completion)
    if files.what_is(path) != "folder":
        group, notes = [path], list[str]()
    elif is_saved(path):
        splits, notes = tables.read_saved(path, asked, dict.fromkeys(SPLITS, ""))
        return joined(list(splits.values())), notes
    else:
        folder = _Folder(path)
        folder.walk()
        group = folder.there
        if not group:
            raise InputError(f"{path} holds no text files ({' '.join(FORMATS)} are read)")
        taken = {*group}
        notes = [
            *folder.notes,
            *_passed_over(folder, [file for file in folder.inside if file not in taken], False, True),
        ]
    reader = RowReader(asked)
    return reader.read(_names(group), map(records, group)), [*notes, *reader.notes]


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by the `save_to_disk` of `datasets`."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def in_natural_order(paths: Iterable[Path], folder: Path | None = None) -> list[Path]:
    """By name, with numbers in names as numbers: 2 before 10. Of paths below a `folder`, by the names of all folders on the way."""

    def key(path: Path) -> list[list[tuple[bool, int, str]]]:
        parts = path.relative_to(folder).parts if folder else (path.name,)
        return [
            [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"([0-9]+)", name)]
            for name in parts
        ]

    return sorted(paths, key=key)


def _is_text(file: Path) -> bool:
    """Whether a file looks like text to be read: of a known format, not hidden, and not about other files, as README.md is."""
    return (
        file.is_file()
        and format_of(file) is not None
        and not file.name.startswith(".")
        and file.name.split(".")[0].lower() not in ABOUT
    )


class _Folder:
    """What a folder holds: its own files, and where they do not settle it those of the folders in it.

    Attributes:
        inside: all that stands directly in it.
        there: texts in it; after `walk` those of the folders in it, too.
        notes: on what is not walked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self.inside = in_natural_order(files.in_folder(folder))
        self.there = [path for path in self.inside if _is_text(path)]

    def walk(self) -> None:
        found = list(self.there)
        hidden: list[Path] = []
        again: list[Path] = []
        deep: list[Path] = []
        seen = {os.path.realpath(self.folder)}
        todo = [(path, 1) for path in self.inside if path.is_dir()]
        while todo:
            path, depth = todo.pop()
            if path.name.startswith("."):
                hidden.append(path)
            elif (real := os.path.realpath(path)) in seen:
                again.append(path)
            elif depth > DEEPEST:
                deep.append(path)
            else:
                seen.add(real)
                for each in _inside(path):
                    if each.is_dir():
                        todo.append((each, depth + 1))
                    elif _is_text(each):
                        found.append(each)
                if len(found) > MOST_FILES:
                    raise InputError(
                        f"{self.folder} holds more than {MOST_FILES:,} files of text; join them, or name a folder in it"
                    )
        self.there = in_natural_order(found, self.folder)
        reasons = {
            "hidden folders": [path for path in hidden if any(map(_is_text, _inside(path)))],
            "folders that are read already, by links": again,
            f"folders more than {DEEPEST} deep": deep,
        }
        self.notes = [
            f"not read in {self.folder}: {what}: {_names(in_natural_order(paths, self.folder), self.folder)}"
            for what, paths in reasons.items()
            if paths
        ]

    def split_of(self, file: Path) -> str | None:
        """By the name of the file, else by those of the folders it is in, the innermost first."""
        parts = reversed(file.relative_to(self.folder).parts)
        return next((split for part in parts if (split := _split_of(part)) is not None), None)

    def named(self, split: str, name: str, others: set[Path]) -> list[Path]:
        """The file that the user names for a split; of a folder all its texts that are of no other split by name."""
        path = self.folder / name
        if files.what_is(path) != "folder":
            if not files.what_is(path):
                listed = _names(self.there) or "no text files"
                raise InputError(f"data.{split} = {name!r}: there is no such file in {self.folder} (there: {listed})")
            return [path]
        if is_saved(path):
            raise InputError(
                f"data.{split} = {name!r} was written by datasets' save_to_disk; give it as data.source itself"
            )
        below = _Folder(path)
        below.walk()
        self.notes.extend(below.notes)
        chosen = [file for file in below.there if file not in others and below.split_of(file) in (None, split)]
        if not chosen:
            raise InputError(f"data.{split} = {name!r}: there is no text in that folder ({' '.join(FORMATS)} are read)")
        return chosen


def _groups(folder: Path, chosen: Mapping[str, str]) -> tuple[dict[str, list[Path]], list[str]]:
    """Which files of a folder are which split, and notes on those that are none."""
    there = _Folder(folder)
    named = {split: folder / name for split, name in chosen.items() if name}
    groups: dict[str, list[Path]] = {}
    outside: list[str] = []
    for split, path in named.items():
        groups[split] = there.named(split, chosen[split], {*named.values()} - {path})
        if os.path.relpath(path, folder).startswith(os.pardir):
            outside.append(f"the {WORDS[split]} text is {path}, which is outside the folder {folder}")
    taken = {file for group in groups.values() for file in group}
    found = _by_name(there, groups, taken)
    walked = False
    if "train" not in groups and "train" not in found and any(path.is_dir() for path in there.inside):
        there.walk()
        found, walked = _by_name(there, groups, taken), True
    groups |= found
    if "train" not in groups:
        also = "".join(f"; {note}" for note in (*there.notes, *_passed_over(there, there.inside, True, walked)))
        if not there.there:
            raise InputError(
                f"{folder} holds no text files ({' '.join(FORMATS)} are read); give a file or folder of text (--data){also}"
            )
        listed = _names(there.there, folder)
        more = "; a folder's name, or . for all that is here, takes all its files" if len(there.there) > 1 else ""
        raise InputError(f"{folder}: which file is the training text? ({listed}) Say --set data.train=FILE{more}{also}")
    shared = _shared(groups)
    used = {file for group in groups.values() for file in group}
    rest = [
        path for path in (*there.inside, *(file for file in there.there if file.parent != folder)) if path not in used
    ]
    parts = [note for group in groups.values() if not taken & {*group} for note in _parts(group)]
    passed = _passed_over(there, rest, bool(named), walked or any(path.is_dir() for path in named.values()))
    return groups, [*shared, *outside, *parts, *there.notes, *passed]


def _by_name(there: _Folder, groups: Mapping[str, Sequence[Path]], taken: set[Path]) -> dict[str, list[Path]]:
    """The files that are splits by their names, or by those of the folders they are in; and the one text that is there alone.

    Raises:
        InputError: where several texts could be one split, which are no parts of one.
    """
    found: dict[str, list[Path]] = {}
    folder, free = there.folder, [file for file in there.there if file not in taken]
    for split in SPLITS:
        fitting = [file for file in free if there.split_of(file) == split]
        if split in groups or not fitting:
            continue
        if len({_pattern(file, folder) for file in fitting}) > 1:
            raise InputError(
                f"{folder}: which file is the {WORDS[split]} text? ({_names(fitting, folder)}) Say --set data.{split}=FILE"
            )
        found[split] = fitting
    if "train" in found or "train" in groups:
        return found
    free = [file for file in free if there.split_of(file) is None]
    alone = [file for file in free if not file.name.lower().endswith((".md", ".markdown"))] or free
    shards = len({_pattern(file, folder) for file in alone}) == 1 and (len(alone) == 1 or _numbered(alone))
    if shards and not (groups and len(alone) == 1) and (len(alone) > 1 or not found):
        found["train"] = alone
    return found


def _pattern(file: Path, folder: Path) -> str:
    """What files have in common that are parts of one text: their names but for numbers, or the folder that names their split."""
    parts = file.relative_to(folder).parts
    for depth, part in enumerate(parts[:-1], 1):
        if _split_of(part) and not _split_of(parts[-1]):
            return "/".join(parts[:depth])
    return re.sub(r"\d+", "", "/".join(parts))


def _numbered(group: Sequence[Path]) -> bool:
    """Whether files are told apart by numbers in their names."""
    return all(re.search(r"\d", str(file.name)) for file in group)


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


def _passed_over(there: _Folder, rest: Sequence[Path], named: bool, walked: bool) -> list[str]:
    """Notes on what of a folder is not read though it looks like text.

    Args:
        named: whether the user named files; then the folder's other texts were left out on purpose.
        walked: whether the folders in it were looked through, too.
    """
    links = [path for path in rest if path.is_symlink() and not path.exists()]
    nested = [path for path in rest if path.is_dir() and not walked and any(format_of(file) for file in _inside(path))]
    texts = [path for path in rest if _is_text(path) and not named]
    pipes = [path for path in rest if format_of(path) and files.is_special(path)]
    odd = [path for path in rest if path.is_file() and not format_of(path) and _split_of(path.name)
           and not path.name.startswith(".")]  # fmt: skip
    reasons = {
        "links to files that are not there": links,
        "named pipes, sockets or devices": pipes,
        "folders with text in them (only the folder itself is read)": nested,
        "files whose names do not say training, validation or test": texts,
        f"files of formats that are not read ({' '.join(FORMATS)} are)": odd,
    }
    return [
        f"not read in {there.folder}: {what}: {_names(paths, there.folder)}" for what, paths in reasons.items() if paths
    ]


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _names(paths: Sequence[Path], folder: Path | None = None) -> str:
    """The names of some files; of those below a folder, from there."""
    rest = len(paths) - NAMED
    few = [
        str(path.relative_to(folder)) if folder and path.is_relative_to(folder) else path.name for path in paths[:NAMED]
    ]
    return ", ".join(few) + (f" and {rest} more" if rest > 0 else "")


def _split_of(name: str) -> str | None:
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((split for split in SPLITS if words & SPLIT_WORDS[split]), None)
