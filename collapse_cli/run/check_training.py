"""The trained part of a check: which models, on how much of what."""

import tempfile
from pathlib import Path
from typing import Any

from collapse_cli.config import Experiment, load, merge
from collapse_cli.engine.store import Store
from collapse_cli.errors import InputError, how_many
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
from collapse_cli.run.preparation import other_texts, prepare, real_data


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
