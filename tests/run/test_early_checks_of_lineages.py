"""What is wrong with one of several lineages is said of that one."""

from pathlib import Path
from typing import Any

import pytest

from collapse_cli.config import load
from collapse_cli.errors import InputError, UserError
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.early_checks import check_experiment, of_lineage

TREE: dict[str, Any] = {"data": {"source": "pydoc"}, "model": {"config": {"model_type": "opt"}}}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"model": {"source": "./nowhere"}}, "lineages.b: "),
        ({"data": {"source": "./nowhere.txt"}}, "lineages.b: "),
    ],
    ids=["a model that is not there", "text that is not there"],
)
def test_the_lineage_is_named(tmp_path: Path, table: dict[str, Any], said: str) -> None:
    config = load({**TREE, "lineages": {"a": {}, "b": table}}, "a test")
    with pytest.raises(UserError) as found:
        check_experiment(config, RunFolder(tmp_path, "x"))
    assert str(found.value).startswith(said)
    assert "nowhere" in str(found.value)


@pytest.mark.parametrize("before", ["", "lineages.b: "])
def test_whatever_else_is_looked_up_of_a_lineage_names_it_once(before: str) -> None:
    config = load({**TREE, "lineages": {"a": {}, "b": {"data": {"source": "pydoc"}}}}, "a test")
    with pytest.raises(InputError) as found, of_lineage(config, "b"):
        raise InputError(f"{before}too few rows")
    assert str(found.value) == "lineages.b: too few rows"
    with pytest.raises(InputError, match=r"^too few rows$"), of_lineage(config, "a"):
        raise InputError("too few rows")


def test_what_all_share_is_said_of_none(tmp_path: Path) -> None:
    config = load({**TREE, "data": {"source": "./nowhere.txt"}, "pool": {"lineages": 2}}, "a test")
    with pytest.raises(UserError, match=r"^(?!lineages)"):
        check_experiment(config, RunFolder(tmp_path, "x"))
