"""GGUF files, which llama.cpp and its kin run: one file with the config, the weights and the tokenizer of a model.

transformers reads them. Weights are mostly quantised in blocks (Q4_1, Q8_0 …): they are read as the float32 numbers that the
blocks stand for, and trained and saved as such. What lies beside a file has no say: the file is all that is hashed.
"""

import copy
import hashlib
import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_cli.errors import InputError, first_line
from collapse_cli.lm import places

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

FILE = f"model{places.GGUF}"
KEPT = 128 << 20  # bytes of a file whose unpacked model is kept in memory
READ_AS = "read as the numbers that these stand for, and trained and saved in float32"
PLACE = "collapse-gguf-"  # how the names of folders begin that it is put into alone
PLAIN = ("F64", "F32", "F16", "BF16")  # what gguf calls numbers that are not quantised


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in one with what kind it is: no folder has the same."""
    with path.open("rb") as file:
        return hashlib.sha256(f"gguf {hashlib.file_digest(file, 'sha256').hexdigest()}".encode()).hexdigest()


def check(path: Path, what: str) -> str:
    """Check that a file can be read as a model; returns its hash.

    Raises:
        InputError: when it is no GGUF file, not all of one, or of an architecture that transformers does not read.
    """
    places.check_gguf(path, what)
    header = _header(path)
    if header.adapter:
        raise InputError(
            f"{what}: {path} is an adapter in llama.cpp's form, and collapse reads peft's: give the folder that it was converted from, or a "
            "GGUF file of the merged model (llama.cpp: llama-export-lora)"
        )
    if header.parts > 1:
        raise InputError(
            f"{what}: {path} is one of {header.parts} parts of a model; join them first (llama.cpp: llama-gguf-split --merge) and give the file "
            "that this makes"
        )
    if not header.kinds:
        raise InputError(f"{what}: {path} holds no weights, only a vocabulary; give the file of the model")
    config_of(path)
    return hash_file(path)


def numbers(path: Path) -> int:
    """How many numbers the weights of a file are."""
    return _header(path).numbers


def notes(path: Path, what: str) -> list[str]:
    """What the reader of a file's numbers should know, in sentences."""
    kinds = _header(path).kinds
    packed = [kind for kind, _ in Counter(kinds).most_common() if kind not in PLAIN]
    if not packed:
        return []
    return [f"{what}: the weights in {path.name} are quantised ({', '.join(packed)}); they are {READ_AS}"]


def config_of(path: Path) -> "PreTrainedConfig":
    """The config that a file describes.

    Raises:
        InputError: when transformers cannot read it.
    """
    return copy.deepcopy(_config(path, _state(path)))


def read(path: Path) -> "tuple[PreTrainedModel, Mapping[str, Any]]":
    """The model of a file in float32, as an ordinary one that can be saved; and what transformers says of the loading."""
    places.check_gguf(path, "the model")
    state = _state(path)
    model, loading = (_kept if state[0] <= KEPT else _read)(path, state)
    return (copy.deepcopy(model) if state[0] <= KEPT else model), loading


def _read(path: Path, state: tuple[int, int]) -> "tuple[PreTrainedModel, Mapping[str, Any]]":
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    with (
        _alone(path) as folder,
        redirect_stderr(io.StringIO()),
    ):  # which a bar of progress is written to, whatever is said
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=FILE,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    return model, loading


_kept = lru_cache(maxsize=1)(
    _read
)  # many stages begin with the same model, and unpacking one takes many times as long as copying it


