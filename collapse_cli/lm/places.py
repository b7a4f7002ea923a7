"""Where a model or a tokenizer can be: said without torch, for what is checked before anything heavy is imported."""

import importlib.util
from pathlib import Path

from collapse_cli import files
from collapse_cli.errors import ConfigError, InputError

GGUF = ".gguf"
MAGIC = b"GGUF"
INSTALL = "pip install 'collapse-cli[gguf]'"
READS_GGUF = ("gguf", "accelerate")  # modules that transformers needs for it; the extra brings them
OWN_WEIGHTS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*",
    "adapter_*",
)  # before which a GGUF file is none


def is_folder(source: str, what: str) -> bool:
    """Whether a source is a folder here, or a GGUF file; where it is neither it may be a Hub id.

    Raises:
        InputError: when it can be none of them.
    """
    path = Path(source)
    if path.is_dir() or is_gguf(path):
        return True
    if path.suffix.lower() == GGUF and not path.exists():
        raise InputError(f"{what}: there is no file {source!r}{files.unread(source)}")
    if path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(f"{what}: {source!r} is not a folder{files.unread(source)}; give a folder or a Hub id")
    return False


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file, by its name."""
    return path.suffix.lower() == GGUF and path.is_file()


def gguf_in(folder: Path, what: str) -> Path | None:
    """The one GGUF file of a folder that has no weights of transformers' or peft's; None where there is none.

    Raises:
        InputError: when there are several.
    """
    if not folder.is_dir() or any(any(folder.glob(pattern)) for pattern in OWN_WEIGHTS):
        return None
    there = sorted(path for path in folder.iterdir() if is_gguf(path))
    if len(there) > 1:
        raise InputError(
            f"{what}: {folder} holds {len(there)} GGUF files; give one of them by its name, such as {there[0]}"
        )
    return there[0] if there else None


def missing_for_gguf() -> str:
    """The first module that reading GGUF files takes and that is not installed; "" where all are."""
    return next((module for module in READS_GGUF if importlib.util.find_spec(module) is None), "")


def check_gguf(path: Path, what: str) -> None:
    """Whether a file can be a GGUF file, and what reads it is installed.

    Raises:
        ConfigError: for a module that is not installed.
        InputError: when it begins as no GGUF file does.
    """
    if missing := missing_for_gguf():
        raise ConfigError(
            f"{what}: reading GGUF files takes {missing}, which is not installed: {INSTALL}, or give a transformers folder of the model"
        )
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise InputError(f"{what}: {path} cannot be read: {error.strerror}") from None
    if start != MAGIC:
        raise InputError(f"{what}: {path} is no GGUF file, whatever its name says: it does not begin with GGUF")


def without(file: str, folder: Path, what: str, hint: str = "") -> InputError:
    """What to say of a folder that lacks the file which every model folder has."""
    return InputError(f"{what}: {folder} has no {file}, so it is not a transformers model folder{hint}")
