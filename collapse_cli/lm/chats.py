"""Dialogues as tokens: rendered by a chat template, and which of the tokens the assistant says.

A template is jinja, run in transformers' sandbox. Which parts of what it writes are its own is found out with stand-ins for the
contents (`Skeleton`); only these parts make special tokens, so that `<|im_end|>` in a message is text and ends nothing. A row is
tokenized as transformers tokenizes the whole of it, but where a token would reach over the border between prompt and answer: there the prompt
is what a model is given that is to answer.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from collapse_cli.data.dialogues import ASSISTANT, USER, Dialogue, Turn
from collapse_cli.errors import InputError, first_line
from collapse_cli.lm import template_trial
from collapse_cli.lm.coding import plain_ids
from collapse_cli.lm.text import bos_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OWN, CHATML, PLAIN, JOINED = "tokenizer", "chatml", "plain", "none"  # values of data.template
CHATML_MARKS = ("<|im_start|>", "<|im_end|>")
BUILT_IN = {
    CHATML: "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    PLAIN: "{{ begin }}{% for message in messages %}{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ end }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    JOINED: "{{ begin }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if not add_generation_prompt %}{{ end }}{% endif %}",
}
SAID = {
    OWN: "rendered by the tokenizer's chat template",
    CHATML: "rendered as ChatML (data.template = chatml)",
    PLAIN: "rendered as `User: …` and `Assistant: …` lines (data.template = plain)",
    JOINED: "prompt and completion joined, by a line end where neither has white space there (data.template = none)",
}
# templates that write the day would make other rows each day: it is the one that Llama's fall back to
DAY = "26 Jul 2024"
NO_CLOCK = "{%- macro strftime_now(format) -%}" + DAY + "{%- endmacro -%}"
WIDE = "\u2003"  # white space that no template writes, beside a stand-in: shows whether it strips contents
STAND_IN = re.compile("(\u2003?)\ue000(\\d+)\ue001(\u2003?)")


_ASKED = (Turn(USER, "What is the sea?"), Turn(ASSISTANT, "Salt water."))
_TRIALS = (  # small dialogues that a template is tried with, and whether a model is to answer next
    (_ASKED, False),
    (_ASKED[:1], True),
    ((Turn("system", "Be brief."), *_ASKED, *_ASKED), False),
)
_tried: set[str] = set()  # templates that came through


class RefusedError(Exception):
    """Why a template cannot render a dialogue, in words that follow "rows"."""


@dataclass(frozen=True)
class Skeleton:
    """What a template writes around the contents of turns with these roles.

    Attributes:
        parts: one more than turns; what stands before, between and behind their contents.
        order: of the turns, as their contents follow each other.
        strips: by place in the order, whether white space at the beginning and at the end of the content is taken off.
        leads: by place, of answers how many characters of the part before belong to the answer: white space behind what a model is given.
    """

    parts: tuple[str, ...]
    order: tuple[int, ...]
    strips: tuple[tuple[bool, bool], ...]
    leads: tuple[int, ...]

    def fill(self, turns: Sequence[Turn]) -> "Filled":
        """The dialogue as the template writes it."""
        text, marks = [self.parts[0]], [0]
        spans: list[tuple[int, int]] = []
        at = len(self.parts[0])
        for place, turn in enumerate(self.order):
            content = turns[turn].content
            first, last = self.strips[place]
            content = content.lstrip() if first else content
            content = content.rstrip() if last else content
            if turns[turn].role == ASSISTANT:
                spans.append((at - self.leads[place], at + len(content)))
            text += [content, self.parts[place + 1]]
            at += len(content)
            marks.append(at)
            at += len(self.parts[place + 1])
        return Filled("".join(text), tuple(zip(marks, self.parts, strict=True)), tuple(spans))


@dataclass(frozen=True)
class Filled:
    """A dialogue as a template writes it.

    Attributes:
        text: all of it.
        parts: what of it is the template's own: where each part begins, and the part.
        answers: from where to where the assistant speaks, in characters, without what ends a turn.
    """

    text: str
    parts: tuple[tuple[int, str], ...]
    answers: tuple[tuple[int, int], ...]

    @property
    def said(self) -> list[str]:
        """What each answer says."""
        return [self.text[first:last] for first, last in self.answers]


@dataclass(frozen=True)
class Coded:
    """A dialogue as tokens.

    Attributes:
        ids: token ids; the last ends the last answer.
        answers: (first, behind the last) of each answer's tokens, with what ends it, in order.
        said: what each of them says.
    """

    ids: list[int]
    answers: list[tuple[int, int]]
    said: list[str]


class ChatTemplate:
    """A way to write dialogues, for one tokenizer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
        """`name`: as `template_for` gives it.

        Raises:
            InputError: when the tokenizer lacks what the template needs.
        """
        self.tokenizer, self.name = tokenizer, name
        if name == OWN:
            try:
                self.source = tokenizer.get_chat_template()
            except ValueError:
                raise InputError(f"data.template = {OWN}: {no_template()}") from None
        else:
            self.source = BUILT_IN[name]
        if name == CHATML and (missing := [mark for mark in CHATML_MARKS if mark not in tokenizer.get_added_vocab()]):
            raise InputError(
                f"data.template = {CHATML} needs the token {missing[0]}, which the tokenizer does not have; say --set data.template={PLAIN}"
            )
        begin, end = bos_id(tokenizer), tokenizer.eos_token_id
        if name in (PLAIN, JOINED) and (begin is None or end is None):
            raise InputError(
                f"data.template = {name} ends answers with the end-of-text token, and the tokenizer has none; give another tokenizer"
            )
        self._words = {"begin": tokenizer.convert_ids_to_tokens(begin), "end": tokenizer.eos_token}
        if name == OWN and self.source not in _tried:
            if trouble := template_trial.trouble([partial(self._made, *how) for how in _TRIALS]):
                raise InputError(
                    f"the tokenizer's chat template {trouble}; say --set data.template={PLAIN}, or give another tokenizer"
                )
            _tried.add(self.source)
        self._skeletons: dict[tuple[str, ...], Skeleton | RefusedError] = {}
        self._tails: dict[tuple[str, str], list[int]] = {}

    @property
    def has_clock(self) -> bool:
        """Whether it asks for the day."""
        return "strftime_now" in self.source

    @cached_property
    def _controls(self) -> dict[str, int]:
        """Tokens that the template makes of its text, by their spelling: special ones, and others that were added and stand in it."""
        added = self.tokenizer.added_tokens_decoder
        return {token.content: index for index, token in added.items() if token.special or token.content in self.source}

    @cached_property
    def _spelled(self) -> re.Pattern[str]:
        longest_first = sorted(self._controls, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @cached_property
    def _special(self) -> set[int]:
        """Ids of special tokens, one of which ends a turn."""
        return {index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    @cached_property
    def end(self) -> int:
        """The token that ends what the assistant says; the end-of-text token where the template writes none.

        Raises:
            InputError: when there is neither.
        """
        turns = (Turn(USER, "a"), Turn(ASSISTANT, "b"))
        try:
            skeleton = self._skeleton((USER, ASSISTANT))
        except RefusedError as why:
            raise InputError(f"the chat template cannot write a question and its answer: {why}") from None
        filled = skeleton.fill(turns)
        found = self._end_behind(filled.text, filled.answers[-1][1])
        if found is not None:
            return found[0]
        if self.tokenizer.eos_token_id is None:
            raise InputError(
                "the chat template writes no special token behind what the assistant says, and the tokenizer has no end-of-text token; "
                f"say --set data.template={PLAIN} with a tokenizer that has one"
            )
        return int(self.tokenizer.eos_token_id)

    @property
    def ends_turns(self) -> bool:
        """Whether the template itself writes what ends a turn."""
        filled = self._skeleton((USER, ASSISTANT)).fill((Turn(USER, "a"), Turn(ASSISTANT, "b")))
        return self._end_behind(filled.text, filled.answers[-1][1]) is not None

    def used(self) -> set[int]:
        """The ids of the template's own tokens in a question and its answer."""
        filled = self._skeleton((USER, ASSISTANT)).fill((Turn(USER, "a"), Turn(ASSISTANT, "b")))
        return {self.end, *(self._controls[match.group()] for match in self._spelled.finditer(filled.text))}

    def _end_behind(self, text: str, at: int) -> tuple[int, int] | None:
        """The special token that follows a place, but for white space, and where it ends."""
        match = self._spelled.search(text, at)
        if match is None or text[at : match.start()].strip() or self._controls[match.group()] not in self._special:
            return None
        return self._controls[match.group()], match.end()

    # --- rendering ----------------------------------------------------------------------------------------------------

    def _made(self, turns: Sequence[Turn], prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                [{"role": turn.role, "content": turn.content} for turn in turns],
                chat_template=(NO_CLOCK if self.has_clock else "") + self.source,
                tokenize=False,
                add_generation_prompt=prompt,
                date_string=DAY,
                **self._words,
            )
        )

    def _render(self, turns: Sequence[Turn], *, prompt: bool = False) -> str:
        try:
            return self._made(turns, prompt)
        except Exception as error:  # jinja's own, what a template raises, and whatever its operations do
            raise RefusedError(f"that the chat template refuses ({first_line(error)[:80]})") from None

    def _skeleton(self, roles: tuple[str, ...]) -> Skeleton:
        if roles not in self._skeletons:
            try:
                self._skeletons[roles] = self._found(roles)
            except RefusedError as why:
                self._skeletons[roles] = why
        found = self._skeletons[roles]
        if isinstance(found, RefusedError):
            raise found
        return found

    def _found(self, roles: tuple[str, ...]) -> Skeleton:
        """With a stand-in for each content."""
        turns = [Turn(role, f"{WIDE}\ue000{number}\ue001{WIDE}") for number, role in enumerate(roles)]
        whole = self._render(turns)
        found = list(STAND_IN.finditer(whole))
        if sorted(int(match[2]) for match in found) != list(range(len(roles))):
            raise RefusedError("of which the chat template leaves out a turn, or writes one twice")
        edges = [0, *(edge for match in found for edge in match.span()), len(whole)]
        parts = tuple(whole[first:last] for first, last in zip(edges[::2], edges[1::2], strict=True))
        strips = tuple((not match[1], not match[3]) for match in found)
        order = tuple(int(match[2]) for match in found)
        leads = [0] * len(order)
        for place, turn in enumerate(order):
            if roles[turn] == ASSISTANT and turn:
                leads[place] = self._lead(turns[:turn], whole, found[place].start())
        return Skeleton(parts, order, strips, tuple(leads))

    def _lead(self, before: Sequence[Turn], whole: str, at: int) -> int:
        """How much white space stands between what a model is given that is to answer, and the answer."""
        try:
            given = self._render(before, prompt=True)
        except RefusedError:
            return 0
        between = whole[len(given) : at]
        return len(between) if whole.startswith(given) and not between.strip() else 0

    def written(self, dialogue: Dialogue) -> Filled:
        """The dialogue as the template writes it, up to what ends the last answer.

        Raises:
            RefusedError: when the template does not write it, or does something else with its contents.
        """
        turns = dialogue.turns
        if self.name == JOINED:
            turns = _joined(turns)
        filled = self._skeleton(tuple(turn.role for turn in turns)).fill(turns)
        if filled.text != self._render(turns):
            raise RefusedError("whose contents the chat template changes")
        return filled

    # --- tokens -------------------------------------------------------------------------------------------------------

    def coded(self, written: Sequence[Filled]) -> Iterator[Coded]:
        """Each of them as tokens."""
        ordinary = [self._own_only(each) for each in written]
        texts = [each.text for each, plain in zip(written, ordinary, strict=True) if plain]
        made = iter(self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else [])
        for each, plain in zip(written, ordinary, strict=True):
            yield self._cut(each, next(made)) if plain else self._in_stretches(each)

    def reply(self, dialogue: Dialogue, prompt: Sequence[int]) -> tuple[list[int], list[int]]:
        """The tokens before the last answer, and those of the answer with what ends it, whoever wrote that.

        Args:
            prompt: what stands before it where the template does not write this answer, or changes it, as many do that know of thoughts: the
                answer then follows as it is.
        """
        try:
            (made,) = self.coded([self.written(dialogue)])
        except RefusedError:
            return list(prompt), [*self._plain(dialogue.turns[-1].content), self.end]
        first, last = made.answers[-1]
        return made.ids[:first], made.ids[first:last]

    def _marks(self, filled: Filled) -> list[tuple[int, int, int]]:
        """The special tokens that the template wrote: from where to where, and which."""
        return [
            (at + match.start(), at + match.end(), self._controls[match.group()])
            for at, part in filled.parts
            for match in self._spelled.finditer(part)
        ]

    def _own_only(self, filled: Filled) -> bool:
        """Whether nothing else in the text is spelled as one, and one ends each answer."""
        return all(self._end_behind(filled.text, last) for _, last in filled.answers) and [
            match.span() for match in self._spelled.finditer(filled.text)
        ] == [(first, last) for first, last, _ in self._marks(filled)]

    def _cut(self, filled: Filled, ids: list[int]) -> Coded:
        """Where answers begin and end, in the tokens of the whole."""
        marks = self._marks(filled)
        places = [place for place, index in enumerate(ids) if index in self._control_ids]
        if len(places) != len(marks) or [ids[place] for place in places] != [index for *_, index in marks]:
            return self._in_stretches(filled)  # the tokenizer reads special tokens in a way of its own
        made: list[int] = []
        answers: list[tuple[int, int]] = []
        done = 0  # of the ids
        for first, _ in filled.answers:
            before = sum(end <= first for _, end, _ in marks)  # of the marks; the next one ends the answer
            start = places[before - 1] + 1 if before else 0
            tail = self._tail(filled.text, marks, before, first)
            stop = places[before]
            made += ids[done:start]
            if ids[start : start + len(tail)] == tail:
                begin = len(made) + len(tail)
                made += ids[start:stop]
            else:
                made += tail
                begin = len(made)
                made += self._plain(filled.text[first : marks[before][0]])
            made.append(ids[stop])
            done = stop + 1
            answers.append((begin, len(made)))
        return Coded(made, answers, filled.said)

    @cached_property
    def _control_ids(self) -> set[int]:
        return set(self._controls.values())

    def _tail(self, text: str, marks: Sequence[tuple[int, int, int]], before: int, first: int) -> list[int]:
        """The tokens between the special token that stands before an answer, and the answer."""
        mark = text[slice(*marks[before - 1][:2])] if before else ""
        tail = text[marks[before - 1][1] if before else 0 : first]
        if not tail:
            return []
        if (mark, tail) not in self._tails:
            if len(self._tails) > 1000:  # of templates without special tokens they are as long as what is said
                self._tails.clear()
            ids = self.tokenizer(mark + tail, add_special_tokens=False, verbose=False)["input_ids"]
            self._tails[mark, tail] = ids[1:] if mark else ids
        return self._tails[mark, tail]

    def _in_stretches(self, filled: Filled) -> Coded:
        """Each stretch of text between the template's special tokens apart, so that nothing in it becomes one."""
        made: list[int] = []
        answers: list[tuple[int, int]] = []
        at = 0

        def up_to(place: int) -> None:
            nonlocal at
            for begin, end, index in [mark for mark in self._marks(filled) if at <= mark[0] and mark[1] <= place]:
                made.extend([*self._plain(filled.text[at:begin]), index])
                at = end
            made.extend(self._plain(filled.text[at:place]))
            at = place

        for first, last in filled.answers:
            up_to(first)
            start = len(made)
            end = self._end_behind(filled.text, last)
            up_to(last if end is None else end[1])
            if end is None and (first, last) == filled.answers[-1]:
                made.append(self.end)
            answers.append((start, len(made)))
        return Coded(made, answers, filled.said)

    def _plain(self, text: str) -> list[int]:
        """The tokens of a text, none of them the template's.

        Those that are not special are found in any text: where they are spelled, the text is cut behind their first sign.
        """
        pieces, at = [], 0
        for match in self._spelled.finditer(text):
            if self._controls[match.group()] not in self._special:
                pieces.append(text[at : match.start() + 1])
                at = match.start() + 1
        pieces = [piece for piece in (*pieces, text[at:]) if piece]
        return [index for ids in plain_ids(self.tokenizer, pieces) for index in ids] if pieces else []


def _joined(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """A prompt and its completion with a line end between them where neither has white space there."""
    prompt, completion = turns[0].content, turns[1].content
    if prompt and not prompt[-1].isspace() and not completion[:1].isspace():
        prompt += "\n"
    return Turn(turns[0].role, prompt), turns[1]


def no_template() -> str:
    return (
        f"the tokenizer has no chat template; say --set data.template={PLAIN} (lines `User: …` and `Assistant: …`), or {CHATML} where it has "
        "<|im_start|> and <|im_end|>"
    )


def template_for(tokenizer: "PreTrainedTokenizerBase | None", asked: str, *, pairs: bool) -> str:
    """The name of a template: that which is asked for; with `auto` the tokenizer's own, or what suits one that has none.

    Args:
        tokenizer: None for one that is made from the text, which has none of its own.
        pairs: whether rows are pairs rather than chats.

    Raises:
        InputError: when there is none.
    """
    if asked == JOINED and not pairs:
        raise InputError(
            f"data.template = {JOINED} joins a prompt and a completion, and rows are chats: say {PLAIN}, or leave it out"
        )
    if asked in (OWN, CHATML) and tokenizer is None:
        raise InputError(
            f"data.template = {asked}: the tokenizer is made from the text, so it has neither a template nor tokens for one; say {PLAIN}"
        )
    if asked != "auto":
        return asked
    if tokenizer is not None and tokenizer.chat_template:
        return OWN
    if pairs:
        return JOINED
    if tokenizer is None:
        return PLAIN
    raise InputError(no_template())


def hash_of(tokenizer: "PreTrainedTokenizerBase | None", name: str) -> str:
    """Hash of a template: what rows depend on besides the tokenizer's other files.

    Raises:
        InputError: as `ChatTemplate` does.
    """
    source = BUILT_IN[name] if tokenizer is None else ChatTemplate(tokenizer, name).source
    return hashlib.sha256(source.encode()).hexdigest()


def as_text(dialogue: Dialogue, name: str) -> str:
    """A dialogue as plain text under a template of ours, without special tokens: what a tokenizer is made from."""
    if name == JOINED:
        return "".join(turn.content for turn in _joined(dialogue.turns)) + "\n"
    return "".join(f"{turn.role.capitalize()}: {turn.content}\n" for turn in dialogue.turns)