def tokenizer(path: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer that a file holds.

    Raises:
        InputError: when it holds none that transformers can read.
    """
    from transformers import AutoTokenizer

    places.check_gguf(path, "the tokenizer")
    if not _header(path).tokens:
        raise InputError(f"{path} holds no tokenizer; name one with --set model.tokenizer=FOLDER")
    try:
        with _alone(path) as folder:
            made: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder, gguf_file=FILE, local_files_only=True, trust_remote_code=False
            )
            made.name_or_path = str(path)
    except Exception as error:  # each kind of tokenizer is made in a way of its own
        raise InputError(
            f"{path}: transformers cannot make its tokenizer: {_said(error, path)}; name another with --set model.tokenizer=FOLDER"
        ) from None
    if not made.get_vocab():
        raise InputError(f"{path}: the tokenizer in it has no tokens")
    return made


@dataclass(frozen=True)
class _Header:
    """What a file says before its weights.

    Attributes:
        architecture: llama.cpp's name of it.
        kinds: the type of each weight's numbers, as gguf calls them.
        tokens: how many tokens its tokenizer has; 0 where it has none.
        parts: in how many files the model is.
        numbers: how many the weights are.
        settings: the names of all that is said of the model.
        adapter: whether it holds what is added to another model's weights, and no model.
    """

    architecture: str
    kinds: tuple[str, ...]
    tokens: int
    parts: int
    numbers: int
    settings: frozenset[str]
    adapter: bool


def _header(path: Path) -> _Header:
    return _read_header(path, _state(path))


@lru_cache(maxsize=4)
def _read_header(path: Path, state: tuple[int, int]) -> _Header:
    """The header of a file as it was at `state`; reading it takes seconds where there are many tokens.

    Raises:
        InputError: when it is damaged, or shorter than it says.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)

        def said(name: str, default: Any) -> Any:
            field = reader.get_field(name)
            return default if field is None else field.contents()

        tokens = reader.get_field("tokenizer.ggml.tokens")
        ends = [tensor.data_offset + tensor.n_bytes for tensor in reader.tensors]
        header = _Header(
            architecture=str(said("general.architecture", "")),
            kinds=tuple(tensor.tensor_type.name for tensor in reader.tensors),
            tokens=0 if tokens is None else len(tokens.data),
            parts=int(said("split.count", 1)),
            numbers=sum(int(tensor.n_elements) for tensor in reader.tensors),
            settings=frozenset(reader.fields),
            adapter=said("general.type", "") == "adapter",
        )
    except Exception as error:  # whatever the damage does to the arithmetic of the reader
        raise InputError(
            f"{path} is damaged, or only a part of a file ({_said(error, path)}); fetch it again"
        ) from None
    if max(ends, default=0) > state[0]:
        raise InputError(
            f"{path} is only a part of a file: {state[0]:,} of {max(ends):,} bytes are there; fetch it again"
        )
    return header


@lru_cache(maxsize=4)
def _config(path: Path, state: tuple[int, int]) -> "PreTrainedConfig":
    from transformers import AutoConfig

    architecture = _header(path).architecture
    try:
        with _alone(path) as folder:
            config: PreTrainedConfig = AutoConfig.from_pretrained(
                folder, gguf_file=FILE, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # each architecture is read in a way of its own
        if "JSON" in str(error):  # which it was taken for when it could not be read
            raise InputError(f"{path} is damaged, or only a part of a file; fetch it again") from None
        if "not supported" in str(error):
            raise InputError(
                f"{path}: transformers reads no GGUF files of the architecture {architecture[:80]!r}; give a transformers folder of the "
                "model"
            ) from None
        raise InputError(f"{path}: the config in it cannot be used: {_said(error, path)}") from None
    _check_settings(config, path)
    config.name_or_path = ""
    return config


def _check_settings(config: "PreTrainedConfig", path: Path) -> None:
    """That a file says what no shape of a weight tells: transformers would take defaults in silence.

    Raises:
        InputError: when it does not.
    """
    header = _header(path)
    wanted = [
        ("block_count",),
        ("embedding_length",),
        ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"),
    ]
    wanted += [("attention.head_count",)] if hasattr(config, "num_attention_heads") else []
    lost = [
        names[0] for names in wanted if not any(f"{header.architecture}.{name}" in header.settings for name in names)
    ]
    if lost:
        raise InputError(f"{path} has lost settings: {', '.join(lost)}; fetch the file again")


def _said(error: BaseException, path: Path) -> str:
    """What a library says of a file, by the name that the user knows."""
    return re.sub(rf"\S*/{PLACE}\w+(/{re.escape(FILE)})?", path.name, first_line(error))


def _state(path: Path) -> tuple[int, int]:
    """Size and time of last change of a file."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


@contextmanager
def _alone(path: Path) -> Iterator[str]:
    """A folder with nothing but the file: transformers would read configs, adapters and tokenizers that lie beside it."""
    with tempfile.TemporaryDirectory(prefix=PLACE) as folder:
        (Path(folder) / FILE).symlink_to(path.resolve())
        yield folder
