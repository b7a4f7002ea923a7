"""Which executor computes which stages of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.executors.processes import ProcessExecutor
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Stage
from collapse_cli.engine.store import Store
from collapse_cli.run import worker
from collapse_cli.run.preparation import Prepared


def compute(stages: Sequence[Stage], prepared: Prepared, store: Store, observer: Observer) -> None:
    """In worker processes what can be computed at the same time; in this process, while they start, what all that waits for."""
    here = LocalExecutor(store)
    alone, others = apart(stages, scheduler.width(prepared.plan)) if prepared.workers > 1 else (stages, [])
    workers = min(prepared.workers, sum(not store.has(stage.key) for stage in others))
    if workers == 0:
        scheduler.run([*alone, *others], here, observer)
        return
    order = {
        "config": prepared.config.model_dump(mode="json"),
        "hints": asdict(prepared.hints),
        "store": store.address,
    }
    with ProcessExecutor(store, worker.command(), order, workers) as elsewhere:
        scheduler.run(alone, here, observer)
        scheduler.run(others, elsewhere, observer, prepared.threads)


def apart(stages: Sequence[Stage], width: Mapping[str, int]) -> tuple[list[Stage], list[Stage]]:
    """The stages that nothing can be computed beside, and that wait for none which can; and the others."""
    others = {stage.key: stage for stage in stages}
    for stage in stages:
        if width[stage.key] == 1 and not any(made.key in others for made in stage.inputs.values()):
            del others[stage.key]
    return [stage for stage in stages if stage.key not in others], list(others.values())
