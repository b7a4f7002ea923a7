"""What a trial of a model runs on: rows as long as the work's own, on both sides of every switch of its configuration.

What a model does can change with the length of a row (windows and chunks of attention, rotations whose frequencies
depend on it) and with the rows beside it. So a trial has rows of unequal lengths up to the reach of the work, and what
it compares with is the model's own forward pass over each row alone, without a cache.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SHORT = 3  # tokens of the shortest row
LEAST_REACH = 8  # of a trial of sampling, however short the work's rows are
MOST_LENGTHS = 8  # rows of a trial
SWITCHES = ("window", "chunk", "position", "local", "block", "span", "n_ctx", "seq")  # in names of settings
STATES = ("rwkv", "recurrent_gemma")  # whose rows in one batch were continued wrongly
Verdict = TypeVar("Verdict")
_verdicts: dict[tuple[Any, ...], Any] = {}


def lengths(model: "PreTrainedModel", reach: int) -> list[int]:
    """Lengths of rows for a trial, the longest first: `reach`, short ones, and those around switches between."""
    tried = {reach, min(SHORT, reach), max(1, reach // 2)}
    for switch in sorted(set(_numbers(model.config.get_text_config().to_dict())), reverse=True):
        if SHORT < switch < reach and len(tried) + 2 <= MOST_LENGTHS:
            tried |= {switch, switch + 1}
    return sorted(tried, reverse=True)


def length_matters(config: "PreTrainedConfig", reach: int) -> bool:
    """Whether what a model does changes with the length of a row of at most `reach` tokens, or with the rows beside it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as DECODERS

    if config.model_type in (*STATES, *DECODERS):  # states and positions that rows in one batch share
        return True
    return any(SHORT < switch < reach for switch in _numbers(config.get_text_config().to_dict()))


def _numbers(settings: Mapping[str, Any]) -> Iterator[int]:
    """The whole numbers in a configuration at which what a model does may change with the length of a row."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int) and any(part in name for part in SWITCHES):
            yield value


def tokens(model: "PreTrainedModel", rows: int, width: int) -> torch.Tensor:
    """(rows, width) token ids, always the same ones, on the model's device; none is padding."""
    config = model.config.get_text_config()
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(int(config.vocab_size), (rows, width), generator=random)
    pad = getattr(config, "pad_token_id", None)
    if pad is not None and pad not in (getattr(config, "eos_token_id", None), getattr(config, "bos_token_id", None)):
        ids[ids == pad] = (int(pad) + 1) % int(config.vocab_size)
    return ids.to(model.device)


def remembered(model: "PreTrainedModel", asked: tuple[Any, ...], find: Callable[[], tuple[Verdict, bool]]) -> Verdict:
    """What `find` finds, once a process for models of one configuration: `asked` says what it is about.

    Args:
        find: gives what it found, and whether that goes for other weights, too: those of a broken model say nothing.
    """
    made = tuple((name, weight.shape) for name, weight in model.named_parameters())
    kinds = tuple(type(module) for module in model.modules())
    key = (*asked, kinds, model.config.to_json_string(), hash(made), model.dtype, model.device.type)
    if key in _verdicts:
        known: Verdict = _verdicts[key]
        return known
    verdict, sure = find()
    if sure:
        _verdicts[key] = verdict
    return verdict
