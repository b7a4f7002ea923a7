"""The exact probability of a text under the grammar."""

import math
from dataclasses import dataclass

from collapse_cli.data.world.grammar import TYPES, DocumentType, Grammar, drawn_last, possible
from collapse_cli.data.world.parser import Parser, Sentence

IMPOSSIBLE = -math.inf


@dataclass(frozen=True)
class Probability:
    """Of documents, under a grammar."""

    grammar: Grammar
    parser: Parser

    def log(self, text: str) -> float:
        """Ln of the probability that a document is this one and ends here; -inf where the grammar does not make it."""
        return self.log_of(self.parser.parse(text))

    def log_of(self, sentences: list[Sentence]) -> float:
        """The same of sentences that were parsed."""
        if not sentences or not all(sentence.accepted for sentence in sentences):
            return IMPOSSIBLE
        for kind in TYPES.values():
            if sentences[0].kind in kind.openings:  # no two types open alike
                return self._walk(kind, sentences)
        return IMPOSSIBLE

    def _walk(self, kind: DocumentType, sentences: list[Sentence]) -> float:
        opening, *rest = sentences
        filled: dict[str, str] = {}
        total = math.log(kind.share * kind.openings[opening.kind]) + self._sentence(opening, filled)
        earlier, at = {opening.kind}, 0
        for step in kind.steps:
            if total == IMPOSSIBLE:
                break
            if not possible(step, filled, earlier):
                continue
            if at < len(rest) and rest[at].kind == step.kind:
                total += math.log(step.probability) + self._sentence(rest[at], filled)
                earlier.add(step.kind)
                at += 1
            else:
                total += math.log(1 - step.probability)
        return total if at == len(rest) else IMPOSSIBLE

    def _sentence(self, sentence: Sentence, filled: dict[str, str]) -> float:
        """Of a sentence, given what is filled; what it fills is put into `filled`."""
        template, values = sentence.template, sentence.values
        assert template is not None
        assert values is not None
        total = math.log(template.probability)
        for name in sorted((slot.name for slot in template.slots), key=drawn_last):
            share = self.grammar.choices(name, filled).get(values[name], 0.0)
            if share == 0:
                return IMPOSSIBLE
            total += math.log(share)
            filled[name] = values[name]
        return total
