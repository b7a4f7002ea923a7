"""What every section of settings is: the tree of a configuration (`config.tree`, `config.experiment`) is made of them."""

import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Self, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationInfo, field_validator
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

from collapse_cli import files
from collapse_cli.errors import written

Settings = TypeVar("Settings", bound="Section")
LARGEST = 2**63  # whole numbers beyond do not fit what they are used for
UserPath = Annotated[str, AfterValidator(files.at_home)]  # it may be a path


class Parsed:
    """A value that is written as text in a configuration, and parsed when that is validated: the code has the value.

    Its kinds can be compared and hashed, and have `parse` and `__str__`, which undo each other.
    """

    @classmethod
    def parse(cls, text: str) -> Self:
        """The value that a text stands for.

        Raises:
            UserError: for a text that stands for none, with what may have been meant.
        """
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any, as_text: core_schema.ValidatorFunctionWrapHandler) -> "Parsed":
            return value if isinstance(value, cls) else cls.parse(as_text(value))

        return core_schema.no_info_wrap_validator_function(
            read,
            core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )


class Section(BaseModel):
    """A part of the tree. A value of another type is an error, not turned into one: `true` is no 1, "5" is no 5.

    A number with a point that is whole, such as 1e6, is a whole number, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_type(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        field = cls.model_fields[info.field_name]
        annotation: Any = field.annotation
        kinds = _kinds(annotation)
        for limit in field.metadata if isinstance(value, list | tuple) else ():  # before each of a million is read
            most = getattr(limit, "max_length", None)
            if most is not None and len(value) > most:
                long = {"field_type": "Tuple", "max_length": most, "actual_length": len(value)}
                raise PydanticKnownError("too_long", long)
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, str) and not files.is_utf8(item):
                odd = {"given": written(item), "advice": files.NOT_UTF8}
                raise PydanticCustomError("another_type", "is not UTF-8: {given}; {advice}", odd)
            if must := _wrong(item, kinds):
                raise PydanticCustomError(
                    "another_type", "must be {said}, it is {given}", {"said": must, "given": written(item)}
                )
        return value


ADDED = {"added": True}  # what marks an option that stages have had keys without


def added(default: Any, **rules: Any) -> Any:
    """An option that earlier versions did not have, in place of pydantic's `Field`.

    Its default must be its neutral value, with which everything is as it was before there was the option: `for_key` leaves
    it out then, so that what is in a store stays what the same command asks for.
    """
    return Field(default=default, json_schema_extra=dict(ADDED), **rules)


def neutral(kind: type[BaseModel]) -> dict[str, Any]:
    """The options of a section that were added later, each with its neutral value."""
    return dict(_with_added(kind)[0])


def for_key(section: BaseModel) -> dict[str, Any]:
    """A section as JSON, as the keys of stages have it: without the options that were added later and stand at their default.

    What reads such parameters reads them with `from_key`, which puts the defaults back.
    """
    return _without_neutral(section, section.model_dump(mode="json"))


def from_key(kind: type[Settings], params: Mapping[str, Any]) -> Settings:
    """The section that parameters of a stage were made from, by `for_key`.

    Options that were added later and are not among them stand at their default, the neutral value. Others that are not
    among them were left out because the stage does not depend on them: they cannot be read (AttributeError), for what a
    stage reads has to be in its key.
    """
    section, (added_later, _) = kind(**params), _with_added(kind)
    for name in kind.model_fields.keys() - params.keys() - added_later.keys():
        del section.__dict__[name]
    return section


def _without_neutral(section: BaseModel, dumped: dict[str, Any]) -> dict[str, Any]:
    options, sections = _with_added(type(section))
    for name, neutral in options.items():
        if getattr(section, name) == neutral:
            del dumped[name]
    for name in sections:
        _without_neutral(getattr(section, name), dumped[name])
    return dumped


@cache
def _with_added(kind: type[BaseModel]) -> tuple[dict[str, Any], list[str]]:
    """The added options of a section, each with its default, and the sections within it that have some."""
    options, sections = {}, []
    for name, option in kind.model_fields.items():
        inner = option.annotation
        if option.json_schema_extra == ADDED:
            options[name] = option.get_default()
        elif isinstance(inner, type) and issubclass(inner, BaseModel) and any(_with_added(inner)):
            sections.append(name)
    return options, sections


def _wrong(value: object, kinds: frozenset[type]) -> str:
    """What a value must be instead; empty for one that may be read as one of `kinds`, or that pydantic refuses itself."""
    if isinstance(value, bool):
        fits, other = bool in kinds, {int, float, str}
    elif isinstance(value, int | float):
        fits, other = bool(kinds & {int, float}), {bool, str}
        if fits and isinstance(value, int) and abs(value) >= LARGEST:
            return "a number below 2**63"
    elif isinstance(value, str):
        fits, other = str in kinds, {int, float, bool}
    else:
        return ""
    if fits or not kinds & other:
        return ""
    names = {bool: "true or false", float: "a number", int: "a whole number", str: "text"}
    return next(name for kind, name in names.items() if kind in kinds)


@cache
def _kinds(annotation: Any) -> frozenset[type]:
    """The plain types within an annotation: those of an item, for a list."""
    if annotation in (bool, int, float, str):
        return frozenset({annotation})
    if isinstance(annotation, type) and issubclass(annotation, Parsed):
        return frozenset({str})
    if get_origin(annotation) is dict:
        return frozenset()
    if str(get_origin(annotation)) == "typing.Literal":
        return frozenset(type(part) for part in get_args(annotation))
    inner = [
        _kinds(part) for part in get_args(annotation) if isinstance(part, type | types.UnionType) or get_origin(part)
    ]
    return frozenset().union(*inner) if inner else frozenset()
