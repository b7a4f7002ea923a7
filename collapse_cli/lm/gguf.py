"""GGUF files, which llama.cpp and its kin run: one file with the config, the weights and the tokenizer of a model.

transformers reads them. Weights are mostly quantised in blocks (Q4_1, Q8_0 …): they are read as the float32 numbers that the
blocks stand for, and trained and saved as such. What lies beside a file has no say: the file is all that is hashed.
"""

import copy
import hashlib
import io
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_cli.errors import ConfigError, InputError, first_line
from collapse_cli.lm import places

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

FILE = f"model{places.GGUF}"
KEPT = 128 << 20  # bytes of a file whose unpacked model is kept in memory
READ_AS = "read as the numbers that these stand for, and trained and saved in float32"
PLACE = "collapse-gguf-"  # how the names of folders begin that it is put into alone
ROPE, SCALED = "rope_freqs.weight", "rope.scaling."  # what a file calls the scaling of rotations
SCALED_BY = ("type", "factor", "original_context_length", "finetuned", "attn_factor")
LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
ARITHMETIC = {  # settings that change what a model computes, and the fields of a config that say the same
    "attention.sliding_window": ("sliding_window",),
    "attention.key_length": ("head_dim", "global_head_dim", "d_kv"),
    "attention.scale": (),
    "attention.clamp_kqv": ("clip_qkv",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "logit_scale": ("logit_scale",),
    "residual_scale": ("residual_multiplier",),
    "embedding_scale": ("embedding_multiplier",),
}
AS_GPT2 = ("", "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "roberta-bpe")  # ways to cut text into words that are GPT-2's
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
    cut = _cut_otherwise(path)
    said = (
        [
            f"{what}: the tokenizer in {path.name} cuts text into words in a way ({cut[:40]!r}) that transformers does not know; it is cut as "
            "GPT-2 does, so that some tokens differ; model.tokenizer names another one"
        ]
        if cut
        else []
    )
    if not packed:
        return said
    return [*said, f"{what}: the weights in {path.name} are quantised ({', '.join(packed)}); they are {READ_AS}"]


def _cut_otherwise(path: Path) -> str:
    """The name of the way in which a file's tokenizer cuts text, where transformers does not know it and cuts as GPT-2 does; else ""."""
    from transformers.integrations.gguf import gguf_tokenizer_mapping

    known = getattr(gguf_tokenizer_mapping, "GGUF_PRE_TOKENIZER_SPLITS", {})
    cut = _header(path).cut
    return "" if cut in known or cut in AS_GPT2 else cut


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

    config = config_of(path)  # with what transformers itself does not read
    # a bar of progress is written there, whatever is said
    with _alone(path) as folder, redirect_stderr(io.StringIO()):
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=FILE,
            config=config,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    left = {*loading["unexpected_keys"], *_left_over(model, path)}
    return model, {**loading, "unexpected_keys": left}


def _left_over(model: "PreTrainedModel", path: Path) -> list[str]:
    """The weights of a file that transformers put nowhere, of which it says nothing."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    header = _header(path)
    own = {weight.data_ptr(): weight.numel() for weight in model.state_dict().values()}
    if header.numbers - len(header.rope) <= sum(own.values()):
        return []
    kind = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)
    known = get_gguf_hf_weights_map(model, kind(config=model.config.to_dict()))
    return [name for name in header.names if name not in known and name != ROPE]


# many stages begin with the same model, and unpacking one takes many times as long as copying it
_kept = lru_cache(maxsize=1)(_read)


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
        names: of its weights.
        values: by name, what is said of the model's own arithmetic: numbers and words.
        cut: llama.cpp's name of the way in which its byte-level tokenizer cuts text into words; "" where it has none.
        rope: by how much each frequency of the rotations is divided; none where they are as they are.
    """

    architecture: str
    kinds: tuple[str, ...]
    tokens: int
    parts: int
    numbers: int
    settings: frozenset[str]
    adapter: bool
    names: tuple[str, ...]
    values: Mapping[str, Any]
    cut: str
    rope: tuple[float, ...]


def _header(path: Path) -> _Header:
    return _read_header(path, _state(path))


@lru_cache(maxsize=4)
def _read_header(path: Path, state: tuple[int, int]) -> _Header:
    """The header of a file as it was at `state`; reading it takes seconds where there are many tokens.

    Raises:
        ConfigError: where the package that reads it cannot be loaded.
        InputError: when it is damaged, or shorter than it says.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:  # of another version, or installed by halves; one that is missing is said before
        raise ConfigError(
            f"the package gguf, which reads {path.name}, cannot be loaded ({first_line(error)}); install it again: {places.INSTALL}"
        ) from None

    try:
        reader = GGUFReader(path)

        def said(name: str, default: Any) -> Any:
            field = reader.get_field(name)
            return default if field is None else field.contents()

        tokens = reader.get_field("tokenizer.ggml.tokens")
        architecture = str(said("general.architecture", ""))
        own = [name for name in reader.fields if name.startswith(f"{architecture}.")]
        rope = [tensor for tensor in reader.tensors if tensor.name == ROPE]
        ends = [tensor.data_offset + tensor.n_bytes for tensor in reader.tensors]
        header = _Header(
            architecture=architecture,
            kinds=tuple(tensor.tensor_type.name for tensor in reader.tensors),
            tokens=0 if tokens is None else len(tokens.data),
            parts=int(said("split.count", 1)),
            numbers=sum(int(tensor.n_elements) for tensor in reader.tensors),
            settings=frozenset(reader.fields),
            adapter=said("general.type", "") == "adapter",
            names=tuple(tensor.name for tensor in reader.tensors),
            values={name.removeprefix(f"{architecture}."): said(name, None) for name in own},
            cut=str(said("tokenizer.ggml.pre", "")) if said("tokenizer.ggml.model", "") == "gpt2" else "",
            rope=tuple(float(value) for tensor in rope for value in tensor.data.ravel()),
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
    _complete(config, path)
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


def _complete(config: "PreTrainedConfig", path: Path) -> None:
    """Put into a config what a file says and transformers does not read, so that the model computes what it did elsewhere.

    Raises:
        InputError: for what cannot be put there.
    """
    header = _header(path)
    window = header.values.get("attention.sliding_window")
    if window and hasattr(config, "sliding_window") and not getattr(config, "layer_types", None):
        config.sliding_window = window
    unread = [
        f"{name} = {value}"
        for name, (value, own) in _beside(config, header).items()
        if not any(isinstance(each, int | float) and math.isclose(each, value, rel_tol=1e-5) for each in own)
    ]
    scaled = _rope_of(config, header)
    if scaled is None:
        unread += [f"{name} = {value}" for name, value in header.values.items() if name.startswith("rope.scal")]
        unread += [ROPE] if header.rope else []
    elif scaled:
        rotations = config.rope_parameters.get("full_attention", config.rope_parameters)
        rotations.update(scaled)
    if unread:
        raise InputError(
            f"{path}: transformers does not read what it says of {'; '.join(unread)[:200]}, and would compute something else; give a "
            "transformers folder of the model"
        )


def _beside(config: "PreTrainedConfig", header: _Header) -> dict[str, tuple[Any, list[Any]]]:
    """Settings of a model's arithmetic that are not neutral, each with what it may be in the config."""
    width, heads = (getattr(config, name, None) for name in ("hidden_size", "num_attention_heads"))
    divided = [width // heads] if isinstance(width, int) and isinstance(heads, int) and heads else []
    found: dict[str, tuple[Any, list[Any]]] = {}
    for name, fields in ARITHMETIC.items():
        value = header.values.get(name)
        if isinstance(value, int | float) and value:
            own = [getattr(config, field, None) for field in fields]
            if name == "attention.key_length":
                own += divided
            found[name] = value, own
    return found


def _rope_of(config: "PreTrainedConfig", header: _Header) -> dict[str, Any] | None:
    """How a file's rotations are scaled, in transformers' words; empty where they are not, None where that cannot be said so."""
    said = {name.removeprefix(SCALED): value for name, value in header.values.items() if name.startswith(SCALED)}
    own = getattr(config, "rope_parameters", None) or {}
    own = own.get("full_attention", own)
    kind, factor = said.get("type", "none"), said.get("factor", 1.0) or 1.0
    odd = header.values.get("rope.scale_linear", 1.0) not in (0.0, 1.0) or said.get("attn_factor", 1.0) not in (
        0.0,
        1.0,
    )
    if not odd and (kind == "none" or (kind == "linear" and factor == 1.0)) and not header.rope:
        return {}
    if own.get("rope_type", "default") != "default":  # transformers read it
        return {}
    if odd or "rope_theta" not in own:
        return None
    if header.rope:
        return _as_llama3(config, own, header.rope) if kind in ("none", "linear") and factor == 1.0 else None
    if said.keys() - {*SCALED_BY}:
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and "original_context_length" in said:
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": said["original_context_length"],
        }
    return None


def _as_llama3(
    config: "PreTrainedConfig", own: Mapping[str, Any], divisors: tuple[float, ...]
) -> dict[str, Any] | None:
    """The scaling of Llama 3.1 and later, if these are its divisors: llama.cpp keeps these alone, and no setting."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    made = {**LLAMA3, "factor": max(divisors)}
    scaled = copy.deepcopy(config)
    scaled.rope_parameters = {**own, **made}
    frequencies = ROPE_INIT_FUNCTIONS["llama3"](scaled, "cpu")[0].tolist()
    width = 2 * len(frequencies)
    plain = [own["rope_theta"] ** (-2 * place / width) for place in range(len(frequencies))]
    if len(divisors) != len(plain):
        return None
    wanted = [one / by for one, by in zip(plain, divisors, strict=True)]
    same = all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(frequencies, wanted, strict=True))
    return made if same else None


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
