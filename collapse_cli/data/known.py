"""Sources of text whose truth is known: what text they make, of which words, and what is known of it.

Two there are: `zipf`, a language of which the probability of each next word is known, and `world`, documents of which what they state is
known as well. What a model is measured by against the truth is in `learners.truths`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.data import zipf
from collapse_cli.data.world import world

Options = Mapping[str, Any]  # the section of the configuration that has the source's name


@dataclass(frozen=True)
class Source:
    """A source.

    Attributes:
        options: those of its section that decide what is true; the others say how much text is drawn.
        text: by split, its rows.
        words: all words, in the order of their ids where a word is a token.
        facts: what the truth is made from again, and what is known of it; can be written as JSON.
        log_probability: of a whole document, ln of its true probability; None where rows of text are no documents.
        marks: whether punctuation marks are words of their own.
    """

    options: tuple[str, ...]
    text: Callable[[Options], Mapping[str, Sequence[str]]]
    words: Callable[[Options], list[str]]
    facts: Callable[[Options], dict[str, Any]]
    log_probability: Callable[[Options], Callable[[str], float]] | None = None
    marks: bool = False

    @property
    def documents(self) -> bool:
        """Whether each row of text is a whole document, and so is a row of tokens; else the text is one stream."""
        return self.log_probability is not None


KNOWN: Mapping[str, Source] = {
    "zipf": Source(
        zipf.NAMES,
        zipf.text,
        lambda options: zipf.words(options["vocabulary"]),
        lambda options: zipf.from_facts(options).facts(),
    ),
    "world": Source(
        world.OPTIONS,
        world.text,
        lambda options: world.world(options).words,
        lambda options: world.world(options).facts(),
        lambda options: world.world(options).log_probability,
        marks=True,
    ),
}
