"""A closed form as a new family's description would name it."""

from collections.abc import Mapping
from typing import Any


def halves(tree: Mapping[str, Any], what: str, policy: str, generation: int) -> float | None:
    """A measure that halves in every generation under one policy; nothing is known of others."""
    return 0.5**generation if (what, policy) == ("size", "keep-0") else None
