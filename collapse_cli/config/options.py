"""Every option of the configuration: its key, type, default and meaning, for `collapse options`."""

import difflib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from collapse_cli.config.experiment import Experiment
from collapse_cli.config.families import Families
from collapse_cli.config.unread import READS, within
from collapse_cli.families.section import Parsed, Section

PLAIN = {bool: "true or false", int: "whole number", float: "number", str: "text"}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        key: dotted, as for `--set`.
        type: in words, with its limits.
        default: as TOML writes it.
        learners: those that read it; empty: all.
    """

    key: str
    type: str
    default: str
    meaning: str
    learners: tuple[str, ...]


def options() -> list[Option]:
    """All options, section by section."""
    listed = [_option(key, field) for key, field in _fields(Experiment, "")]
    return sorted(
        listed, key=lambda option: option.key.partition(".")[0] in Families.model_fields
    )  # those of all runs first


def matching(word: str) -> list[Option]:
    """The options of a section, else those whose key holds a word, else those whose meaning does; none where none does."""
    word, known = word.strip().lower(), options()
    inside = [option for option in known if within(option.key, (word,))]
    named = inside or [option for option in known if word in option.key]
    return named or [option for option in known if word in option.meaning.lower()]


def near(word: str) -> list[str]:
    """Keys, or last parts of them, that are spelt nearly like a word; three at most."""
    keys = [option.key for option in options()]
    last: Mapping[str, str] = {key.rpartition(".")[2]: key for key in keys}
    names = difflib.get_close_matches(word[:64], [*keys, *last], n=3, cutoff=0.6)
    return list(dict.fromkeys(last.get(name, name) for name in names))


def _fields(section: type[BaseModel], prefix: str) -> list[tuple[str, FieldInfo]]:
    plain: list[tuple[str, FieldInfo]] = []
    inner: list[tuple[str, FieldInfo]] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            inner += _fields(kind, f"{prefix}{name}.")
        else:
            plain.append((prefix + name, field))
    return plain + inner


def _option(key: str, field: FieldInfo) -> Option:
    learners = tuple(name for name, keys in READS.items() if within(key, keys))
    everywhere = not learners or key.startswith(("data.", "loop."))
    return Option(
        key,
        _type(field.annotation, _limits(field)),
        _toml(field.get_default(call_default_factory=True, validated_data={})),
        " ".join((field.description or "").replace("`", "").split()),
        () if everywhere else learners,
    )


def _type(kind: Any, limits: str) -> str:
    if kind in PLAIN:
        return PLAIN[kind] + (f" {limits}" if limits else "")
    if isinstance(kind, type) and issubclass(kind, Parsed):
        return PLAIN[str]
    origin, inner = get_origin(kind), get_args(kind)
    if str(origin) == "typing.Literal":
        words = [str(one) or '""' for one in inner]
        return ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else words[0]
    if origin is tuple:
        if isinstance(inner[0], type) and issubclass(inner[0], BaseModel):
            return "list of tables"
        if len(inner) == 2 and inner[1] is not Ellipsis:
            return f"{len(inner)} {_type(inner[0], '')}s"
        return f"list of: {_type(getattr(inner[0], '__origin__', inner[0]), '')}"
    if isinstance(kind, types.UnionType):
        return _type(next(part for part in inner if part is not type(None)), limits)
    return "table"


def _limits(field: FieldInfo) -> str:
    limits = [
        f"{sign} {_number(getattr(limit, name))}"
        for limit in field.metadata
        for name, sign in SIGNS.items()
        if getattr(limit, name, None) is not None
    ]
    return ", ".join(limits)


def _number(limit: float) -> str:
    return "2**63" if limit == 2**63 else f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Parsed):
        return f'"{value}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return "{}" if isinstance(value, Mapping) else "" if value is None else f"{value}"
