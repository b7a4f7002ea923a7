"""What the grammar gives on average, in closed form: the entropy of a document, its words, and how often each thing is mentioned.

All that follows a choice depends on which slots are filled, hardly ever on what they hold: so the expectation is a sum over the ways that
sentences and templates can follow each other, of which there are hundreds, and not over documents.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np

from collapse_cli.data.world.grammar import BY_KIND, TYPES, Grammar, Template, drawn_last, possible
from collapse_cli.data.world.things import RELATIONS, Shares
from collapse_cli.data.world.words import words_of

Mention = tuple[str, str]  # a slot, and whose town it speaks of where that is not one drawn for itself: `birthplace`
Filled = frozenset[Mention]


@dataclass
class Expected:
    """Expectations over what is left of a document. Entropy in nats; `mentions` of slots, and `literal` words."""

    entropy: float = 0.0
    literal: float = 0.0
    mentions: Counter[Mention] = field(default_factory=Counter)

    def add(self, other: "Expected", share: float = 1.0) -> None:
        """What comes with a probability of `share`."""
        self.entropy += share * other.entropy
        self.literal += share * other.literal
        for mention, count in other.mentions.items():
            self.mentions[mention] += share * count  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)  # what is worked out once is kept for this object alone
class DocumentExpectations:
    """Of the documents of a grammar."""

    grammar: Grammar

    @cached_property
    def entropy(self) -> float:
        """-Σ p ln p over all documents, nats a document."""
        return self._document.entropy

    @cached_property
    def words(self) -> float:
        """Words of a document, punctuation marks counted as words, and one more for its end."""
        named = sum(
            count * _mean_words(self.distribution(mention)) for mention, count in self._document.mentions.items()
        )
        return self._document.literal + named + 1

    def mentioned(self, slot: str) -> dict[str, float]:
        """By value, how often a slot holds it in a document."""
        expected: Counter[str] = Counter()
        for mention, count in self._document.mentions.items():
            if mention[0] == slot:
                for value, share in self.distribution(mention).items():
                    expected[value] += count * share  # type: ignore[assignment]
        return dict(expected)

    def stated(self) -> dict[tuple[str, str], float]:
        """By relation and the thing that it is of, how often the fact is stated in a document."""
        expected: Counter[tuple[str, str]] = Counter()
        for mention, count in self._document.mentions.items():
            if mention[0] in RELATIONS:
                subject = (RELATIONS[mention[0]], mention[1])
                for value, share in self.distribution(subject).items():
                    expected[mention[0], value] += count * share  # type: ignore[assignment]
        return dict(expected)

    def distribution(self, mention: Mention) -> Shares:
        """Of the values of a slot, over all documents in which it is filled that way."""
        slot, via = mention
        if slot == "town" and via:
            return self._through("birthplace", self.grammar.things.shares["person"])
        if slot in RELATIONS:
            return self._through(slot, self.distribution((RELATIONS[slot], via)))
        if slot == "pronoun":
            return _moved(self.grammar.things.shares["person"], self.grammar.things.pronouns)
        if slot == "self":
            shares: Counter[str] = Counter()
            for helper, share in self.grammar.things.shares["helper"].items():
                for value, part in self.grammar.choices("self", {"helper": helper}).items():
                    shares[value] += share * part  # type: ignore[assignment]
            return shares
        return self.grammar.things.shares[slot]

    def _through(self, relation: str, subjects: Shares) -> Shares:
        return _moved(subjects, self.grammar.things.facts[relation])

    @cached_property
    def _document(self) -> Expected:
        total = Expected(entropy=_entropy([kind.share for kind in TYPES.values()]))
        for name, kind in TYPES.items():
            total.entropy += kind.share * _entropy(list(kind.openings.values()))
            for opening, share in kind.openings.items():
                total.add(self._sentence(opening, frozenset(), name, 0, frozenset({opening})), kind.share * share)
        return total

    @cache  # noqa: B019 - as long-lived as the grammar, of which there are few
    def _rest(self, name: str, at: int, filled: Filled, earlier: frozenset[str]) -> Expected:
        """From step `at` of a type of document to its end."""
        steps = TYPES[name].steps
        if at == len(steps):
            return Expected()
        step = steps[at]
        if not possible(step, {slot for slot, _ in filled}, earlier):
            return self._rest(name, at + 1, filled, earlier)
        total = Expected(entropy=_entropy([step.probability, 1 - step.probability]))
        total.add(self._rest(name, at + 1, filled, earlier), 1 - step.probability)
        total.add(self._sentence(step.kind, filled, name, at + 1, earlier | {step.kind}), step.probability)
        return total

    def _sentence(self, kind: str, filled: Filled, name: str, at: int, earlier: frozenset[str]) -> Expected:
        """A sentence and all that follows it."""
        total = Expected(entropy=_entropy([template.probability for template in BY_KIND[kind]]))
        for template in BY_KIND[kind]:
            here, then = self._filled(template, filled)
            here.add(self._rest(name, at, then, earlier))
            total.add(here, template.probability)
        return total

    def _filled(self, template: Template, filled: Filled) -> tuple[Expected, Filled]:
        """The sentence alone, and what is filled behind it."""
        literal = sum(len(words_of(part)) for part in template.parts if isinstance(part, str))
        here = Expected(literal=literal + sum(slot.article for slot in template.slots))
        known = dict(filled)
        for slot in sorted((slot.name for slot in template.slots), key=drawn_last):
            if slot not in known:
                if slot == "town" and "birthplace" in known:
                    known[slot] = "birthplace"
                else:
                    known[slot] = known.get(RELATIONS.get(slot, ""), "")
                    here.entropy += self._entropy_of(slot)
            here.mentions[slot, known[slot]] += 1
        return here, frozenset(known.items())

    def _entropy_of(self, slot: str) -> float:
        """Of a slot that is filled for the first time, given what was filled before."""
        if slot in RELATIONS or slot == "pronoun":
            return 0.0
        if slot == "self":
            return _entropy([self.grammar.things.association, 1 - self.grammar.things.association])
        return _entropy(list(self.grammar.things.shares[slot].values()))


def _moved(shares: Shares, to: Mapping[str, str]) -> Shares:
    """The distribution of `to[value]`."""
    moved: Counter[str] = Counter()
    for value, share in shares.items():
        moved[to[value]] += share  # type: ignore[assignment]
    return moved


def _mean_words(shares: Shares) -> float:
    return sum(share * len(words_of(value)) for value, share in shares.items())


def _entropy(shares: list[float]) -> float:
    some = np.array([share for share in shares if share > 0])
    return float(-(some * np.log(some)).sum()) + 0.0
