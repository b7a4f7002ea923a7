"""What a run can be called; in a folder of runs, and where runs are elsewhere."""

import re

STORE = "store"  # what stands beside the runs
RULE_OF_NAMES = f"a run's name is at most 100 letters, digits, '.', '_' and '-', starts with a letter or digit, and is not {STORE!r}"


def can_be_named(name: str) -> bool:
    """Whether a run can have that name: `RULE_OF_NAMES`."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None and name.lower() != STORE
