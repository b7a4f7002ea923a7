"""What rows with columns are: texts, chats or pairs, found by the names of their columns or named by the user."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from collapse_cli.data.dialogues import Dialogue, from_messages, from_pair
from collapse_cli.errors import InputError

Kind = Literal["text", "chat", "pairs"]
TEXT = "text"  # the column that holds the text, where nobody says another
CHATS = ("messages", "conversations", "conversation")
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
)
INPUTS = {"instruction": "input"}  # by the column of a prompt, one that belongs to it where it is there
BESIDE = (  # columns that say more of a chat or a pair than is read
    *("system", "system_prompt", "tools", "functions", "history", "input", "context"),
    *("reasoning", "reasoning_content", "thinking", "images"),
)  # fmt: skip
WORDS = {"text": "texts", "chat": "chats", "pairs": "pairs of prompt and completion"}
SAY = {"chat": "--set data.format=chat", "pairs": "--set data.format=pairs", "text": "--set data.format=text"}


@dataclass(frozen=True)
class WantedForm:
    """What the user says of rows with columns, as in the section `data`: `format`, and the names of columns, or ""."""

    form: str = "auto"
    text: str = TEXT
    prompt: str = ""
    completion: str = ""


@dataclass(frozen=True)
class Form:
    """What rows are, and which columns they are made of.

    Attributes:
        columns: of texts and chats one; of pairs prompt and completion, and a third one that belongs to the prompt where there is one.
        others: what else they could be read as, in words; "" where nothing.
    """

    kind: Kind
    columns: tuple[str, ...]
    others: str = ""

    def __str__(self) -> str:
        what = "the column" if len(self.columns) == 1 else "the columns"
        return f"{WORDS[self.kind]} ({what} {', '.join(map(shown, self.columns))})"

    def beside(self, names: Sequence[str]) -> list[str]:
        """Those of these columns of which nothing is made, though they say more of a chat or a pair."""
        return [] if self.kind == "text" else [name for name in BESIDE if name in names and name not in self.columns]

    def dialogue(self, cells: Sequence[object], where: str) -> Dialogue:
        """The row of chats or pairs whose cells these are. Errors as those of `from_messages` and `from_pair`."""
        if self.kind == "chat":
            return from_messages(cells[0], f"{where}: {self.columns[0]}")
        prompt, completion, *more = cells
        return from_pair(prompt, completion, where, *more)


def form_of(names: Sequence[str], asked: WantedForm, where: str) -> Form:
    """What rows with these columns are.

    Raises:
        InputError: when they can be read in several ways, or not in the one that is asked for.
    """
    if asked.form == "text":
        return Form("text", (asked.text,))
    if asked.prompt or asked.completion or asked.form == "pairs":
        return _pairs(names, asked, where)
    if asked.form == "chat":
        return _chats(names, asked, where)
    if asked.text != TEXT:
        return Form("chat" if asked.text in CHATS else "text", (asked.text,))
    found = [Form("chat", (name,)) for name in CHATS if name in names] + [
        _with_input(pair, names) for pair in PAIRS if set(pair) <= set(names)
    ]
    if TEXT in names:
        return Form("text", (TEXT,), " or ".join(map(str, found)))
    if len(found) > 1:
        ways = " or as ".join(map(str, found))
        advice = (
            f"{SAY['chat']} or pairs"
            if len({form.kind for form in found}) > 1
            else "--set data.prompt=… data.completion=…"
        )
        if {form.kind for form in found} == {"chat"}:
            advice = "--set data.format=chat data.text=…"
        raise InputError(f"{where}: rows can be read as {ways}; say {advice}")
    return found[0] if found else Form("text", (TEXT,))  # which is not there, and is missed where it is read


def _with_input(pair: tuple[str, str], names: Sequence[str]) -> Form:
    more = INPUTS.get(pair[0], "")
    return Form("pairs", (*pair, more) if more in names else pair)


def _pairs(names: Sequence[str], asked: WantedForm, where: str) -> Form:
    if asked.prompt and asked.completion:
        wanted = asked.prompt, asked.completion
        if missing := [name for name in wanted if name not in names]:
            raise InputError(
                f"{where} has no column {missing[0]!r} (there: {listed(names)}); say --set data.prompt=… data.completion=…"
            )
        return Form("pairs", wanted)
    found = [
        pair
        for pair in PAIRS
        if set(pair) <= set(names) and asked.prompt in ("", pair[0]) and asked.completion in ("", pair[1])
    ]
    if len(found) != 1:
        why = "several pairs of columns" if found else "no pair of columns that is known as prompt and completion"
        raise InputError(f"{where} has {why} (there: {listed(names)}); say --set data.prompt=… data.completion=…")
    return _with_input(found[0], names)


def _chats(names: Sequence[str], asked: WantedForm, where: str) -> Form:
    if asked.text != TEXT:
        if asked.text not in names:
            raise InputError(
                f"{where} has no column {asked.text!r} (there: {listed(names)}); say --set data.text=COLUMN"
            )
        return Form("chat", (asked.text,))
    found = [name for name in CHATS if name in names]
    if len(found) != 1:
        why = "several columns of chats" if found else "no column of chats"
        raise InputError(f"{where} has {why} (there: {listed(names)}); say --set data.text=COLUMN")
    return Form("chat", (found[0],))


def listed(names: Sequence[str]) -> str:
    """The names of columns, for people."""
    more = len(names) - 12
    return (", ".join(shown(str(name)) for name in names[:12]) or "none") + (f" and {more} more" if more > 0 else "")


def shown(name: str) -> str:
    """A column's name as it is; in quotes where blanks or signs would hide what it is."""
    return name[:40] if re.fullmatch(r"\S+( \S+)*", name) and "," not in name else repr(name[:40])
