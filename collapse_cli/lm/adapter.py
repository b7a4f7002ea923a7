"""LoRA adapters, through `peft`: trained beside weights that stay as they are, and merged into them where a model is used.

An adapter adds `alpha / rank · B A` to the weight (out, in) of a linear layer: A (rank, in) is random at first, B (out, rank) is 0, so
that training begins with the model as it is (Hu et al. 2021, arXiv 2106.09685). Merging is done in memory, from the adapter and the
model it lies on; merged weights are never written, so no rounding adds up from one generation to the next.
"""

import json
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from collapse_cli.config.tree import TrainConfig
from collapse_cli.errors import ConfigError, InputError, first_line, written
from collapse_cli.lm.architecture import few, read_json
from collapse_cli.lm.folders import ADAPTER, ADAPTER_WEIGHTS, BASE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel


def begun(model: "PreTrainedModel", settings: TrainConfig, seed: int) -> "PeftModel":
    """A new adapter on a model, whose own weights are not trained from now on; the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _put_on(model, _config(model, settings))


def gone_on(model: "PreTrainedModel", folder: Path) -> "PeftModel":
    """The adapter of a folder, on the model it was trained beside, to be trained further."""
    return _read(model, folder, trained=True)


def merged(model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    """The model with what the adapter of a folder adds to its weights: W + alpha / rank · B A.

    Raises:
        InputError: when the adapter is not one for this model, or cannot be merged.
    """
    adapted = _read(model, folder, trained=False)
    _untie_adapted(model)
    try:
        whole: PreTrainedModel = adapted.merge_and_unload()
    except torch.OutOfMemoryError:
        raise
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{folder}: the adapter cannot be merged into its model: {first_line(error)}") from None
    head = whole.get_output_embeddings()
    if head is not None and head.weight is not whole.get_input_embeddings().weight:
        whole.config.get_text_config().tie_word_embeddings = whole.config.tie_word_embeddings = False
    return whole.requires_grad_(True).eval()


def _untie_adapted(model: "PreTrainedModel") -> None:
    """Where an adapter changes the embeddings or the head, and both share one weight, the head gets a copy of its own.

    The adapter adds to one of the two, but merged into the shared weight it would change both (peft's issue 2018).
    """
    from peft.tuners.lora import LoraLayer

    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embeddings, LoraLayer) and not isinstance(head, LoraLayer):
        return
    below = [each.get_base_layer() if isinstance(each, LoraLayer) else each for each in (embeddings, head)]
    if below[1] is not None and below[0].weight is below[1].weight:
        below[1].weight = torch.nn.Parameter(below[1].weight.detach().clone())


def save(adapted: "PeftModel", folder: Path, base: str, revision: str, sha256: str) -> None:
    """Write an adapter as peft does: `PeftModel.from_pretrained(MODEL, folder)` opens it.

    Args:
        base: a folder or a Hub id of the model it lies on, with `revision` of that; `sha256`: the hash of that one's config and weights.
    """
    from peft import get_peft_model_state_dict

    config = adapted.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision or None
    config.save_pretrained(str(folder), inference_mode=True)
    path = folder / ADAPTER
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["target_modules"] = sorted(fields["target_modules"])  # a set, which has another order in each process
    path.write_text(json.dumps(fields, indent=2, sort_keys=True), encoding="utf-8")
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    save_file(tensors, folder / ADAPTER_WEIGHTS, {"format": "pt"})
    (folder / BASE).write_text(json.dumps({"sha256": sha256}), encoding="utf-8")


def parameters(config: "PreTrainedConfig", settings: TrainConfig) -> int:
    """How many numbers the adapter of these settings has on the model of a config; nothing of its size is allocated.

    Raises:
        ConfigError: when the settings name layers that the model does not have, or a rank that they cannot have.
    """
    model = _outlined(config)
    chosen = dict(model.named_modules())
    sizes = [_sizes(chosen[name]) for name in _targets(model, settings.adapter_modules)]
    most = max(min(size) for size in sizes)
    if settings.adapter > most:
        raise ConfigError(
            f"train.adapter = {settings.adapter} is a higher rank than any of the adapted layers has, which is {most} at most; lower it"
        )
    return sum(settings.adapter * (rows + columns) for rows, columns in sizes)


def check(folder: Path, config: "PreTrainedConfig") -> None:
    """Whether the adapter of a folder is one for the model of a config.

    Raises:
        InputError: when it is not, or is of a kind that cannot be merged.
    """
    with torch.device("meta"):
        _check_names(_put_on(_outlined(config), _config_of(folder)), folder)


def _outlined(config: "PreTrainedConfig") -> "PreTrainedModel":
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)  # imported before, as in `architecture`
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def _targets(model: "PreTrainedModel", ends: Sequence[str]) -> list[str]:
    """The names of the layers that an adapter changes: those that end so, or all linear layers.

    Not the output head, whose products and loss are the engine's own (`loss.py`).
    """
    head = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if module is not head and _sizes(module)]
    missing = [end for end in ends if not any(_ends(name, end) for name in linear)]
    if missing or not linear:
        there = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigError(
            f"train.adapter_modules: the model has no linear layers beside its head called {few(missing)}; it has {', '.join(there)}"
            if linear
            else f"train.adapter: a {model.config.model_type} model has no linear layers that an adapter could change"
        )
    return [name for name in linear if not ends or any(_ends(name, end) for end in ends)]


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _sizes(module: torch.nn.Module) -> tuple[int, ...]:
    """Of a linear layer, the sizes of its weight; of other modules nothing."""
    from transformers.pytorch_utils import Conv1D

    return tuple(module.weight.shape) if isinstance(module, torch.nn.Linear | Conv1D) else ()


def _config(model: "PreTrainedModel", settings: TrainConfig) -> "LoraConfig":
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    names, modules = _targets(model, settings.adapter_modules), dict(model.named_modules())
    return LoraConfig(
        r=settings.adapter,
        lora_alpha=settings.adapter_alpha or settings.adapter,
        target_modules=names,
        fan_in_fan_out=all(isinstance(modules[name], Conv1D) for name in names),
        task_type="CAUSAL_LM",
    )


def _config_of(folder: Path) -> "LoraConfig":
    """The configuration of an adapter's folder, read field by field: nothing that it names is imported.

    Raises:
        InputError: for an adapter of another kind than LoRA's.
    """
    from peft import LoraConfig

    fields = read_json(folder / ADAPTER)
    if fields.get("peft_type") != "LORA":
        raise InputError(
            f"{folder}: an adapter of the kind {written(fields.get('peft_type'))}, and collapse merges LoRA's only; merge it into its "
            "model first (peft: model.merge_and_unload()), save that, and give its folder"
        )
    if fields.get("megatron_config"):  # peft would import the module that it names
        raise InputError(
            f"{folder}/{ADAPTER}: adapters of Megatron's layers are not merged by collapse; merge it first"
        )
    if fields.get("layer_replication"):  # peft would merge all of them into the one weight that the copies share
        raise InputError(
            f"{folder}: the adapter repeats layers of its model (layer_replication), and copies that share their weights cannot be merged; "
            "give a model that has these layers itself"
        )
    known = {name: value for name, value in fields.items() if name in LoraConfig.__dataclass_fields__}
    known.pop("auto_mapping", None)
    try:
        return LoraConfig(**known)
    except Exception as error:  # each field is checked in its own way
        raise InputError(f"{folder}/{ADAPTER} cannot be used: {first_line(error)}") from None


@contextmanager
def _quiet() -> "Iterator[None]":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as that Conv1D is what it is
        yield


def _put_on(model: "PreTrainedModel", config: "LoraConfig") -> "PeftModel":
    from peft import get_peft_model

    with _quiet():
        try:
            made: PeftModel = get_peft_model(model, config)
        except (
            Exception
        ) as error:  # layers that peft does not adapt, a pattern of names that is none, and whatever else a config says
            raise InputError(f"no adapter fits this {model.config.model_type} model: {first_line(error)}") from None
    return made


def _read(model: "PreTrainedModel", folder: Path, *, trained: bool) -> "PeftModel":
    from peft import set_peft_model_state_dict
    from peft.utils import load_peft_weights

    config = _config_of(folder)
    config.inference_mode = not trained
    with torch.random.fork_rng():  # it begins with random numbers, which are read over
        adapted = _put_on(model, config)
    _check_names(adapted, folder)
    state = load_peft_weights(str(folder), device=str(model.device))
    odd = [name for name, weight in state.items() if not torch.isfinite(weight).all()]
    if odd:
        raise InputError(
            f"{folder}: the adapter's weights are NaN or infinite in {few(sorted(odd))}; its training failed"
        )
    set_peft_model_state_dict(adapted, state)
    return adapted


def _check_names(adapted: "PeftModel", folder: Path) -> None:
    """That an adapter's file has just the weights that its configuration asks for on this model, and that they can be merged.

    Of embeddings and heads that it changes, peft's files hold the weights below as well.
    """
    from peft import get_peft_model_state_dict
    from peft.tuners.lora import LoraLayer

    path = folder / ADAPTER_WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            held = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); fetch it again") from None
    wanted, known = (
        {
            name: tuple(weight.shape)
            for name, weight in get_peft_model_state_dict(adapted, save_embedding_layers=embeddings).items()
        }
        for embeddings in (False, True)
    )
    wrong = {
        "missing": sorted(wanted.keys() - held.keys()),
        "left over": sorted(held.keys() - known.keys()),
        "of another shape": [
            f"{name} {held[name]} for {known[name]}"
            for name in sorted(known.keys() & held.keys())
            if held[name] != known[name]
        ],
    }
    kinds = "; ".join(f"{kind}: {few(names)}" for kind, names in wrong.items() if names)
    if kinds:
        raise InputError(
            f"{folder}: the adapter is not one of the model it is put on: {kinds}; give the model that it was trained beside"
        )
    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer) and layer.lora_bias.get("default") and layer.get_base_layer().bias is None:
            raise InputError(
                f"{folder}: the adapter adds a bias (lora_bias) to {name.removeprefix('base_model.model.')}, which has none, so it cannot be "
                "merged; train it without lora_bias"
            )
