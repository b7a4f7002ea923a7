"""Options that several commands share: fields of a dataclass, which such a command takes whole."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any


def fields_as_options(function: Callable[..., None], first: Sequence[str] = (), **defaults: Any) -> Callable[..., None]:
    """A function for typer: each parameter that is a dataclass is replaced by its fields, in its place, an option each.

    Args:
        first: names of options that stand before all others, in that order.
        defaults: of options, where they are others than the dataclass has.
    """
    groups: dict[str, Any] = {}
    options: list[inspect.Parameter] = []
    for own in inspect.signature(function).parameters.values():
        if not is_dataclass(own.annotation):
            options.append(own)
            continue
        groups[own.name] = own.annotation
        options += [
            own.replace(name=field.name, annotation=field.type, default=defaults.get(field.name, field.default))
            for field in fields(own.annotation)
        ]
    options.sort(key=lambda option: rank(option.name, first))

    def asked(**given: Any) -> None:
        whole = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        function(**whole, **given)

    asked.__name__, asked.__doc__ = function.__name__, function.__doc__
    by_name = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    asked.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]
    asked.__annotations__ = {option.name: option.annotation for option in by_name}
    return asked


def rank(name: str, first: Sequence[str]) -> int:
    """By which names are sorted so that those of `first` stand first, and the others as they were."""
    return first.index(name) if name in first else len(first)
