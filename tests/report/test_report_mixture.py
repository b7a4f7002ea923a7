"""The report on mixtures: every axis of the grid, theory through the points, 0 on a logarithmic axis, laws, cells, damage."""

import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.mixed import KEY, cell_error, mixture_rows, regression, tree_of, write
from support.pages import HOSTILE, Structure, Text, figures_of, page_of, report
from support.rows import cell_of, changed, read_rows

from collapse_cli.findings import expectations
from collapse_cli.findings.diagnosis.mixtures import laws_of, mixture_verdict
from collapse_cli.findings.expectations import planned_cells
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import write_figures, write_markdown
from collapse_cli.report.grid_figures import LINES, PANELS, Scale, cells_of, cuts_of, few, scale_of, spaced, ticks_of
from collapse_cli.report.loading import read
from collapse_cli.report.mixtures import cells_table

SIZES, SHARES = [600, 1000, 3000, 10000, 100000], [0.0, 0.001, 0.1, 0.5]


@pytest.fixture(autouse=True)
def predictions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A theory of our own: the very formula that the rows were made from."""
    module = ModuleType("predictions")
    module.predict_loop = lambda *_: None  # type: ignore[attr-defined]
    module.predict_cell = lambda tree, record: float(cell_error(record))  # type: ignore[attr-defined]
    module.known_law = lambda *_: (None, None)  # type: ignore[attr-defined]
    monkeypatch.setattr(expectations, "predictions", module)
    return module


def tree_for(
    learner: str = "ridge", *, seeds: tuple[int, ...] = (0, 1, 2), expect: Any = (), **mixture: Any
) -> dict[str, Any]:
    source = {"mlp": "digits", "lm": "wikitext2"}.get(learner, "regression")
    return tree_of(
        learner,
        kind="mixture",
        mixture=mixture,
        loop={"seeds": list(seeds)},
        data={"source": source},
        expect=list(expect),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    expect = [
        {"what": "error", "cell": {"rows": 100000, "share": 0.1}, "source": "Theorem 1", "tolerance": 0.05},
        {
            "what": "error",
            "cell": {"rows": 100000, "share": 0.1},
            "value": 5.0,
            "source": "figure 1",
            "note": "UNCONFIRMED",
        },
        {"what": "error", "cell": {"rows": 7, "share": 0.1}, "source": "figure 1"},
    ]
    made = {
        "strong": tree_for(rows=SIZES, share=SHARES, expect=expect),
        "wide": tree_for(
            "projections",
            rows=[500],
            share=[0.1, 0.5],
            quality=[0.1, 1.0],
            size=list(range(100, 1200, 100)),
            lam=[1e-6, 1e-2],
        ),
        "weights": tree_for(rows=[300, 3000], share=[0.5], weight=[0.0, 0.01, 0.1, 0.5]),
        "rounds": tree_for(rows=[300, 3000], share=[0.5], iterations=[1, 2, 5]),
        "single": tree_for("mlp", seeds=(0,), real_rows=[100, 1000], synthetic_rows=[0, 1000]),
    }
    for name, tree in made.items():
        write(folder, name, tree, mixture_rows(tree, regression))
    return folder


def test_the_page_says_the_verdict_and_has_a_plot_for_every_axis(runs: Path) -> None:
    text = report(runs, "strong")
    page = Text(text)
    record = json.loads((runs / "strong" / "run.json").read_text())
    verdict = mixture_verdict(RunFolder(runs, "strong").rows(), record["config"], plain=True)
    first, rest = verdict.split("; ", 1)
    assert f"{first}. {rest}" in page.said, "a short sentence, and what else there is to say"
    assert verdict.startswith("At 100,000 rows, error with synthetic share 0.1 is ")
    symbols = mixture_verdict(RunFolder(runs, "strong").rows(), record["config"])
    assert symbols.startswith("At n = 100,000, error with p2 = 0.1 is "), "the terminal has those of the papers"
    assert re.findall(r"[\d.,]*\d", symbols.replace("p2", "")) == re.findall(r"[\d.,]*\d", verdict), "the same numbers"
    assert "p2 = " not in page.said
    assert page.headings[0] == "Test error |ŵ - w|² (without noise), by n, rows in all"
    assert len(page.ids) == len(set(page.ids))
    figures = figures_of(text)["figures"]
    assert set(figures) == {"mixture_0_rows_0", "mixture_0_share_0"}
    assert {f"plot-{name}" for name in figures} == {one for one in page.ids if one.startswith("plot-")}
    for gone in ("Left out, because", "perplexity", "Diversity", "policy"):
        assert gone not in page.said.split("The whole configuration")[0].replace(
            "Keys of the models in the store policy", ""
        )
    cells = len(planned_cells(record["config"]))
    assert f"{cells * 3} of {cells * 3} measured" in page.said
    assert f"All cells ({cells})" in page.said


def test_the_page_opens_with_a_few_numbers_of_the_grid(runs: Path) -> None:
    """Against real data alone where there is most data, as the sentence says; a grid without a cell of real data has its ends."""
    text = report(runs, "strong")
    (beside,) = re.findall(r'<div class="numbers">.*?</div>', text, re.DOTALL)
    numbers = re.findall(r"<b>(.*?)</b><span>(.*?)</span>", beside)
    assert 3 <= len(numbers) <= 4
    rows = RunFolder(runs, "strong").rows()

    def at(share: float) -> list[float]:
        """By seed, at the largest size."""
        own = [row for row in rows if row.measure("rows") == 100000 and abs(row.fields["share"] - share) < 1e-3]
        return [row.measure("error") or 0.0 for row in sorted(own, key=lambda row: row.where.seed)]

    ratio = np.exp(np.mean(np.log(at(0.1)) - np.log(at(0.0))))
    assert float(numbers[0][0].lstrip("×").replace(",", "")) == pytest.approx(ratio, rel=0.01)
    assert "10% synthetic rows against real data alone (" in numbers[0][1]
    assert float(numbers[1][0]) == pytest.approx(np.mean(at(0.0)), rel=0.02)
    assert float(numbers[2][0]) == pytest.approx(np.mean(at(0.1)), rel=0.02)
    least = min(row.measure("error") or 1.0 for row in rows)
    assert float(numbers[3][0]) == pytest.approx(least, rel=0.3)
    for name, count in (("wide", 2), ("weights", 2), ("single", 4)):
        (beside,) = re.findall(r'<div class="numbers">.*?</div>', report(runs, name), re.DOTALL)
        assert len(re.findall("<b>", beside)) == count, name


def test_points_are_means_over_seeds_with_their_t_interval(runs: Path) -> None:
    rows = RunFolder(runs, "strong").rows()
    figure = figures_of(report(runs, "strong"))["figures"]["mixture_0_rows_0"]
    measured = [trace for trace in figure["traces"] if trace["meta"]["role"] == "mean"]
    assert [trace["name"] for trace in measured] == [f"synthetic share {share:g}" for share in SHARES], "in words"
    (line,) = [trace for trace in measured if trace["name"] == "synthetic share 0.1"]
    assert line["x"] == SIZES
    for index, n in enumerate(SIZES):
        values = [
            row.measure("error") for row in rows if row.measure("rows") == n and abs(row.fields["share"] - 0.1) < 1e-3
        ]
        low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        assert line["y"][index] == pytest.approx(np.mean(values), rel=1e-5)
        assert line["error_y"]["array"][index] == pytest.approx(high - np.mean(values), rel=1e-3)
        assert line["error_y"]["arrayminus"][index] == pytest.approx(np.mean(values) - low, rel=1e-3)
    assert figure["layout"]["xaxis"]["type"] == figure["layout"]["yaxis"]["type"] == "log"


def test_theory_is_at_the_cells_own_coordinates(runs: Path) -> None:
    figure = figures_of(report(runs, "strong"))["figures"]["mixture_0_rows_0"]
    theory = [trace for trace in figure["traces"] if trace["meta"]["role"] == "theory"]
    assert len(theory) == len(SHARES)
    for n, y in zip(theory[2]["x"], theory[2]["y"], strict=True):
        assert y == pytest.approx(cell_error({"rows": n, "share": 0.1}), rel=1e-4)
    weights = figures_of(report(runs, "weights"))["figures"]["mixture_0_weight_0"]["traces"]
    assert len(weights[-1]["x"]) > 20, "between cells too, where no rows are rounded"


def test_a_share_of_zero_stands_at_the_left_edge(runs: Path) -> None:
    layout = figures_of(report(runs, "strong"))["figures"]["mixture_0_share_0"]["layout"]
    assert layout["xaxis"]["ticktext"][0] == "0"
    edge = layout["xaxis"]["tickvals"][0]
    assert 0 < edge < 0.001
    assert layout["xaxis"]["range"][0] < math.log10(edge)
    assert edge < layout["shapes"][0]["x0"] < 0.001
    (first, *_) = figures_of(report(runs, "strong"))["figures"]["mixture_0_share_0"]["traces"]
    assert first["x"][0] == pytest.approx(edge, rel=1e-5)
    assert all(x > 0 for x in first["x"])


def test_large_grids_are_cut_into_a_few_plots_and_the_page_says_so(runs: Path) -> None:
    text = report(runs, "wide")
    figures = figures_of(text)["figures"]
    said = Text(text).said
    by_axis: dict[str, int] = {}
    for name, figure in figures.items():
        axis = name.split("_")[2]
        by_axis[axis] = by_axis.get(axis, 0) + 1
        assert len([trace for trace in figure["traces"] if trace["meta"]["role"] == "mean"]) <= LINES
    assert by_axis == {"share": 6, "quality": 6, "size": 4, "lam": 6}
    assert max(by_axis.values()) <= PANELS
    assert "of 22 places along the other axes 6 are drawn; the table of cells has all" in said
    assert "All cells (88)" in said
    ranges = {json.dumps(one["layout"]["yaxis"]["logrange"]) for name, one in figures.items() if "_size_" in name}
    assert len(ranges) == 1, "one vertical scale for plots that stand together"


def test_scaling_laws_are_told_with_their_intervals(runs: Path) -> None:
    page = Text(report(runs, "strong"))
    assert "Where more data stops helping" in page.said
    (run,) = read([RunFolder(runs, "strong")])
    laws = {law.where["share"]: law for law in laws_of(cells_of(run), run.config)}
    assert laws[0.5].plateau == pytest.approx(0.25, rel=0.1)
    assert re.search(r"synthetic share 0 not seen \(?at most", page.said)
    assert re.search(r"synthetic share 0\.1 0\.0\d+ 0\.0\d+ to 0\.0\d+", page.said)
    assert "Where more data stops helping" not in Text(report(runs, "weights")).said, "two sizes are too few"


@pytest.mark.parametrize(
    ("name", "heads", "said"),
    [
        (
            "wide",
            ["synthetic share", "risk of the labeller", "model size", "ridge penalty"],
            "At synthetic share 0.5, ",
        ),
        ("weights", ["rows", "weight of synthetic rows"], "At 3,000 rows, error is "),
        ("rounds", ["rows", "rounds of mixing"], "At 3,000 rows, error is "),
        ("single", ["real rows", "synthetic rows"], ""),
    ],
)
def test_cells_and_the_first_sentence_are_in_words(runs: Path, name: str, heads: list[str], said: str) -> None:
    page = Text(report(runs, name))
    (run,) = read([RunFolder(runs, name)])
    names, _ = cells_table(run, cells_of(run))
    assert names[: len(heads)] == heads
    assert re.search(rf"Cells: means over seeds\S* .*?{' '.join(heads)}", page.said)
    verdict = mixture_verdict(run.rows, run.config, plain=True)
    assert verdict.startswith(said)
    assert not re.search(r"\b(n|p2|m|t) = |[αλ] = |c²", verdict)
    assert verdict.partition("; ")[0].rstrip(".") in page.said


def test_measured_against_published_and_theory(runs: Path) -> None:
    said = Text(report(runs, "strong")).said
    assert re.search(r"error n=100000, p2=0\.1 0\.01025 ± 5% .*?\(theory\) .*? ✓ inside Theorem 1", said)
    assert re.search(r"5\.000 ± 10% .*? ✗ outside figure 1; UNCONFIRMED", said)
    assert "not run: not part of this run" in said


def test_one_seed_has_no_bars_and_the_page_says_so(runs: Path) -> None:
    text = report(runs, "single")
    assert "one seed: no interval" in Text(text).said
    figures = figures_of(text)["figures"]
    assert set(figures) == {"mixture_0_real_0", "mixture_0_synthetic_0"} or set(figures) == {
        "mixture_0_real_rows_0",
        "mixture_0_synthetic_rows_0",
    }
    for figure in figures.values():
        for trace in figure["traces"]:
            if trace["meta"]["role"] == "mean":
                assert set(trace["error_y"]["array"]) == {0.0}


def test_a_mixture_that_is_not_finished_says_how_much_is_measured(tmp_path: Path) -> None:
    tree = tree_for(rows=SIZES, share=SHARES)
    rows = mixture_rows(tree, regression)
    write(tmp_path, "part", tree, rows[:10], status="interrupted")
    write(tmp_path, "none", tree, [], status="started")
    assert "10 of 60 models are measured" in Text(report(tmp_path, "part")).said
    page = Text(report(tmp_path, "none"))
    assert "No cell is measured yet." in page.said
    assert "Left out, because" not in page.said


def test_mixtures_stand_beside_each_other_and_beside_generations(runs: Path, tmp_path: Path) -> None:
    from support.mixed import FAMILIES, families_rows

    tree = tree_of("ridge", loop={"generations": 3, "policies": ["keep-0"], "seeds": [0]})
    write(tmp_path, "loop", tree, families_rows(tree, FAMILIES["ridge"]))
    for name in ("strong", "weights"):
        (tmp_path / name).symlink_to(runs / name)
    text = report(tmp_path, "strong", "loop", "weights")
    page = Text(text)
    assert len(page.ids) == len(set(page.ids))
    assert "At a glance" in page.headings
    assert any("over the grid · strong" in heading for heading in page.headings)
    assert any("over the grid · weights" in heading for heading in page.headings)
    assert {"mixture_0_rows_0", "mixture_2_weight_0", "headline_0"} <= set(figures_of(text)["figures"])


def test_a_language_model_has_its_loss_on_a_linear_axis(tmp_path: Path) -> None:
    tree = tree_for("lm", real_rows=[100, 1000], share=[0.0, 0.5], size=[1, 2])
    rows = mixture_rows(
        tree, lambda row, random: {"nll": 4.0 + row.fields["share"], "perplexity": math.exp(4.0 + row.fields["share"])}
    )
    write(tmp_path, "lm", tree, rows)
    text = report(tmp_path, "lm", forecast=True)
    layout = figures_of(text)["figures"]["mixture_0_real_rows_0"]["layout"]
    assert "type" not in layout["yaxis"]
    page = Text(text)
    assert "Loss on real test text, nats/token, over the grid" in page.headings
    assert "Perplexity on real test text" in page.said, "in the table of cells"
    assert "Perplexity by generation" not in page.headings


def test_figures_for_papers_and_markdown(runs: Path, tmp_path: Path) -> None:
    made = write_figures([RunFolder(runs, "strong"), RunFolder(runs, "rounds")], tmp_path, ("svg",))
    assert {path.stem for path in made} == {"mixture_rows", "mixture_share", "mixture_iterations"}
    text = (tmp_path / "mixture_share.svg").read_text(encoding="utf-8")
    for word in ("theory", "p2, synthetic share", "rows 100,000"):
        assert word in text
    said = write_markdown([RunFolder(runs, "strong")], tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Where more data stops helping" in said
    assert "## Cells" in said
    assert "report-mixture_rows.png" in said
    assert (tmp_path / "report-mixture_share.png").exists()


@pytest.mark.parametrize(
    ("values", "zero", "log"),
    [([0, 0.01, 0.1, 1], True, True), ([0.01, 0.1, 1], False, True), ([1, 2, 3], False, False), ([0, 1], False, False)],
)
def test_a_scale_is_logarithmic_where_that_suits(values: list[float], zero: bool, log: bool) -> None:
    tree = tree_for(rows=[1000], share=[0.5], weight=[value / 4 for value in values])
    cells = _cells(tree)
    (cut,) = cuts_of(cells, tree)
    scale = scale_of(cut, cells)
    assert (scale.log, scale.edge is not None) == (log, zero)
    assert scale.at(values[-1] / 4) == values[-1] / 4
    if zero:
        assert scale.at(0) == scale.edge
        assert ticks_of(scale, 4)["ticktext"][0] == "0"


def _cells(tree: dict[str, Any]) -> list[Any]:
    from collapse_cli.findings.grid import points

    return points(mixture_rows(tree, regression), "error", tree)


def test_choices_of_many_keep_the_ends() -> None:
    assert spaced(range(100), 8) == [0, 14, 28, 42, 57, 71, 85, 99]
    assert spaced([1, 2], 8) == [1, 2]
    assert spaced([1, 2, 3], 1) == [3]
    kept = few(["size", "lam"], {"size": list(range(8)), "lam": [0, 1]})
    assert kept == {"size": [0, 4, 7], "lam": [0, 1]}
    assert math.prod(map(len, few(list("abcd"), {name: [1.0, 2.0, 3.0] for name in "abcd"}).values())) <= PANELS
    assert Scale(False, 0.0, 1.0, None).at(0.0) == 0.0


DAMAGE: dict[str, Any] = {
    "nan": {"error": math.nan, "share": math.nan},
    "text": {"error": "small", "rows": "many", "share": "half"},
    "huge": {"rows": 10**400, "error": 1e299},
    "negative": {"rows": -5, "error": -1.0, "share": -3.0},
    "zero": {"rows": 0, "real_rows": 0, "synthetic_rows": 0, "error": 0.0},
    "tiny": {"error": 5e-324, "share": 5e-324},
    "boolean": {"rows": True, "share": False, "error": True},
    "lists": {"quality": [1], "size": {}, "lam": "x", "weight": [], "iterations": None},
    "odd axes": {"quality": 1e-300, "size": 1e290, "lam": -1.0, "weight": 5.0, "iterations": 0.5},
    "no place": {"rows": None, "share": None, "real_rows": None, "synthetic_rows": None},
}


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_cells_break_nothing(tmp_path: Path, kind: str, every: bool, predictions: ModuleType) -> None:
    predictions.predict_cell = lambda tree, record: 1.0 / record["rows"] / (record["share"] - record["share"])  # type: ignore[attr-defined]
    tree = tree_for(rows=SIZES, share=SHARES)
    rows = [
        changed(row, **(DAMAGE[kind] if every or index % 3 == 1 else {}))
        for index, row in enumerate(mixture_rows(tree, regression))
    ]
    write(tmp_path, "run", tree, rows)
    page = page_of(tmp_path, "run")
    for name in re.findall(r'id="figures">(.*?)</script>', page, re.DOTALL):
        json.loads(name, parse_constant=pytest.fail)
    assert "nan" not in Text(page).said.split("The whole configuration")[0].split()


@pytest.mark.parametrize("kind", ["script end", "image", "attribute", "template", "bidi", "zalgo", "long"])
def test_hostile_labels_and_words_change_nothing_but_words(runs: Path, tmp_path: Path, kind: str) -> None:
    bad = HOSTILE[kind]
    tree = json.loads((runs / "strong" / "run.json").read_text())["config"]
    rows = read_rows(runs / "strong")
    write(tmp_path, "tame", tree, rows)
    wild = [changed(row, policy=row.where.name + bad[:100], model_key=bad) for row in rows]
    for entry in tree["expect"]:
        entry |= {"source": bad, "note": bad, "cell": {**entry["cell"], bad: 1.0}}
    write(tmp_path, "wild", tree, wild)
    tags = [tag for tag in Structure(page_of(tmp_path, "wild")).tags if tag != ("span", "class")]
    assert tags == [tag for tag in Structure(page_of(tmp_path, "tame")).tags if tag != ("span", "class")]


def test_a_grid_beyond_all_bounds_is_not_drawn_whole(tmp_path: Path) -> None:
    tree = tree_for(rows=[100], share=[0.1])
    rows = [
        cell_of(
            f"c{i}",
            0,
            rows=100 + i,
            share=i / 3000,
            quality=float(i),
            error=1.0 + i,
            warnings=[],
            model_key=KEY,
            seconds={},
        )
        for i in range(3000)
    ]
    tree["mixture"]["rows"] = [10**9] * 10**5
    write(tmp_path, "run", tree, rows)
    page = page_of(tmp_path, "run")
    assert len(page) < 9e6
    assert "the first 2,000 of 3,000" in page
