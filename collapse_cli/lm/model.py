"""Models: what their configs say, how they are started from scratch and loaded."""

import difflib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from collapse_cli.data import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# What old checkpoints hold beside weights: it is computed from the config, and no model misses it.
BUFFERS = ("inv_freq", "masked_bias", "attn.bias", "attention.bias", "position_ids", "num_batches_tracked")
POSITION_FIELDS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
    "max_target_positions",
)
POSITION_TABLES = ("embed_positions", "position_embeddings", "position_embedding", "wpe", "positions_embed")
MOST_LAYERS = 10_000  # more are a slip of the pen, and only making their objects would take minutes
FEW = 3  # names that a message gives of many


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
        InputError: when it cannot be read, needs code of its own, or is that of a quantised model.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # each architecture checks its fields in its own way
        raise InputError(f"{folder}: the model's config cannot be used: {first_line(error)}") from None
    quantised = getattr(config, "quantization_config", None)
    if quantised:
        fields = quantised if isinstance(quantised, Mapping) else vars(quantised)
        raise InputError(
            f"{folder}: the model is quantised ({fields.get('quant_method', 'by its quantization_config')}); collapse trains "
            "and scores unquantised models: give the folder of the model before it was quantised"
        )
    return config


def few(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - FEW
    return ", ".join(names[:FEW]) + (f" and {rest} more" if rest > 0 else "")


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line of bounded length; the kind of error where it says nothing."""
    said = next((line.strip() for line in str(error).split("\n") if line.strip()), "")
    if isinstance(error, KeyError) or not said:  # which say a name, or nothing
        said = f"{type(error).__name__} {said}".strip()
    return said[:300]


def build(config: "PreTrainedConfig", seed: int) -> "PreTrainedModel":
    """A model with random weights, the same for the same seed."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        except ValueError as error:
            raise InputError(f"model.config: {first_line(error)}") from None
    return _causal(model.to(device()), "model.config")


def load(folder: Path) -> "PreTrainedModel":
    """The model of a folder, with float32 weights.

    Raises:
        InputError: when it is no causal language model, its weights are damaged or hold NaN, or they are not exactly
            those of the model that its config describes.
    """
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are said below, all together
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each architecture and each format of weights fails in its own way
        if type(error).__name__ == "UnpicklingError":
            raise InputError(
                f"{folder}: pytorch_model.bin is damaged, or holds more than weights, which is not run; "
                "give weights as model.safetensors"
            ) from None
        if "Unrecognized configuration class" in str(error):
            kind = config_of(folder).model_type
            raise InputError(f"{folder}: a {kind} model is no causal language model (AutoModelForCausalLM)") from None
        raise InputError(f"{folder}: the model cannot be loaded: {first_line(error)}") from None
    _check_complete(model, found, str(folder))
    _check_finite(model, str(folder))
    return _causal(model.to(device()), str(folder))


def _check_complete(model: "PreTrainedModel", found: Mapping[str, Any], what: str) -> None:
    """That the weights of a file were exactly those of the model: transformers itself fills gaps with random numbers.

    Args:
        found: transformers' loading info.

    Raises:
        InputError: when weights are missing, left over or of another shape.
    """
    shaped = [f"{name} {tuple(file)} for {tuple(own)}" for name, file, own in sorted(found["mismatched_keys"])]
    wrong = {
        "missing": sorted(found["missing_keys"]),
        "left over": sorted(name for name in found["unexpected_keys"] if not name.endswith(BUFFERS)),
        "of another shape": shaped,
        "not converted": sorted(map(str, found["error_msgs"])),
    }
    said = "; ".join(f"{kind}: {few(names)}" for kind, names in wrong.items() if names)
    if said:
        made_as = getattr(model.config, "architectures", None) or []
        kind = type(model).__name__
        other = f", which config.json calls {made_as[0]}," if made_as and made_as[0] != kind else ""
        raise InputError(
            f"{what}: the weights are not those of this model{other} read as {kind}: {said}; give the whole checkpoint of a "
            "causal language model, with the config.json it was saved with"
        )


@torch.no_grad()
def _check_finite(model: "PreTrainedModel", what: str) -> None:
    """That no weight is NaN or infinite.

    Raises:
        InputError: when one is.
    """
    odd = [
        name
        for name, weight in model.named_parameters()
        if not torch.isfinite(weight.sum()) and not torch.isfinite(weight).all()  # a sum alone may overflow
    ]
    if odd:
        raise InputError(
            f"{what}: weights are NaN or infinite in {few(odd)}; the checkpoint is damaged, or its training was"
        )


@torch.no_grad()
def _causal(model: "PreTrainedModel", what: str) -> "PreTrainedModel":
    """The model, when its predictions do not look ahead: BERT, say, sees the very token it is asked for.

    Raises:
        InputError: when a later token changes what is predicted before it, or the model cannot predict at all.
    """
    model.eval()
    ids = torch.arange(3, device=model.device)[None] % vocabulary(model.config)
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % vocabulary(model.config)
    try:
        first, second = (model(input_ids=each, use_cache=False).logits[0, :-1] for each in (ids, other))
    except Exception as error:  # sizes that do not fit each other show in each architecture in its own way
        raise InputError(
            f"{what}: a {model.config.model_type} model with these settings cannot predict: {first_line(error)}"
        ) from None
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise InputError(
            f"{what}: a {model.config.model_type} model sees the tokens it is to predict; it is not causal"
        )
    return model


def vocabulary(config: "PreTrainedConfig") -> int:
    """How many token ids the model knows; a config of text and images has it in its part for text."""
    return int(config.get_text_config().vocab_size)


@dataclass(frozen=True)
class Outline:
    """What a config says of a model, without making it.

    Attributes:
        parameters: all; tied ones count once.
        layer_parameters: those of the layers between embeddings and head.
        head_parameters: those of the output head.
        layers: how many layers.
        positions: how many tokens it takes at once; None when it has no limit of its own.
    """

    parameters: int
    layer_parameters: int
    head_parameters: int
    layers: int
    positions: int | None


def outline(config: "PreTrainedConfig") -> Outline:
    """The sizes of the model that a config describes; nothing of these sizes is allocated.

    Raises:
        InputError: when the config makes no causal language model.
    """
    from transformers import AutoModelForCausalLM

    text = config.get_text_config()
    layers = int(getattr(text, "num_hidden_layers", 1) or 1)
    if layers > MOST_LAYERS:
        raise InputError(f"model.config: {layers:,} layers are more than the {MOST_LAYERS:,} that collapse takes")
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        total = sum(parameter.numel() for parameter in model.parameters())
    except Exception as error:  # whatever it is, the config does not make a model
        if "Unrecognized configuration class" in str(error):
            raise InputError(
                f"a {config.model_type} model is no causal language model (AutoModelForCausalLM)"
            ) from None
        words = [
            f"{name} = {value!r} is no number"
            for name, value in text.to_dict().items()
            if isinstance(value, str) and (name.startswith("num_") or name.endswith(("_size", "_dim", "_heads")))
        ]  # torch's own words name no setting
        said = ", ".join(words)[:200] or first_line(error)
        raise InputError(f"model.config makes no causal language model: {said}") from None
    head = model.get_output_embeddings()
    outer = [head, *(module for module in model.modules() if isinstance(module, torch.nn.Embedding))]
    sizes = {id(weight): weight.numel() for module in outer if module is not None for weight in module.parameters()}
    return Outline(
        parameters=total,
        layer_parameters=total - sum(sizes.values()),
        head_parameters=0 if head is None else head.weight.numel(),
        layers=layers,
        positions=positions(model),
    )


def positions(model: "PreTrainedModel") -> int | None:
    """How many tokens a model takes at once: by its config, under whichever name, and by its table of positions.

    None when it has no limit of its own.
    """
    config = model.config.get_text_config()
    said = (getattr(config, name, None) for name in POSITION_FIELDS)
    limits = [next((int(value) for value in said if isinstance(value, int) and value > 0), None)]
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES:
            # RoBERTa's and OPT's kinds keep the first rows for padding
            offset = getattr(module, "offset", None)
            kept = (module.padding_idx + 1 if module.padding_idx is not None else 0) if offset is None else int(offset)
            limits.append(module.num_embeddings - kept)
    return min((limit for limit in limits if limit is not None), default=None)
