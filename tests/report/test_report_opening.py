"""What the page opens with, and what it is drawn with: the short sentence, colours of policies, ceilings, what does not move."""

import json
import math
import re
from pathlib import Path

import pytest
from support.instrumented import write_run
from support.pages import Text, figures_of, page_of, report

from collapse_cli.findings.diagnosis.brief import brief
from collapse_cli.metrics.intervals import Interval
from collapse_cli.metrics.numbers import factors
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report.loading import read, series_of
from collapse_cli.report.palette import COUNT, assigned, colours
from collapse_cli.report.paper import canvas
from collapse_cli.report.sample_texts import begun
from collapse_cli.report.summaries import diagnoses, stages
from collapse_cli.report.text import white


def test_the_sentence_is_of_the_policy_to_which_most_happened_and_says_how_sure_it_is(tmp_path: Path) -> None:
    write_run(tmp_path, "run", policies=("keep-20", "keep-0"), seeds=(0, 1, 2), generations=8)
    runs = read([RunFolder(tmp_path, "run")])
    said = brief(diagnoses(runs)[0])
    assert str(said.arm) == "keep-0"
    assert re.fullmatch(
        r"keep-0 collapses: by generation 8 its perplexity is [\d.]+ times that of generation 0 "
        r"\(95% interval ×[\d.]+ to ×[\d.]+; 3 seeds\) and is still rising\.",
        said.sentence,
    )
    assert said.others.startswith("keep-20 ")
    page = Text(report(tmp_path, "run")).said
    assert (
        page.index("keep-0 collapses: by generation 8") < page.index("keep-20 ", 120) < page.index("At a glance", 200)
    )


def test_what_is_forecast_to_level_off_says_so_first_and_in_the_table_alike(tmp_path: Path) -> None:
    write_run(tmp_path, "run", policies=("keep-0",), seeds=(0, 1, 2), generations=8, growth=slowing)
    said = brief(diagnoses(read([RunFolder(tmp_path, "run")]))[0])
    assert said.sentence.endswith("3 seeds) and is still rising but forecast to level off.")
    page = Text(report(tmp_path, "run")).said
    assert said.sentence in page
    assert page.count("keep-0 collapses and still rises but is forecast to level off") == 1  # the whole verdict
    assert page.count("collapses and still rises but is forecast to level off") == 2  # and the table


def slowing(rate: float, generation: int) -> float:
    return 15 * rate * (1 - math.exp(-generation / 4))


def test_one_seed_has_no_interval_in_the_sentence(tmp_path: Path) -> None:
    write_run(tmp_path, "run", policies=("keep-0",), generations=3)
    said = brief(diagnoses(read([RunFolder(tmp_path, "run")]))[0])
    assert "one seed, so without an interval" in said.sentence
    assert said.others == ""


def test_a_ratio_beyond_all_floats_is_no_figure() -> None:
    assert factors(Interval(1.7976931348623157e308, 3.0, 1.7976931348623157e308, 2)) == (
        "above ×1e300",
        "×3.00 to above ×1e300",
    )
    assert factors(Interval(20.5, 12.9, 32.7, 3)) == ("×20.5", "×12.9 to ×32.7")


def test_a_policy_has_one_colour_whatever_it_is_run_beside() -> None:
    assert assigned(["keep-20", "keep-0"]) == {"keep-20": 2, "keep-0": 0}
    assert assigned(["keep-37", "keep-0", "fresh-10"]) == {"keep-0": 0, "fresh-10": 1, "keep-37": 2}
    many = assigned([f"keep-{share}" for share in range(1, 9)])
    assert sorted(many.values())[:COUNT] == [0, 0, 1, 1, 2, 3], "all of them before one comes again"
    assert len(set(list(many.values())[:COUNT])) == COUNT


def test_page_and_paper_have_the_same_colours() -> None:
    assert colours() == canvas.COLOURS
    assert len(set(colours())) == COUNT


@pytest.mark.parametrize(("tokens", "on_the_axis"), [(600, True), (50_000, False)])
def test_guessing_evenly_is_in_the_chart_or_named(tmp_path: Path, tokens: int, on_the_axis: bool) -> None:
    write_run(tmp_path, "run", policies=("keep-0",), generations=2, config={"model": {"vocab_size": tokens}})
    figure = figures_of(report(tmp_path, "run"))["figures"]["perplexity"]
    (line,) = [trace for trace in figure["traces"] if trace["meta"]["role"] == "ceiling"]
    assert line["y"] == [tokens, tokens]
    assert f"{tokens:,}" in line["name"]
    assert (figure["layout"]["yaxis"]["logrange"][1] >= math.log10(tokens)) == on_the_axis


def test_what_does_not_move_is_folded_away(tmp_path: Path) -> None:
    write_run(tmp_path, "run", policies=("keep-0",), generations=2)
    file = tmp_path / "run" / "metrics.jsonl"
    rows = [json.loads(line) | {"exact_duplicate_rate": 0.0} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({name: row[name] for name in row if name != "digest"}) + "\n" for row in rows))
    text = page_of(tmp_path, "run")
    assert "Nothing moves in: Exact duplicates (0% throughout)" in text
    folded = text[text.index("Nothing moves in: ") :]
    assert folded.index("<figure") < folded.index("</details>")


def test_wall_time_is_what_passed_and_summed_time_what_all_took(tmp_path: Path) -> None:
    write_run(tmp_path, "run", policies=("keep-0",), generations=2)
    (run,) = read([RunFolder(tmp_path, "run")])
    side = [
        {"event": "finished", "work": "train", "time": f"2026-11-20T12:00:{end:02}+00:00", "seconds": 10.0}
        for end in (10, 12, 40)
    ]
    names, rows = stages(type(run)(run.name, run.record, run.rows, side, ()))
    line = dict(zip(names, rows[0], strict=True))
    assert (line["summed time"], line["wall time"]) == ("30 s", "22 s")


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("Whole from its start. And on", "Whole from its start. And on"),
        ("half a sentence. The next one is whole and goes on", "… The next one is whole and goes on"),
        ("half a line\n\n   the next is whole and goes on", "… the next is whole and goes on"),
        ("no start of anything at all", "…no start of anything at all"),
        ("all of it is too long before the end comes. So", "…all of it is too long before the end comes. So"),
    ],
)
def test_a_prompt_begins_at_the_start_of_a_sentence_or_line(prompt: str, shown: str) -> None:
    assert begun(prompt) == shown


def test_white_space_is_to_be_seen_where_it_matters() -> None:
    plain = re.sub(r"</?span[^>]*>", "", white("a b\n\n\n\nc  d\te", ends=True))
    assert plain == "a b⏎×4\nc␣␣d⇥e"
    assert re.sub(r"</?span[^>]*>", "", white(" a ", ends=True)) == "␣␣a␣␣"


def test_colours_are_of_series(tmp_path: Path) -> None:
    write_run(tmp_path, "one", policies=("keep-20", "keep-10"), generations=1)
    assert [one.look.colour for one in series_of(read([RunFolder(tmp_path, "one")]))] == [2, 1]
