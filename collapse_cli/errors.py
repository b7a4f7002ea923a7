"""What the user can mend, and how messages show numbers and values. Imports nothing."""

LONGEST_VALUE = 60  # characters of a value in a message


def how_many(number: int, what: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


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


class UserError(ValueError):
    """A sentence for the user: what happened, where, what to do. The command line prints it and ends with 2."""


class ConfigError(UserError):
    """What was asked for cannot be done."""


class InputError(UserError):
    """What the user gave cannot be used."""
