"""Words in a model's config that transformers does not know: which setting holds one, and what it may be instead."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

ACTIVATION = re.compile(r"(?:^|_)(?:act|activation)(?:_function|_fn)?$")
ROTATIONS = ("rope_scaling", "rope_parameters")  # tables of how positions are rotated, which hold the kind of rotation
ATTENTION = ("eager", "sdpa")  # which need nothing beside torch
TYPES = ("dtype", "torch_dtype")  # settings of the type of the weights
DATA_TYPES = ("float32", "bfloat16", "float16", "float64")
MOST_LISTED = 40  # words that a message lists; the kinds of models are hundreds


def unknown_choice(error: BaseException, fields: Mapping[str, Any]) -> str:
    """Which setting of a config an error of transformers is about, and what is known in its place.

    Args:
        error: what reading the config, or making its model, raised.
        fields: the config, as it was written.

    Returns:
        `hidden_act is 'geluu' (did you mean 'gelu'?), but must be one of …`, or "" where no setting holds a word that
        is not known and that the error names.
    """
    reason = error.args[0] if error.args else None
    named = [(key, value) for key, value in _leaves(fields) if _names(reason, value)]
    for key, value in named:
        known = _known(key)
        if known and value not in known:
            return _said(key, value, known)
    if isinstance(error, KeyError):
        for key, value in named:
            if isinstance(value, str) and value == reason:
                return f"{key} is {value!r}, which {fields.get('model_type', 'these')} models do not know"
    return ""


def unknown_type(fields: Mapping[str, Any]) -> str:
    """As `unknown_choice`, for a type of numbers: transformers takes anything that torch has under that name."""
    import torch

    for key, value in _leaves(fields):
        name, above = key.rpartition(".")[2], key.split(".")[:-1]
        ours = name in TYPES and all(part.endswith("config") for part in above)  # a vocabulary may hold the word, too
        if ours and isinstance(value, str) and not isinstance(getattr(torch, value, None), torch.dtype):
            return _said(key, value, DATA_TYPES)
    return ""


def _names(reason: Any, value: Any) -> bool:
    """Whether an error's reason is a value, or a sentence that has it for a word."""
    if not isinstance(value, str):
        return isinstance(reason, type(value)) and reason == value
    if not value or not isinstance(reason, str):
        return False
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", reason) is not None


def _leaves(values: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The values of a config by dotted names, those of lists under the name of the list."""
    if depth > 8:
        return
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name), depth + 1)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _leaves(value, key, depth + 1)
    else:
        yield key, values


def _known(key: str) -> Collection[str]:
    """The words that a setting may be; none where it is no setting of words that is known here."""
    name, above = key.rpartition(".")[2], key.split(".")[:-1]
    if name in ("rope_type", "type") and any(table in ROTATIONS for table in above):
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        return ["default", *ROPE_INIT_FUNCTIONS]
    if ACTIVATION.search(name):
        from transformers.activations import ACT2FN

        return list(ACT2FN)
    if name in TYPES:
        return DATA_TYPES
    if name in ("attn_implementation", "_attn_implementation"):
        return ATTENTION
    if name in ("layer_types", "mlp_layer_types"):
        from transformers import configuration_utils as allowed

        return list(allowed.ALLOWED_MLP_LAYER_TYPES if name.startswith("mlp") else allowed.ALLOWED_ATTN_LAYER_TYPES)
    if name == "model_type":
        from transformers import CONFIG_MAPPING

        return list(CONFIG_MAPPING)
    return ()


def _said(key: str, value: Any, known: Collection[str]) -> str:
    near = difflib.get_close_matches(str(value)[:64], list(known), n=1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    value = value if not isinstance(value, str) or len(value) <= 80 else f"{value[:79]}…"
    if len(known) > MOST_LISTED:
        from transformers import __version__

        return f"{key} is {value!r}, which transformers {__version__} does not have{meant}"
    return f"{key} is {value!r}{meant}, but must be one of {', '.join(sorted(known))}"
