"""The grammar: short documents of several sentences, whose probabilities are known exactly.

A document is of one of three types. It begins with an opening sentence and goes on with sentences of a fixed order, each of which is
there with a probability of its own, if what it speaks of has been named. A sentence is one of several templates with slots. **A slot that
was filled before in the document is filled in the same way again; any other is drawn from its distribution given what was filled
before**, which is a fact where there is one. So each text that the grammar makes is made in one way only, and its probability is the
product of the choices.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from collapse_cli.data.world.things import HERSELF, HIMSELF, RELATIONS, Shares, Things, article

SLOT = re.compile(r"\{(?:(?P<article>[aA]):)?(?P<name>\w+)\}")
# by kind of sentence its templates and their probabilities. {a:breed} is a breed behind `a` or `an`; {Pronoun} is capital
TEMPLATES: Mapping[str, Mapping[str, float]] = {
    "dog": {
        "{dog} is {a:breed}.": 0.5,
        "{dog} is {a:breed} from {town}.": 0.25,
        "{dog} the {breed} lives in {town}.": 0.25,
    },
    "habit": {"{Time} it likes to {activity}.": 1.0},
    "owner": {"It belongs to {person}.": 0.6, "Its owner is {person}.": 0.4},
    "born": {
        "{person} was born in {birthplace} on {birthday}.": 0.5,
        "{person} was born in {birthplace}.": 0.3,
        "{person} was born on {birthday}.": 0.2,
    },
    "trade": {"{person} works as {a:trade}.": 0.5, "{Pronoun} is {a:trade}.": 0.5},
    "helper": {"The {helper} {self} feeds it.": 0.5, "The {helper} {self} walks it every day.": 0.5},
    "river": {"The river {river} flows through {town}.": 0.6, "{town} lies on the river {river}.": 0.4},
    "founded": {"{town} was founded in {founded}.": 1.0},
    "pet": {"{person} has {a:breed} called {dog}.": 0.5, "{Pronoun} keeps {a:breed} called {dog}.": 0.5},
    "show": {"The best dog there is {a:breed} called {dog}.": 1.0},
}
ANYWHERE = frozenset({"town", "birthplace"})  # either of them names a town


@dataclass(frozen=True)
class PlannedSentence:
    """A sentence that may follow: its kind, with which probability, and the slots one of which must have been filled."""

    kind: str
    probability: float
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class DocumentType:
    """A type of document: how frequent it is, how it opens, and what may follow in this order. No kind comes twice."""

    share: float
    openings: Mapping[str, float]
    steps: tuple[PlannedSentence, ...]


_DOG, _PERSON = frozenset({"dog"}), frozenset({"person"})
TYPES: Mapping[str, DocumentType] = {
    "dog": DocumentType(
        0.55,
        {"dog": 1.0},
        (
            PlannedSentence("habit", 0.3),
            PlannedSentence("owner", 0.8),
            PlannedSentence("born", 0.7, _PERSON),
            PlannedSentence("trade", 0.5, _PERSON),
            PlannedSentence("river", 0.35, ANYWHERE),
            PlannedSentence("founded", 0.35, ANYWHERE),
            PlannedSentence("helper", 0.6),
        ),
    ),
    "person": DocumentType(
        0.25,
        {"born": 1.0},
        (
            PlannedSentence("trade", 0.7),
            PlannedSentence("pet", 0.8),
            PlannedSentence("habit", 0.3, _DOG),
            PlannedSentence("river", 0.35, ANYWHERE),
            PlannedSentence("founded", 0.35, ANYWHERE),
            PlannedSentence("helper", 0.6, _DOG),
        ),
    ),
    "town": DocumentType(
        0.2,
        {"founded": 0.5, "river": 0.5},
        (
            PlannedSentence("founded", 0.6),
            PlannedSentence("river", 0.6),
            PlannedSentence("show", 0.9),
            PlannedSentence("habit", 0.3, _DOG),
            PlannedSentence("owner", 0.6, _DOG),
            PlannedSentence("born", 0.6, _PERSON),
            PlannedSentence("trade", 0.4, _PERSON),
            PlannedSentence("helper", 0.6, _DOG),
        ),
    ),
}


@dataclass(frozen=True)
class Slot:
    """A place of a template: what fills it, whether `a` or `an` stands before it, and whether either begins the sentence."""

    name: str
    article: bool = False
    capital: bool = False

    def written(self, value: str) -> str:
        """The slot as it stands in the text."""
        text = f"{article(value)} {value}" if self.article else value
        return text[0].upper() + text[1:] if self.capital else text


@dataclass(frozen=True)
class Template:
    """One way to say a kind of sentence: `parts` are literal text and slots in turn."""

    kind: str
    text: str
    probability: float

    @cached_property
    def parts(self) -> tuple[str | Slot, ...]:
        parts: list[str | Slot] = []
        at = 0
        for match in SLOT.finditer(self.text):
            parts += [self.text[at : match.start()]] if match.start() > at else []
            name, before = match["name"], match["article"]
            capital = before == "A" or name[0].isupper()
            parts.append(Slot(name.lower(), before is not None, capital))
            at = match.end()
        return (*parts, self.text[at:])

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(part for part in self.parts if isinstance(part, Slot))

    def written(self, values: Mapping[str, str]) -> str:
        """The sentence with its slots filled."""
        return "".join(part if isinstance(part, str) else part.written(values[part.name]) for part in self.parts)


BY_KIND: Mapping[str, tuple[Template, ...]] = {
    kind: tuple(Template(kind, text, probability) for text, probability in ways.items())
    for kind, ways in TEMPLATES.items()
}


@dataclass(frozen=True)
class Grammar:
    """Documents about things: drawn, and with their probabilities. Logarithms are natural."""

    things: Things

    # --- what fills a slot --------------------------------------------------------------------------------------------

    def choices(self, slot: str, filled: Mapping[str, str]) -> Shares:
        """The distribution of a slot, given what was filled before in the document (slot -> value)."""
        if slot in filled:
            return {filled[slot]: 1.0}
        if slot == "town" and "birthplace" in filled:
            return {filled["birthplace"]: 1.0}
        if slot == "pronoun":
            return {self.things.pronouns[filled["person"]]: 1.0}
        if slot == "self":
            usual, share = self.things.usual[filled["helper"]], self.things.association
            return {usual: share, (HIMSELF if usual == HERSELF else HERSELF): 1 - share}
        if slot in RELATIONS:
            return {self.things.facts[slot][filled[RELATIONS[slot]]]: 1.0}
        return self.things.shares[slot]

    def fill(self, template: Template, filled: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
        """All ways to fill a template: what is filled in the document then, and the probability."""
        order = sorted((slot.name for slot in template.slots), key=drawn_last)

        def go(at: int, so_far: dict[str, str], probability: float) -> Iterator[tuple[dict[str, str], float]]:
            if at == len(order):
                yield so_far, probability
                return
            for value, share in self.choices(order[at], so_far).items():
                if share > 0:
                    yield from go(at + 1, {**so_far, order[at]: value}, probability * share)

        yield from go(0, dict(filled), 1.0)

    # --- drawing ------------------------------------------------------------------------------------------------------

    def documents(self, count: int, stream: int) -> list[str]:
        """Documents of one stream of random numbers; fewer are the first of more."""
        draw = np.random.Generator(np.random.Philox(key=np.array([self.things.seed, stream + 1000], np.uint64)))
        return [self._document(draw) for _ in range(count)]

    def _document(self, draw: np.random.Generator) -> str:
        kind = TYPES[_pick(draw, {name: kind.share for name, kind in TYPES.items()})]
        opening = _pick(draw, kind.openings)
        filled: dict[str, str] = {}
        sentences, earlier = [self._sentence(draw, opening, filled)], {opening}
        for step in kind.steps:
            if possible(step, filled.keys(), earlier) and draw.random() < step.probability:
                sentences.append(self._sentence(draw, step.kind, filled))
                earlier.add(step.kind)
        return " ".join(sentences)

    def _sentence(self, draw: np.random.Generator, kind: str, filled: dict[str, str]) -> str:
        """A sentence; what it fills is put into `filled`."""
        ways = {template.text: template.probability for template in BY_KIND[kind]}
        text = _pick(draw, ways)
        template = next(candidate for candidate in BY_KIND[kind] if candidate.text == text)
        for name in sorted((slot.name for slot in template.slots), key=drawn_last):
            filled[name] = _pick(draw, self.choices(name, filled))
        return template.written(filled)

    # --- all documents, for tests and small worlds ---------------------------------------------------------------------

    def every_document(self) -> Iterator[tuple[str, float]]:
        """Each document with its probability. There are far too many of them but in a world of a few things."""

        def go(
            kind: DocumentType, at: int, text: str, filled: dict[str, str], earlier: frozenset[str], p: float
        ) -> Iterator[tuple[str, float]]:
            if at == len(kind.steps):
                yield text, p
                return
            step = kind.steps[at]
            if not possible(step, filled.keys(), earlier):
                yield from go(kind, at + 1, text, filled, earlier, p)
                return
            yield from go(kind, at + 1, text, filled, earlier, p * (1 - step.probability))
            for sentence, then, share in self._sentences(step.kind, filled):
                yield from go(
                    kind, at + 1, f"{text} {sentence}", then, earlier | {step.kind}, p * step.probability * share
                )

        for kind in TYPES.values():
            for opening, probability in kind.openings.items():
                for sentence, then, share in self._sentences(opening, {}):
                    yield from go(kind, 0, sentence, then, frozenset({opening}), kind.share * probability * share)

    def _sentences(self, kind: str, filled: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str], float]]:
        for template in BY_KIND[kind]:
            for then, share in self.fill(template, filled):
                yield template.written(then), then, template.probability * share


def possible(step: PlannedSentence, filled: Collection[str], earlier: Collection[str]) -> bool:
    """Whether a sentence may follow, by the slots that are filled and the kinds of the earlier sentences."""
    return step.kind not in earlier and (not step.needs or any(name in filled for name in step.needs))


def drawn_last(name: str) -> bool:
    """For sorting: a fact is drawn behind the thing that it is of, wherever the sentence has it."""
    return name in RELATIONS


def _pick(draw: np.random.Generator, shares: Shares) -> str:
    at = float(draw.random())
    for value, share in shares.items():
        at -= share
        if at < 0:
            return value
    return list(shares)[-1]  # rounding leaves a rest
