"""Rows that are prompts and answers: chats, and pairs of two columns.

Where a source holds them, each of its rows is a `Dialogue`: a text that also knows its turns. What cannot be one is `Unfit`, and
is passed over and counted; what is written wrongly is the user's error.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collapse_cli.errors import InputError

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES = {  # of OpenAI's messages, and of ShareGPT's conversations
    "system": SYSTEM,
    "developer": SYSTEM,
    "user": USER,
    "human": USER,
    "prompter": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bing": ASSISTANT,
    "model": ASSISTANT,
}
TOOL_ROLES = {"tool", "function", "function_call", "function_response", "observation", "ipython"}
CALLS = ("tool_calls", "function_call", "tool_call_id")  # fields of a message that is one, or answers one
UNUSED: dict[
    str, object
] = {  # fields of the assistant's messages that nothing is made of here, and what says no more than none
    **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), ""),
    **dict.fromkeys(("weight", "train", "training", "train_on_turn", "trainable", "loss", "loss_mask"), 1),
    **dict.fromkeys(("mask", "masked"), 0),
}
SURROGATE = re.compile("[\\ud800-\\udfff]")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one says: `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


class Dialogue(str):
    """Turns, of which the last is the assistant's. As a text it is what all say, one behind the other, each ending in a newline.

    Attributes:
        turns: in their order.
        pair: whether it is a prompt and a completion of two columns, rather than a chat.
        late: how many turns stood behind the assistant's last one, and were left out.
        unused: fields of its messages that say more, and of which nothing is made.
    """

    __slots__ = ("late", "pair", "turns", "unused")
    turns: tuple[Turn, ...]
    pair: bool
    late: int
    unused: frozenset[str]

    def __new__(
        cls, turns: Sequence[Turn], *, pair: bool = False, late: int = 0, unused: frozenset[str] = frozenset()
    ) -> "Dialogue":
        made = super().__new__(cls, _joined(turns))
        made.turns, made.pair, made.late, made.unused = tuple(turns), pair, late, unused
        return made

    @property
    def prompt(self) -> str:
        """What is said before the answer."""
        return _joined(self.turns[:-1])

    @property
    def answer(self) -> str:
        """What the assistant says last."""
        return _joined(self.turns[-1:])


def _joined(turns: Sequence[Turn]) -> str:
    return "".join(turn.content if turn.content.endswith("\n") else turn.content + "\n" for turn in turns)


def as_bytes(row: str) -> bytes:
    """A row as its hash is made of: no two dialogues are written alike, and no text as a dialogue is, but for one that begins with a byte of 1."""
    if not isinstance(row, Dialogue):
        return row.encode("utf-8", "surrogatepass")
    return b"\1" + json.dumps([row.pair, *([turn.role, turn.content] for turn in row.turns)]).encode()


def answers(rows: Sequence[str]) -> list[str]:
    """What is to be measured of rows: the last answers of dialogues, and plain text as it is."""
    return [row.answer if isinstance(row, Dialogue) else row for row in rows]


class Unfit(Exception):  # noqa: N818  (no error: the row is passed over)
    """Why a row is no dialogue that can be read, in words that follow "rows"."""


def from_pair(prompt: Any, completion: Any, where: str, more: Any = None) -> Dialogue:
    """A prompt and its completion; both may be lists of messages, as TRL has them.

    Args:
        more: an input that belongs to the prompt, as Alpaca has it; None or blank where there is none.

    Raises:
        Unfit: when one of them is missing.
        InputError: for what is no text.
    """
    if isinstance(prompt, list) and isinstance(completion, list):
        return from_messages([*prompt, *completion], where)
    if prompt is None:
        raise Unfit("without a prompt (null)")
    asked = _text(prompt, where, "the prompt")
    if more is not None and (further := _text(more, where, "the input")).strip():
        asked = f"{asked}\n\n{further}"
    said = "" if completion is None else _text(completion, where, "the completion")
    if not said.strip():
        raise Unfit("whose completion is empty")
    return Dialogue([Turn(USER, asked), Turn(ASSISTANT, said)], pair=True)


def from_messages(value: Any, where: str) -> Dialogue:
    """A list of messages (`role` and `content`, or ShareGPT's `from` and `value`).

    Raises:
        Unfit: for what has no answer of an assistant, or more in it than text.
        InputError: for what is no list of messages.
    """
    if isinstance(value, str) and value.lstrip()[:1] == "[":  # as a cell of csv
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InputError(f"{where}: the messages are no JSON; write them as a list of objects") from None
    if value is None or value == []:
        raise Unfit("without a message")
    if not isinstance(value, list):
        raise InputError(f'{where}: the messages are no list of objects such as {{"role": "user", "content": "hi"}}')
    turns = [_turn(item, f"{where}, message {number}") for number, item in enumerate(value, 1)]
    last = max((number for number, turn in enumerate(turns) if turn.role == ASSISTANT), default=-1)
    if last < 0:
        raise Unfit("without a turn of the assistant")
    if any(not turn.content.strip() for turn in turns[: last + 1] if turn.role == ASSISTANT):
        raise Unfit("with an empty turn of the assistant")
    said = [item for item, turn in zip(value, turns[: last + 1], strict=False) if turn.role == ASSISTANT]
    unused = {name for item in said for name in UNUSED.keys() & item.keys() if item[name] not in (None, UNUSED[name])}
    return Dialogue(turns[: last + 1], late=len(turns) - last - 1, unused=frozenset(unused))


def _turn(item: Any, where: str) -> Turn:
    if not isinstance(item, Mapping):
        raise InputError(f'{where}: this is no object such as {{"role": "user", "content": "hi"}}')
    # a table gives all messages the columns of all, and leaves null where one had none
    both = [names for names in (("role", "content"), ("from", "value")) if names[0] in item]
    names = next((names for names in both if item[names[0]] is not None), both[0] if both else None)
    if names is None:
        there = ", ".join(str(name)[:40] for name in list(item)[:12]) or "nothing"
        raise InputError(f"{where}: it says neither role and content nor from and value (there: {there})")
    said, content = item[names[0]], item.get(names[1])
    role = said.strip().lower() if isinstance(said, str) else said
    if not isinstance(role, str) or not role:
        raise InputError(f"{where}: the role is no word such as user or assistant")
    if role in TOOL_ROLES or any(item.get(name) for name in CALLS):
        raise Unfit("with calls of tools, or their answers")
    if role not in ROLES:
        raise Unfit(f"with roles that are not known ({role[:20]!r})")
    return Turn(ROLES[role], _content(content, where))


def _content(content: Any, where: str) -> str:
    """The text of a message, which may be a list of parts."""
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [part if isinstance(part, Mapping) else {} for part in content]
        if not all(part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts):
            raise Unfit("with images, sounds or the like in their contents")
        content = "".join(part["text"] for part in parts)
    return _text(content, where, "the content")


def _text(value: Any, where: str, what: str) -> str:
    if not isinstance(value, str):
        kind = {bool: "true or false", list: "a list", dict: "an object"}.get(type(value), "a number")
        raise InputError(f"{where}: {what} is {kind}, not text; write it as a string")
    if not value.isascii() and SURROGATE.search(value):
        raise InputError(
            f"{where}: {what} holds half a character (such as \\ud83d without its other half), which is no text; the file was "
            "cut or escaped wrongly"
        )
    return value
