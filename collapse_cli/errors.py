"""What the user can mend, and a word for how many. Imports nothing."""


def how_many(number: int, what: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


class UserError(ValueError):
    """A sentence for the user: what happened, where, what to do. The command line prints it and ends with 2."""


class ConfigError(UserError):
    """What was asked for cannot be done."""


class InputError(UserError):
    """What the user gave cannot be used."""
