"""Text to rows of tokens, and the tokenizers that do it."""

import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from collapse_cli.data.dataset import Dataset, how_many
from collapse_cli.errors import InputError, first_line
from collapse_cli.lm import gguf, places
from collapse_cli.lm.coding import plain_ids, read_as_written
from collapse_cli.lm.folders import TOKENIZER_FILES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END = "</s>"  # the one special token of a tokenizer trained here; before a text and after it
UNKNOWN = "<unk>"
KNOWN_SPECIAL = (END, "<|endoftext|>", "<pad>", "<unk>")  # what a bare vocabulary may hold
LONGEST_WORD = 1 << 14
BEFORE_WORD = re.compile(r"(?<=\S)[ ](?=\S)")
CHARACTERS_AT_ONCE = 1 << 18  # of text given to a tokenizer together: what it answers with takes 20 times the memory
NOTABLE = 0.01  # of all tokens
LOOKED_AT, LOOKED_AT_CHARACTERS = 500, 50_000  # rows and characters of a text that are turned back from tokens


def train_bpe(lines: Iterable[str], vocab_size: int) -> "PreTrainedTokenizerBase":
    """A byte-level BPE of at most `vocab_size` entries, the same for the same lines."""
    from tokenizers import Tokenizer, models, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=_byte_level().alphabet(),
        special_tokens=[END],
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _byte_level()
    tokenizer.train_from_iterator((piece for line in lines for piece in pieces(line)), trainer)
    return _wrap(tokenizer)


def frequent_words(lines: Iterable[str], vocab_size: int) -> list[str]:
    """The most frequent words of a text for a `word_tokenizer` of `vocab_size` entries, `<unk>` and END among these."""
    counts = Counter(word for line in lines for word in line.split())
    for special in (END, UNKNOWN):
        counts.pop(special, None)
    return [UNKNOWN, *sorted(counts, key=lambda word: (-counts[word], word))[: vocab_size - 2]]


def word_tokenizer(words: Sequence[str], *, marks: bool = False) -> "PreTrainedTokenizerBase":
    """Words between white space are tokens, with the index in `words` for an id; END comes last.

    With `marks` punctuation marks are words of their own, and no blank stands before them in text that is made of tokens.

    Line ends are white space, so they leave no trace. Words that are not listed become `<unk>`, which must be listed if
    there are any; it is an ordinary token, as one that says nothing of where a text ends.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    unknown = {"unk_token": UNKNOWN} if UNKNOWN in words else {}
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, **unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace() if marks else pre_tokenizers.WhitespaceSplit()
    if marks:
        tokenizer.decoder = decoders.WordPiece(cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, bos_token=END, eos_token=END
    )


def _byte_level() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _wrap(tokenizer: Any) -> "PreTrainedTokenizerBase":
    from tokenizers import decoders
    from transformers import PreTrainedTokenizerFast

    tokenizer.pre_tokenizer = _byte_level()
    tokenizer.decoder = decoders.ByteLevel()
    there = [token for token in KNOWN_SPECIAL if tokenizer.token_to_id(token) is not None]
    end = next((token for token in KNOWN_SPECIAL[:2] if token in there), None)
    special: dict[str, str | None] = {"bos_token": end, "eos_token": end}
    special |= {f"{token[1:-1]}_token": token for token in ("<pad>", "<unk>") if token in there}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in special.items() if token},
    )


def has_tokenizer(folder: Path) -> bool:
    """Whether a model's folder has a tokenizer as well; a GGUF file should."""
    return places.is_gguf(folder) or any((folder / name).is_file() for name in TOKENIZER_FILES)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder: a transformers one, or `vocab.json` and `merges.txt` of a byte-level BPE alone.

    Each stage asks for it, and one of 50,000 tokens takes half a second to read. So who asks again in the same thread is
    given the same one, as long as the folder's files are the same; nobody changes it.

    Raises:
        InputError: when there is none, or it cannot be read.
    """
    return _kept(folder, _state(folder), threading.get_ident())


@lru_cache(maxsize=4)
def _kept(folder: Path, state: tuple[tuple[str | int, ...], ...], thread: int) -> "PreTrainedTokenizerBase":
    """For one thread: a tokenizer that reads text in two at once fails."""
    return read_tokenizer(folder)[0]


def _state(folder: Path) -> tuple[tuple[str | int, ...], ...]:
    """Names, sizes and times of a folder's files, or of a GGUF file."""
    files = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    found = [(file.name, file.stat()) for file in files if file.is_file()]
    return tuple((name, about.st_ino, about.st_size, about.st_mtime_ns) for name, about in found)


