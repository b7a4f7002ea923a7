"""All stages of an experiment, computed in a store of its own; and its rows."""

import json
from pathlib import Path
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.stage import Plan
from collapse_cli.experiment import kinds
from collapse_cli.learners import Hints
from collapse_cli.records.row import Row
from collapse_cli.run.observers.computed import Computed
from collapse_cli.run.observers.rows import ReadOnce, metrics_row

NOT_NUMBERS = ("seconds", "model_key", "model_dir", "eval_keys")


def run(config: Experiment, root: Path) -> tuple[Plan, FolderStore]:
    """The plan and the store, with all of it done."""
    planned, store = kinds.plan(config, Hints()), FolderStore(root)
    root.mkdir(exist_ok=True)
    scheduler.run(list(planned.stages.values()), LocalExecutor(store), Computed())
    return planned, store


def rows(planned: Plan, store: FolderStore) -> list[Row]:
    """Those of metrics.jsonl, in the order of the plan."""
    return [metrics_row(one, ReadOnce(store)) for one in planned.generations]


def numbers_of(planned: Plan, store: FolderStore) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The same as JSON has them, without what is no number, by lineage, policy and generation: of one seed."""
    return {
        (row.where.lineage, row.where.policy, row.where.generation): {
            name: value for name, value in json.loads(json.dumps(row.record())).items() if name not in NOT_NUMBERS
        }
        for row in rows(planned, store)
    }
