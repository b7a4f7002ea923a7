"""Which models no run needs any more: against a slow reference, and how often the store is asked for that."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from support.kinds import kind

from collapse_cli.config.experiment import Experiment
from collapse_cli.engine.stage import Finished, Generation, Plan, Stage
from collapse_cli.engine.store import Store
from collapse_cli.records.rundir import PlannedStage, RunFolder
from collapse_cli.run.observers.pruning import Pruning, _Users
from collapse_cli.where import Where

TRAIN, EVAL = kind("train"), kind("eval")


class States:
    """A store of nothing but what each stage is: `whole`, `pruned`, or not there. It counts how often it is asked."""

    def __init__(self, **states: str) -> None:
        self.states, self.asked = states, 0

    def has(self, key: str, *, whole: bool = True) -> bool:
        self.asked += 1
        return self.states.get(key) in (("whole",) if whole else ("whole", "pruned"))

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        yield True

    def prune(self, key: str) -> int:
        assert self.states[key] == "whole"
        self.states[key] = "pruned"
        return 0


def wanted_slowly(plan: Sequence[PlannedStage], store: Store) -> set[str]:
    """Inputs of all that has yet to be made; of those that were pruned theirs, too."""
    left = {one.key: one for one in plan if not (one.shard_of and store.has(one.shard_of, whole=False))}
    needed = {made for one in left.values() if not store.has(one.key, whole=False) for made in one.inputs.values()}
    wanted = set[str]()
    while needed:
        wanted |= needed
        again = {key for key in needed if not store.has(key) and key in left}
        needed = {made for key in again for made in left[key].inputs.values()} - wanted
    return wanted


@pytest.mark.parametrize("seed", range(60))
def test_what_a_plan_has_use_for_is_what_a_walk_through_all_of_it_finds(seed: int) -> None:
    draw = random.Random(seed)
    plan, store = list[PlannedStage](), States()
    for number in range(draw.randrange(2, 25)):
        inputs = {
            str(place): made.key for place, made in enumerate(draw.sample(plan, min(len(plan), draw.randrange(3))))
        }
        whole = draw.choice(plan).key if plan and draw.random() < 0.2 else ""
        plan.append(PlannedStage("any", f"{number:064x}", inputs, whole))
    users = _Users(plan)
    for _ in range(8):  # the same object, whose order of asking changes
        for one in plan:
            store.states[one.key] = draw.choice(["whole", "whole", "pruned", "missing"])
        wanted = wanted_slowly(plan, cast(Store, store))
        for one in draw.sample(plan, len(plan)):
            assert users.has_use_for(one.key, cast(Store, store)) == (one.key in wanted)


def chain(generations: int, evals: int) -> Plan:
    """Each model is trained from the one before, and measured so many times."""
    plan, before = Plan(), dict[str, Stage]()
    for number in range(generations):
        where = Where("keep-0", 0, number)
        train = plan.add(Stage(TRAIN, {"number": number}, before), where)
        for one in range(evals):
            measured = plan.add(Stage(EVAL, {"number": one}, {"model": train}), where)
        plan.generations.append(Generation(where, train, measured))
        before = {"model": train}
    return plan


def asked(folder: Path, generations: int, evals: int) -> int:
    """How often the store is asked while a run that keeps no model is computed."""
    config = Experiment.model_validate({"store": {"keep_models": "none"}})
    plan, store = chain(generations, evals), States()
    pruning = Pruning(RunFolder(folder, "mine"), cast(Store, store), config, plan)
    models = [one.train.key for one in plan.generations]
    for key, stage in plan.stages.items():
        store.states[key] = "whole"
        pruning.finished(stage, cast(Finished, None), cached=False)
        assert sum(store.states.get(model) == "whole" for model in models) <= 2, "as soon as nothing needs it"
    pruning.prune()
    assert {store.states[model] for model in models} == {"pruned"}
    return store.asked


def test_the_store_is_asked_no_oftener_for_a_stage_of_a_longer_run(tmp_path: Path) -> None:
    assert asked(tmp_path, 400, 1) <= 2.1 * asked(tmp_path, 200, 1)
    assert asked(tmp_path, 2, 400) <= 2.1 * asked(tmp_path, 2, 200), "nor where many stages are made from one model"


@pytest.mark.parametrize(("keep", "kept"), [("all", {0, 1, 2, 3}), ("ends", {0, 3}), ("none", set[int]())])
def test_what_another_run_keeps_stays(tmp_path: Path, keep: str, kept: set[int]) -> None:
    """It has all that it wants, so that nothing but its settings speaks for them."""
    settings: dict[str, Any] = {"loop": {"generations": 3}, "store": {"keep_models": keep}}
    theirs, mine = chain(4, 1), chain(6, 1)
    RunFolder(tmp_path, "theirs").start(Experiment.model_validate(settings), theirs.record(), {})
    store = States(**dict.fromkeys(mine.stages, "whole"))
    config = Experiment.model_validate({"loop": {"generations": 5}, "store": {"keep_models": "none"}})
    Pruning(RunFolder(tmp_path, "mine"), cast(Store, store), config, mine).prune()
    assert {one.where.generation for one in mine.generations if store.states[one.train.key] == "whole"} == kept
