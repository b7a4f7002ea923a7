"""What a process elsewhere says of the stage that it computes, and what that means here. A message is a line of JSON."""

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from collapse_cli.engine.executors.base import Ended
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Stage
from collapse_cli.engine.store import Store
from collapse_cli.errors import UserError

log = logging.getLogger(__name__)


class WorkerError(UserError):
    """A stage failed in another process in a way that the user can mend."""


def hear(message: Mapping[str, Any], stage: Stage, store: Store, observer: Observer) -> Ended | None:
    """Tell the observer what a message about a stage says.

    Returns:
        How the stage ended; None as long as it has not.

    Raises:
        WorkerError, OSError, MemoryError: for what the user can mend.
        RuntimeError: for anything else that went wrong there; it holds the traceback.
    """
    match message["event"]:
        case "started":
            observer.started(_among(stage, message["key"]))
        case "progress":
            at_work = _among(stage, message["key"])
            observer.progress(at_work, message["done"], message["total"], message["unit"])
        case "note":
            note(message["text"])
        case "remade":
            made = _among(stage, message["key"])
            observer.finished(made, store.get(made.key), cached=False, memory_mb=message["memory_mb"])
        case "held":
            return Ended(stage, None)
        case "finished":
            return Ended(stage, store.get(stage.key), message["cached"], message["memory_mb"])
        case "mistake":
            raise WorkerError(message["text"])
        case "system":
            raise OSError(message["errno"], message["text"], message["file"])
        case "memory":
            raise MemoryError(message["text"])
        case "failure":
            raise RuntimeError(f"a worker failed at {stage.kind} {stage.key[:12]}:\n{message['text']}")
    return None


def _among(stage: Stage, key: str) -> Stage:
    """The stage of a key: this one, or one that it is made from, however far."""
    among, seen = [stage], {stage.key}
    for behind in among:
        if behind.key == key:
            return behind
        among += [made for made in behind.needs.values() if made.key not in seen]
        seen.update(made.key for made in behind.needs.values())
    raise KeyError(key)


@lru_cache(maxsize=256)
def note(text: str) -> None:
    """What the engine says elsewhere it says here, once, not once a worker."""
    log.warning(text)
