"""Several lineages on the page, in Markdown and in figures for papers: each is a line of its own, and what is between them is shown."""

from pathlib import Path

import pytest
from support.instrumented import write_run
from support.lineages import write_lineages
from support.pages import Text, figures_of, report

from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import write_figures, write_markdown
from collapse_cli.report.loading import read, series_of

POLICIES = ("keep-0", "keep-10")
RATES = {"opt": {"keep-0": 0.2}, "gpt": {"keep-0": 0.02}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_lineages(folder, "two", RATES, policies=POLICIES, seeds=(0, 1), generations=3)
    write_run(folder, "one", policies=POLICIES, seeds=(0, 1), generations=3)
    return folder


@pytest.fixture(scope="module")
def page(runs: Path) -> str:
    return report(runs, "two")


def test_each_policy_of_each_lineage_is_a_line_with_its_own_rows(runs: Path, page: str) -> None:
    lines = series_of(read([RunFolder(runs, "two")]))
    assert [line.label for line in lines] == ["keep-0/opt", "keep-0/gpt", "keep-10/opt", "keep-10/gpt"]
    assert all(len(line.rows) == 2 * 4 for line in lines)
    assert all({row.where.arm for row in line.rows} == {line.arm} for line in lines)
    tree = figures_of(page)
    assert (tree["policies"], tree["lineages"]) == (list(POLICIES), ["opt", "gpt"])
    means = [trace for trace in tree["figures"]["perplexity"]["traces"] if trace["meta"]["role"] == "mean"]
    assert [trace["name"] for trace in means] == [line.label for line in lines]
    ends = [trace["y"][-1] for trace in means]
    assert ends[0] > 1.5 * ends[1], "one lineage collapses, the other does not"
    assert "32 of 32 measured" in Text(page).said


def test_the_page_shows_what_is_between_the_lineages(page: str) -> None:
    said, tree = Text(page), figures_of(page)["figures"]
    assert any("Several models: do they become one?" in one for one in said.headings)
    assert "keep-0: the 2 lineages' models become alike. From generation 0 to 3" in said.said
    for field in ("bits_per_byte_on", "cross_bits_per_byte", "js_distance_to"):
        (trace,) = tree[f"matrix_{field}_0_0"]["traces"]
        assert trace["y"] == ["opt", "gpt"]
        assert len(trace["x"]) == len(set(trace["x"])) == 4 * 2
        assert trace["meta"] == {"role": "matrix", "p": 0, "r": 0}
    together = [trace["name"] for trace in tree["together_0"]["traces"] if trace["meta"]["role"] == "mean"]
    assert together == [
        f"{name}, {which}" for name in POLICIES for which in ("one (mean over lineages)", "all together")
    ]
    assert "js_distance" in tree
    assert said.tables == said.captions
    assert len(said.ids) == len(set(said.ids))


def test_a_run_of_one_lineage_has_no_such_section(runs: Path) -> None:
    page = report(runs, "one")
    assert not any("models" in heading.lower() and "become" in heading for heading in Text(page).headings)
    assert "keep-0/" not in Text(page).said
    assert figures_of(page)["lineages"] == [""]
    assert 'data-toggle="lineage"' not in page


def test_runs_with_one_and_two_lineages_stand_beside_each_other(runs: Path) -> None:
    page = report(runs, "one", "two")
    said, tree = Text(page), figures_of(page)["figures"]
    assert any("Does more than one hold longer?" in one for one in said.headings)
    assert "keep-0: 2 lineages" in said.said
    assert {trace["name"] for trace in tree["more_growth"]["traces"]} == {
        f"{name}, {policy}: {many}"
        for name, many in (("one", "1 lineage"), ("two", "2 lineages"))
        for policy in POLICIES
    }
    assert any("all together" in trace["name"] for trace in tree["more_level"]["traces"])


def test_markdown_and_figures_have_it_too(runs: Path, tmp_path: Path) -> None:
    folders = [RunFolder(runs, name) for name in ("one", "two")]
    text = write_markdown(folders, tmp_path / "both.md", forecast=False).read_text(encoding="utf-8")
    assert "## Several models: two" in text
    assert "## Does more than one hold longer?" in text
    assert "| two · keep-0 | 2 |" in text
    for name in ("lineages", "more"):
        assert (tmp_path / f"both-{name}.png").stat().st_size > 10_000
    assert not any("lineages" in path.name for path in write_figures(folders[:1], tmp_path / "alone", ("svg",)))


def test_of_sixteen_lineages_maps_show_some_generations_and_no_more_columns_than_can_be_seen(tmp_path: Path) -> None:
    rates = {f"model-{index}": {"keep-0": 0.1} for index in range(1, 17)}
    write_lineages(tmp_path, "many", rates, generations=4, seeds=(0,), instruments=False)
    page = report(tmp_path, "many")
    (trace,) = figures_of(page)["figures"]["matrix_bits_per_byte_on_0_0"]["traces"]
    assert len(trace["x"]) == 48
    assert {name.split(" ")[0] for name in trace["x"]} == {"0", "2", "4"}
    assert page.count('data-toggle="lineage"') == 16
