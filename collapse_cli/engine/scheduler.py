"""Brings the stages of a plan into the store: decides what is ready and hands it out; an executor computes it.

Several processes may work on one store at once: each stage is computed by the one that holds its lock, and the others
go on with what else is ready, or wait.
"""

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

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
    todo, whole = Todo(stages), {shard.key: stage.key for stage in stages for shard in stage.shards}
    at_work: set[str] = set()
    held: set[str] = set()  # that another process has, or had when last asked for
    asleep: deque[tuple[float, Stage]] = deque()  # those that are to be asked for again, and when, the soonest first
    announced: set[str] = set()
    while todo:
        while asleep and asleep[0][0] <= time.monotonic():
            todo.put_back(asleep.popleft()[1])
        while (stage := todo.take()) is not None:
            if executor.store.has(stage.key):
                held.discard(stage.key)
                todo.done(stage)
                observer.finished(stage, executor.store.get(stage.key), cached=True)
            elif len(at_work) < executor.slots and stage.key in whole and executor.store.has(whole[stage.key]):
                todo.done(stage)  # another process needed no shards, or other ones
                observer.finished(stage, executor.store.get(whole[stage.key]), cached=True)
            elif len(at_work) < executor.slots:
                at_work.add(stage.key)
                executor.submit(stage, (threads or {}).get(stage.key, 0))
            else:
                todo.put_back(stage)
                break
        if not at_work:
            time.sleep(WAIT_SECONDS if todo else 0)
            continue
        for ended in executor.poll(observer, WAIT_SECONDS if held else None):
            stage = ended.stage
            at_work.remove(stage.key)
            if ended.made is None:
                held.add(stage.key)
                asleep.append((time.monotonic() + WAIT_SECONDS, stage))
                if stage.key not in announced:
                    announced.add(stage.key)
                    observer.waiting(stage)
            else:
                held.discard(stage.key)
                todo.done(stage)
                observer.finished(stage, ended.made, cached=ended.cached, memory_mb=ended.memory_mb)


class Todo:
    """Stages that are to be done. Of those that are ready it hands out the earliest in the plan first.

    Of each stage it counts the inputs and shards that are still to be done, so that nothing is looked through when one is: all of it
    together takes a time that grows with the number of stages and inputs (and the logarithm of how many are ready).
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = list({stage.key: stage for stage in stages}.values())
        self._places = {stage.key: place for place, stage in enumerate(self._stages)}
        self._left = len(self._stages)
        self._users: dict[str, list[int]] = {}  # by key of a stage that is to be done: places
        self._waits = [0] * self._left  # for how many stages, by place
        self._ready: list[int] = []  # places; a heap, for which an ascending list does
        for place, stage in enumerate(self._stages):
            needs = {made.key for made in stage.needs.values()} & self._places.keys()
            self._waits[place] = len(needs)
            for key in needs:
                self._users.setdefault(key, []).append(place)
            if not needs:
                self._ready.append(place)

    def __len__(self) -> int:
        """How many are not done."""
        return self._left

    def take(self) -> Stage | None:
        """The earliest that is ready and was not taken; None where there is none."""
        return self._stages[heapq.heappop(self._ready)] if self._ready else None

    def put_back(self, stage: Stage) -> None:
        """One that was taken may be taken again."""
        heapq.heappush(self._ready, self._places[stage.key])

    def done(self, stage: Stage) -> None:
        """One that was taken is done: what waited for it alone is ready."""
        self._left -= 1
        for place in self._users.pop(stage.key, ()):
            self._waits[place] -= 1
            if not self._waits[place]:
                heapq.heappush(self._ready, place)


def missing(plan: Sequence[Stage], store: Store, wanted: Callable[[Stage], bool]) -> list[Stage]:
    """The stages of `plan` that must be computed so that every `wanted` one is in the store, in plan order.

    A finished stage needs none of its inputs, so a pruned ancestor of finished work is not missing. What is needed as
    an input is missing also when its files are not what was written.
    """
    needed: set[str] = set()
    for last in plan:
        if wanted(last) and last.key not in needed and not store.has(last.key):
            needed.add(last.key)
            behind = [last]  # a list, not a recursion: of models that were pruned all generations before may be needed
            while behind:
                for made in behind.pop().needs.values():
                    if made.key not in needed and not store.sound(made.key):
                        needed.add(made.key)
                        behind.append(made)
    return [stage for stage in plan if stage.key in needed]


def width(plan: Plan) -> dict[str, int]:
    """By key: how many stages of a plan could be computed at the same time as this one, itself included.

    Those are the stages of its work and generation, of a shard as many shards of each. It depends on nothing but the plan: how
    many cores a stage is given decides how its sums are rounded, and the same command is to give the same numbers, resumed or not.
    """
    groups: dict[tuple[str, int], list[str]] = {}
    parts = plan.shard_of
    for key, stage in plan.stages.items():
        if key not in parts:
            groups.setdefault((stage.work, plan.serves[key][0].generation), []).append(key)
    widths = {key: len(keys) for keys in groups.values() for key in keys}
    return widths | {shard: widths[whole.key] * len(whole.shards) for shard, whole in parts.items()}


def most_at_once(plan: Plan) -> int:
    """How many stages of a plan can be at work at the same time, counted by steps from its beginning: those of one policy, too, are
    examined while the next generation is trained.
    """
    depths: dict[str, int] = {}
    for stage in plan.stages.values():
        behind = [stage]  # a list, not a recursion; inputs may stand behind their users
        while behind:
            last = behind[-1]
            needed = last.needs.values()
            if unknown := [made for made in needed if made.key not in depths]:
                behind += unknown
            else:
                depths[last.key] = 1 + max((depths[made.key] for made in needed), default=0)
                behind.pop()
    return max(Counter(depths[key] for key in plan.stages).values(), default=1)
