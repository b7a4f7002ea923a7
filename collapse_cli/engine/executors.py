"""Executors bring planned stages into the store. They receive the stage bodies as an argument and know no learner."""

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Body, Finished, Stage, Workplace
from collapse_cli.engine.store import Store
from collapse_cli.process import OUTPUT, peak_memory_mb

WAIT_SECONDS = 0.2  # between two looks at a stage that another process holds


@dataclass(frozen=True)
class LocalExecutor:
    """Runs the missing stages of a plan in this process, in order.

    Several processes may work on one store at once: each stage is computed by the one that holds its lock, the
    others take the next stage that is ready, or wait.
    """

    store: Store
    bodies: Mapping[str, Body]

    def run(self, plan: Sequence[Stage], observer: Observer) -> None:
        """Bring every stage of `plan` (inputs before their users) into the store; those that are there cost nothing.

        `observer.finished` is called once a stage, after all its inputs were.
        """
        todo = {stage.key: stage for stage in plan}
        announced: set[str] = set()
        while todo:
            before = len(todo)
            for stage in ready(todo):
                if self.store.has(stage.key):
                    observer.finished(stage, self.store.get(stage.key), cached=True, memory_mb=peak_memory_mb())
                elif (done := self.compute(stage, observer)) is not None:
                    made, cached = done
                    observer.finished(stage, made, cached=cached, memory_mb=peak_memory_mb())
                else:
                    if stage.key not in announced:
                        announced.add(stage.key)
                        observer.waiting(stage)
                    continue
                del todo[stage.key]
            if len(todo) == before:
                time.sleep(WAIT_SECONDS)

    def compute(self, stage: Stage, observer: Observer) -> tuple[Finished, bool] | None:
        """Compute a stage whose inputs are in the store, under its lock; None when another process holds that.

        Inputs that turn out to be damaged are set aside and computed again first, and what those are made from.

        Returns:
            The stage, and whether it was there after all: another process may publish it before we have the lock.

        Raises:
            InputError: when a stage is damaged again and again.
        """
        chain = [stage]  # each but the first is an input of the one before it
        while True:
            one = chain[-1]
            if not self.store.sound(one.key):
                damaged = next((made for made in one.inputs.values() if not self.store.sound(made.key)), None)
                if damaged is not None:
                    chain.append(damaged)
                    continue
            done = self._compute_locked(one, observer)
            if done is None or one is stage:
                return done
            made, cached = done
            if not cached:
                observer.finished(one, made, cached=False, memory_mb=peak_memory_mb())
            chain.pop()

    def _compute_locked(self, stage: Stage, observer: Observer) -> tuple[Finished, bool] | None:
        with self.store.locked(stage.key) as mine:
            if not mine:
                return None
            if self.store.sound(stage.key):
                return self.store.get(stage.key), True
            self.store.set_aside(stage)
            return self._compute(stage, observer), False

    def _compute(self, stage: Stage, observer: Observer) -> Finished:
        observer.started(stage)
        inputs = {name: self.store.get(made.key) for name, made in stage.inputs.items()}
        start = time.perf_counter()
        place = Workplace(
            folder=self.store.attempt(stage.key),
            scratch=self.store.scratch(stage.key),
            tell=lambda done, total, unit: observer.progress(stage, done, total, unit),
        )
        with disk_errors(self.store.root):
            facts = self.bodies[stage.kind](stage, inputs, place)
            return self.store.publish(stage, facts, time.perf_counter() - start)


def ready(todo: Mapping[str, Stage]) -> Iterator[Stage]:
    """The stages of `todo` none of whose inputs is to be done; stages may be taken out of `todo` on the way."""
    for stage in list(todo.values()):
        if not any(made.key in todo for made in stage.inputs.values()):
            yield stage


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
IN_WORDS = re.compile(r"\(os error (\d+)\)")  # as libraries written in Rust end a message


class disk_errors:  # noqa: N801 - reads as a verb at its use
    """Turn a full disk or quota, however a library words it, into one OSError that names the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        # safetensors and pyarrow raise errors of their own, with the system's words or number inside
        numbers = [int(found) for found in IN_WORDS.findall(str(error))]
        numbers += [one for one in FULL if os.strerror(one) in str(error)]
        if isinstance(error, OSError) and error.errno is not None:
            if error.filename == OUTPUT:  # which is written while a stage tells how far it is
                return
            numbers.insert(0, error.errno)
        for number in numbers:
            if number in FULL:
                raise OSError(number, os.strerror(number), str(self.folder)) from error


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
