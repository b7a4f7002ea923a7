"""What a plan costs: disk and time, estimated before it runs, and while it does. What a stage costs is known to its kind."""

import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from collapse_cli.engine.stage import Product, Stage
from collapse_cli.engine.store import Store
from collapse_cli.errors import ConfigError
from collapse_cli.experiment.costs import Sizes
from collapse_cli.metrics import numbers
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.preparation import NOMINAL_SPEED, Prepared, to_do
from collapse_cli.terminal.plan import KindCosts, PlanCosts

RECENT = 24  # finished stages that the estimate of the time left is made from


def describe(prepared: Prepared, store: Store, folder: RunFolder) -> PlanCosts:
    """The plan in numbers, for `--dry-run`."""
    planned, needed = prepared.plan, {stage.key: stage for stage in to_do(prepared.plan, store)}
    kinds: dict[str, KindCosts] = {}
    clock = Clock(prepared, needed=bool(needed))
    for key, stage in planned.stages.items():
        if store.has(key):
            clock.finished(stage, store.get(key).seconds)
    for stage in planned.stages.values():
        entry = kinds.setdefault(stage.kind, KindCosts())
        entry.stages += 1
        if stage.key not in needed:
            entry.cached += 1
            continue
        cost = prepared.size.cost_of(stage)
        entry.tokens += cost.tokens
        entry.flops += cost.flops
        entry.disk += cost.disk
        entry.seconds += clock.left([stage.key])
    return PlanCosts(
        run=folder.name,
        stages=len(planned.stages),
        cached=len(planned.stages) - len(needed),
        kinds=kinds,
        parameters=prepared.size.parameters,
        rows=prepared.size.rows,
        disk_needed=disk_needed(needed.values(), prepared.size),
        disk_free=shutil.disk_usage(existing(folder.runs)).free,
        seconds=sum(kind.seconds for kind in kinds.values()),
        measured=bool(clock.observed),
        notes=prepared.notes,
    )


def check_disk(prepared: Prepared, needed: Collection[Stage], runs: Path) -> None:
    """Stop before starting when the plan will not fit on the disk."""
    wanted = disk_needed(needed, prepared.size) if needed else 0
    free = shutil.disk_usage(existing(runs)).free
    if wanted > free:
        raise ConfigError(
            f"the plan needs about {numbers.size(wanted)} on the disk of {runs}, where {numbers.size(free)} are free; free "
            "some (collapse gc), use another --runs-dir, or --set store.keep_models=ends"
        )


class Clock:
    """Time left for a plan: guesses per stage, corrected by how long finished stages of the kind took."""

    def __init__(self, prepared: Prepared, *, needed: bool = True) -> None:
        """`needed`: whether anything is to be computed; without it, this machine's speed is not measured."""
        self.plan, self.workers = prepared.plan, prepared.workers
        nominal = prepared.size.known or not needed
        speed = NOMINAL_SPEED if nominal else matmul_speed(prepared.size.config.train.dtype)
        self.guesses = {
            # a stage beside others has its share of the cores
            key: prepared.size.seconds(stage, speed) * self.workers
            for key, stage in self.plan.stages.items()
        }
        self.todo = dict(self.guesses)
        self.observed: list[tuple[str, float, float]] = []  # kind, guessed, real; the newest count

    def finished(self, stage: Stage, seconds: float | None) -> None:
        self.todo.pop(stage.key, None)
        if seconds is not None:
            self.observed.append((stage.work, self.guesses[stage.key], seconds))

    def left(self, among: Collection[str] | None = None) -> float:
        """Seconds, for all stages still to do, or for some of them."""
        factors = correction(self.observed[-RECENT:])
        keys = self.todo if among is None else {key: self.todo[key] for key in among if key in self.todo}
        return sum(guess * factors.get(self.plan.stages[key].work, 1.0) for key, guess in keys.items()) / self.workers


def correction(observed: Iterable[tuple[str, float, float]]) -> Mapping[str, float]:
    """By kind, real seconds over guessed ones, from finished stages (kind, guessed, real)."""
    sums: dict[str, tuple[float, float]] = {}
    for kind, guess, real in observed:
        before = sums.get(kind, (0.0, 0.0))
        sums[kind] = (before[0] + guess, before[1] + real)
    return {kind: real / guess for kind, (guess, real) in sums.items() if guess > 0}


@cache
def matmul_speed(dtype: str) -> float:
    """FLOP/s of a matrix product on this machine, measured in a fraction of a second, once a process."""
    import torch

    from collapse_cli.lm.model import device

    side = 768 if device().type == "cpu" else 4096
    kind: Any = getattr(torch, dtype)
    a = torch.ones(side, side, dtype=kind, device=device())
    best = 0.0
    for _ in range(6):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def disk_needed(stages: Iterable[Stage], size: Sizes) -> int:
    """Bytes that stages still to be made need at most, with one training checkpoint (weights and optimizer)."""
    config, models, rest, trained = size.config, list[int](), 0, list[int]()
    for stage in stages:
        disk = size.cost_of(stage).disk
        if stage.of.product is Product.MODEL:
            models.append(disk)
            trained.append(size.trained_parameters(stage))
        else:
            rest += disk
    if config.store.keep_models != "all" and models:
        kept = (
            2 * len(config.loop.policies) * len(config.loop.seeds) * len(size.lineages)
        )  # at work at once, or the ends
        models = models[:kept]
    return sum(models) + rest + 12 * max(trained, default=size.parameters)


def existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())
