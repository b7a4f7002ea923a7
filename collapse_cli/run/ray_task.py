"""What is done on a node of a Ray cluster: a stage is computed there, and what happens to it is told in lines of JSON."""

import json
import os
import platform
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import collapse_cli
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.stage import Plan, Stage, digest
from collapse_cli.engine.store import store_at
from collapse_cli.errors import InputError
from collapse_cli.run import worker

PLACES = ("model", "tokenizer", "detector", "source")  # of `Hints`, which may be paths
BY_HASH = ("judges", "foreign")  # whose values may all be


def order_of(config: Mapping[str, Any], hints: Mapping[str, Any], store: str, planned: Plan) -> dict[str, Any]:
    """What a node must know to compute stages of a plan, and to find out whether it can."""
    hints = _absolute(hints)
    return {
        "config": config,
        "hints": hints,
        "store": store if "://" in store else os.path.abspath(store),  # noqa: PTH100 - links stay as they are
        "shards": planned.shards,
        "version": collapse_cli.__version__,
        "keys": digest(sorted(planned.stages)),
        "paths": sorted(set(_paths(hints))),
    }


def computed(order: str, key: str, threads: int, every: float) -> Iterator[str]:
    """Compute a stage; each line is given as soon as there is something to tell, so the work is done in a thread of its own.

    Args:
        order: that of `order_of`, as JSON: equal ones are read once a process.
        threads: how many it may use.
        every: seconds between two lines about progress.
    """
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_compute, args=(order, key, threads, every, said), daemon=True).start()
    while (line := said.get()) is not None:
        yield line


class _Said:
    """A file of lines that is a queue."""

    def __init__(self, lines: "queue.SimpleQueue[str | None]") -> None:
        self.lines = lines

    def write(self, line: str) -> None:
        self.lines.put(line)


def _compute(order: str, key: str, threads: int, every: float, said: "queue.SimpleQueue[str | None]") -> None:
    try:
        telling = worker.Telling(_Said(said), every, _node())
        with telling.heard():
            try:
                executor, stages, set_threads = _prepared(order)
                set_threads(threads)
            except Exception as error:
                telling.failed(error)
            else:
                worker.compute(executor, stages[key], telling)
    finally:
        said.put(None)


def _node() -> str:
    return f"the node {platform.node()}"


@lru_cache(maxsize=2)
def _prepared(order: str) -> tuple[LocalExecutor, Mapping[str, Stage], Callable[[int], object]]:
    """What computes stages on this node, and the plan.

    Raises:
        InputError: when the node lacks what the plan needs.
    """
    asked, node = json.loads(order), _node()
    if asked["version"] != collapse_cli.__version__:
        raise InputError(
            f"{node} has collapse {collapse_cli.__version__}, and the run was started with {asked['version']}; install one "
            "version on all nodes"
        )
    store = store_at(asked["store"])
    if not store.there():
        raise InputError(f"{node} has no folder {store.address}; choose a --runs-dir that all nodes share")
    for path in asked["paths"]:
        if not Path(path).exists():
            raise InputError(f"{node} lacks {path}, which the run reads; put it on all nodes, in the same place")
    stages, set_threads = worker.plan_of(asked)
    if digest(sorted(stages)) != asked["keys"]:
        raise InputError(
            f"{node} plans other stages than the run's own machine; install one version of collapse on all nodes"
        )
    return LocalExecutor(store), stages, set_threads


def _absolute(hints: Mapping[str, Any], *, all_places: bool = False) -> dict[str, Any]:
    """Hints whose relative paths are absolute: tasks have another working folder."""
    made = dict(hints)
    for name, value in hints.items():
        if isinstance(value, Mapping):
            made[name] = _absolute(value, all_places=name in BY_HASH)
        elif (all_places or name in PLACES) and isinstance(value, str) and value and os.path.lexists(value):
            made[name] = os.path.abspath(value)  # noqa: PTH100
    return made


def _paths(hints: Mapping[str, Any], *, all_places: bool = False) -> Iterator[str]:
    """The paths within such hints that are there."""
    for name, value in hints.items():
        if isinstance(value, Mapping):
            yield from _paths(value, all_places=name in BY_HASH)
        elif (all_places or name in PLACES) and isinstance(value, str) and value and os.path.lexists(value):
            yield value
