"""Rows of one tokenizer as rows of another's."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from collapse_cli.data.dataset import Dataset
from collapse_cli.learners.translation import translated
from collapse_cli.lm import text as texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = ["the old dog sees a red house under the tree\n", "naïve café — 中文 🙂 and 42 more\n"] * 20


@pytest.fixture(scope="module")
def source() -> "PreTrainedTokenizerBase":
    return texts.train_bpe(TEXT, 300)


@pytest.fixture(scope="module")
def target() -> "PreTrainedTokenizerBase":
    return texts.train_bpe([line.upper() for line in TEXT] + TEXT[:1], 340)


def rows_of(*rows: list[int]) -> Dataset:
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.full((len(rows), max(map(len, rows), default=1)), 7, np.int32)  # what is behind a row's end is nothing
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = ids
    return Dataset({"tokens": tokens, "lengths": lengths, "row": np.arange(len(rows))}, np.full(len(rows), 3, np.int32))


def spoken(rows: Dataset, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    used = zip(rows.arrays["tokens"], rows.arrays["lengths"], strict=True)
    return [tokenizer.decode(ids[:length].tolist()) for ids, length in used]


def test_a_row_says_the_same_in_other_tokens(
    source: "PreTrainedTokenizerBase", target: "PreTrainedTokenizerBase"
) -> None:
    said = [TEXT[0], " sees a red", "café 中文 🙂", ""]
    rows = rows_of(*(texts.encode(source, [text], line_bos=False).tolist() for text in said))
    made, facts = translated(rows, source, target, 200)
    assert spoken(made, target) == said
    assert not np.array_equal(made.arrays["lengths"], rows.arrays["lengths"]), "they are other tokens"
    assert made.origin.tolist() == [3] * 4
    assert set(made.arrays) == {"tokens", "lengths"}
    assert facts == {"translated_tokens": int(made.arrays["lengths"].sum()), "cut_tokens": 0}


def test_a_row_that_becomes_too_long_is_cut_and_what_is_left_out_is_counted(
    source: "PreTrainedTokenizerBase", target: "PreTrainedTokenizerBase"
) -> None:
    rows = rows_of(texts.encode(source, [TEXT[0]], line_bos=False).tolist())
    whole, _ = translated(rows, source, target, 200)
    made, facts = translated(rows, source, target, 5)
    assert made.arrays["tokens"].tolist() == whole.arrays["tokens"][:, :5].tolist()
    assert facts["cut_tokens"] == int(whole.arrays["lengths"][0]) - 5


def test_ends_of_text_become_the_others_ends_and_other_special_tokens_are_left_out(
    source: "PreTrainedTokenizerBase", target: "PreTrainedTokenizerBase"
) -> None:
    end, other_end = source.eos_token_id, target.eos_token_id
    assert end is not None
    assert other_end is not None
    said = texts.encode(source, ["a red"], line_bos=False).tolist()
    others = [index for index in source.all_special_ids if index not in (end, source.bos_token_id)]
    made, _ = translated(rows_of([*said, end], [*others, *said]), source, target, 50)
    first, second = (
        row[:length].tolist() for row, length in zip(made.arrays["tokens"], made.arrays["lengths"], strict=True)
    )
    assert first == [*second, other_end]
    assert target.decode(second) == "a red"


def test_half_a_character_at_the_edge_of_a_row_is_left_out(
    source: "PreTrainedTokenizerBase", target: "PreTrainedTokenizerBase"
) -> None:
    whole = texts.encode(texts.train_bpe(["x"], 260), ["a🙂b"], line_bos=False).tolist()
    bytes_alone = texts.train_bpe(["x"], 260)
    made, _ = translated(rows_of(whole[:-2], whole[2:], whole), bytes_alone, target, 50)
    assert spoken(made, target) == ["a", "b", "a🙂b"]


def test_no_rows_are_no_rows(source: "PreTrainedTokenizerBase", target: "PreTrainedTokenizerBase") -> None:
    made, facts = translated(rows_of(), source, target, 5)
    assert len(made) == 0
    assert facts == {"translated_tokens": 0, "cut_tokens": 0}
