"""A run is taken up again by the command that made it, though what its selection names was looked up and its hash filled in."""

from pathlib import Path
from typing import Any

import pytest

from collapse_cli.config import Experiment, load
from collapse_cli.errors import ConfigError
from collapse_cli.records.rundir import RunFolder

STEP = {"by": "perplexity", "keep": "lowest", "model": "a/model"}


def experiment(name: str = "a/model", sha256: str = "", **more: Any) -> Experiment:
    step = {**STEP, "model": name, "model_sha256": sha256}
    return load({"select": {"oversample": 2.0, **step} | more}, "a test")


def test_a_hash_that_was_filled_in_makes_it_no_other_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run")
    folder.start(experiment(sha256="0" * 64), [], {})
    folder.check_same_settings(experiment())
    folder.check_same_settings(experiment("elsewhere/model"))
    folder.joined_with(experiment("elsewhere/model", "0" * 64))
    with pytest.raises(ConfigError, match="give this one a --name of its own"):
        folder.joined_with(experiment(sha256="1" * 64))
    with pytest.raises(ConfigError, match=r"select\.oversample = 2.0, this one has 3.0"):
        folder.check_same_settings(experiment(oversample=3.0))


def test_one_step_is_the_same_in_either_form(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run")
    folder.start(experiment(), [], {})
    folder.check_same_settings(load({"select": {"oversample": 2.0, "steps": [STEP]}}, "a test"))
