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


ABOVE = {"by": "length", "keep": "threshold", "side": "above"}


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (ABOVE | {"threshold": 99.0}, ABOVE | {"threshold": 4.0}, "select.threshold = 99.0, this one has 4.0"),
        (
            {"steps": [ABOVE | {"threshold": 9.0}, STEP]},
            {"steps": [ABOVE | {"threshold": 4.0}, STEP]},
            "select.steps.1.threshold = 9.0, this one has 4.0",
        ),
        ({}, ABOVE | {"threshold": 4.0, "oversample": 1.0}, "select.steps = 'none', this one has 'length'"),
    ],
)
def test_another_selection_is_told_by_the_users_own_key(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], key: str
) -> None:
    """And what to do about it; a step of several by its number."""
    before, now = (load({"select": {"oversample": 2.0, **select} if select else {}}, "a test") for select in (old, new))
    folder = RunFolder(tmp_path, "run")
    folder.start(before, [], {})
    for look in (folder.check_same_settings, folder.joined_with):
        with pytest.raises(ConfigError) as refused:
            look(now)
        assert str(refused.value).startswith(f"the run 'run' was made with {key}; give this one a --name of its own")
        assert f"remove the folder {tmp_path / 'run'}" in str(refused.value)
