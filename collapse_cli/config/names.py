"""Names of a configuration in messages: dotted keys, near names."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

TOO_LONG = 64  # characters of a name beyond which nothing is near it


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys of a tree with their values; tables are not leaves, but an empty one is."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def nearest(name: str, known: Iterable[str], option: str = "") -> str:
    """` (did you mean 'keep-10'?)` where something known is near, else nothing; `option` is what goes before it."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6) if len(name) <= TOO_LONG else []
    meant = f"{option} {near[0]}" if near and option else repr(near[0]) if near else ""
    return f" (did you mean {meant}?)" if near else ""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the leaves of `over` in place of its own."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def different(base: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """What `tree` has otherwise than `base`: merged into that, it gives `tree`, where no table lost an entry."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        old = base.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            if inner := different(old, value):
                found[key] = inner
        elif key not in base or old != value:
            found[key] = value
    return found
