"""Models: where they are found, how they are started from scratch, loaded and saved."""

import difflib
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from collapse_cli.data import HubError, InputError, hub_revision

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
)


def device() -> torch.device:
    """Where work is done: a GPU when torch sees one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@lru_cache(maxsize=1)
def has_fast_bf16() -> bool:
    """Whether this machine multiplies bfloat16 matrices with instructions of its own."""
    place = device()
    if place.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if place.type == "cpu" and platform.machine() in ("x86_64", "AMD64"):
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public question for this
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def resolve_dtype(name: str) -> str:
    """`auto` as the dtype it stands for on this machine; other names as they are."""
    return ("bfloat16" if has_fast_bf16() else "float32") if name == "auto" else name


def find_folder(source: str, revision: str, what: str) -> tuple[Path, str]:
    """The folder of a local path or a Hub id (downloaded or taken from the cache), and the Hub's commit, if any.

    Raises:
        InputError: when there is neither a folder nor a public Hub repository of that name.
        HubError: when the Hub is out of reach and nothing is cached.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path, ""
    if path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise InputError(f"{what}: {source!r} is not a folder; give a folder or a Hub id")
    import huggingface_hub

    wanted = hub_revision(source, "model", f"{what} {source!r}", revision)
    offline = wanted is None
    patterns = ["config.json", "generation_config.json", *TOKENIZER_FILES]
    try:
        files = [] if offline else huggingface_hub.list_repo_files(source, revision=wanted)
        if any(file.endswith(".safetensors") for file in files):
            patterns += ["*.safetensors", "*.safetensors.index.json"]
        else:  # such as facebook/opt-125m; transformers reads these with torch's restricted unpickler only
            patterns += ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
        folder = huggingface_hub.snapshot_download(
            source,
            revision=wanted or revision or None,
            allow_patterns=None if offline else patterns,
            local_files_only=offline,
        )
    except (FileNotFoundError, ConnectionError):
        raise HubError(f"{what} {source!r}", "the Hub cannot be reached and nothing is cached") from None
    return Path(folder), Path(folder).name


def hash_files(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 over the names and contents of those files of `folder` that are there, in order of name."""
    value = hashlib.sha256()
    for path in sorted({path for name in names for path in folder.glob(name)}):
        with path.open("rb") as file:
            value.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return value.hexdigest()


def check_weights(folder: Path, what: str) -> str:
    """Check that a folder holds a model that can be loaded; returns the hash of its config and weights.

    Raises:
        InputError: when the config or the weights are missing or damaged.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{what}: {folder} has no config.json, so it is no transformers model folder")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise InputError(
            f"{what}: {folder} has no weights ({' or '.join(WEIGHTS[::2])}); to start from scratch, give the file "
            f"itself: --model {folder / 'config.json'}"
        )
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, "pt"):  # reads the header, and that the file is as long as it says
                pass
        except SafetensorError as error:
            raise InputError(f"{what}: {path} is damaged ({error})") from None
    return hash_files(folder, ("config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*"))


def read_config(path: Path) -> dict[str, Any]:
    """A transformers config file as a dict, to start a model from scratch.

    Raises:
        InputError: when it is not JSON or names no model type.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a model's config: {error}") from None
    if not isinstance(fields, dict) or "model_type" not in fields:
        raise InputError(f"{path} is no model config: it names no model_type")
    return fields


def make_config(fields: Mapping[str, Any], **tokens: int | None) -> "PreTrainedConfig":
    """A transformers config from its fields; `tokens` (vocab_size, bos_token_id …) fill in what the fields leave out.

    Raises:
        InputError: for an unknown model type or field; transformers itself would take any field in silence.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    from_file = "architectures" in fields or "transformers_version" in fields
    kind = str(fields.get("model_type", ""))
    if kind not in CONFIG_MAPPING:
        raise InputError(f"model.config: transformers has no model_type {kind!r} (known are opt, gpt2, llama …)")
    rest = {name: value for name, value in fields.items() if name != "model_type"}
    if not from_file:
        known = AutoConfig.for_model(kind)
        for name in rest:
            if not hasattr(known, name):
                near = difflib.get_close_matches(name, known.to_dict(), n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise InputError(f"model.config: {name!r} is no setting of {kind} models{hint}")
    try:
        return AutoConfig.for_model(kind, **(dict(tokens) | rest))
    except Exception as error:  # each family checks its fields in its own way
        raise InputError(f"model.config: {' '.join(str(error).split())[:300]}") from None


def config_of(folder: Path) -> "PreTrainedConfig":
    """The config of a model folder.

    Raises:
        InputError: when it cannot be read, or needs code of its own.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: the model's config cannot be used: {str(error).splitlines()[0]}") from None


def build(config: "PreTrainedConfig", seed: int) -> "PreTrainedModel":
    """A model with random weights, the same for the same seed."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        except ValueError as error:
            raise InputError(f"model.config: {str(error).splitlines()[0]}") from None
    return _causal(model.to(device()), "model.config")


def load(folder: Path) -> "PreTrainedModel":
    """The model of a folder, with float32 weights.

    Raises:
        InputError: when it is no causal language model, or its weights are damaged.
    """
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{folder}: the model cannot be loaded: {str(error).splitlines()[0]}") from None
    return _causal(model.to(device()), str(folder))


@torch.no_grad()
def _causal(model: "PreTrainedModel", what: str) -> "PreTrainedModel":
    """The model, when its predictions do not look ahead: BERT, say, sees the very token it is asked for.

    Raises:
        InputError: when a later token changes what is predicted before it.
    """
    model.eval()
    ids = torch.arange(3, device=model.device)[None] % model.config.vocab_size
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % model.config.vocab_size
    first, second = (model(input_ids=each, use_cache=False).logits[0, :-1] for each in (ids, other))
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise InputError(
            f"{what}: a {model.config.model_type} model sees the tokens it is to predict; it is not causal"
        )
    return model


def max_positions(config: "PreTrainedConfig") -> int | None:
    """How many tokens the model can take at once; None when it has no limit of its own."""
    value = getattr(config, "max_position_embeddings", None)
    return int(value) if value else None


def count_parameters(config: "PreTrainedConfig") -> tuple[int, int, int]:
    """Parameters without making them: all, those of the layers between embeddings and head, those of the head."""
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # whatever it is, the config does not make a model
        raise InputError(f"model.config makes no causal language model: {str(error).splitlines()[0][:200]}") from None
    total = sum(parameter.numel() for parameter in model.parameters())
    head = model.get_output_embeddings()
    outer = [head, *(module for module in model.modules() if isinstance(module, torch.nn.Embedding))]
    sizes = {id(weight): weight.numel() for module in outer if module is not None for weight in module.parameters()}
    return total, total - sum(sizes.values()), 0 if head is None else head.weight.numel()
