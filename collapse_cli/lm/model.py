"""Models: how they are started from scratch and loaded."""

import platform
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from collapse_cli.errors import InputError
from collapse_cli.lm import adapter, folders, gguf, places
from collapse_cli.lm.architecture import config_of, few, is_fp8, read_json, vocabulary, why

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# What old checkpoints hold beside weights: it is computed from the config, and no model misses it.
BUFFERS = ("inv_freq", "masked_bias", "attn.bias", "attention.bias", "position_ids", "num_batches_tracked")


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
        if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
            return False  # also where torch was told to do without
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public question for this
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def resolve_dtype(name: str) -> str:
    """`auto` as the dtype it stands for on this machine; other names as they are."""
    return ("bfloat16" if has_fast_bf16() else "float32") if name == "auto" else name


def build(config: "PreTrainedConfig", seed: int) -> "PreTrainedModel":
    """A model with random weights, the same for the same seed."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        except (ValueError, KeyError) as error:
            raise InputError(f"model.config: {why(error, config.to_dict())}") from None
    return _causal(model.to(device()), "model.config")


def load(folder: Path, base: Path | None = None) -> "PreTrainedModel":
    """The model of a folder, with float32 weights; of an adapter, the model it lies on, with what it adds.

    Args:
        base: the folder of the model that an adapter lies on; None: where the adapter says it is.

    Raises:
        InputError: when it is no causal language model, its weights are damaged or hold NaN, or they are not exactly
            those of the model that its config describes.
    """
    if folders.is_adapter(folder):
        return adapter.merged(load(base or folders.base_of(folder, "the model")), folder)
    model = _read(folder, torch.float32).to(device())
    _check_finite(model, str(folder))
    return _causal(model, str(folder))


def check_complete(folder: Path) -> None:
    """Check that a folder can be loaded and has just the weights of its model; the numbers stay on the disk.

    Raises:
        InputError: as `load` does, but not for what the numbers are.
    """
    kept = getattr(config_of(folder), "dtype", None)
    plain = kept in (None, torch.float32, torch.float16, torch.bfloat16, torch.float64)
    _read(folder, "auto" if plain else torch.float32)  # in the type they have, files are only mapped into memory


def _read(folder: Path, dtype: "torch.dtype | str") -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config, GenerationConfig

    fp8 = not places.is_gguf(folder) and is_fp8(read_json(folder / "config.json"))
    config = config_of(folder)  # says what is wrong with it in plainer words
    try:
        if places.is_gguf(folder):
            model, loading = gguf.read(folder)
        else:
            model, loading = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are said below, all together
                quantization_config=FineGrainedFP8Config(dequantize=True) if fp8 else None,
            )
            if fp8:  # else it would be saved in blocks again
                model._weight_conversions = None
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each architecture and each format of weights fails in its own way
        if type(error).__name__ == "UnpicklingError":
            raise InputError(
                f"{folder}: pytorch_model.bin is damaged, or holds program code beside weights, which is never run; "
                "give weights as model.safetensors"
            ) from None
        fields = config.to_dict() if places.is_gguf(folder) else read_json(folder / "config.json")
        raise InputError(f"{folder}: the model cannot be loaded: {why(error, fields)}") from None
    _check_complete(model, loading, str(folder))
    try:
        model.generation_config.validate(strict=True)
    except ValueError:  # transformers would not save the model with it; collapse's own settings say how to sample
        model.generation_config = GenerationConfig.from_model_config(model.config)
    return model


def _check_complete(model: "PreTrainedModel", loading: Mapping[str, Any], what: str) -> None:
    """That the weights of a file were exactly those of the model: transformers itself fills gaps with random numbers.

    Args:
        loading: what transformers says of it.

    Raises:
        InputError: when weights are missing, left over or of another shape.
    """
    shaped = [f"{name} {tuple(file)} for {tuple(own)}" for name, file, own in sorted(loading["mismatched_keys"])]
    wrong = {
        "missing": sorted(loading["missing_keys"]),
        "left over": sorted(name for name in loading["unexpected_keys"] if not name.endswith(BUFFERS)),
        "of another shape": shaped,
        "not converted": sorted(map(str, loading["error_msgs"])),
    }
    kinds = "; ".join(f"{kind}: {few(names)}" for kind, names in wrong.items() if names)
    if kinds:
        made_as = getattr(model.config, "architectures", None) or []
        kind = type(model).__name__
        other = f", which config.json calls {made_as[0]}," if made_as and made_as[0] != kind else ""
        raise InputError(
            f"{what}: the weights are not those of this model{other} read as {kind}: {kinds}; give the whole checkpoint of a "
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
            f"{what}: weights are NaN or infinite in {few(odd)}; the checkpoint is damaged, or its training failed"
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
            f"{what}: a {model.config.model_type} model with these settings cannot predict: "
            f"{why(error, model.config.to_dict())}"
        ) from None
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise InputError(
            f"{what}: a {model.config.model_type} model sees the tokens it is to predict; it is not causal"
        )
    return without_memory_of_lengths(model)


def without_memory_of_lengths(model: "PreTrainedModel") -> "PreTrainedModel":
    """Rotations with dynamic frequencies forget, before each pass, how long rows were in earlier ones.

    transformers keeps the frequencies of the longest row so far, until a row is shorter than the model's original
    length: a row's results would depend on the rows that were read before it.
    """
    for module in model.modules():
        kinds = getattr(module, "rope_type", "")
        for layers, kind in kinds.items() if isinstance(kinds, Mapping) else (("", kinds),):
            if "dynamic" in str(kind) and hasattr(module, "original_max_seq_len"):
                module.register_forward_pre_hook(partial(_forget, prefix=f"{layers}_" if layers else ""))
    return model


def _forget(module: torch.nn.Module, _: object, prefix: str) -> None:
    frequencies = getattr(module, f"{prefix}original_inv_freq").to(getattr(module, f"{prefix}inv_freq").device)
    module.register_buffer(f"{prefix}inv_freq", frequencies, persistent=False)
    setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
