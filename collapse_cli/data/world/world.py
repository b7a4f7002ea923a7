"""All that is known of the world, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from collapse_cli.data.world.expectation import DocumentExpectations
from collapse_cli.data.world.grammar import BY_KIND, Grammar
from collapse_cli.data.world.parser import PRONOUNS, Parser, Sentence
from collapse_cli.data.world.probability import Probability
from collapse_cli.data.world.things import OPTIONS as OPTIONS
from collapse_cli.data.world.things import Things
from collapse_cli.data.world.words import words_of

SHORTEST = 7  # words of the shortest document, `Rex is a pug.`, with its mark and the tokens that begin and end it


@dataclass(frozen=True)
class World:
    """Things, the documents about them, and all that is known of both."""

    things: Things

    @cached_property
    def grammar(self) -> Grammar:
        return Grammar(self.things)

    @cached_property
    def expectation(self) -> DocumentExpectations:
        return DocumentExpectations(self.grammar)

    @cached_property
    def parser(self) -> Parser:
        return Parser(self.things)

    @cached_property
    def probability(self) -> Probability:
        return Probability(self.grammar, self.parser)

    def parse(self, text: str) -> list[Sentence]:
        """What a text states, sentence by sentence, and whether that is right. Any text will do."""
        return self.parser.parse(text)

    def log_probability(self, text: str) -> float:
        """Ln of the probability of a whole document; -inf for one that the grammar does not make."""
        return self.probability.log(text)

    def count(self, text: str) -> int:
        """The words of a document, with marks and its end for words."""
        return len(words_of(text)) + 1

    @property
    def entropy_rate(self) -> float:
        """The lowest mean loss that any model can have: nats a word, with marks and the end of a document for words."""
        return self.expectation.entropy / self.expectation.words

    @cached_property
    def words(self) -> list[str]:
        """All words of all documents, each once, in an order that the options alone decide."""
        words: dict[str, None] = {}

        def take(text: str) -> None:
            words.update(dict.fromkeys(words_of(text)))

        for template in (template for templates in BY_KIND.values() for template in templates):
            for part in template.parts:
                if isinstance(part, str):
                    take(part)
                elif part.article:
                    for value in self._values(part.name):
                        take(part.written(value).split(" ")[0])
        for slot in ("pronoun", "self", *self.things.shares, *self.things.facts):
            for value in self._values(slot):
                take(value)
                if slot in ("pronoun", "time"):  # which begin sentences
                    take(value[0].upper() + value[1:])
        return list(words)

    def _values(self, slot: str) -> list[str]:
        if slot in PRONOUNS:
            return list(PRONOUNS[slot])
        if slot in self.things.facts:
            return list(self.things.facts[slot].values())
        return list(self.things.shares[slot])

    def facts(self) -> dict[str, Any]:
        """What `world` makes the same one of, and its entropy rate; can be written as JSON."""
        return {**self.things.made_from(), "entropy_rate": self.entropy_rate, "words": self.expectation.words}


@lru_cache(maxsize=8)
def _made(*values: Any) -> World:
    return World(Things(*values))


def world(options: Mapping[str, Any]) -> World:
    """The world that is made of options, or of `facts` (more keys do no harm)."""
    return _made(*(options[name] for name in OPTIONS))


def text(options: Mapping[str, Any]) -> dict[str, list[str]]:
    """The splits of the real text, a document a row; each split is drawn by itself.

    Args:
        options: of the world, and `train_documents` and `test_documents` (there are as many for validation).
    """
    grammar, test = world(options).grammar, options["test_documents"]
    counts = {"train": options["train_documents"], "valid": test, "test": test}
    return {
        split: [document + "\n" for document in grammar.documents(count, stream)]
        for stream, (split, count) in enumerate(counts.items())
    }