def read_tokenizer(folder: Path) -> tuple["PreTrainedTokenizerBase", bool]:
    """As `load_tokenizer`, and whether its `tokenizer.json` had to be put in place of what transformers makes of it."""
    from transformers import AutoTokenizer

    if places.is_gguf(folder):
        return gguf.tokenizer(folder), False
    bare = not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "config.json"))
    try:
        if bare and (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            from tokenizers import Tokenizer, models

            return _wrap(Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))), False
        if has_tokenizer(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            if not tokenizer.get_vocab():
                raise InputError(f"{folder}: the tokenizer has no tokens; its files are damaged or not all there")
            return tokenizer, read_as_written(tokenizer, folder / "tokenizer.json")
    except InputError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise InputError(f"{folder}: the tokenizer cannot be loaded: {_why(error, folder)}") from None
    raise InputError(f"{folder} holds no tokenizer; name one with --set model.tokenizer=FOLDER")


def _why(error: Exception, folder: Path) -> str:
    """Why a tokenizer cannot be loaded, and what to do."""
    if "custom code" in str(error):
        return (
            "it needs program code that lies beside it (auto_map in tokenizer_config.json), which collapse never runs"
        )
    if not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")):
        return (
            "it has no tokenizer.json, only a file for a library that is not installed (sentencepiece or tiktoken); load it where "
            "that is installed, and save it with AutoTokenizer"
        )
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return "it has no tokenizer.json, nor other files that hold tokens; fetch it"
    return f"{first_line(error)}; fetch its files again"


def text_range(tokenizer: "PreTrainedTokenizerBase") -> int:
    """One more than the largest id that text can become: special tokens, which are never read out of text, do not count."""
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return max((index for index in tokenizer.get_vocab().values() if index not in special), default=-1) + 1


def unknown_id(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The token that stands for what the tokenizer does not know; also where it is not declared as such, as in ours."""
    declared: int | None = tokenizer.unk_token_id
    return tokenizer.get_vocab().get(UNKNOWN) if declared is None else declared


def losses(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[str], ids: np.ndarray, *, apart: bool = True
) -> list[str]:
    """What of a text does not reach the model, in sentences: unknown words, characters that come back as others, line ends.

    Args:
        ids: what `encode` made of the rows.
        apart: whether rows are lines of their own, so that their ends mean something.
    """
    unknown = unknown_id(tokenizer)
    share = 0.0 if unknown is None else float(np.mean(ids == unknown)) if len(ids) else 0.0
    if share >= NOTABLE:
        return [
            f"{100 * share:.1f}% of the test text's tokens are the unknown token: the model is scored on that token and not on the "
            "words, so the perplexity says less than it seems to"
        ]
    some = [row[:LOOKED_AT_CHARACTERS] for row in rows[:LOOKED_AT]]
    while len(some) > 1 and sum(map(len, some)) > LOOKED_AT_CHARACTERS:
        some = some[: len(some) // 2]
    text = "".join(some)
    # by rows, as it is read: what a tokenizer strips is at their ends
    back = tokenizer.decode(encode(tokenizer, some, line_bos=False), clean_up_tokenization_spaces=False)
    spaces = _spaces_lost(text, back) if apart else []
    wanted, decoded = ("".join(part.split()) for part in (text, back))  # where blanks go differs from kind to kind
    if wanted == decoded or share:
        return spaces
    first = next(
        (i for i, (a, b) in enumerate(zip(wanted, decoded, strict=False)) if a != b), min(len(wanted), len(decoded))
    )
    here, there = wanted[max(0, first - 8) : first + 8], decoded[max(0, first - 8) : first + 8]
    return [
        f"the tokenizer does not keep the text as it is ({here!r} becomes {there!r}): perplexity by word and bits per byte "
        "are those of the changed text",
        *spaces,
    ]


def _spaces_lost(text: str, back: str) -> list[str]:
    """Whether line ends, or blanks beside blanks, are gone from what comes back of a text, in a sentence."""
    kinds = {"line ends": "\n", "runs of blanks": "  "}
    gone = [name for name, part in kinds.items() if text.count(part) > 2 * back.count(part)]
    if not gone:
        return []
    return [
        f"the tokenizer drops {' and '.join(gone)}: no token stands for them, so bits per byte, which counts their bytes, is "
        "lower than with a tokenizer that keeps them"
    ]


def id_range(tokenizer: "PreTrainedTokenizerBase") -> int:
    """One more than the largest token id: what a model's vocabulary must be. More than `len` where ids have gaps."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def bos_id(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The token that stands before a text; models without one use their end-of-text token."""
    own: int | None = tokenizer.bos_token_id
    return tokenizer.eos_token_id if own is None else own


def encode(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[str], *, line_bos: bool, spool: Path | None = None
) -> np.ndarray:
    """All rows as one stream of token ids, int32; with `spool` in that file, which is made, and not in memory.

    No special token is ever read out of the text: `</s>` in a file is four characters. With `line_bos` every row,
    a blank one too, starts with the BOS token, and blank rows hold nothing else (as in WikiText on the Hub, where
    the Nature code reads them).
    """
    start = bos_id(tokenizer) if line_bos else None
    if line_bos and start is None:
        raise InputError(
            "data.line_bos = true, but the tokenizer has neither a BOS nor an end-of-text token; set data.line_bos = false"
        )
    made = TokenStream(spool)
    for some in _portions(rows, blank=not line_bos, own_blank=_prepends(tokenizer)):
        try:
            coded = plain_ids(tokenizer, [piece for piece, _ in some])
        except Exception as error:  # bare from the tokenizers library, for a word that has no token and no <unk>
            raise InputError(
                f"the tokenizer cannot read the text: {first_line(error)}; use the text it was made for"
            ) from None
        made.add([
            np.asarray([start, *ids] if first and start is not None else ids, dtype=np.int32)
            for ids, (_, first) in zip(coded, some, strict=True)
        ])  # fmt: skip
    return made.whole()


class TokenStream:
    """Token ids that come in parts, and are one array in the end: in memory, or in a file that is read where it is looked at."""

    def __init__(self, spool: Path | None) -> None:
        self._spool, self._parts, self._count = spool, list[np.ndarray](), 0
        if spool is not None:
            spool.write_bytes(b"")

    def add(self, parts: Sequence[np.ndarray]) -> None:
        part = np.concatenate(parts) if parts else np.empty(0, np.int32)
        self._count += len(part)
        if self._spool is None:
            self._parts.append(part)
            return
        with self._spool.open("ab") as out:
            out.write(part.tobytes())

    def whole(self) -> np.ndarray:
        """(tokens,) int32."""
        if self._spool is None or self._count == 0:
            return np.concatenate(self._parts) if self._parts else np.empty(0, np.int32)
        return np.asarray(np.memmap(self._spool, np.int32, "r", shape=(self._count,)))


def pieces(row: str) -> list[str]:
    """A row in pieces that a tokenizer reads in bounded memory: one, but for very long rows.

    Long rows are cut before white space, where tokenizers part words anyway, so that the tokens stay the same. A word of
    more than `LONGEST_WORD` characters, which no language has, is cut there: the time that a BPE takes for a word
    grows with the square of its length.
    """
    if len(row) <= LONGEST_WORD:
        return [row]
    parts, start = [], 0
    while len(row) - start > LONGEST_WORD:
        spaces = [cut.start() for cut in BEFORE_WORD.finditer(row, start + 1, start + LONGEST_WORD)]
        end = spaces[-1] if spaces else start + LONGEST_WORD
        parts.append(row[start:end])
        start = end
    return [*parts, row[start:]]


def _prepends(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether a tokenizer puts a blank before whatever it is given, one more where there is one, as Llama 2's does."""
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    if normalizer is None:
        return False
    first, both, second, spaced = map(normalizer.normalize_str, ("a", "a b", "b", " b"))
    return bool(first + second == both != first + spaced)


def _portions(rows: Sequence[str], *, blank: bool, own_blank: bool) -> Iterator[list[tuple[str, bool]]]:
    """The pieces of all rows in order, each with whether a row begins with it, as many together as make `CHARACTERS_AT_ONCE`.

    Args:
        blank: whether blank rows are kept as they are; else nothing is left of them.
        own_blank: whether the tokenizer adds the blank between two pieces, so that it is left out here.
    """
    some: list[tuple[str, bool]] = []
    size = 0
    for row in rows:
        for number, piece in enumerate(pieces(row if blank or row.strip() else "")):
            if some and size + len(piece) > CHARACTERS_AT_ONCE:
                yield some
                some, size = [], 0
            some.append((piece.removeprefix(" ") if own_blank and number else piece, number == 0))
            size += len(piece)
    if some:
        yield some


def blocks(stream: np.ndarray, block_size: int, what: str, *, tail: bool = False) -> Dataset:
    """A stream of tokens cut into real rows of `block_size` tokens.

    Args:
        tail: keep the remainder as a shorter last row; else it is dropped.

    Raises:
        InputError: when the stream is shorter than one block (with `tail`: than two tokens).
    """
    rows = len(stream) // block_size
    if tail and len(stream) > 1:
        lengths = np.full(-(-len(stream) // block_size), block_size, np.int32)
        lengths[-1] -= len(lengths) * block_size - len(stream)
        padded = np.zeros(len(lengths) * block_size, np.int32)
        padded[: len(stream)] = stream
        return Dataset({"tokens": padded.reshape(-1, block_size), "lengths": lengths}, np.zeros(len(lengths), np.int32))
    if rows == 0:
        raise InputError(
            f"the {what} text has {how_many(len(stream), 'token')}, less than one block of {block_size}; give more text, or lower "
            "data.block_size"
        )
    tokens = stream[: rows * block_size].reshape(rows, block_size)
    return Dataset({"tokens": tokens, "lengths": np.full(rows, block_size, np.int32)}, np.zeros(rows, np.int32))


def documents(tokenizer: "PreTrainedTokenizerBase", rows: Sequence[str], most: int, what: str) -> Dataset:
    """A row of text as a row of tokens, between the tokens that begin and end a text.

    Raises:
        InputError: when a document has more than `most` tokens with these, or the tokenizer does not have them.
    """
    start, end = bos_id(tokenizer), tokenizer.eos_token_id
    if start is None or end is None:
        raise InputError("rows that are whole documents need an end-of-text token, and the tokenizer has none")
    coded = plain_ids(tokenizer, [row.strip() for row in rows])
    longest = max((len(ids) + 2 for ids in coded), default=0)
    if longest > most:
        raise InputError(
            f"a document of the {what} text has {longest} tokens with those that begin and end it, more than data.block_size = "
            f"{most}; raise it to {longest} at least"
        )
    return Dataset.of_tokens([[start, *ids, end] for ids in coded])


def join(first: Dataset, second: Dataset) -> Dataset:
    """The tokens of each row of two Datasets, one behind the other; origins are those of the second."""
    before, after = first.arrays["lengths"], second.arrays["lengths"]
    lengths = before + after
    tokens = np.zeros((len(second), int(lengths.max(initial=0))), np.int32)
    columns = np.arange(tokens.shape[1])
    for part, inside in (
        (first, columns < before[:, None]),
        (second, (columns >= before[:, None]) & (columns < lengths[:, None])),
    ):
        ids = part.arrays["tokens"]
        tokens[inside] = ids[np.arange(ids.shape[1]) < part.arrays["lengths"][:, None]]
    return Dataset({"tokens": tokens, "lengths": lengths.astype(np.int32)}, second.origin)


def special_tokens_in(tokenizer: "PreTrainedTokenizerBase", rows: Sequence[str]) -> dict[str, int]:
    """How often each special token is spelled out in the text."""
    counts = dict.fromkeys(tokenizer.all_special_tokens, 0)
    for row in rows:
        for token in counts:
            if token in row:
                counts[token] += row.count(token)
    return {token: count for token, count in counts.items() if count}
