"""Computes stages in this process, one after another. A stage's kind brings its body: nothing of an experiment is known here."""

import time
from collections.abc import Callable, Iterator

from collapse_cli.engine.disk import disk_errors
from collapse_cli.engine.executors.base import Ended
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Stage, Workplace
from collapse_cli.engine.store import Store
from collapse_cli.process import peak_memory_mb


class LocalExecutor:
    """An executor of one slot: a stage is computed while the scheduler asks what has ended.

    Args:
        store: where stages are kept.
        set_threads: sets how many threads this process uses; without it a stage has those that there are.
    """

    slots = 1

    def __init__(self, store: Store, set_threads: Callable[[int], object] = lambda threads: None) -> None:
        self.store = store
        self._set_threads = set_threads
        self._next: list[tuple[Stage, int]] = []

    def submit(self, stage: Stage, threads: int) -> None:
        """A stage is computed when it is asked what has ended."""
        self._next.append((stage, threads))

    def poll(self, observer: Observer, wait: float | None) -> Iterator[Ended]:
        """Computes what was submitted, however long it takes."""
        stage, threads = self._next.pop()
        self._set_threads(threads)
        yield self.compute(stage, observer)

    def compute(self, stage: Stage, observer: Observer) -> Ended:
        """Compute a stage whose inputs are in the store, under its lock.

        Inputs and shards that turn out to be damaged are set aside and computed again first, and what those are made from.

        Raises:
            InputError: when a stage is damaged again and again.
        """
        needed = [stage]  # each but the first is an input of the one before it
        while True:
            last = needed[-1]
            if not self.store.sound(last.key):
                damaged = next((made for made in last.needs.values() if not self.store.sound(made.key)), None)
                if damaged is not None:
                    needed.append(damaged)
                    continue
            done = self._compute_locked(last, observer)
            if done.made is None:
                return Ended(stage, None)
            if last is stage:
                return done
            if not done.cached:
                observer.finished(last, done.made, cached=False, memory_mb=done.memory_mb)
            needed.pop()

    def _compute_locked(self, stage: Stage, observer: Observer) -> Ended:
        with self.store.locked(stage.key) as mine:
            if not mine:
                return Ended(stage, None)
            if self.store.sound(stage.key):
                return Ended(stage, self.store.get(stage.key), cached=True, memory_mb=peak_memory_mb())
            self.store.set_aside(stage)
            made = self._compute(stage, observer)
            return Ended(stage, made, memory_mb=peak_memory_mb())

    def _compute(self, stage: Stage, observer: Observer) -> Finished:
        observer.started(stage)
        inputs = {name: self.store.get(made.key) for name, made in stage.needs.items()}
        parts = sum(self.store.get(shard.key).seconds for shard in stage.shards)
        start = time.perf_counter()
        place = Workplace(
            folder=self.store.attempt(stage.key),
            scratch=self.store.scratch(stage.key),
            tell=lambda done, total, unit: observer.progress(stage, done, total, unit),
        )
        with disk_errors(str(self.store.here)):
            facts = stage.of.body(stage, inputs, place)
            return self.store.publish(stage, facts, time.perf_counter() - start + parts)
