"""Text from elsewhere as rows of the form that a data stage gave to real ones: of other models, of servers, and the public text."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from collapse_cli.data.dataset import Dataset, how_many, load_text, unchanged
from collapse_cli.data.dialogues import ASSISTANT, Dialogue, Turn
from collapse_cli.errors import InputError
from collapse_cli.learners.continuations import answered, spaced
from collapse_cli.learners.protocol import TOKENIZER
from collapse_cli.learners.text_inputs import DIALOGUES, TURNS
from collapse_cli.lm import chats, dialogue_rows
from collapse_cli.lm import text as texts


def public_rows(
    where: Mapping[str, str], sha256: str, encoded: Path, block_size: int, rows: int, *, line_bos: bool
) -> Dataset:
    """The training text of a source as blocks of tokens.

    Args:
        where: the arguments of `load_text`; `sha256`: of the text that was planned for.
        encoded: the folder of a data stage, with the tokenizer.
        rows: how many, evenly spaced; 0: all.

    Raises:
        InputError: when there are fewer.
    """
    text = load_text(**where)
    unchanged(sha256, text.sha256, "the public text (pool.public)")
    stream = texts.encode(texts.load_tokenizer(encoded / TOKENIZER), text.splits["train"], line_bos=line_bos)
    every = texts.blocks(stream, block_size, "public")
    if rows > len(every):
        raise InputError(
            f"pool.public_rows = {rows:,}, but the public text has only {how_many(len(every), 'row')} (0 takes all)"
        )
    return every.take(spaced(len(every), rows)) if rows else every


def rows_of_text(
    encoded: Path, rows: Sequence[str], block_size: int, *, line_bos: bool, documents: bool, what: str
) -> tuple[Dataset, float]:
    """Another text as rows of the shape that a data stage made of real text: blocks, whole documents, or dialogues.

    Args:
        encoded: the folder of the data stage, with the tokenizer.
        what: the text, for messages.

    Returns:
        The rows, and the share of their tokens that stand for what the tokenizer does not know.

    Raises:
        InputError: for a text of less than a block, or one that the tokenizer cannot read.
    """
    tokenizer = texts.load_tokenizer(encoded / TOKENIZER)
    if (encoded / DIALOGUES).is_file():
        dialogues = [row for row in rows if isinstance(row, Dialogue)]
        if len(dialogues) < len(rows):
            raise InputError(
                f"{what}: rows are texts, and those of the real data are prompts and answers; give such rows"
            )
        made = dialogue_rows.coded_rows(_template_of(encoded), dialogues, block_size, what).rows
    elif documents:
        made = texts.documents(tokenizer, [row for row in rows if row.strip()], block_size, what)
    else:
        made = texts.blocks(texts.encode(tokenizer, rows, line_bos=line_bos), block_size, what)
    unknown = texts.unknown_id(tokenizer)
    share = 0.0 if unknown is None else float(np.mean(made.arrays["tokens"][made.counted] == unknown))
    return made, share


def _template_of(encoded: Path) -> chats.ChatTemplate:
    """How the dialogues of a data stage are written."""
    name = json.loads((encoded / DIALOGUES).read_text(encoding="utf-8"))["template"]
    return chats.ChatTemplate(texts.load_tokenizer(encoded / TOKENIZER), name)


def turns_before(encoded: Path, dialogues: Sequence[str], rows: np.ndarray) -> list[tuple[Turn, ...]]:
    """Of rows of the original corpus the turns before their last answer.

    Args:
        encoded: the folder of the data stage.
        dialogues: the training text that it was made from.
        rows: (n,) which rows.

    Raises:
        InputError: when the data stage does not say which dialogue a row is.
    """
    if not (encoded / TURNS).is_file():
        raise InputError(
            f"{encoded} was made by an earlier version, which did not note the turns of its rows; remove that folder, and the same "
            "command makes it again"
        )
    which, found = Dataset.load(encoded / TURNS).take(rows), list[tuple[Turn, ...]]()
    for number, answers in zip(which.arrays["dialogue"], which.arrays["answers"], strict=True):
        dialogue = dialogues[number]
        assert isinstance(dialogue, Dialogue)
        said = [place for place, turn in enumerate(dialogue.turns) if turn.role == ASSISTANT]
        found.append(dialogue.turns[: said[answers - 1]])  # a row may have no room for the last turns
    return found


def rows_of_replies(
    encoded: Path,
    prompts: Dataset,
    turns: Sequence[Sequence[Turn]],
    answers: Sequence[str],
    ended: Sequence[bool],
    new_tokens: int,
    most: int,
) -> tuple[Dataset, int]:
    """What answers dialogues as rows of the form of real ones, of which only that answer is predicted; and how many were cut.

    Args:
        encoded: the folder of the data stage, with tokenizer and template.
        prompts: rows of tokens: what stands before each answer.
        turns: the same as turns.
        ended: whether who wrote an answer ended it; the token that ends a turn stands behind such a one, and behind an empty one.
        new_tokens: tokens of an answer that are kept.
        most: tokens of a row.
    """
    template, cut = _template_of(encoded), 0
    before, new = list[list[int]](), list[list[int]]()
    real = (
        ids[:length].tolist() for ids, length in zip(prompts.arrays["tokens"], prompts.arrays["lengths"], strict=True)
    )
    for prompt, said, text, is_whole in zip(real, turns, answers, ended, strict=True):
        own, ids = template.reply(Dialogue([*said, Turn(ASSISTANT, text)]), prompt)
        own = own if len(own) < most else prompt
        ids = ids if is_whole or not text else ids[:-1]
        cut += len(ids) > min(new_tokens, most - len(own))
        before.append(own)
        new.append(ids[:new_tokens])
    return answered(Dataset.of_tokens(before, prompts.origin), Dataset.of_tokens(new, prompts.origin), most), cut


def rows_of_answers(
    encoded: Path, prompts: Dataset, answers: Sequence[str], ended: Sequence[bool], most: int, *, full: bool
) -> tuple[Dataset, int]:
    """Text that continues prompts as rows of tokens, and how many of these were cut.

    Args:
        encoded: the folder of the data stage, with the tokenizer.
        prompts: rows of tokens.
        ended: whether who wrote an answer ended it; such a row ends in the end-of-text token, as a model's own samples do.
        most: tokens of an answer that are kept.
        full: whether the prompt stands before the answer in a row (`start` says where that begins).
    """
    tokenizer = texts.load_tokenizer(encoded / TOKENIZER)
    end, cut, coded = tokenizer.eos_token_id, 0, list[list[int]]()
    for text, is_whole in zip(answers, ended, strict=True):
        ids = texts.encode(tokenizer, [text], line_bos=False)
        if is_whole and end is not None:
            ids = np.append(ids, np.int32(end))
        cut += len(ids) > most
        coded.append(ids[:most].tolist())
    rows, start = Dataset.of_tokens(coded, prompts.origin), np.zeros(len(coded), np.int32)
    if full:
        rows, start = texts.join(prompts, rows), prompts.arrays["lengths"].astype(np.int32)
    return Dataset({**rows.arrays, "start": start}, rows.origin), cut
