"""Words as tokens: a bijection where all words are listed, `<unk>` where not; saved and loaded like any tokenizer."""

from pathlib import Path
from typing import Any

import pytest

from collapse_cli.data import zipf
from collapse_cli.errors import InputError
from collapse_cli.lm.text import END, encode, frequent_words, load_tokenizer, special_tokens_in, word_tokenizer

LINES = ["the cat saw the  dog\n", "\n", "a dog\tsaw the\u00a0cat </s> <unk>\n"]


@pytest.fixture(params=["made", "loaded"])
def language(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The tokenizer of a language of 40 words, as it was made and as it comes back from its folder."""
    made = word_tokenizer(zipf.words(40))
    if request.param == "made":
        return made
    made.save_pretrained(tmp_path)
    return load_tokenizer(tmp_path)


def test_a_word_of_the_language_is_the_token_of_its_index(language: Any) -> None:
    words = zipf.words(40)
    assert len(language) == 41
    for index, word in enumerate(words):
        assert encode(language, [word], line_bos=False).tolist() == [index]
        assert language.decode([index]) == word
    assert (language.bos_token_id, language.eos_token_id) == (40, 40)
    assert language.all_special_tokens == [END]
    assert (language.unk_token_id, language.pad_token_id) == (None, None)


def test_lines_leave_no_trace_and_text_comes_back(language: Any) -> None:
    splits = zipf.text(zipf.Language(vocabulary=40).facts() | {"train_tokens": 100, "test_tokens": 20})
    ids = encode(language, splits["train"], line_bos=False)
    assert ids.tolist() == zipf.Language(vocabulary=40).sample(100, 0).tolist()
    assert language.decode(ids.tolist()) == " ".join("".join(splits["train"]).split())


def test_the_most_frequent_words_are_kept_and_others_unknown(tmp_path: Path) -> None:
    words = frequent_words(LINES, 6)
    assert words == ["<unk>", "the", "cat", "dog", "saw"]
    word_tokenizer(words).save_pretrained(tmp_path)
    for tokenizer in (word_tokenizer(words), load_tokenizer(tmp_path)):
        assert len(tokenizer) == 6
        assert encode(tokenizer, LINES, line_bos=False).tolist() == [1, 2, 4, 1, 3, 0, 3, 4, 1, 2, 0, 0]
        assert tokenizer.decode([1, 0, 3]) == "the <unk> dog"
        assert tokenizer.decode([0], skip_special_tokens=True) == "<unk>", "an unknown word is a word"
        assert tokenizer.all_special_tokens == [END]
    assert special_tokens_in(word_tokenizer(words), LINES) == {END: 1}


def test_a_text_of_few_words_gives_a_short_list() -> None:
    assert len(word_tokenizer(frequent_words(LINES, 500))) == 7
    assert frequent_words(list(reversed(LINES)), 500) == frequent_words(LINES, 500)


def test_no_text_holds_a_special_token() -> None:
    known = word_tokenizer(["<unk>", "a"])
    assert encode(known, ["a </s> a"], line_bos=False).tolist() == [1, 0, 1]


def test_words_that_a_language_does_not_have_are_refused(language: Any) -> None:
    for text in ("w3 w41 w4", "w3 </s>"):
        with pytest.raises(InputError, match="the tokenizer cannot read the text"):
            encode(language, [text], line_bos=False)
