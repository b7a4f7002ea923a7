"""Rows of one tokenizer as rows of another's: through text, row by row."""

from pathlib import Path
from typing import TYPE_CHECKING

from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError, first_line
from collapse_cli.learners.protocol import TOKENIZER, Facts
from collapse_cli.lm import coding
from collapse_cli.lm import text as texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BROKEN = "\ufffd"  # what is left of a character whose bytes the edge of a row parts


def translated(
    rows: Dataset, source: "PreTrainedTokenizerBase", target: "PreTrainedTokenizerBase", most: int
) -> tuple[Dataset, Facts]:
    """Rows in the tokens of `target` that have the text of `rows`, which are in those of `source`.

    A row stays a row. Its text has another number of tokens: what is beyond `most` is left out at its end, and counted; a
    shorter row stays shorter. The tokens that begin and end a text become those of the target where it has such tokens; other
    special tokens have no text and are left out, as are the parts of a character that the edge of a row cuts through. Which rows
    were prompts, and where a sample begins, is not kept: what is made of the rows is a corpus.

    Args:
        rows: `tokens` (rows, width) and `lengths`; other arrays are left out.
        most: tokens of a row at most.

    Returns:
        The rows, their origin kept; and `translated_tokens`, how many they have, `cut_tokens`, how many were left out for their length.

    Raises:
        InputError: for text that the target cannot read.
    """
    ends = _ends(source, target)
    special = {*ends, *source.all_special_ids}
    if (unknown := texts.unknown_id(source)) is not None:
        special.discard(unknown)
    pieces: list[tuple[int, list[int] | None]] = []  # of which row; ids of text, or None
    fixed: dict[int, int] = {}  # number of a piece -> the token that it is
    tokens, lengths = rows.arrays["tokens"], rows.arrays["lengths"]
    for row, (ids, length) in enumerate(zip(tokens.tolist(), lengths.tolist(), strict=True)):
        text: list[int] = []
        for token in ids[:length]:
            if token not in special:
                text.append(token)
                continue
            if text:
                pieces.append((row, text))
                text = []
            if (end := ends.get(token)) is not None:
                fixed[len(pieces)] = end
                pieces.append((row, None))
        if text:
            pieces.append((row, text))
    spoken = iter(_spoken(source, [ids for _, ids in pieces if ids is not None]))
    read = iter(_read(target, [text.strip(BROKEN) for text in spoken]))
    made: list[list[int]] = [[] for _ in range(len(rows))]
    for number, (row, ids) in enumerate(pieces):
        made[row] += [fixed[number]] if ids is None else next(read)
    kept = [ids[:most] for ids in made]
    used = sum(map(len, kept))
    return Dataset.of_tokens(kept, rows.origin), {"translated_tokens": used, "cut_tokens": sum(map(len, made)) - used}


def in_tokens_of(rows: Dataset, source: Path, target: Path, most: int) -> tuple[Dataset, Facts]:
    """As `translated`, with the tokenizers that two data stages left in their folders."""
    return translated(rows, texts.load_tokenizer(source / TOKENIZER), texts.load_tokenizer(target / TOKENIZER), most)


def _ends(source: "PreTrainedTokenizerBase", target: "PreTrainedTokenizerBase") -> dict[int, int]:
    """The tokens that begin or end a text, and what they become; one that does both ends it."""
    pairs = ((source.bos_token_id, texts.bos_id(target)), (source.eos_token_id, target.eos_token_id))
    return {own: other for own, other in pairs if own is not None and other is not None}


def _spoken(tokenizer: "PreTrainedTokenizerBase", rows: list[list[int]]) -> list[str]:
    if not rows:  # of which batch_decode makes one empty text
        return []
    spoken: list[str] = tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return spoken


def _read(tokenizer: "PreTrainedTokenizerBase", rows: list[str]) -> list[list[int]]:
    if not rows:
        return []
    try:
        return coding.plain_ids(tokenizer, rows)
    except Exception as error:  # bare from the tokenizers library, for a word that has no token and no <unk>
        raise InputError(
            f"a tokenizer cannot read text that another lineage's model wrote: {first_line(error)}; give lineages tokenizers of the "
            "same kind (model.tokenizer)"
        ) from None
