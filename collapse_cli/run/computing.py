"""Which executor computes which stages of a run."""

from collections.abc import Callable, Mapping, Sequence

from collapse_cli import families
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.executors.processes import ProcessExecutor
from collapse_cli.engine.executors.ray import RayExecutor
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Product, Stage
from collapse_cli.engine.store import Store
from collapse_cli.learners.device_processes import devices_stay
from collapse_cli.run import ray_cluster, ray_driver, worker
from collapse_cli.run.preparation import Prepared
from collapse_cli.run.ray_task import order_of
from collapse_cli.run.threads import of_this_process


def compute(stages: Sequence[Stage], prepared: Prepared, store: Store, observer: Observer) -> None:
    """By Ray, or here: in worker processes what can be computed at the same time; in this process, while they start, what all
    that waits for.
    """
    if prepared.execution.executor == "ray":
        _compute_by_ray(stages, prepared, store, observer)
        return
    alone, others = apart(stages, scheduler.width(prepared.plan)) if prepared.workers > 1 else (stages, [])
    workers = min(prepared.workers, sum(not store.has(stage.key) for stage in others))
    with of_this_process(families.of(prepared.config.learner).light) as set_threads, devices_stay():
        here = LocalExecutor(store, set_threads)
        if workers == 0:
            scheduler.run([*alone, *others], here, observer, prepared.threads)
            return
        order = worker.order(prepared.config, prepared.hints, store, prepared.plan.shards)
        with ProcessExecutor(store, worker.command(), order, workers) as elsewhere:
            scheduler.run(alone, here, observer, prepared.threads)
            scheduler.run(others, elsewhere, observer, prepared.threads)


def _compute_by_ray(stages: Sequence[Stage], prepared: Prepared, store: Store, observer: Observer) -> None:
    todo = [stage for stage in stages if not store.has(stage.key)]
    if not todo:
        scheduler.run(stages, LocalExecutor(store), observer)
        return
    asked, gpus = prepared.config.ray.threads, gpus_of(prepared)
    threads = {stage.key: asked or prepared.threads[stage.key] for stage in stages}
    width = scheduler.width(prepared.plan)
    config = prepared.config.model_dump(mode="json")
    order = {
        "plan": order_of(config, prepared.hints.record(), store.address, prepared.plan),
        "address": ray_cluster.address_of(prepared.config),
        # of Ray on this machine
        "cpus": max(threads[stage.key] * min(prepared.workers, width[stage.key]) for stage in stages),
        "threads": max(threads[stage.key] for stage in todo),
        "gpus": max(gpus(stage) for stage in todo),
    }
    slots = prepared.execution.jobs or len(todo)
    with RayExecutor(store, ray_driver.command(), order, slots, gpus) as cluster:
        scheduler.run(stages, cluster, observer, threads)


def gpus_of(prepared: Prepared) -> Callable[[Stage], float]:
    """How many GPUs a stage asks for: none where it works with no model, one a device where it trains one."""
    wanted = prepared.config.ray.gpus
    if wanted is None:
        wanted = 0.0
        if not families.of(prepared.config.learner).light:
            import torch

            wanted = float(torch.cuda.is_available())

    def asked(stage: Stage) -> float:
        if stage.of.product is Product.DATA or not prepared.size.cost_of(stage).flops:
            return 0.0
        together = prepared.execution.devices if stage.of.product is Product.MODEL else 1
        return max(wanted, together) if wanted and together > 1 else wanted

    return asked


def apart(stages: Sequence[Stage], width: Mapping[str, int]) -> tuple[list[Stage], list[Stage]]:
    """The stages that this process computes itself, while workers start, as these could only wait for them; and the others.

    Where some are computed beside others of their kind, these are the stages that all of that waits for, as far as nothing of their kind
    is beside them. Where none is (one policy and seed), those up to the first moment at which there is more than one to compute.
    """
    if all(width[stage.key] == 1 for stage in stages):
        return _up_to_a_fork(stages)
    others = {stage.key: stage for stage in stages}
    for stage in stages:
        if width[stage.key] == 1 and not any(made.key in others for made in stage.needs.values()):
            del others[stage.key]
    return [stage for stage in stages if stage.key not in others], list(others.values())


def _up_to_a_fork(stages: Sequence[Stage]) -> tuple[list[Stage], list[Stage]]:
    waiting, alone = scheduler.Todo(stages), list[Stage]()
    while (stage := waiting.take()) is not None and waiting.take() is None:
        alone.append(stage)
        waiting.done(stage)
    here = {stage.key for stage in alone}
    return alone, [stage for stage in stages if stage.key not in here]
