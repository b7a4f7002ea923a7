"""What of a run folder's files counts as a row."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.instrumented import write_run
from typer.testing import CliRunner

from collapse_cli.cli.app import app
from collapse_cli.records.rundir import RunFolder

BAD = [
    {"policy": "\x1b[2J\x1b]0;owned\x07keep-0"},
    {"policy": "keep-0\nkeep-1"},
    {"policy": "\u202eevil"},
    {"policy": "\ud800"},
    {"policy": ["keep-0"]},
    {"policy": None},
    {"seed": "0"},
    {"seed": True},
    {"generation": 1.5},
    {"generation": None},
    {"warnings": 1e999},
    {"warnings": [None]},
    {"perplexity": [1]},
    {"perplexity": True},
    {"nll": "[bold"},
    {"predicted_tokens": "many"},
]


@pytest.mark.parametrize("damage", BAD, ids=json.dumps)
def test_a_row_that_cannot_be_one_is_left_out(tmp_path: Path, damage: dict[str, Any]) -> None:
    folder = write_run(tmp_path, "run", policies=("keep-0", "keep-10"), generations=2)
    run, file = RunFolder(tmp_path, "run"), folder / "metrics.jsonl"
    rows = run.rows()
    file.write_text(json.dumps(rows[0].record() | damage) + "\n" + file.read_text())
    assert run.rows() == rows


@pytest.mark.parametrize("command", ["status", "compare", "forecast"])
def test_no_name_in_a_file_gives_the_terminal_orders(tmp_path: Path, command: str) -> None:
    how = {"protocol": "block", "line_bos": False, "context": 64, "stride": 64, "dtype": "float32"}
    folder = write_run(tmp_path, "run", policies=("keep-0", "keep-10"), generations=6, protocol=how)
    file = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    wild = [line | BAD[0] for line in lines if line["policy"] == "keep-10"]
    file.write_text("".join(json.dumps(line) + "\n" for line in [*wild, *lines]))
    done = CliRunner().invoke(app, [command, "run", "--runs-dir", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "keep-10" in done.output
    assert not {"\x1b", "\x07"} & set(done.output)


def test_a_learner_that_is_no_name_ends_no_command(tmp_path: Path) -> None:
    """The rows of another learner lack what is shown of a language model's."""
    folder = write_run(tmp_path, "run", generations=2)
    record = json.loads((folder / "run.json").read_text())
    record["config"]["learner"] = -1
    (folder / "run.json").write_text(json.dumps(record))
    file = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**line, "perplexity": None}) + "\n" for line in lines))
    done = CliRunner().invoke(app, ["status", "run", "--runs-dir", str(tmp_path)])
    assert done.exit_code == 0, done.exception


def test_a_measure_that_is_no_number_is_left_out_of_a_comparison(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run", policies=("keep-0", "keep-10"), generations=2)
    file = folder / "metrics.jsonl"
    lines = [json.loads(line) | {"mauve": {"": ""}} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = CliRunner().invoke(app, ["compare", "run", "--runs-dir", str(tmp_path)])
    assert done.exit_code == 0, done.exception
