"""The report on runs that are not finished, and on rows and events that are not as they should be."""

import json
import math
from pathlib import Path

import numpy as np
from support.instrumented import write_run
from support.pages import POLICIES, Text, figures_of, report

from collapse_cli.metrics.numbers import duration, factor, value
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import figures, write_markdown
from collapse_cli.report.loading import read, series_of
from collapse_cli.report.summaries import diagnoses, glance_table, stages


def test_a_seed_that_has_only_begun_does_not_cut_the_means(tmp_path: Path) -> None:
    """Seed 1 has generation 0, seed 2 one more: all lines and the line at a glance are of seed 0 at generation 4."""
    missing = [("keep-0", seed, g) for seed, begun in ((1, 0), (2, 1)) for g in range(begun + 1, 5)]
    write_run(tmp_path, "run", policies=POLICIES, seeds=(0, 1, 2), generations=4, missing=missing, status="started")
    run = read([RunFolder(tmp_path, "run")])
    first, second = series_of(run)
    assert (first.counted, second.counted) == ([0], [0, 1, 2])
    rows = {(row.where.seed, row.where.generation): row for row in run[0].rows if row.where.policy == "keep-0"}
    names, lines = glance_table([first, second], diagnoses(run))
    line = dict(zip(names, lines[0], strict=True))
    start, end = rows[0, 0].fields["perplexity"], rows[0, 4].fields["perplexity"]
    assert (line["first perplexity"], line["last"], line["generations"]) == (value(start), value(end), "0–4")
    assert line["change"] == factor(end / start), "of the same generation and seed as the numbers beside it"
    assert line["rare tokens, nats"] == value(rows[0, 4].measure("tail_change"))
    text = report(tmp_path, "run")
    said = "keep-0: means are over seed 0; left out, for not measured as far: seeds 1, 2"
    assert said in Text(text).said
    assert "keep-10: means are over" not in Text(text).said
    figures = figures_of(text)["figures"]
    for name in ("perplexity", "distinct_2", "tail_change"):
        mean = next(t for t in figures[name]["traces"] if (t["meta"].get("s"), t["meta"]["role"]) == (0, "mean"))
        assert mean["x"][-1] == 4, name
    (trace,) = figures["deciles_0"]["traces"]
    changes = np.array([rows[0, g].parts("nll_change_by_decile") for g in range(1, 5)])
    errors = np.array([rows[0, g].parts("nll_change_by_decile_se") for g in range(1, 5)])
    sure = (np.abs(changes) > 1.96 * errors).T
    assert [[not mark for mark in row] for row in trace["text"]] == sure.tolist()
    assert sure[:, 0].any(), "at generation 1 seed 2 has a row too, which does not count"


def test_a_run_that_stopped_after_generation_0_has_a_page(tmp_path: Path) -> None:
    """One number in all, with nothing near it: it is drawn, and its axis goes around it."""
    missing = [("keep-0", 0, g) for g in (1, 2)]
    write_run(tmp_path, "run", policies=("keep-0",), generations=2, missing=missing, status="error")
    assert "perplexity" in figures_of(report(tmp_path, "run"))["figures"]
    drawn = figures.perplexity(series_of(read([RunFolder(tmp_path, "run")])), {}, {})
    assert drawn is not None
    (there,) = {y for trace in drawn.traces for y in trace["y"]}
    low, high = drawn.layout["yaxis"]["logrange"]
    assert low < math.log10(there) < high


def test_where_two_seeds_are_nearly_as_far_both_count_at_the_generation_they_share(tmp_path: Path) -> None:
    write_run(tmp_path, "run", policies=("keep-0",), seeds=(0, 1), generations=4, missing=[("keep-0", 1, 4)])
    run = read([RunFolder(tmp_path, "run")])
    (one,) = series_of(run)
    assert one.counted == [0, 1]
    names, (cells,) = glance_table([one], diagnoses(run))
    line = dict(zip(names, cells, strict=True))
    assert line["generations"] == "0–3"
    assert line["last"].startswith(value(math.exp(np.mean([row.nll for row in one.at(3)]))))


def test_markdown_of_two_runs_says_which_seeds_each_mean_is_over(tmp_path: Path) -> None:
    missing = [("keep-0", 1, g) for g in (2, 3)]
    write_run(tmp_path, "a", policies=("keep-0",), seeds=(0, 1), generations=3, missing=missing)
    write_run(tmp_path, "b", policies=("keep-0",), seeds=(0, 1), generations=3)
    out = write_markdown([RunFolder(tmp_path, "a"), RunFolder(tmp_path, "b")], tmp_path / "both.md", forecast=False)
    text = out.read_text(encoding="utf-8")
    assert "- a · keep-0: means are over seed 0; left out, for not measured as far: seed 1\n" in text
    assert "b · keep-0: means are over" not in text
    assert text.startswith("# Report on a, b\n")
    assert "![" in text
    assert "](both-perplexity.png)" in text


def test_time_is_told_by_the_work_of_a_stage(tmp_path: Path) -> None:
    """Events of runs before there was a `work` have a kind alone."""
    folder = write_run(tmp_path, "run", policies=("keep-0",), generations=1)
    file = folder / "events.jsonl"
    more = {"event": "finished", "kind": "eval", "work": "examine", "seconds": 3.0, "tokens": 30}
    file.write_text(file.read_text() + json.dumps(more) + "\n" + json.dumps(more | {"event": "cached"}) + "\n")
    (run,) = read([RunFolder(tmp_path, "run")])
    told = {row[0]: row[1:4] for row in stages(run)[1]}
    assert told["eval"] == ["2", "0", duration(0.8, fine=True)]
    assert told["examine"] == ["1", "1", duration(3.0, fine=True)]


def test_rows_of_generations_that_cannot_be_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run", policies=("keep-0",), generations=6)
    file = folder / "metrics.jsonl"
    row = json.loads(file.read_text().splitlines()[-1])
    damaged = [row | {"generation": 2**52}, row | {"generation": 100_001}, row | {"seed": -1}]
    file.write_text(file.read_text() + "".join(json.dumps(one) + "\n" for one in damaged))
    (run,) = read([RunFolder(tmp_path, "run")])
    assert max(row.where.generation for row in run.rows) == 6
    assert any(
        note.startswith("metrics.jsonl: rows without a possible policy, seed and generation: 3") for note in run.notes
    )
    assert "Where this is heading" in Text(report(tmp_path, "run", forecast=True)).said
