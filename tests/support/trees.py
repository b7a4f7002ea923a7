"""Configurations in tests."""

from collections.abc import Mapping
from typing import Any


def put(tree: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's tree with options set by their dotted names, written `data__blobs__dimensions`."""
    for name, value in more.items():
        *sections, key = name.split("__")
        here = tree
        for section in sections:
            here = here.setdefault(section, {})
        here[key] = value
    return tree
