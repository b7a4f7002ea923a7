"""Prompts and what follows them: what of a row a language model continues, what it made of it, and what really comes next."""

from pathlib import Path

import numpy as np

from collapse_cli.config.tree import SampleConfig
from collapse_cli.data.dataset import MASK, PROMPT, Dataset
from collapse_cli.learners.protocol import CORPUS
from collapse_cli.lm import text as texts

FOLLOWING = "following.safetensors"  # in the data stage: the block that follows each row of the original corpus


def following(blocks: Dataset, chosen: np.ndarray) -> Dataset:
    """The block of a text behind each chosen one; of no length behind the last."""
    after = blocks.take(np.minimum(chosen + 1, len(blocks) - 1))
    lengths = np.where(chosen + 1 < len(blocks), after.arrays["lengths"], 0).astype(np.int32)
    return Dataset({**after.arrays, "lengths": lengths}, after.origin)


def nothing(rows: int) -> Dataset:
    """What is behind rows that are whole documents: nothing."""
    empty = np.zeros(rows, np.int32)
    return Dataset({"tokens": np.zeros((rows, 1), np.int32), "lengths": empty}, empty)


def cut_prompts(rows: Dataset, settings: SampleConfig, start: int | None) -> Dataset:
    """What of each row is continued: its first `prompt_tokens` tokens, or nothing but the BOS token (`start`); of a dialogue all that stands
    before its last answer.
    """
    if PROMPT in rows.arrays:
        lengths = rows.arrays[PROMPT]
        others = {name: array for name, array in rows.arrays.items() if name != MASK}
        ids = rows.arrays["tokens"][:, : max(1, int(lengths.max(initial=1)))]
        return Dataset({**others, "tokens": ids, "lengths": lengths}, rows.origin)
    if settings.prompts == "none":
        assert start is not None, "sampling has refused this"
        ids, lengths = np.full((len(rows), 1), start, np.int32), np.ones(len(rows), np.int32)
    else:
        ids = rows.arrays["tokens"][:, : settings.prompt_tokens]
        lengths = np.minimum(rows.arrays["lengths"], settings.prompt_tokens)
    return Dataset({**rows.arrays, "tokens": ids, "lengths": lengths}, rows.origin)


def answered(prompts: Dataset, new: Dataset, most: int) -> Dataset:
    """Prompts and their answers as rows of dialogues, of at most `most` tokens; only the answers are predicted. `start` says where they begin."""
    rows, begin = texts.join(prompts, new), prompts.arrays["lengths"].astype(np.int32)
    lengths = np.minimum(rows.arrays["lengths"], most).astype(np.int32)
    tokens = rows.arrays["tokens"][:, : max(1, int(lengths.max(initial=1)))]
    columns = np.arange(tokens.shape[1])
    mask = (columns >= begin[:, None]) & (columns < lengths[:, None])
    tokens = np.where(columns < lengths[:, None], tokens, 0).astype(np.int32)
    return Dataset({"tokens": tokens, "lengths": lengths, MASK: mask, PROMPT: begin, "start": begin}, new.origin)


def continuations(samples: Dataset) -> Dataset:
    """The new tokens of samples that may have their prompt before them."""
    starts = samples.arrays["start"].astype(np.int64)
    lengths = samples.arrays["lengths"].astype(np.int64) - starts
    width = int(lengths.max(initial=0))
    columns = np.minimum(starts[:, None] + np.arange(width), max(samples.arrays["tokens"].shape[1] - 1, 0))
    tokens = np.take_along_axis(samples.arrays["tokens"], columns, axis=1)
    return Dataset({"tokens": tokens, "lengths": lengths.astype(np.int32)}, samples.origin)


def real_continuations(encoded: Path, settings: SampleConfig, start: int | None, most: int) -> tuple[Dataset, Dataset]:
    """Prompts from the original corpus and what really follows them, as long as samples are where there is so much."""
    corpus, after = Dataset.load(encoded / CORPUS), Dataset.load(encoded / FOLLOWING)
    there = np.flatnonzero(after.arrays["lengths"] > 0)
    if not len(there):  # rows are whole documents
        least = corpus.arrays.get(PROMPT, 0 if settings.prompts == "none" else settings.prompt_tokens)
        there = np.flatnonzero(corpus.arrays["lengths"] > least)
    there = there[spaced(len(there), most)]
    both = texts.join(corpus.take(there), after.take(there))
    prompts = cut_prompts(corpus.take(there), settings, start)
    begin = 0 if settings.prompts == "none" else prompts.arrays["lengths"].astype(np.int64)
    lengths = np.minimum(both.arrays["lengths"] - begin, settings.new_tokens)
    starts = np.broadcast_to(begin, lengths.shape)
    whole = Dataset({**both.arrays, "lengths": starts + lengths, "start": starts}, both.origin)
    return prompts, continuations(whole)


def longest_real(corpus: Dataset, settings: SampleConfig) -> int:
    """Tokens of the longest real continuation: the rest of a row and the next; samples are looked at no farther."""
    if PROMPT in corpus.arrays:
        answers = corpus.arrays["lengths"].astype(np.int64) - corpus.arrays[PROMPT]
        return int(min(answers.max(initial=1), settings.new_tokens))
    block = corpus.arrays["tokens"].shape[1]
    rest = block if settings.prompts == "none" else block - min(settings.prompt_tokens, block)
    return int(min(rest + block, settings.new_tokens))


def spaced(count: int, most: int) -> np.ndarray:
    """At most `most` indices below `count`, evenly spaced, each once."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(np.int64)
