"""Brings the stages of a plan into the store: decides what is ready and hands it out; an executor computes it.

Several processes may work on one store at once: each stage is computed by the one that holds its lock, and the others
go on with what else is ready, or wait.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from collapse_cli.engine.executors.base import Executor
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Plan, Stage
from collapse_cli.engine.store import Store

WAIT_SECONDS = 0.2  # between two looks at a stage that another process holds


def run(
    stages: Sequence[Stage], executor: Executor, observer: Observer, threads: Mapping[str, int] | None = None
) -> None:
    """Bring every stage (inputs before their users) into the executor's store; those that are there cost nothing.

    `observer.finished` is called once a stage, after all its inputs were.

    Args:
        threads: by key, how many a stage may use; of others all that there are.

    Raises:
        As `Executor.poll`.
    """
    todo = {stage.key: stage for stage in stages}
    at_work: set[str] = set()
    held: dict[str, float] = {}  # keys that another process has: when to ask for them again
    announced: set[str] = set()
    while todo:
        for stage in ready(todo):
            if stage.key in at_work or held.get(stage.key, 0.0) > time.monotonic():
                continue
            if executor.store.has(stage.key):
                held.pop(stage.key, None)
                del todo[stage.key]
                observer.finished(stage, executor.store.get(stage.key), cached=True)
            elif len(at_work) < executor.slots:
                at_work.add(stage.key)
                executor.submit(stage, (threads or {}).get(stage.key, 0))
            else:
                break
        if not at_work:
            time.sleep(WAIT_SECONDS if todo else 0)
            continue
        for ended in executor.poll(observer, WAIT_SECONDS if held else None):
            key = ended.stage.key
            at_work.remove(key)
            if ended.made is None:
                held[key] = time.monotonic() + WAIT_SECONDS
                if key not in announced:
                    announced.add(key)
                    observer.waiting(ended.stage)
            else:
                held.pop(key, None)
                del todo[key]
                observer.finished(ended.stage, ended.made, cached=ended.cached, memory_mb=ended.memory_mb)


def ready(todo: Mapping[str, Stage]) -> Iterator[Stage]:
    """The stages of `todo` none of whose inputs is to be done; stages may be taken out of `todo` on the way."""
    for stage in list(todo.values()):
        if not any(made.key in todo for made in stage.inputs.values()):
            yield stage


def missing(plan: Sequence[Stage], store: Store, wanted: Callable[[Stage], bool]) -> list[Stage]:
    """The stages of `plan` that must be computed so that every `wanted` one is in the store, in plan order.

    A finished stage needs none of its inputs, so a pruned ancestor of finished work is not missing. What is needed as
    an input is missing also when its files are not what was written.
    """
    needed: set[str] = set()

    def need(stage: Stage, there: Callable[[str], bool]) -> None:
        if stage.key not in needed and not there(stage.key):
            needed.add(stage.key)
            for made in stage.inputs.values():
                need(made, store.sound)

    for stage in plan:
        if wanted(stage):
            need(stage, store.has)
    return [stage for stage in plan if stage.key in needed]


def width(plan: Plan) -> dict[str, int]:
    """By key: how many stages of a plan could be computed at the same time as this one, itself included.

    Those are the stages of its work and generation. It depends on nothing but the plan: how many cores a stage is
    given decides how its sums are rounded, and the same command is to give the same numbers, resumed or not.
    """
    groups: dict[tuple[str, int], list[str]] = {}
    for key, stage in plan.stages.items():
        groups.setdefault((stage.work, plan.serves[key][0].generation), []).append(key)
    return {key: len(keys) for keys in groups.values() for key in keys}
