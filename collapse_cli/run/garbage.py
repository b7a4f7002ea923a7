"""`collapse gc`: what no run's plan reaches leaves the store. A run that cannot be read stops it: its stages are unknown."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from collapse_cli.config import nearest
from collapse_cli.engine.remote_addresses import shown
from collapse_cli.engine.stage import Plan
from collapse_cli.engine.store import Store
from collapse_cli.errors import ConfigError
from collapse_cli.records import elsewhere
from collapse_cli.records.at_work import at_work
from collapse_cli.records.names import STORE, can_be_named
from collapse_cli.records.remembered import Remembered, Stamp, stamp_of
from collapse_cli.records.rundir import OF_A_RUN, RunFolder, time_of_plans
from collapse_cli.records.runs import names_of_runs, store_of

OF_PLANS = ("plan.json", "run.json")
AT_ONCE = 64  # stages that are looked at, and locked, together
LOOK = 3.0  # seconds for which plans that are elsewhere are taken for those that were seen
SHARE = 0.05  # of the time that looking at these may take


def collect_garbage(runs: Path, *, dry_run: bool = False, without: Sequence[str] = ()) -> dict[str, int]:
    """Remove stages that no run's plan holds, what was set aside as damaged, and attempts and checkpoints of killed
    stages; nothing at work is touched, and nothing that the plan of a run holds which begins meanwhile.

    Args:
        dry_run: only count; nothing is written, not even a lock.
        without: names of runs whose plans cannot be read, and which are taken to need nothing.

    Returns:
        How many `stages` and `leftovers` went, the `bytes` they held, and how many stages were `kept`.

    Raises:
        ConfigError: for a run whose plan cannot be read, unless it is one of `without`; nothing was removed then. And for one of
            those that is not there, at work, or can be read.
    """
    store = store_of(runs)
    # before the plans: what comes later is not looked at
    keys, unfinished = set(store.keys()), set(store.unfinished(dry_run=dry_run))
    plans = Plans(runs, store, without)
    plans.check_without()
    planned = plans.keys()
    stages, leftovers, freed, kept = 0, 0, 0, len(planned & keys)
    doubtful = sorted(key for key in keys | unfinished if key in unfinished or key not in planned)
    for first in range(0, len(doubtful), AT_ONCE):
        with ExitStack() as locks:
            some = doubtful[first : first + AT_ONCE]
            free = [
                key for key in some if (not store.is_held(key) if dry_run else locks.enter_context(store.locked(key)))
            ]
            plans.look_again()  # now that none of them can be begun
            for key in free:
                planned = plans.keys()
                if key in keys and key not in planned and store.holds(key):
                    stages += 1
                    freed += store.size(key) if dry_run else store.remove(key)
                if key in unfinished and store.is_unfinished(key) and (key not in planned or store.has(key)):
                    freed += store.leftover_size(key) if dry_run else store.clear(key)
                    leftovers += dry_run or not store.is_unfinished(key)
    copies, size = store.drop_copies(plans.keys(), dry_run=dry_run)
    if not dry_run:
        elsewhere.drop_gone(runs)
    leftovers, freed = leftovers + copies, freed + size
    return {"stages": stages, "leftovers": leftovers, "bytes": freed, "kept": kept}


def drop_shards(planned: Plan, store: Store) -> None:
    """Remove the shards of stages that have been put together from them."""
    for shard, whole in planned.shard_of.items():
        if store.holds(shard) and store.has(whole.key):
            with store.locked(shard) as free:
                if free:
                    store.remove(shard)


class Plans:
    """The plans of a runs folder; one that has not changed since is not read again, nor by the next command."""

    def __init__(self, runs: Path, store: Store, without: Sequence[str] = ()) -> None:
        """`without`: runs that are left out."""
        self._runs, self._store, self._without = runs, store, without
        self._kept = Remembered(runs, OF_PLANS, self._read, name="plans")
        self._began, self._seen, self._until = -1, dict[str, Stamp](), float("inf")
        self._whole: frozenset[str] = frozenset()
        self._shards: dict[str, str] = {}
        self._keys: frozenset[str] = frozenset()

    def keys(self) -> frozenset[str]:
        """Those of all stages that are planned now, but for shards of stages that are there. Runs that begin say so by the time of the folder, which is all that is looked at
        where they did not: it is asked for each stage that goes. Those that begin elsewhere do not; they are looked for every few seconds.

        Raises:
            ConfigError: for a run that cannot be read whole.
        """
        if self._began != time_of_plans(self._runs) or time.monotonic() > self._until:
            self.look_again()
        return self._keys

    def look_again(self) -> None:
        """At each plan, whatever the folder's time says: a run that was copied there does not change it.

        Raises:
            ConfigError: as `keys`.
        """
        began = time.monotonic()
        self._began = time_of_plans(self._runs)
        now = self._there()
        if elsewhere.is_copy(self._runs):
            self._until = time.monotonic() + max(LOOK, (time.monotonic() - began) / SHARE)
        if now != self._seen:
            plans = self._kept.values(now).values()
            self._seen, self._whole = now, frozenset(key for plan in plans for key, of in plan.items() if not of)
            self._shards = {key: of for plan in plans for key, of in plan.items() if of}
        there = {whole for whole in {*self._shards.values()} if self._store.has(whole)}
        self._keys = self._whole | {key for key, whole in self._shards.items() if whole not in there}

    def check_without(self) -> None:
        """Whether all that are left out are there, and cannot be counted.

        Raises:
            ConfigError: where not: of any other run it is known what it needs.
        """
        for name in self._without:
            if not (can_be_named(name) and self._is_run(stamp_of(self._runs / name, OF_PLANS), name)):
                near = nearest(name, names_of_runs(self._runs))
                raise ConfigError(f"--without {name}: there is no run of that name in {shown(self._runs)}{near}")
            if at_work(self._runs / name):
                raise ConfigError(f"--without {name}: that run is at work; wait for its end, or end it")
            try:
                self._read(name)
            except ConfigError:
                continue
            raise ConfigError(
                f"--without {name}: what that run needs can be read, and is kept; leave this option out, or remove the folder of the run first"
            )

    def _there(self) -> dict[str, Stamp]:
        """The folders of runs, each with what says which record and plan it has: another run, or another plan of one, makes it another."""
        elsewhere.bring_all(self._runs)
        names = os.listdir(self._runs) if self._runs.is_dir() else []  # noqa: PTH208
        counted = set(names) - {STORE, *self._without}
        stamps = {name: stamp_of(self._runs / name, OF_PLANS) for name in sorted(counted)}
        return {name: stamp for name, stamp in stamps.items() if self._is_run(stamp, name)}

    def _is_run(self, stamp: Stamp, name: str) -> bool:
        return any(stamp) or any(stamp_of(self._runs / name, OF_A_RUN))

    def _read(self, name: str) -> dict[str, str]:
        """Of each stage of a plan, of which stage it is a shard; of most of none."""
        run = RunFolder(self._runs, name)
        try:
            run.record()
            stages = run.plan()
            if not stages:
                raise ConfigError(f"{run.place('plan.json')} is missing or empty")
        except ConfigError as error:
            lacks = str(error) if run.exists() else f"{run.place('run.json')} is missing"
            raise ConfigError(
                f"{lacks.partition(';')[0]}, so it is not known which stages the run {name!r} needs; nothing was "
                f"removed: give the run's command again, or let it go (collapse gc --without {name})"
            ) from None
        return {stage.key: stage.shard_of for stage in stages}
