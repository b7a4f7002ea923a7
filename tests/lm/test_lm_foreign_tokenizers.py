"""Tokenizers that others made: text becomes the ids that tokenizer.json says, and no special token is read from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from collapse_cli.config.tree import DataConfig, ModelConfig
from collapse_cli.learners import Hints, silent, text_inputs
from collapse_cli.lm.coding import AS_WRITTEN
from collapse_cli.lm.text import encode, load_tokenizer, read_tokenizer, text_range

LINES = ["The old river of 2023 sees 650841823 a Bright Ｇarden\n", "it's café 12x  and  3.14 near\n"] * 30
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
THREE_DIGITS = pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated")


def bpe(before: Any = BYTES, decoder: Any = None, normalizer: Any = None) -> Tokenizer:
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = before, decoder or decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet() if decoder is None else []
    made.train_from_iterator(
        LINES,
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False, initial_alphabet=alphabet),
    )
    return made


def written(folder: Path, tokenizer: Tokenizer, kind: str, names: dict[str, str] = NAMES) -> Path:
    """A folder of a tokenizer that calls itself one of transformers' classes."""
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "tokenizer_class": kind}))
    return folder


def by_file(folder: Path, rows: list[str]) -> list[int]:
    """What the tokenizers library itself makes of rows."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return [index for row in rows for index in tokenizer.encode(row, add_special_tokens=False).ids]


METASPACE = (pre_tokenizers.Metaspace(), decoders.Metaspace())


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "Qwen2Tokenizer", "GemmaTokenizer", "LlamaTokenizer"])
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(bpe, id="bytes"),
        pytest.param(lambda: bpe(pre_tokenizers.Sequence([THREE_DIGITS, BYTES])), id="digits"),
        pytest.param(lambda: bpe(normalizer=normalizers.NFKC()), id="NFKC"),
        pytest.param(lambda: bpe(*METASPACE), id="metaspace"),
    ],
)
def test_text_is_read_as_tokenizer_json_says_and_not_as_a_class_does(tmp_path: Path, kind: str, how: Any) -> None:
    folder = written(tmp_path / "given", how(), kind)
    tokenizer = load_tokenizer(folder)
    assert encode(tokenizer, LINES, line_bos=False).tolist() == by_file(folder, LINES)
    tokenizer.save_pretrained(tmp_path / "kept")
    again = load_tokenizer(tmp_path / "kept")
    assert encode(again, LINES, line_bos=False).tolist() == by_file(folder, LINES)
    assert again.decode(by_file(folder, LINES)) == tokenizer.decode(by_file(folder, LINES))


def test_a_tokenizer_that_was_read_otherwise_has_a_key_of_its_own_and_is_said(tmp_path: Path) -> None:
    """Rows of before, in a store, must not be taken for those of now; of all other tokenizers they still are."""
    (tmp_path / "text.txt").write_text("".join(LINES) * 3)

    def data_stage(name: str, normalizer: Any) -> tuple[str, str, list[str]]:
        folder = written(tmp_path / name, bpe(normalizer=normalizer), "GPT2Tokenizer")
        found = text_inputs.find_tokenizer(ModelConfig(tokenizer=str(folder)), DataConfig(), None)
        hints = Hints(tokenizer=found.folder, text={"source": str(tmp_path / "text.txt")})
        data = {"sha256": "", "block_size": 8, "line_bos": False, "rows": 0, "eval_rows": 0, "eval_block_size": 8}
        settings = text_inputs.TextSettings({"data": data, "tokenizer": {"sha256": found.model.tokenizer_sha256}})
        facts = text_inputs.encode(tmp_path / f"{name}-rows", settings, hints, silent)
        plain = text_inputs.folders.hash_files(folder, text_inputs.folders.TOKENIZER_FILES)
        return found.model.tokenizer_sha256, plain, facts["notes"]

    found, plain, notes = data_stage("same", None)
    assert (found, AS_WRITTEN in notes) == (plain, False)
    found, plain, notes = data_stage("other", normalizers.Lowercase())
    assert (found != plain, AS_WRITTEN in notes) == (True, True)


def test_opts_tokenizer_is_read_as_ever(shared_data: Path) -> None:
    assert read_tokenizer(shared_data / "opt-tokenizer")[1] is False


SPELLED = ["the <s> cat and </s> ends\n", "</s>\n", "<pad>\n"]


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = METASPACE
    signs = ["".join(sorted({*"".join(SPELLED)} - {"\n"}))]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    made.train_from_iterator([*LINES, *signs], trainer)
    return made


def word_list() -> Tokenizer:
    made = Tokenizer(models.WordLevel({**{word: i for i, word in enumerate(SPECIAL)}, "the": 4, "cat": 5}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def word_pieces() -> Tokenizer:
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, "<", "##/", "##s", ">", "##pad", "the", "cat"])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


@pytest.mark.parametrize("how", [unigram, word_list, word_pieces])
def test_no_special_token_is_found_in_text_by_a_model_that_holds_it(tmp_path: Path, how: Any) -> None:
    tokenizer = load_tokenizer(written(tmp_path, how(), "PreTrainedTokenizerFast"))
    ids = encode(tokenizer, SPELLED, line_bos=False)
    special = [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL[1:]]
    assert not np.isin(ids, special).any()
    assert ids.max() < text_range(tokenizer)
    said = tokenizer.convert_ids_to_tokens(ids.tolist())
    if how is word_list:  # a word that is not listed is one unknown word
        assert said == ["the", "<unk>", "cat", *["<unk>"] * 5]
    else:
        assert "".join(said).replace("##", "").replace("▁", "").startswith("the<s>cat")


def test_with_line_bos_only_the_lines_own_bos_is_special(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(written(tmp_path, unigram(), "PreTrainedTokenizerFast"))
    ids = encode(tokenizer, SPELLED, line_bos=True)
    assert (ids == tokenizer.bos_token_id).sum() == len(SPELLED)
    assert not np.isin(ids, [tokenizer.eos_token_id, tokenizer.pad_token_id]).any()
