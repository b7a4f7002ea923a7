"""The trained part of a check: which models, on how much of what, and how long that takes."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collapse_cli.config import Experiment, load, merge
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.store import Store, store_at
from collapse_cli.errors import InputError, how_many
from collapse_cli.experiment.kinds import plan
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.check_options import (
    ADDED,
    LEAST_ROWS,
    MOST_ROWS,
    PASSES,
    SHARES,
    STEPS,
    TrainingAsked,
    base_tree,
    check_options,
    given_of,
    whole,
)
from collapse_cli.run.execution import Execution
from collapse_cli.run.observers.computed import Computed
from collapse_cli.run.preparation import Prepared, other_texts, prepare, real_data, threads_by_work
from collapse_cli.run.threads import of_this_process

TRIED = (4, 16)  # steps of two short trainings, by whose difference a step is timed


def experiment(asked: TrainingAsked, real: Path, synthetic: Path, store: Store, execution: Execution) -> Experiment:
    """The whole configuration: how much of either text there is decides how many rows cells have.

    Raises:
        ConfigError, InputError: for what the user has to mend.
    """
    first = check_options(asked, str(real), str(synthetic))
    with tempfile.TemporaryDirectory(prefix="collapse-") as nowhere:
        prepared = prepare(first, RunFolder(Path(nowhere), "check"), store, None, execution)
    data = real_data(prepared.plan, "")
    assert data is not None, "text has a stage of its own"
    (other,) = other_texts(prepared.plan, data)
    there, written = int(store.get(data.key).facts["splits"]["train"]["rows"]), int(store.get(other.key).facts["rows"])
    tree = base_tree(asked, str(real), str(synthetic))
    base = min(there, MOST_ROWS)
    rows = min(base, written)
    if rows < LEAST_ROWS:
        which = "real" if there < written else "synthetic"
        raise InputError(
            f"the {which} text has {how_many(rows, 'block')} of {first.data.block_size} tokens, and models need at least {LEAST_ROWS} of each text "
            "to be trained on; give more text, or --quick to train nothing"
        )
    added = list(dict.fromkeys(min(written, max(1, round(base * times))) for times in ADDED))
    grid: dict[str, Any] = {"rows": [rows], "share": list(SHARES), "added_rows": added, "added_to": base}
    tree = merge(tree, {"mixture": grid})
    if not tree["train"].get("steps"):
        batch = int(given_of(asked).get("train", {}).get("batch_size", tree["train"]["batch_size"]))
        tree = merge(tree, {"train": {"steps": max(50, min(STEPS, round(PASSES * rows / batch)))}})
    return load(whole(tree, given_of(asked)), "the command line")


@dataclass(frozen=True)
class TrialTime:
    """How long the models of a plan will take, from short trainings that were tried.

    Attributes:
        models, steps: how many, and of each.
        seconds: for all that is still to be done.
    """

    models: int
    steps: int
    seconds: float


def trial(prepared: Prepared, still: int) -> TrialTime:
    """Train for a few steps, score once, and say how long all of it takes.

    Args:
        still: how many models are still to be trained and scored.
    """
    config = prepared.config
    steps = config.train.steps
    if not still:
        return TrialTime(0, steps, 0.0)
    with tempfile.TemporaryDirectory(prefix="collapse-") as folder, of_this_process() as set_threads:
        store = store_at(Path(folder))
        store.begin()
        seconds, by_work = [], threads_by_work(prepared)
        for few in TRIED:
            short = config.model_copy(update={"train": config.train.model_copy(update={"steps": min(few, steps)})})
            planned = plan(short, prepared.hints)
            last = planned.generations[-1]
            stages = list(planned.stages.values())
            needed = scheduler.missing(stages, store, lambda stage, key=last.measured[0].key: stage.key == key)  # type: ignore[misc]
            threads = {stage.key: by_work.get(stage.work, 0) for stage in needed}
            scheduler.run(needed, LocalExecutor(store, set_threads), Computed(), threads)
            trained = store.get(last.train.key)
            scored = store.get(last.measured[0].key)
            seconds.append((trained.seconds or 0.0, scored.seconds or 0.0))
    a_step = max(0.0, seconds[1][0] - seconds[0][0]) / max(1, TRIED[1] - TRIED[0])
    once = max(0.0, seconds[0][0] - TRIED[0] * a_step) + seconds[1][1]
    return TrialTime(still, steps, still * (once + steps * a_step) / prepared.workers)
