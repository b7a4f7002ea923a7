"""`collapse gc`: what no run's plan reaches leaves the store. A run that cannot be read stops it: its stages are unknown."""

import os
import time
from contextlib import ExitStack
from pathlib import Path

from collapse_cli.engine.stage import Plan
from collapse_cli.engine.store import Store
from collapse_cli.errors import ConfigError
from collapse_cli.records import elsewhere
from collapse_cli.records.names import STORE
from collapse_cli.records.remembered import Remembered, Stamp, stamp_of
from collapse_cli.records.rundir import OF_A_RUN, RunFolder, time_of_plans
from collapse_cli.records.runs import store_of

OF_PLANS = ("plan.json", "run.json")
AT_ONCE = 64  # stages that are looked at, and locked, together
LOOK = 3.0  # seconds for which plans that are elsewhere are taken for those that were seen
SHARE = 0.05  # of the time that looking at these may take


def collect_garbage(runs: Path, *, dry_run: bool = False) -> dict[str, int]:
    """Remove stages that no run's plan holds, what was set aside as damaged, and attempts and checkpoints of killed
    stages; nothing at work is touched, and nothing that the plan of a run holds which begins meanwhile.

    Returns:
        How many `stages` and `leftovers` went, the `bytes` they held, and how many stages were `kept`.

    Raises:
        ConfigError: for a run whose plan cannot be read; nothing was removed then.
    """
    store = store_of(runs)
    keys, unfinished = set(store.keys()), set(store.unfinished())  # before the plans: what comes later is not looked at
    plans = Plans(runs, store)
    planned = plans.keys()
    stages, leftovers, freed, kept = 0, 0, 0, len(planned & keys)
    doubtful = sorted(key for key in keys | unfinished if key in unfinished or key not in planned)
    for first in range(0, len(doubtful), AT_ONCE):
        with ExitStack() as locks:
            free = [key for key in doubtful[first : first + AT_ONCE] if locks.enter_context(store.locked(key))]
            plans.look_again()  # now that none of them can be begun
            for key in free:
                planned = plans.keys()
                if key in keys and key not in planned and store.holds(key):
                    stages += 1
                    freed += store.size(key) if dry_run else store.remove(key)
                if key in unfinished and store.is_unfinished(key) and (key not in planned or store.has(key)):
                    leftovers += 1
                    freed += store.leftover_size(key) if dry_run else store.clear(key)
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

    def __init__(self, runs: Path, store: Store) -> None:
        self._runs, self._store = runs, store
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

    def _there(self) -> dict[str, Stamp]:
        """The folders of runs, each with what says which record and plan it has: another run, or another plan of one, makes it another."""
        elsewhere.bring_all(self._runs)
        names = os.listdir(self._runs) if self._runs.is_dir() else []  # noqa: PTH208
        stamps = {name: stamp_of(self._runs / name, OF_PLANS) for name in sorted(names) if name != STORE}
        return {
            name: stamp for name, stamp in stamps.items() if any(stamp) or any(stamp_of(self._runs / name, OF_A_RUN))
        }

    def _read(self, name: str) -> dict[str, str]:
        """Of each stage of a plan, of which stage it is a shard; of most of none."""
        path = self._runs / name
        try:
            run = RunFolder(self._runs, name)
            run.record()
            stages = run.plan()
            if not stages:
                raise ConfigError(f"{path / 'plan.json'} is missing or empty")
        except ConfigError as error:
            lacks = f"{path / 'run.json'} is missing" if not (path / "run.json").exists() else str(error)
            raise ConfigError(
                f"{lacks.partition(';')[0]}, so it is not known which stages the run {name!r} needs; nothing was "
                "removed: give the run's command again, or move its folder away, and then collapse gc"
            ) from None
        return {stage.key: stage.shard_of for stage in stages}
