"""What the user can mend. Imports nothing."""


class InputError(ValueError):
    """What the user gave cannot be used: what, where, what to do, in one line."""
