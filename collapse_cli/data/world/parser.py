"""The parser: text in, parsed statements out. It reads any text, and says of each sentence what it states and whether that is right."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from collapse_cli.data.world.grammar import BY_KIND, Slot, Template
from collapse_cli.data.world.things import HE, HERSELF, HIMSELF, RELATIONS, SHE, Things, article, is_date, is_year
from collapse_cli.data.world.words import sentences

FILLING = r"(\S+(?: \S+){0,3})"  # a name is four words long at most
SAME = {"birthplace": "town", "trade": "helper"}  # slots that hold the same kinds of things as another
PRONOUNS = {"pronoun": (HE, SHE), "self": (HIMSELF, HERSELF)}


@dataclass(frozen=True)
class Claim:
    """A fact that is stated: that `value` is the `relation` of `subject`, as in ("birthplace", "Anna Archer", "Ashford")."""

    relation: str
    subject: str
    value: str
    true: bool


@dataclass(frozen=True)
class Sentence:
    """A sentence as it was read.

    Attributes:
        text: as it stands, blanks made even.
        template: whose form it has; None where it has that of none, and nothing more is known of it.
        values: what fills the slots of the template.
        unknown: slots whose filling there is not: no such breed, town, date …; or the article before it is wrong (`article`).
        claims: the facts that it states of things that there are.
    """

    text: str
    template: Template | None = None
    values: Mapping[str, str] | None = None
    unknown: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the grammar has such a sentence, be it true or not."""
        return self.template is not None and not self.unknown

    @property
    def kind(self) -> str:
        """The kind of its template; empty where it has none."""
        return self.template.kind if self.template else ""


@dataclass(frozen=True)
class Parser:
    """Reads text about things."""

    things: Things

    def parse(self, text: str) -> list[Sentence]:
        """The sentences of a document, read one after another: `he` and `she` are the person named last."""
        parsed, person = [], ""
        for raw in sentences(text):
            sentence = self._read(raw)
            values = sentence.values or {}
            person = values.get("person", person)
            parsed.append(replace(sentence, claims=self._claims(sentence, person)) if sentence.template else sentence)
        return parsed

    def exists(self, slot: str, value: str) -> bool:
        """Whether there is such a thing as a slot wants."""
        if slot == "birthday":
            return is_date(value)
        if slot == "founded":
            return is_year(value)
        if slot in PRONOUNS:
            return value in PRONOUNS[slot]
        return value in self.things.shares[SAME.get(slot, slot)]

    def _claims(self, sentence: Sentence, person: str) -> tuple[Claim, ...]:
        values = {"person": person, **(sentence.values or {})}
        claims = []
        for relation, subject in RELATIONS.items():
            if relation in values and values.get(subject) in self.things.facts[relation]:
                true = self.things.facts[relation][values[subject]] == values[relation]
                claims.append(Claim(relation, values[subject], values[relation], true))
        return tuple(claims)

    @cached_property
    def _read(self) -> Callable[[str], Sentence]:
        """As `_match`; what was read lately is kept, for many sentences come again."""
        return lru_cache(maxsize=1 << 16)(self._match)

    def _match(self, text: str) -> Sentence:
        """One sentence without what stands before it. Of several templates that of which most is known, then the longest."""
        matches = [sentence for form in FORMS if (sentence := self._try(*form, text)) is not None]
        if not matches:
            return Sentence(text)
        return min(matches, key=lambda match: (len(match.unknown), -len(match.template.text if match.template else "")))

    def _try(self, template: Template, form: re.Pattern[str], text: str) -> Sentence | None:
        match = form.fullmatch(text)
        if match is None:
            return None
        values: dict[str, str] = {}
        unknown = []
        for slot in template.slots:
            value = match[slot.name]
            if slot.capital and not slot.article:
                value = value[0].lower() + value[1:]
            values[slot.name] = value
            if not self.exists(slot.name, value):
                unknown.append(slot.name)
            elif slot.article and match[f"before_{slot.name}"].lower() != article(value):
                unknown.append("article")
        return Sentence(text, template, values, tuple(unknown))


def _form(template: Template) -> re.Pattern[str]:
    """What a sentence of a template looks like, whatever fills its slots."""

    def part(piece: str | Slot) -> str:
        if isinstance(piece, str):
            return re.escape(piece)
        before = f"(?P<before_{piece.name}>{'An?' if piece.capital else 'an?'}) " if piece.article else ""
        filling = "(He|She)" if piece.name == "pronoun" else FILLING
        return before + filling.replace("(", f"(?P<{piece.name}>", 1)

    return re.compile("".join(map(part, template.parts)))


FORMS = tuple((template, _form(template)) for templates in BY_KIND.values() for template in templates)
