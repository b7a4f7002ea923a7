"""Where the folder of a model or a tokenizer can be: said without torch, for what is checked before anything heavy is imported."""

from pathlib import Path

from collapse_cli.errors import InputError


def is_folder(source: str, what: str) -> bool:
    """Whether a source is a folder here; where it is none it may be a Hub id.

    Raises:
        InputError: when it can be neither.
    """
    path = Path(source)
    if path.is_dir():
        return True
    if path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(f"{what}: {source!r} is not a folder; give a folder or a Hub id")
    return False


def without(file: str, folder: Path, what: str, hint: str = "") -> InputError:
    """What to say of a folder that lacks the file which every model folder has."""
    return InputError(f"{what}: {folder} has no {file}, so it is not a transformers model folder{hint}")
