"""What a stage's parameters say of a learner's work, as the typed sections that they were made from."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar, overload

from pydantic import TypeAdapter

from collapse_cli.families.section import Section, from_key

Kind = TypeVar("Kind")


class Settings:
    """Parameters of a stage as its learner reads them. A subclass names the parts: `train = Part(TrainConfig)`.

    A part is read when it is first asked for, once. What the parameters do not hold cannot be read: it is in no key.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params

    @property
    def whole(self) -> Mapping[str, Any]:
        """The parameters as they are."""
        return self._params

    def __contains__(self, part: str) -> bool:
        return part in self._params


class Part(Generic[Kind]):
    """A part of the parameters, by the name of the attribute that it is: a section, a dataclass, or a plain value."""

    def __init__(self, kind: type[Kind]) -> None:
        self._kind: Any = kind

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, settings: None, owner: type) -> "Part[Kind]": ...
    @overload
    def __get__(self, settings: Settings, owner: type) -> Kind: ...

    def __get__(self, settings: Settings | None, owner: type) -> Any:
        if settings is None:
            return self
        if self._name not in settings:
            raise AttributeError(
                f"the key of this stage has no {self._name!r} in it, so its work must not depend on it"
            )
        given, kind = settings._params[self._name], self._kind
        value = from_key(kind, given) if issubclass(kind, Section) else TypeAdapter(kind).validate_python(given)
        settings.__dict__[self._name] = value
        return value
