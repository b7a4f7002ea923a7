"""What a model's config says, before anything is made from it: read, checked for slips, and counted."""

import copy
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from collapse_cli.errors import InputError, first_line
from collapse_cli.lm import gguf, places
from collapse_cli.lm.choices import unknown_choice, unknown_type

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

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
COUNTED_LAYERS = 200  # more are not made to be counted: a few are, and the rest follows
LONGEST_LIST = 10_000_000  # a number in a list of settings, which may say how often something is repeated
SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("intermediate_size", "ffn_dim"),
)
HEADS, SHARED = (
    ("_head", "_heads"),
    ("kv", "key_value"),
)  # ends of names of how many heads there are, and parts of others
MASKED = ("ForMaskedLM", "ForPreTraining")  # what such models are made to do needs the tokens on both sides
# By what config.json calls a way to quantise, what else there is to do.
DEQUANTISE = {
    "bitsandbytes": ", or load it where bitsandbytes is installed, call model.dequantize(), and save that",
    "compressed-tensors": ", or load it where compressed-tensors is installed with CompressedTensorsConfig(dequantize=True), and save that",
    "mxfp4": ", or load it with transformers' Mxfp4Config(dequantize=True), and save that",
    "gptq": ", or a GGUF file of the model, which is read",
    "awq": ", or a GGUF file of the model, which is read",
}
FEW = 3  # names that a message gives of many


def read_config(path: Path) -> dict[str, Any]:
    """A transformers config file as a dict, to start a model from scratch.

    Raises:
        InputError: when it is not JSON or names no model type.
    """
    fields = read_json(path)
    if "model_type" not in fields:
        raise InputError(f"{path} is not a model's config: it has no model_type")
    return fields


