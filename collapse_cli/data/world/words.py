"""Text and words: a word is a run of letters and digits; a punctuation mark is a word of its own."""

import re

WORD = re.compile(r"\w+|[^\w\s]")
SENTENCE = re.compile(r"[^.]*\.|[^.]+$")


def words_of(text: str) -> list[str]:
    """The words of a text, marks among them."""
    return WORD.findall(text)


def plain(text: str) -> str:
    """A text with single blanks, and none before a full stop or a comma: whatever a tokenizer makes of these."""
    return re.sub(r" ([.,])", r"\1", " ".join(text.split()))


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with its full stop; the last one may lack it."""
    return [sentence for match in SENTENCE.findall(plain(text)) if (sentence := match.strip())]
