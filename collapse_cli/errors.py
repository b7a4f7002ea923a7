"""What the user can mend, and a word for how many. Imports nothing."""


def how_many(number: int, what: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


class InputError(ValueError):
    """What the user gave cannot be used: what, where, what to do, in one line."""
