"""Kinds of stages for tests: some that do nothing, and other bodies for the real ones."""

from collections.abc import Callable
from typing import Any

import pytest

from collapse_cli.engine.stage import Body, Cost, Product, StageKind
from collapse_cli.experiment.kinds import KINDS


def kind(word: str, version: int = 1, body: Body = lambda stage, inputs, place: {}) -> StageKind[Any]:
    """A kind of stage of that word; it costs nothing, and by default does nothing."""
    return StageKind[Any](
        name=word,
        kind=word,
        version=version,
        product=Product.ROWS,
        body=body,
        cost=lambda stage, size: Cost(),
        label=lambda stage, place: str(place),
    )


def change_bodies(word: str, change: Callable[[Any], Any], patch: pytest.MonkeyPatch | None = None) -> None:
    """Give all kinds of stages with that word in their keys ("any": all) the body that `change` makes of their own."""
    for stage_kind in KINDS:
        if word in (stage_kind.kind, "any"):
            body = change(stage_kind.body)
            if patch is None:
                object.__setattr__(stage_kind, "body", body)
            else:
                patch.setitem(vars(stage_kind), "body", body)
