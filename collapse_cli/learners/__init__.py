"""Model families behind one protocol (`protocol.py`), found by name and imported when asked for."""

import importlib
from collections.abc import Mapping
from typing import Any, cast

from collapse_cli.errors import InputError
from collapse_cli.families import FAMILIES
from collapse_cli.learners.family import Family
from collapse_cli.learners.protocol import (
    ALL,
    Comparable,
    Divisible,
    Facts,
    Fewer,
    Hints,
    Learner,
    Mixing,
    Outcome,
    Resolved,
    Sizable,
    Tell,
    Verb,
    silent,
)

__all__ = [
    "ALL",
    "Comparable",
    "Divisible",
    "Facts",
    "Family",
    "Fewer",
    "Hints",
    "Learner",
    "Mixing",
    "Outcome",
    "Resolved",
    "Sizable",
    "Tell",
    "Verb",
    "create",
    "family_class",
    "learner_class",
    "mixing",
    "silent",
    "sizable_class",
]
LEARNERS = {name: family.learner for name, family in FAMILIES.items()}


def learner_class(name: str) -> type[Learner]:
    """The class of a learner.

    Raises:
        InputError: for an unknown name.
    """
    if name not in LEARNERS:
        raise InputError(f"there is no learner {name!r}; known: {', '.join(LEARNERS)}")
    module, _, attribute = LEARNERS[name].partition(":")
    # which class it is, is known when it is asked for; tests/learners/test_protocol.py shows mypy all of them
    return cast(type[Learner], getattr(importlib.import_module(module), attribute))


def create(name: str, params: Mapping[str, Any], hints: Hints, tell: Tell) -> Learner:
    """A learner ready to work; its model is made or loaded when first needed."""
    return learner_class(name)(params, hints, tell)


def family_class(name: str) -> type[Family]:
    """The class of a learner whose model is a few arrays: all but the language model."""
    learner = learner_class(name)
    assert issubclass(learner, Family), f"the model of {name} is no few arrays"
    return learner


def sizable_class(name: str) -> type[Sizable]:
    """The class of a learner whose cells of a mixture are stages (`Grid.in_memory` is false)."""
    return cast(type[Sizable], learner_class(name))


def mixing(name: str, params: Mapping[str, Any], hints: Hints, tell: Tell) -> Mixing:
    """A learner that does cells of a mixture in memory (`Grid.in_memory`), ready to work."""
    return cast(Mixing, create(name, params, hints, tell))
