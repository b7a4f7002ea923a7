"""`store.keep_models`: the weights of models that no run still needs leave the store."""

from collections import deque
from collections.abc import Collection, Iterable
from functools import cached_property

from collapse_cli.config import Experiment
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Plan, Stage
from collapse_cli.engine.store import Store
from collapse_cli.records.remembered import Remembered
from collapse_cli.records.rundir import PlannedStage, RunFolder
from collapse_cli.records.runs import names_of_runs


class Pruning(Observer):
    """Prunes the models that a stage was made from, whenever that stage may have been the last to need them.

    A model is asked after only by those that are made from it, so that all of a run together takes a time that grows with its stages
    and inputs, and for each model that goes with the number of runs in the folder.
    """

    def __init__(self, folder: RunFolder, store: Store, config: Experiment, plan: Plan) -> None:
        self.folder, self.store, self.config, self.plan = folder, store, config, plan
        self._others = Remembered(folder.runs, ("run.json", "plan.json"), self._read)

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        if not cached:
            self._drop(self._mine & {made.key for made in stage.inputs.values()})

    def prune(self) -> None:
        """Drop the weights that `store.keep_models` does not keep and no plan in the runs folder still needs."""
        self._drop(self._mine)

    def _drop(self, models: Collection[str]) -> None:
        """Of these models the weights that nothing needs."""
        over = {key for key in models if self.store.has(key) and not self._own.has_use_for(key, self.store)}
        for key in over - (self._wanted_elsewhere(over) if over else set()):
            with self.store.locked(key) as held:
                if held:
                    self.store.prune(key)

    @cached_property
    def _mine(self) -> set[str]:
        """The models of this run that are not to be kept."""
        keep, last = self.config.store.keep_models, self.config.loop.generations
        if keep == "all":
            return set()
        ends = {
            generation.train.key for generation in self.plan.generations if generation.where.generation in (0, last)
        }
        models = {generation.train.key for generation in self.plan.generations}
        return models - (ends if keep == "ends" else set())

    @cached_property
    def _own(self) -> "_Users":
        parts = self.plan.shard_of
        return _Users(
            PlannedStage(
                stage.kind,
                key,
                {name: made.key for name, made in stage.inputs.items()},
                parts[key].key if key in parts else "",
            )
            for key, stage in self.plan.stages.items()
        )

    def _read(self, name: str) -> "_Other":
        folder = RunFolder(self.folder.runs, name)
        return _Other(folder, folder.plan())

    def _wanted_elsewhere(self, models: Collection[str]) -> set[str]:
        """Those of these models that other runs still need, or keep. Settings are read of runs alone that have one of them: there may be
        thousands.
        """
        names = [name for name in names_of_runs(self.folder.runs) if name != self.folder.name]
        others = self._others.values(names).values()
        return {key for key in models if any(other.wants(key, self.store) for other in others)}


class _Users:
    """Of a plan: which stages are made from which."""

    def __init__(self, stages: Iterable[PlannedStage]) -> None:
        self._users: dict[str, deque[str]] = {}
        self._shard_of: dict[str, str] = {}
        for stage in stages:
            for made in set(stage.inputs.values()):
                self._users.setdefault(made, deque()).append(stage.key)
            if stage.shard_of:
                self._shard_of[stage.key] = stage.shard_of

    def has_use_for(self, key: str, store: Store) -> bool:
        """Whether something has yet to be made from a stage, or from a stage that is made from it, was pruned, and has to be made again."""
        behind, seen = [key], {key}
        while behind:
            users = self._users.get(behind.pop(), deque())
            for place, user in enumerate(users):
                if user in self._shard_of and store.has(self._shard_of[user], whole=False):
                    continue
                if not store.has(user, whole=False):
                    users.rotate(-place)  # the next time it is asked for first, not after all that are done
                    return True
                if user not in seen and not store.has(user):
                    seen.add(user)
                    behind.append(user)
        return False


class _Other:
    """Another run of the same folder."""

    def __init__(self, folder: RunFolder, plan: list[PlannedStage]) -> None:
        self._folder = folder
        self._stages = {stage.key: stage for stage in plan}

    def wants(self, model: str, store: Store) -> bool:
        """Whether the run keeps a model, or has yet to make something from it."""
        return model in self._stages and (self._keeps(model) or self._users.has_use_for(model, store))

    def _keeps(self, model: str) -> bool:
        config = self._config
        ends = {0, config.loop.generations}
        return config.store.keep_models == "all" or (
            config.store.keep_models == "ends" and not ends.isdisjoint(self._stages[model].generations)
        )

    @cached_property
    def _config(self) -> Experiment:
        return self._folder.config()

    @cached_property
    def _users(self) -> _Users:
        return _Users(self._stages.values())
