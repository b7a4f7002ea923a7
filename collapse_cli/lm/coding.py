"""From text to the ids of a tokenizer: as its tokenizer.json says, and never to a special token."""

import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What tokenizers part, change or keep in ways of their own: runs of digits and blanks, capitals, short forms, signs, line
# ends, wide and joined characters, accents of their own, scripts without blanks, and what is in few vocabularies.
PROBES = (
    "It's 7, 42, 650841823 and 3.14159; WE'LL see: don't  stop   here\n",
    "  def camelCase(under_score):\treturn a+=b**2  # http://x.org/?q=1&r=2\n\n\n",
    "Ｗｉｄｅ ﬁne ①②, Ⅳ; cafe\u0301 café naïve STRASSE straße\u00a0no\u200bbreak…\r\n",
    "中文没有空格。日本語テスト ﾊﾝｶｸ 한국어 тест ١٢٣ नमस्ते 🙂👩‍🔬 — “quoted” −5\n",
)
PROBED = 2000  # tokens of a vocabulary that are read as texts, besides these
AS_WRITTEN = (
    "text is read as the tokenizer's tokenizer.json says; transformers would read it as the class that tokenizer_config.json "
    "names does, which gives other tokens"
)


def read_as_written(tokenizer: "PreTrainedTokenizerBase", file: Path) -> bool:
    """Let a tokenizer read text as its `tokenizer.json` says. Returns whether it did not.

    transformers builds the backend of many classes anew from the vocabulary alone: normalizers, and how text is parted
    before (digits, say), are then those of the class that `tokenizer_config.json` names, and the ids are others than
    those that the model was trained on.
    """
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    _without_chance(backend.model)
    if not file.is_file():
        return False
    written = Tokenizer.from_file(str(file))
    _without_chance(written.model)
    if _parts(backend) == _parts(written):
        return False
    step = max(1, written.get_vocab_size() // PROBED)
    probes = [*PROBES, *(written.decode([index]) for index in range(0, written.get_vocab_size(), step))]
    before = [_ids(tokenizer, text) for text in probes]
    backend.model, backend.normalizer = written.model, written.normalizer
    backend.pre_tokenizer, backend.decoder = written.pre_tokenizer, written.decoder
    return before != [_ids(tokenizer, text) for text in probes]


def _parts(backend: Any) -> list[Any]:
    """What decides which ids a text becomes."""
    states = [part and part.__getstate__() for part in (backend.normalizer, backend.pre_tokenizer, backend.model)]
    return [state and _plain(json.loads(state)) for state in states]


def _plain(tree: Any) -> Any:
    """A part's settings, without those that change no ids; an empty text is none."""
    if isinstance(tree, dict):
        return {name: _plain(value) for name, value in tree.items() if name not in ("trim_offsets", "vocab", "merges")}
    return [_plain(item) for item in tree] if isinstance(tree, list) else None if tree == "" else tree


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """The ids of a text; none where it cannot be read, as by a list of words without one for the unknown."""
    try:
        return plain_ids(tokenizer, [text])[0]
    except Exception:  # bare from the tokenizers library
        return []


def _without_chance(model: Any) -> None:
    """Let the model of a tokenizer cut the same text into the same tokens each time.

    BPE dropout and subword sampling are noise for training that some files keep switched on; text scored through it has
    another perplexity each time.
    """
    for name in ("dropout", "alpha", "nbest_size"):
        if getattr(model, name, None):
            setattr(model, name, None)


def plain_ids(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[list[int]]:
    """The ids of each text, none of them special.

    Some models (Unigram, lists of words) hold their special tokens beside all others, and find them in text although it is
    to be read as plain: these are taken apart.
    """
    coded: list[list[int]] = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)[
        "input_ids"
    ]
    special = {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    special.pop(tokenizer.unk_token_id, None)
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if model is None or special.keys().isdisjoint(chain.from_iterable(coded)):
        return coded
    apart = {index: _apart(model, content, tokenizer.unk_token_id) or [index] for index, content in special.items()}
    return [[part for index in ids for part in apart.get(index, (index,))] for ids in coded]


def _apart(model: Any, content: str, unknown: int | None) -> list[int]:
    """The ids of a special token's spelling, read as the text that it is: its last sign apart, so that it is not found."""
    parts = [token.id for text in (content[:-1], content[-1:]) if text for token in model.tokenize(text)]
    return parts[:1] if parts and set(parts) == {unknown} else parts
