"""`collapse gc`: what no run's plan reaches leaves the store. A run that cannot be read stops it: its stages are unknown."""

from pathlib import Path

from collapse_cli.engine.stage import Plan
from collapse_cli.engine.store import Store
from collapse_cli.errors import ConfigError
from collapse_cli.records import elsewhere
from collapse_cli.records.rundir import OF_A_RUN, RunFolder
from collapse_cli.records.runs import STORE, store_of


def collect_garbage(runs: Path, *, dry_run: bool = False) -> dict[str, int]:
    """Remove stages that no run's plan holds, what was set aside as damaged, and attempts and checkpoints of killed
    stages; nothing at work is touched, and nothing that the plan of a run holds which begins meanwhile.

    Returns:
        How many `stages` and `leftovers` went, the `bytes` they held, and how many stages were `kept`.

    Raises:
        ConfigError: for a run whose plan cannot be read; nothing was removed then.
    """
    store = store_of(runs)
    keys, unfinished = store.keys(), store.unfinished()  # before the plans: what comes later is not looked at
    seen, planned = _plans(runs), planned_keys(runs, store)
    stages, leftovers, freed, kept = 0, 0, 0, len(planned.intersection(keys))
    for key in sorted({*keys, *unfinished}):
        if key in planned and key not in unfinished:
            continue
        with store.locked(key) as free:
            if not free:
                continue
            if (now := _plans(runs)) != seen:
                seen, planned = now, planned_keys(runs, store)
            if key in keys and key not in planned and store.holds(key):
                stages += 1
                freed += store.size(key) if dry_run else store.remove(key)
            if key in unfinished and store.is_unfinished(key) and (key not in planned or store.has(key)):
                leftovers += 1
                freed += store.leftover_size(key) if dry_run else store.clear(key)
    copies, size = store.drop_copies(planned, dry_run=dry_run)
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


def planned_keys(runs: Path, store: Store) -> set[str]:
    """The keys of all stages in the plans of a runs folder, but for shards of stages that are there.

    Raises:
        ConfigError: for a run that cannot be read whole.
    """
    elsewhere.bring_all(runs)
    planned: set[str] = set()
    for path in sorted(runs.iterdir()) if runs.is_dir() else []:
        if path.name == STORE or not any((path / name).exists() for name in OF_A_RUN):
            continue
        try:
            run = RunFolder(runs, path.name)
            run.record()
            stages = run.plan()
            if not stages:
                raise ConfigError(f"{path / 'plan.json'} is missing or empty")
        except ConfigError as error:
            lacks = f"{path / 'run.json'} is missing" if not (path / "run.json").exists() else str(error)
            raise ConfigError(
                f"{lacks.partition(';')[0]}, so it is not known which stages the run {path.name!r} needs; nothing was "
                "removed: give the run's command again, or move its folder away, and then collapse gc"
            ) from None
        there = {key for key in {stage.shard_of for stage in stages if stage.shard_of} if store.has(key)}
        planned.update(stage.key for stage in stages if stage.shard_of not in there)
    return planned


def _plans(runs: Path) -> dict[str, tuple[int, int, int]]:
    """Which plans there are: another run, or another plan of one, makes it another."""
    elsewhere.bring_all(runs)
    plans = {}
    for path in runs.glob("*/plan.json"):
        try:
            now = path.stat()
        except FileNotFoundError:
            continue
        plans[path.parent.name] = (now.st_ino, now.st_mtime_ns, now.st_size)
    return plans