def read_json(path: Path) -> dict[str, Any]:
    """The settings in a config file.

    Raises:
        InputError: when it is no table in JSON.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        if "BOM" not in error.msg:
            raise InputError(f"{path} cannot be read as a model's config: {first_line(error)}") from None
        raise InputError(
            f"{path} begins with a byte order mark, with which transformers cannot read it; save it as UTF-8 without one"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as a model's config: {first_line(error)}") from None
    if not isinstance(fields, dict):
        raise InputError(f"{path} is not a model's config: it should be a table of settings")
    return fields


def _check_sizes(fields: Mapping[str, Any], what: str) -> None:
    """That the sizes in a config are whole numbers above 0 and no slips of the pen: some configs make lists as long.

    Raises:
        InputError: when one is not.
    """
    from transformers import CONFIG_MAPPING

    kind = str(fields.get("model_type", ""))
    names = dict(CONFIG_MAPPING[kind].attribute_map) if kind in CONFIG_MAPPING else {}
    for size in SIZES:
        for name in {size, names.get(size, size)} & fields.keys():
            value = fields[name]
            if isinstance(value, int) and value < 1:
                raise InputError(f"{what}: {name} is {value}, but must be at least 1")
            if size == "num_hidden_layers" and isinstance(value, int) and value > MOST_LAYERS:
                raise InputError(f"{what}: {value:,} layers are more than the {MOST_LAYERS:,} that collapse takes")
    for name, value in fields.items():
        if isinstance(value, dict):
            _check_sizes(value, f"{what}: {name}")
        elif isinstance(value, list) and (large := _largest(value)) > LONGEST_LIST:
            raise InputError(f"{what}: {name} holds {large:,}, which is far too large")


def _largest(values: Sequence[Any], depth: int = 0) -> int:
    """The largest whole number in lists of lists."""
    inner = (_largest(value, depth + 1) for value in values if isinstance(value, list) and depth < 8)
    return max((*inner, *(value for value in values if isinstance(value, int))), default=0)


def make_config(fields: Mapping[str, Any], **tokens: int | None) -> "PreTrainedConfig":
    """A transformers config from its fields; `tokens` (vocab_size, bos_token_id …) fill in what the fields leave out.

    Raises:
        InputError: for an unknown model type or field; transformers itself would take any field in silence.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    from_file = "architectures" in fields or "transformers_version" in fields
    kind = str(fields.get("model_type", ""))
    if kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(kind[:64], list(CONFIG_MAPPING), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError(
            f"model.config: transformers has no model_type {kind[:80]!r}{hint}; known are opt, gpt2, llama …"
        )
    _check_sizes({**tokens, **fields}, "model.config")
    if unknown := unknown_type(fields):
        raise InputError(f"model.config: {unknown}")
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
        raise InputError(f"model.config: {why(error, fields)}") from None


def config_of(folder: Path) -> "PreTrainedConfig":
    """The config of a model folder.

    Raises:
        InputError: when it cannot be read, needs code of its own, has lost settings, or is that of a quantised model.
    """
    from transformers import AutoConfig

    if places.is_gguf(folder):
        packed = gguf.config_of(folder)
        _check_sizes(packed.to_dict(), str(folder))
        _check_text_alone(packed, folder)
        return packed

    fields = read_json(folder / "config.json")
    _check_sizes(fields, f"{folder}/config.json")
    if unknown := unknown_type(fields):
        raise InputError(f"{folder}/config.json: {unknown}")
    if not is_fp8(fields):
        _check_unquantised(fields, folder)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each architecture checks its fields in its own way
        if "auto_map" in fields and "custom code" in str(error):
            raise InputError(
                f"{folder}: this model needs program code that lies beside it (auto_map in config.json), which collapse never "
                "runs; give a model of a family that transformers has"
            ) from None
        raise InputError(f"{folder}: the model's config.json cannot be used: {why(error, fields)}") from None
    _check_kept(config, fields, folder)
    if is_fp8(fields):  # which the model no longer is when it has been read
        del config.quantization_config
    return config


def is_fp8(fields: Mapping[str, Any]) -> bool:
    """Whether a config is that of weights in 8-bit floating-point numbers with a scale for each block, which are read as what they stand for."""
    quantised = fields.get("quantization_config")
    return isinstance(quantised, dict) and quantised.get("quant_method") == "fp8"


def _check_unquantised(fields: Mapping[str, Any], folder: Path) -> None:
    for part in (fields, *(value for value in fields.values() if isinstance(value, dict))):
        for name in ("quantization_config", "compression_config"):
            if isinstance(quantised := part.get(name), dict):
                method = str(quantised.get("quant_method", f"by its {name}"))[:40]
                instead = DEQUANTISE.get(method, "")
                raise InputError(
                    f"{folder}: the model is quantised ({method}); collapse trains "
                    f"and scores unquantised models: give the folder of the model before it was quantised{instead}"
                )


def _check_kept(config: "PreTrainedConfig", fields: Mapping[str, Any], folder: Path) -> None:
    """That a config has not lost settings: transformers would take defaults in silence, and of heads no weight tells.

    Raises:
        InputError: when it has, or is not that of a causal language model.
    """
    from transformers import __version__

    _check_text_alone(config, folder)
    made_as = (fields.get("architectures") or [""])[0]
    if str(made_as).endswith(MASKED):
        raise InputError(
            f"{folder}: the weights are those of a {made_as}, which was trained to see the tokens on both sides; it is not causal"
        )
    written = config.to_dict().keys() | type(config).attribute_map.keys()
    heads = [name for name in fields if name.endswith(HEADS) and not any(part in name for part in SHARED)]
    lost = {"num_attention_heads"} if "num_attention_heads" in written and not heads else set()
    if fields.get("transformers_version") == __version__:  # it wrote these, too; other versions write others
        lost |= config.to_diff_dict().keys() - fields.keys() - {"architectures", "dtype", "torch_dtype"}
    if lost:
        raise InputError(
            f"{folder}/config.json has lost settings: {few(sorted(lost))}; give the config.json that was saved with the weights"
        )


def _check_text_alone(config: "PreTrainedConfig", folder: Path) -> None:
    """That a config is that of a causal language model, and of nothing besides.

    Raises:
        InputError: when it is not.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(f"{folder}: a {config.model_type} model is no causal language model (AutoModelForCausalLM)")
    try:
        alone = config.get_text_config() is config
    except ValueError:  # it has several
        alone = False
    if not alone:
        raise InputError(
            f"{folder}: a {config.model_type} model is not of text alone; collapse takes models of text: save its language model "
            "as a folder of its own"
        )


def few(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - FEW
    return ", ".join(names[:FEW]) + (f" and {rest} more" if rest > 0 else "")


def why(error: BaseException, fields: Mapping[str, Any]) -> str:
    """Why transformers takes no config, or makes no model of it: the word in `fields` that it does not know, or its own words."""
    return unknown_choice(error, fields) or first_line(error)


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


def outline(config: "PreTrainedConfig", what: str = "model.config", fields: Mapping[str, Any] | None = None) -> Outline:
    """The sizes of the model that a config describes; nothing of these sizes is allocated.

    Args:
        fields: the config as it was written, to say what is wrong in its own names; None: as transformers writes it.

    Raises:
        InputError: when the config makes no causal language model.
    """
    text = config.get_text_config()
    layers = int(getattr(text, "num_hidden_layers", 1) or 1)
    if layers > MOST_LAYERS:
        raise InputError(f"{what}: {layers:,} layers are more than the {MOST_LAYERS:,} that collapse takes")
    try:
        if layers > COUNTED_LAYERS:
            two, four, six = (_count(_with_layers(config, some)) for some in (2, 4, 6))
            if four[0] - two[0] == six[0] - four[0]:  # each layer has as many as any other
                more = (four[0] - two[0]) * (layers - 2) // 2
                return Outline(two[0] + more, two[1] + more, two[2], layers, two[3])
        total, inner, head, limit = _count(config)
    except Exception as error:  # whatever it is, the config does not make a model
        if "Unrecognized configuration class" in str(error):
            raise InputError(
                f"{what}: a {config.model_type} model is no causal language model (AutoModelForCausalLM)"
            ) from None
        words = [
            f"{name} = {value!r} is no number"
            for name, value in text.to_dict().items()
            if isinstance(value, str) and (name.startswith("num_") or name.endswith(("_size", "_dim", "_heads")))
        ]  # torch's own words name no setting
        raise InputError(
            f"{what} makes no causal language model: {', '.join(words)[:200] or why(error, fields or config.to_dict())}"
        ) from None
    return Outline(total, inner, head, layers, limit)


def _with_layers(config: "PreTrainedConfig", layers: int) -> "PreTrainedConfig":
    """The config with fewer layers, and with lists of settings by layer cut to them."""
    fewer = copy.deepcopy(config)
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == config.num_hidden_layers:
            setattr(fewer, name, value[:layers])
    fewer.num_hidden_layers = layers
    return fewer


def _count(config: "PreTrainedConfig") -> tuple[int, int, int, int | None]:
    """All parameters, those of the layers, those of the head, and the positions, of a model that is not allocated."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    # Imports its module, which under torch 2.6 computes a number as it is imported: not to be done on the meta device.
    MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    head = model.get_output_embeddings()
    outer = [head, *(module for module in model.modules() if isinstance(module, torch.nn.Embedding))]
    sizes = {id(weight): weight.numel() for module in outer if module is not None for weight in module.parameters()}
    return total, total - sum(sizes.values()), 0 if head is None else head.weight.numel(), positions(model)


def positions(model: "PreTrainedModel") -> int | None:
    """How many tokens a model takes at once: by its config, under whichever name, and by its table of positions.

    None when it has no limit of its own.
    """
    config = model.config.get_text_config()
    named = (getattr(config, name, None) for name in POSITION_FIELDS)
    limits = [next((int(value) for value in named if isinstance(value, int) and value > 0), None)]
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES:
            # RoBERTa's and OPT's kinds keep the first rows for padding
            offset = getattr(module, "offset", None)
            kept = (module.padding_idx + 1 if module.padding_idx is not None else 0) if offset is None else int(offset)
            limits.append(module.num_embeddings - kept)
    return min((limit for limit in limits if limit is not None), default=None)
