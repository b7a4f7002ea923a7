"""`store.keep_models`: the weights of models that no run still needs leave the store."""

from collapse_cli.config import Experiment
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Plan, Product, Stage
from collapse_cli.engine.store import Store
from collapse_cli.records.remembered import Remembered
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import names_of_runs


class Pruning(Observer):
    """Prunes whenever a stage is done that may have been the last to need a model."""

    def __init__(self, folder: RunFolder, store: Store, config: Experiment, plan: Plan) -> None:
        self.folder, self.store, self.config, self.plan = folder, store, config, plan
        self._others = Remembered(folder.runs, ("run.json", "plan.json"), self._read)

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        if not cached and any(made.of.product is Product.MODEL for made in stage.inputs.values()):
            self.prune()

    def prune(self) -> None:
        """Drop the weights that `store.keep_models` does not keep and no plan in the runs folder still needs."""
        if self.config.store.keep_models == "all":
            return
        mine = self._mine()
        for key in mine - self._wanted(mine):
            if self.store.has(key):
                with self.store.locked(key) as held:
                    if held:
                        self.store.prune(key)

    def _mine(self) -> set[str]:
        """The models of this run that are not to be kept."""
        last = self.config.loop.generations
        ends = {
            generation.train.key for generation in self.plan.generations if generation.where.generation in (0, last)
        }
        models = {generation.train.key for generation in self.plan.generations}
        return models - (ends if self.config.store.keep_models == "ends" else set())

    def _read(self, name: str) -> dict[str, tuple[set[str], str]]:
        """The plan of a run: by key of a stage, those that it is made from, and of which it is a shard."""
        stages = RunFolder(self.folder.runs, name).plan()
        return {stage.key: (set(stage.inputs.values()), stage.shard_of) for stage in stages}

    def _wanted(self, mine: set[str]) -> set[str]:
        """The stages that a run still needs: inputs of what it has yet to make, and all of one that keeps its models.

        Of those that were pruned and so have to be made again, the inputs too, and theirs. Runs that have none of `mine` in their plans
        are left out: there may be thousands.
        """
        runs = self.folder.runs
        plans = {
            RunFolder(runs, name): {
                key: inputs for key, (inputs, of) in stages.items() if not (of and self.store.has(of, whole=False))
            }
            for name, stages in self._others.values(names_of_runs(runs)).items()
            if name != self.folder.name and not mine.isdisjoint(stages)
        }
        parts = self.plan.shard_of
        plans[self.folder] = {
            key: {made.key for made in stage.inputs.values()}
            for key, stage in self.plan.stages.items()
            if not (key in parts and self.store.has(parts[key].key, whole=False))
        }
        wanted: set[str] = set()
        for run, stages in plans.items():
            needed = {made for key, inputs in stages.items() if not self.store.has(key, whole=False) for made in inputs}
            while needed:
                wanted |= needed
                again = {key for key in needed if not self.store.has(key)}
                needed = {made for key in again for made in stages.get(key, ())} - wanted
            if run is not self.folder and run.config().store.keep_models == "all":
                wanted |= stages.keys()
        return wanted
