"""What the user can mend, and how messages show numbers, values and what libraries say. Imports nothing of this package."""

from collections.abc import Sequence

LONGEST_VALUE = 60  # characters of a value in a message


def how_many(number: int, what: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def enumerated(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; at least one."""
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


def written(value: object) -> str:
    """A value as TOML writes it, in bounded length."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"a whole number of {value.bit_length() * 301 // 1000 + 1:,} digits"
    if isinstance(value, list | tuple):
        few = ", ".join(map(written, value[:6]))
        text = f"[{few}{', …' if len(value) > 6 else ''}]"
    else:
        text = repr(value[: 2 * LONGEST_VALUE]) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line of bounded length; the kind of error where it says nothing."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    heading = 1 + (len(lines) > 1 and lines[0].endswith(":"))  # a heading says nothing without what is below it
    message = " ".join(lines[:heading])
    sentence = isinstance(error, KeyError) and error.args and " " in str(error.args[0])
    if sentence:  # which Python puts in quotes
        message = str(error.args[0])
    elif isinstance(error, KeyError) or not message:  # which say a name, or nothing
        message = f"{type(error).__name__} {message}".strip()
    return message[:300]


class UserError(ValueError):
    """A sentence for the user: what happened, where, what to do. The command line prints it and ends with 2."""


class ConfigError(UserError):
    """What was asked for cannot be done."""


class InputError(UserError):
    """What the user gave cannot be used."""


class UnreachableError(InputError):
    """What is elsewhere does not answer, though it was asked several times."""
