"""Small runs with a selection, all stages of which are computed in this process."""

from typing import Any

from collapse_cli import config, learners
from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.stage import Plan, Stage
from collapse_cli.experiment import kinds
from collapse_cli.experiment.stages.base import ROWS
from collapse_cli.learners import Hints
from collapse_cli.run.observers.computed import Computed
from collapse_cli.run.observers.rows import ReadOnce, metrics_row
from collapse_cli.selection.resolve import resolve

Tree = dict[str, Any]
WORDS: Tree = {  # an n-gram model of a small language
    "learner": "ngram",
    "loop": {"generations": 2, "policies": ["keep-0"], "seeds": [1], "block": 1},
    "data": {
        "source": "zipf",
        "block_size": 12,
        "rows": 60,
        "zipf": {"vocabulary": 16, "rank": 2, "train_tokens": 1200, "test_tokens": 240},
    },
    "sample": {"prompts": "none", "new_tokens": 12, "decode": {"beams": 1, "temperature": 1.0}},
}
LABELS: Tree = {  # least squares on labels without noise
    "learner": "ridge",
    "loop": {"generations": 1, "policies": ["keep-0"], "seeds": [0, 1, 2, 3]},
    "data": {"source": "regression", "rows": 2000, "regression": {"dimensions": 20, "noise": 0.0}},
    "ridge": {"lam": 0.0},
}


def experiment(tree: Tree, **changes: Any) -> tuple[Experiment, Hints]:
    """A configuration with all that had to be looked up."""
    given = config.load(config.merge(tree, changes), "a test")
    resolved = resolve(learners.learner_class(given.learner).resolve(given))
    return resolved.config, resolved.hints


def run(store: FolderStore, tree: Tree, **changes: Any) -> Plan:
    """All stages of an experiment."""
    planned = kinds.plan(*experiment(tree, **changes))
    store.begin()
    scheduler.run(list(planned.stages.values()), LocalExecutor(store), Computed())
    return planned


def rows_of(planned: Plan, store: FolderStore) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl."""
    stages = ReadOnce(store)
    return [
        {**metrics_row(one, stages).fields, "generation": one.where.generation, "seed": one.where.seed}
        for one in planned.generations
    ]


def stages_of(planned: Plan, work: str) -> list[Stage]:
    return [stage for stage in planned.stages.values() if stage.work == work]


def rows_in(store: FolderStore, stage: Stage, file: str = ROWS) -> Dataset:
    return Dataset.load(store.get(stage.key).file(file))
