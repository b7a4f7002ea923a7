"""How lines are told apart, where axes end, what is said of numbers that are not there, and what comes first."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from support.instrumented import write_run
from support.pages import Text, figures_of, report, series
from support.rows import changed, read_rows, write_rows

from collapse_cli.families import INSTRUMENTS
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import html_elements, palette, write_markdown
from collapse_cli.report.figures import apart, bounded, exponential, level, log_ticks
from collapse_cli.report.loading import read, series_of
from collapse_cli.report.palette import looks
from collapse_cli.report.paper import canvas, of_text
from collapse_cli.report.summaries import published_table
from collapse_cli.where import Arm

MEASURES = {measure.name: measure for measure in INSTRUMENTS}
VARIANTS = {"baseline": 0.01, "statistical": 0.05, "expressivity": 0.1, "training": 0.15, "all": 0.2}


def change(folder: Path, **fields: Any) -> None:
    """Set fields of all rows."""
    file = folder / "metrics.jsonl"
    lines = [json.loads(line) | fields for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("variants")
    for name, rate in VARIANTS.items():
        how: dict[str, Any] = {"seeds": (0, 1), "generations": 2, "collapse": {"keep-0": rate}, "truth": True}
        write_run(runs, f"x-{name}", policies=("keep-0",), **how)
    return runs


def test_runs_of_one_policy_have_a_colour_and_a_dash_each(variants: Path) -> None:
    found = series_of(read([RunFolder(variants, f"x-{name}") for name in VARIANTS]))
    assert [one.look.colour for one in found] == [0, 1, 2, 3, 4]
    assert len({one.policy_index for one in found}) == 1
    lines = [line.get_color() for line in of_text.perplexity([], found).axes[0].get_lines()]
    assert len(set(lines)) == 5
    tree = figures_of(report(variants, *(f"x-{name}" for name in VARIANTS)))
    assert len({(one["colour"], one["dash"]) for one in tree["series"]}) == 5


def test_lineages_of_a_policy_have_shades_of_its_colour_and_are_told_apart() -> None:
    both = [(0, Arm(policy, f"m{index}")) for policy in ("keep-0", "keep-10") for index in range(16)]
    drawn = looks(both, both)
    assert {drawn[one].colour for one in both if one[1].policy == "keep-0"} == {0}, "the policy's own"
    assert len({(look.colour, look.dash, look.shade) for look in drawn.values()}) == len(both)
    single = [one for one in both if one[1].policy == "keep-0"]
    alone = looks(single, single)
    assert [look.colour % palette.COUNT for look in alone.values()][:6] == list(range(6)), (
        "one policy: lineages have hues"
    )
    assert len({(look.colour % palette.COUNT, look.dash) for look in alone.values()}) == 16
    style = (Path(html_elements.__file__).parent / "style.css").read_text(encoding="utf-8")
    for index, shade in enumerate(palette.SHADES):
        end = "card" if shade > 0 else "ink"
        assert not shade or f".k{index} {{ --to: var(--{end}); --part: {abs(shade):.0%}; }}" in style


def test_there_are_six_dashes_and_more_runs_still_differ() -> None:
    runs = [(run, Arm("keep-0")) for run in range(36)]
    found = list(looks(runs, runs).values())
    assert len({look.dash for look in found[:6]}) == 6
    assert len({(look.colour % palette.COUNT, look.dash) for look in found}) == 36
    assert len(set(map(str, canvas.DASHES))) == len(canvas.DASHES) == palette.DASHES
    script = (Path(html_elements.__file__).parent / "page.js").read_text(encoding="utf-8")
    dashes = re.search(r"const dashes = (\[.*\]);", script)
    assert dashes is not None
    assert len(set(json.loads(dashes.group(1)))) == palette.DASHES
    style = (Path(html_elements.__file__).parent / "style.css").read_text(encoding="utf-8")
    assert all(f".d{index} {{ stroke-dasharray" in style for index in range(1, palette.DASHES))


def test_a_page_of_variants_begins_with_which_error_it_is(variants: Path) -> None:
    text = report(variants, *(f"x-{name}" for name in VARIANTS))
    assert Text(text).headings[1] == "Which error it is", "behind the one chart"
    assert text.count('class="verdict brief"') == 5
    alone = report(variants, "x-all")
    assert Text(alone).headings[:2] == ["Perplexity by generation", "At a glance"]
    assert 'class="verdict brief"' not in alone


def test_bands_end_where_a_measure_does(tmp_path: Path) -> None:
    """Two seeds with MAUVE 0.9 and 0.6 have a t interval from -1.2 to 2.7."""
    folder = write_run(tmp_path, "run", policies=("keep-0",), seeds=(0, 1), generations=1)
    rows = [
        changed(row, mauve=0.9 - 0.3 * row.where.seed, self_bleu=90 - 30 * row.where.seed) for row in read_rows(folder)
    ]
    write_rows(folder, rows)
    (one,) = series(tmp_path, "run")
    for name, most in (("mauve", 1.0), ("self_bleu", 100.0)):
        ends = bounded(one, MEASURES[name])[1]
        assert (ends.low, ends.high) == (0.0, most)
        bands = [t["y"] for t in figures_of(report(tmp_path, "run"))["figures"][name]["traces"][:2]]
        assert bands == [[0, 0], [most, most]]
    axes = next(axes for axes in of_text.diversity([], [one]).axes if axes.get_title() == MEASURES["mauve"].title)
    (band,) = axes.collections
    assert (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()) == (0, 1)


@pytest.mark.parametrize("draw", [of_text.perplexity, of_text.diversity])
def test_legends_of_papers_lie_above_the_plots(variants: Path, draw: Any) -> None:
    with matplotlib.rc_context(canvas.STYLE):
        figure = draw([], series_of(read([RunFolder(variants, f"x-{name}") for name in VARIANTS])))
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert all(axes.get_legend() is None for axes in figure.axes)
        assert all(box.y0 >= axes.get_window_extent().y1 for axes in figure.axes)
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1


def test_histograms_of_papers_name_perplexities_as_people_do(variants: Path) -> None:
    figure = of_text.histograms([], series(variants, "x-all"))
    said = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(said) >= 2
    assert all(re.fullmatch(r"[\d,.]+", one) for one in said)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["2", "1", "0"], "the first at the top"
    assert figure.legends == [], "each ridge has its generation beside it"


@pytest.mark.parametrize("generations", [6, 11, 20])
def test_every_generation_has_a_ridge_with_its_name_or_the_page_says_how_many_have(
    tmp_path: Path, generations: int
) -> None:
    write_run(tmp_path, "run", policies=("keep-0",), generations=generations)
    text = report(tmp_path, "run")
    figure = figures_of(text)["figures"]["histogram_0"]
    axis = figure["layout"]["yaxis"]
    named = [int(one) for one in axis["ticktext"]]
    every = list(range(generations + 1))
    assert (named == every) != (f"Of {len(every)} generations {len(named)} are drawn." in Text(text).said)
    assert (named[0], named[-1]) == (0, generations)
    assert [trace["meta"]["base"] for trace in figure["traces"]] == axis["tickvals"]
    assert axis["tickvals"] == sorted(axis["tickvals"], reverse=True), "the first at the top"
    assert all(sum(trace["y"]) == pytest.approx(1, abs=1e-4) for trace in figure["traces"]), "shares"
    axes = of_text.histograms([], series(tmp_path, "run")).axes[0]
    assert [int(one.get_text()) for one in axes.get_yticklabels()] == named[::-1], "in papers as on the page"
    assert len(axes.collections) == len(named)


def test_generation_0_alone_has_ticks(tmp_path: Path) -> None:
    write_run(tmp_path, "run", policies=("keep-0",), generations=0)
    figures = figures_of(report(tmp_path, "run"))["figures"]
    axis = figures["perplexity"]["layout"]["yaxis"]
    (mean,) = [t["y"][0] for t in figures["perplexity"]["traces"] if t["meta"]["role"] == "mean"]
    low, high = (10**end for end in axis["logrange"])
    assert low < mean < high
    assert len(axis["tickvals"]) >= 3
    assert all(low <= tick <= high for tick in axis["tickvals"])
    axes = of_text.perplexity([], series(tmp_path, "run")).axes[0]
    assert len(axes.get_yticks()) >= 3
    assert list(axes.get_xticks()) == [0]
    write_run(tmp_path, "more", policies=("keep-0",), generations=4)
    both = series_of(read([RunFolder(tmp_path, "run"), RunFolder(tmp_path, "more")]))
    for some in (both, both[::-1]):
        ticks = of_text.perplexity([], some).axes[0].get_xticks()
        assert len(ticks) > 2
        assert all(tick == round(tick) for tick in ticks)


@pytest.mark.parametrize("value", [0.0, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("name", ["low_share", "mauve", "distinct_1", "accuracy"])
def test_shares_that_are_all_one_have_an_axis_of_shares(tmp_path: Path, name: str, value: float) -> None:
    ends = level([value] * 3, MEASURES[name])
    assert ends is not None
    assert 0 <= ends[0] <= value <= ends[1] <= 1
    assert ends[0] < ends[1]
    if name == "accuracy":
        change(write_run(tmp_path, "run", policies=("keep-0",), generations=2), accuracy=value)
        assert figures_of(report(tmp_path, "run"))["figures"][name]["layout"]["yaxis"]["range"] == ends


def test_other_values_have_the_axis_that_plotly_chooses() -> None:
    assert level([0.1, 0.2], MEASURES["low_share"]) is None
    assert level([0.0, 0.0], MEASURES["head_change"]) == [-0.1, 0.1]
    assert apart(40, 60) == (40, 60)
    assert len(log_ticks(*apart(1e-3, 1e-3))["tickvals"]) >= 3


def expected(runs: Path, name: str, entries: list[Mapping[str, Any]], **how: Any) -> list[str]:
    base = {"value": 0.5, "tolerance": 0.1, "source": "S"}
    write_run(runs, name, policies=("keep-0", "keep-10"), generations=3, expect=[base | one for one in entries], **how)
    found = read([RunFolder(runs, name)])
    return [one.verdict for one in published_table(found)]


def test_what_the_run_will_never_measure_is_told_from_what_it_has_not_yet(tmp_path: Path) -> None:
    entries: list[Mapping[str, Any]] = [
        {"what": "perplexity", "policy": "keep-10", "generation": 3},
        {"what": "perplexity", "policy": "keep-50", "generation": 3},
        {"what": "perplexity", "policy": "keep-0", "generation": 9},
        {"what": "no_such_field", "policy": "keep-0", "generation": 1},
        {"what": "kl_truth", "policy": "keep-0", "generation": 1},
        {"what": "kl_truth", "policy": "keep-10", "generation": 3},
    ]
    never = "not part of this run"
    cut = [("keep-10", 0, 3)]
    said = expected(tmp_path, "cut", entries, missing=cut, status="interrupted")
    assert said == ["not yet measured", never, never, never, never, "not yet measured"]
    assert expected(tmp_path, "whole", entries[1:]) == [never] * 5


def test_rows_missing_of_a_run_that_ended_well_are_said(tmp_path: Path) -> None:
    write_run(tmp_path, "run", policies=("keep-0", "keep-10"), generations=2, missing=[("keep-10", 0, 1)])
    wanted = "5 of 6 measured, though the run ended well; give the run's command again"
    said = Text(report(tmp_path, "run")).said
    assert wanted in said
    assert "Rows are missing" in said
    out = write_markdown([RunFolder(tmp_path, "run")], tmp_path / "r.md", forecast=False)
    assert f"Rows are missing: {wanted}" in out.read_text(encoding="utf-8")
    write_run(tmp_path, "whole", policies=("keep-0",), generations=1)
    assert "Rows are missing" not in Text(report(tmp_path, "whole")).said


def test_an_axis_holds_whatever_a_damaged_row_has() -> None:
    """A loss of -1e299 nats beside one of 1e299: neither end is 0 or infinite, nor is their ratio taken."""
    ends = exponential(-1e299), exponential(1e299)
    ticks = log_ticks(*apart(*ends))["tickvals"]
    assert 2 <= len(ticks) <= 8
    assert 0 < ends[0] <= ticks[0] < ticks[-1] <= ends[1]
