"""A store and a run made before the house had rooms are found and used: nothing is computed, and the rows are the same.

What the earlier code left is in tests/support/before.json, made by tests/support/before.py.
"""

import json
from pathlib import Path

import pytest
from support import before, e2e

from collapse_cli.engine import sealed

MADE = before.read()


def store_of_before(runs: Path, name: str) -> None:
    """The store that the earlier code left of an experiment: its records, in their places. No other file is needed."""
    for key, record in MADE[name].records.items():
        folder = runs / "store" / key[:2] / key
        folder.mkdir(parents=True)
        (folder / "stage.json").write_text(sealed.sealed(record), encoding="utf-8")


def compute(name: str, folder: Path) -> dict[str, object]:
    """`collapse run` of an experiment; what `--json` says."""
    return e2e.run(before.write_experiment(folder, MADE[name].toml), folder / "runs")


def test_what_was_committed_is_of_every_experiment_and_whole() -> None:
    assert {name: made.toml for name, made in MADE.items()} == before.EXPERIMENTS
    for made in MADE.values():
        assert [stage["key"] for stage in made.stages] == list(made.records)
        for record in made.records.values():
            text = sealed.sealed(record)
            assert json.loads(text)["digest"] == record["digest"], "not what the earlier code wrote"


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_store_of_before_is_found_and_used(name: str, tmp_path: Path) -> None:
    """The same stages are planned in the same order, none is computed, and the rows are made of what is there."""
    store_of_before(tmp_path / "runs", name)
    result = compute(name, tmp_path)
    assert result["computed"] == 0
    assert e2e.plan(tmp_path / "runs", "small") == MADE[name].stages
    events = e2e.read_lines(tmp_path / "runs" / "small" / "events.jsonl")
    assert {event["event"] for event in events} == {"cached"}
    rows = [before.compared(row) for row in e2e.read_lines(tmp_path / "runs" / "small" / "metrics.jsonl")]
    assert rows == MADE[name].rows
    again = e2e.collapse("status", "small", "--runs-dir", tmp_path / "runs")
    assert (again.code, again.err) == (0, "")


def test_what_is_not_there_is_computed(tmp_path: Path) -> None:
    """So the test above can fail: without the record of the last block that block, and what it is made of, is missing."""
    store_of_before(tmp_path / "runs", "gmm")
    last = [stage for stage in MADE["gmm"].stages if stage["kind"] == "block"][-1]["key"]
    (tmp_path / "runs" / "store" / last[:2] / last / "stage.json").unlink()
    result = compute("gmm", tmp_path)
    assert result["computed"] >= 1
    assert {event["event"] for event in e2e.read_lines(tmp_path / "runs" / "small" / "events.jsonl")} > {"cached"}
    assert e2e.plan(tmp_path / "runs", "small") == MADE["gmm"].stages
