"""Text to tokens: no special token is read from text, BOS policy, blocks, tokenizers saved and loaded again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_cli.errors import InputError
from collapse_cli.lm.text import blocks, bos_id, encode, load_tokenizer, special_tokens_in, train_bpe

LINES = ["the cat sat on the mat\n", "\n", "the dog ate the cat's hat\n", "</s> and <pad> are spelled out\n"] * 20


@pytest.fixture(scope="module")
def bpe() -> Any:
    return train_bpe(LINES, 290)


@pytest.fixture(scope="module")
def saved(bpe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    bpe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def opt(shared_data: Path) -> Any:
    return load_tokenizer(shared_data / "opt-tokenizer")


# --- a trained BPE ----------------------------------------------------------------------------------------------------


def test_training_a_bpe_is_deterministic(bpe: Any) -> None:
    assert train_bpe(LINES, 290).get_vocab() == bpe.get_vocab()
    assert train_bpe(LINES, 290).backend_tokenizer.to_str() == bpe.backend_tokenizer.to_str()


def test_a_bpe_has_one_special_token_and_all_bytes(bpe: Any) -> None:
    assert len(bpe) == 290
    assert bpe.all_special_tokens == ["</s>"]
    assert (bpe.bos_token_id, bpe.eos_token_id, bpe.pad_token_id, bpe.unk_token_id) == (0, 0, None, None)
    assert len(train_bpe(["a\n"], 512)) == 1 + 256


def test_merges_make_frequent_words_short(bpe: Any) -> None:
    assert len(encode(bpe, [" the"], line_bos=False)) == 1
    assert len(encode(bpe, [" zqx"], line_bos=False)) == 4


TEXT = st.text(st.characters(exclude_categories=("Cs",)))


@given(text=TEXT)
def test_text_comes_back_from_its_tokens(bpe: Any, text: str) -> None:
    ids = encode(bpe, [text], line_bos=False)
    assert bpe.decode(ids) == text


@given(before=TEXT, token=st.sampled_from(["</s>", "<s>", "<pad>", "<unk>"]), after=TEXT)
def test_no_special_token_is_read_from_text(bpe: Any, before: str, token: str, after: str) -> None:
    ids = encode(bpe, [before + token + after], line_bos=False)
    assert not np.isin(ids, bpe.all_special_ids).any()
    assert bpe.decode(ids) == before + token + after


def test_a_saved_tokenizer_does_the_same_as_the_trained_one(bpe: Any, saved: Path) -> None:
    again = load_tokenizer(saved)
    rows = [*LINES[:4], "  blanks  ", "don't . , !", "<s></s><unk>", "ü\n"]
    for line_bos in (False, True):
        assert encode(again, rows, line_bos=line_bos).tolist() == encode(bpe, rows, line_bos=line_bos).tolist()
    assert (bos_id(again), again.eos_token_id, again.pad_token_id) == (0, 0, None)
    assert sorted(again.all_special_ids) == sorted(bpe.all_special_ids)
    assert again.decode(encode(again, rows, line_bos=False)) == "".join(rows)


# --- rows to a stream -------------------------------------------------------------------------------------------------


def test_with_line_bos_every_line_starts_with_bos_and_a_blank_one_is_bos_alone(bpe: Any) -> None:
    rows = ["the cat\n", "\n", "   \n", "", "the hat\n"]
    cat, hat = (encode(bpe, [row], line_bos=False).tolist() for row in (rows[0], rows[4]))
    assert encode(bpe, rows, line_bos=True).tolist() == [0, *cat, 0, 0, 0, 0, *hat]


def test_without_line_bos_rows_follow_each_other_and_blank_ones_are_kept(bpe: Any) -> None:
    rows = ["the cat\n", "\n", "the hat\n"]
    alone = [encode(bpe, [row], line_bos=False).tolist() for row in rows]
    stream = encode(bpe, rows, line_bos=False)
    assert stream.tolist() == [*alone[0], *alone[1], *alone[2]]
    assert stream.dtype == np.int32
    assert len(encode(bpe, [], line_bos=False)) == len(encode(bpe, [], line_bos=True)) == 0


def test_the_stream_does_not_depend_on_how_many_lines_are_coded_at_once(
    bpe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encode(bpe, LINES, line_bos=True).tolist()
    monkeypatch.setattr("collapse_cli.lm.text.CHARACTERS_AT_ONCE", 3)
    assert encode(bpe, LINES, line_bos=True).tolist() == whole


def test_line_bos_needs_a_token_for_it() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"a": 0}, merges=[])))
    assert bos_id(bare) is None
    with pytest.raises(InputError, match="neither a BOS nor an end-of-text token"):
        encode(bare, ["a"], line_bos=True)
    assert encode(bare, ["a"], line_bos=False).tolist() == [0]


def test_special_tokens_spelled_out_in_a_text_are_counted(bpe: Any) -> None:
    assert special_tokens_in(bpe, LINES) == {"</s>": 20}
    assert special_tokens_in(bpe, ["</s></s> < s>", "<s"]) == {"</s>": 2}
    assert special_tokens_in(bpe, ["plain"]) == {}


# --- blocks -----------------------------------------------------------------------------------------------------------


@given(length=st.integers(3, 40), size=st.integers(2, 8))
def test_blocks_are_full_rows_in_order_and_the_remainder_is_dropped(length: int, size: int) -> None:
    stream = np.arange(length, dtype=np.int32)
    if length < size:
        return
    cut = blocks(stream, size, "training")
    rows = length // size
    assert cut.arrays["tokens"].shape == (rows, size)
    assert cut.arrays["tokens"].ravel().tolist() == list(range(rows * size))
    assert cut.arrays["lengths"].tolist() == [size] * rows
    assert cut.origin.tolist() == [0] * rows


def test_a_text_shorter_than_a_block_is_refused() -> None:
    with pytest.raises(InputError, match="the test text has 63 tokens, less than one block of 64"):
        blocks(np.arange(63, dtype=np.int32), 64, "test")
    assert len(blocks(np.arange(64, dtype=np.int32), 64, "test")) == 1


# --- OPT's own tokenizer ----------------------------------------------------------------------------------------------


def test_opts_tokenizer_gives_the_known_ids(opt: Any) -> None:
    assert len(opt) == 50265
    assert encode(opt, ["Hello world"], line_bos=True).tolist() == [2, 31414, 232]
    assert encode(opt, ["Hello world"], line_bos=False).tolist() == [31414, 232]
    assert (bos_id(opt), opt.eos_token_id, opt.pad_token_id, opt.unk_token_id) == (2, 2, 1, 3)


def test_opts_special_tokens_in_a_text_are_counted(opt: Any) -> None:
    assert special_tokens_in(opt, LINES) == {"</s>": 20, "<pad>": 20}
    assert special_tokens_in(opt, ["a <unk> <unk>", "<UNK>"]) == {"<unk>": 2}


def test_opts_tokenizer_reads_the_special_tokens_of_wikitext_as_text(opt: Any) -> None:
    rows = [" = Robert <unk> = \n", " a </s> b <pad>\n"]
    ids = encode(opt, rows, line_bos=False)
    assert not np.isin(ids, opt.all_special_ids).any()
    assert opt.decode(ids) == "".join(rows)


def test_opts_tokenizer_is_the_same_once_saved(opt: Any, tmp_path: Path) -> None:
    opt.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    rows = ["Hello world", " The cat's hat , 1999 – 2001 . \n", "<unk> </s>\n", "\n"]
    assert encode(again, rows, line_bos=True).tolist() == encode(opt, rows, line_bos=True).tolist()
    assert len(again) == len(opt)


# --- tokenizers that cannot be loaded ---------------------------------------------------------------------------------


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no tokenizer; name one with --set model\.tokenizer=FOLDER"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("damage", ["tokenizer.json", "vocab.json"])
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, saved: Path, damage: str) -> None:
    if damage == "tokenizer.json":
        (tmp_path / damage).write_text((saved / damage).read_text()[:200])
    else:
        (tmp_path / damage).write_text(json.dumps({"a": 0})[:-1])
        (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(InputError, match="the tokenizer cannot be loaded") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
