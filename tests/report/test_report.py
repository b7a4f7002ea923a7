"""The report: what it says is what the run folder says; sections without data leave a line; figures for papers."""

import ast
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from support.instrumented import write_run
from support.pages import POLICIES, Text, figures_of, report, series

from collapse_cli.errors import ConfigError
from collapse_cli.findings.diagnosis import diagnose
from collapse_cli.metrics.numbers import duration, percent, value
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import write_figures, write_markdown, write_report
from collapse_cli.report.figures import log_ticks
from collapse_cli.report.loading import pooled, read
from collapse_cli.report.summaries import diagnoses, published_table, stages, warned
from collapse_cli.where import Arm


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every kind."""
    folder = tmp_path_factory.mktemp("runs")
    expect = [
        {"what": "perplexity", "policy": "keep-0", "generation": 0, "value": 53.0, "tolerance": 0.2, "source": "A"},
        {"what": "perplexity", "policy": "keep-0", "generation": 4, "value": 53.0, "tolerance": 0.01, "source": "B"},
        {"what": "mauve", "policy": "keep-50", "generation": 4, "value": 0.9, "tolerance": 0.1, "source": "C"},
        {"what": "distinct_2", "generation": 1, "value": 0.3, "tolerance": 0.5, "source": "D", "note": "noted"},
    ]
    warnings = {
        ("keep-0", 0, 2): ["23% of the synthetic rows repeat another one"],
        ("keep-0", 1, 3): ["31% of the synthetic rows repeat another one"],
    }
    how: dict[str, Any] = {"policies": POLICIES, "generations": 4}
    write_run(folder, "seeds", seeds=(0, 1, 2), expect=expect, warnings=warnings, **how)
    write_run(folder, "one", **how)
    write_run(folder, "old", seeds=(0, 1), instruments=False, **how)
    write_run(folder, "truth", truth=True, **how)
    missing = [("keep-0", 0, 4), ("keep-10", 0, 4), ("keep-10", 0, 3)]
    write_run(folder, "cut", missing=missing, status="interrupted", **how)
    write_run(folder, "empty", missing=[(p, 0, g) for p in POLICIES for g in range(5)], status="started", **how)
    return folder


def test_the_page_says_what_the_diagnosis_says(runs: Path) -> None:
    page = Text(report(runs, "seeds"))
    rows = RunFolder(runs, "seeds").rows()
    verdict = diagnose(rows, generations=4, planned=[Arm(name) for name in POLICIES], seeds=(0, 1, 2)).verdict
    assert verdict in page.said
    assert "30 of 30 measured" in page.said
    for heading in ("At a glance", "Perplexity", "samples", "tails", "Diversity", "Repetition", "prompts", "published"):
        assert any(heading in one for one in page.headings), heading
    assert page.tables == page.captions > 10


def test_every_plot_has_a_place_and_every_id_is_one(runs: Path) -> None:
    text = report(runs, "seeds", forecast=True)
    page = Text(text)
    assert len(page.ids) == len(set(page.ids))
    figures = figures_of(text)["figures"]
    assert {f"plot-{name}" for name in figures} == {one for one in page.ids if one.startswith("plot-")}
    # the histograms and deciles of each policy, all curves of the catalogue but those of a known truth, the fan
    assert len(figures) == 1 + 1 + 2 * len(POLICIES) + 26
    for name in re.findall(r'aria-label="([^"]*)"', text):
        assert name.strip()


def test_nothing_is_asked_of_a_network(runs: Path) -> None:
    """No address in any attribute that loads; the policy allows three scripts, by their hashes."""
    text = report(runs, "seeds")
    head = text[: text.index("<script")]
    assert not re.search(r"""(?:src|href|action|data|poster)\s*=\s*["'](?!#|data:,)""", head)
    assert "@import" not in head
    assert "url(" not in head
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy.group(1)
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", policy.group(1))) == 3
    assert "unsafe-eval" not in policy.group(1)
    assert not re.search(r"script-src[^;]*unsafe-inline", policy.group(1))


def test_the_line_of_perplexity_is_the_mean_over_seeds_with_its_t_interval(runs: Path) -> None:
    """Against SciPy: geometric mean over seeds, interval of log-perplexities."""
    rows = RunFolder(runs, "seeds").rows()
    traces = figures_of(report(runs, "seeds"))["figures"]["perplexity"]["traces"]
    by_role = {role: [t for t in traces if t["meta"]["role"] == role] for role in ("edge", "band", "seed", "mean")}
    assert [len(found) for found in by_role.values()] == [2, 2, 6, 2]
    for index, policy in enumerate(POLICIES):
        for g in range(5):
            logs = [row.nll for row in rows if (row.where.policy, row.where.generation) == (policy, g)]
            low, high = stats.t.interval(0.95, 2, np.mean(logs), stats.sem(logs))
            expected = {"edge": low, "band": high, "mean": np.mean(logs)}
            for role, log in expected.items():
                assert by_role[role][index]["y"][g] == pytest.approx(math.exp(log), rel=1e-5)


def test_histograms_hold_all_samples_of_all_seeds(runs: Path) -> None:
    (first, *_) = series(runs, "seeds")
    rows = first.at(2)
    whole = pooled(rows)
    assert whole is not None
    assert sum(whole.counts) == sum(row.fields["sample_rows"] for row in rows)
    mean = sum(
        (one.low + (i + 0.5) * one.width) * n
        for one in (row.histogram for row in rows)
        for i, n in enumerate(one.counts)
    )
    pooled_mean = sum((whole.low + (i + 0.5) * whole.width) * n for i, n in enumerate(whole.counts))
    assert pooled_mean == pytest.approx(mean)
    waves = figures_of(report(runs, "seeds"))["figures"]["histogram_0"]["traces"]
    assert len(waves) == 5
    for wave in waves:
        assert sum(wave["y"]) == pytest.approx(1, abs=1e-3)


def test_the_map_of_deciles_holds_the_means_and_marks_what_is_sure(runs: Path) -> None:
    rows = RunFolder(runs, "seeds").rows()
    (trace,) = figures_of(report(runs, "seeds"))["figures"]["deciles_0"]["traces"]
    for decile in (0, 9):
        for column, g in enumerate(range(1, 5)):
            changes = [
                row.measure("nll_change_by_decile", decile)
                for row in rows
                if (row.where.policy, row.where.generation) == ("keep-0", g)
            ]
            mean = np.mean(changes)
            assert trace["customdata"][decile][column] == [decile + 1, pytest.approx(mean, rel=1e-4)]
            assert trace["z"][decile][column] == pytest.approx(np.sign(mean) * np.sqrt(abs(mean)), rel=1e-4)
            low, high = stats.t.interval(0.95, 2, np.mean(changes), stats.sem(changes))
            assert bool(trace["text"][decile][column]) == bool(low <= 0 <= high)


def test_one_seed_has_no_interval_and_the_page_says_so(runs: Path) -> None:
    text = report(runs, "one")
    assert "one seed: no interval" in Text(text).said
    roles = {t["meta"]["role"] for one in figures_of(text)["figures"].values() for t in one["traces"]}
    assert roles == {"mean", "ridge", "heat", "ceiling"}


def test_an_old_run_without_instruments_gets_the_sections_it_can_have(runs: Path) -> None:
    page = Text(report(runs, "old"))
    assert [one for one in page.headings if "samples" in one] == []
    assert any("Perplexity" in one for one in page.headings)
    assert page.said.count("Left out, because") == 1
    assert "Repetition" in page.said[page.said.index("Left out, because") :]


def test_samples_in_which_nothing_comes_again_are_no_missing_instrument(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run", generations=1)
    lines = [json.loads(line) | {"top_8grams": []} for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = Text(report(tmp_path, "run")).said
    assert "No eight tokens in a row occur twice" in said
    assert "Left out" not in said


def test_a_known_truth_draws_its_floor_and_curves(runs: Path) -> None:
    text = report(runs, "truth")
    figures = figures_of(text)["figures"]
    (floor,) = [t for t in figures["perplexity"]["traces"] if t["meta"]["role"] == "floor"]
    assert floor["y"] == pytest.approx([math.exp(3.2)] * 2, rel=1e-5)
    assert {"kl_truth", "tail_mass_recall"} <= figures.keys()
    assert "truth" not in Text(report(runs, "one")).ids


def test_an_unfinished_run_says_how_far_it_is(runs: Path) -> None:
    page = Text(report(runs, "cut"))
    assert "interrupted" in page.said
    assert "This run is not finished : 7 of 10 models are measured" in page.said
    assert "This run is not finished" not in Text(report(runs, "one")).said


def test_a_run_that_has_measured_nothing_yet_has_a_page(runs: Path) -> None:
    page = Text(report(runs, "empty", forecast=True))
    assert "0 of 10 models are measured" in page.said
    assert "No generation has been measured yet" in page.said


def test_warnings_stand_before_all_sections_and_like_ones_are_one(runs: Path) -> None:
    found = warned(read([RunFolder(runs, "seeds")]))
    assert [(text, where, count) for _, text, where, count in found] == [
        ("31% of the synthetic rows repeat another one", "keep-0, generations 2–3", 2)
    ]
    said = Text(report(runs, "seeds")).said
    assert said.index("31% of the synthetic rows") < said.index("Each policy at its last generation")


def test_published_numbers_are_held_against_ours(runs: Path) -> None:
    run = read([RunFolder(runs, "seeds")])
    found = published_table(run)
    assert [one.verdict for one in found] == ["inside", "outside", "not part of this run", "inside"]
    assert found[3].where == "keep-0, generation 1", "no policy named: the first"
    assert found[3].source == "D; noted"
    said = Text(report(runs, "seeds")).said
    assert "not part of this run" in said
    assert "✗ outside" in said


def test_time_by_stage_adds_up(runs: Path) -> None:
    (run,) = read([RunFolder(runs, "one")])
    names, rows = stages(run)
    assert names[:2] == ["stage", "computed"]
    train = next(row for row in rows if row[0] == "train")
    assert train[1] == "9"  # generation 0 is shared
    assert train[3] == duration(9 * 4.0)
    assert train[6] == f"{393216 / 4:,.0f}"


def test_several_runs_stand_side_by_side(runs: Path) -> None:
    text = report(runs, "seeds", "one")
    page, tree = Text(text), figures_of(text)
    seen = [(one["policy"], one["run"], one["colour"], one["dash"]) for one in tree["series"]]
    assert seen == [(p, r, p, r) for r in (0, 1) for p in (0, 1)]
    assert [one["counted"] for one in tree["series"]] == [[0, 1, 2]] * 2 + [[0]] * 2
    for diagnosis in diagnoses(read([RunFolder(runs, name) for name in ("seeds", "one")])):
        assert diagnosis.verdict in page.said, "whole, below the short sentences"
    assert {"seeds · keep-0", "one · keep-10"} <= {t["name"] for t in tree["figures"]["perplexity"]["traces"]}
    assert text.count('data-toggle="run"') == 2
    assert page.said.count("How the calls are made") == 2
    (differs,) = re.findall(r'<tr class="differs">.*?loop\.seeds.*?</tr>', text)[-1:]
    assert "[0, 1, 2]" in differs


def test_the_same_run_gives_the_same_page(runs: Path) -> None:
    assert report(runs, "seeds", forecast=True) == report(runs, "seeds", forecast=True)


def test_the_forecast_is_left_out_when_it_is_not_wanted(runs: Path) -> None:
    assert "Where this is heading" in " ".join(Text(report(runs, "one", forecast=True)).headings)
    assert "Where this is heading" not in Text(report(runs, "one")).said


def test_a_page_is_small_enough(runs: Path) -> None:
    assert len(report(runs, "seeds").encode()) < 12e6


def test_a_run_that_is_not_there_is_one_line(runs: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run 'nobody'"):
        report(runs, "nobody")


def test_markdown_has_the_same_numbers_and_its_pictures_beside_it(runs: Path, tmp_path: Path) -> None:
    out = write_markdown([RunFolder(runs, "seeds")], tmp_path / "my.md", forecast=False)
    text = out.read_text(encoding="utf-8")
    pictures = re.findall(r"\]\(([^)]*\.png)\)", text)
    assert pictures == [f"my-{name}.png" for name in ("perplexity", "histograms", "deciles", "diversity")]
    assert all((tmp_path / name).is_file() for name in pictures)
    head, *_ = [line for line in text.splitlines() if line.startswith("| generation |")]
    assert head == r"| generation | keep-0 | keep-10 |"
    assert "outside" in text
    for line in text.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", line.strip()))


def test_pictures_for_papers(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 dpi, not blank; SVG keeps its text as text; old runs give what they can; no state of pyplot is touched."""
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)  # another test may have loaded it
    made = write_figures([RunFolder(runs, "one")], tmp_path)
    assert sorted(path.name for path in made) == sorted(
        f"{name}.{kind}" for name in ("perplexity", "histograms", "deciles", "diversity") for kind in ("png", "svg")
    )
    for path in made:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.info["dpi"] == pytest.approx((300, 300), abs=1)
                assert len(image.convert("L").getcolors(1 << 20) or []) > 20, "grey levels"
        else:
            assert "<text" in path.read_text(encoding="utf-8")
    again, twice = tmp_path / "again", []
    for _ in range(2):
        assert [path.name for path in write_figures([RunFolder(runs, "old")], again, ("svg",))] == ["perplexity.svg"]
        twice.append((again / "perplexity.svg").read_bytes())
    assert twice[0] == twice[1]
    assert "matplotlib.pyplot" not in sys.modules


def test_the_page_needs_neither_torch_nor_plotly_nor_matplotlib(runs: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from collapse_cli.records.rundir import RunFolder\n"
        "from collapse_cli.report import write_report\n"
        f"write_report([RunFolder(Path({str(runs)!r}), 'seeds')], Path({str(runs / 'x.html')!r}))\n"
        "print(sorted({'torch', 'transformers', 'plotly', 'matplotlib', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == []


@pytest.mark.parametrize(
    ("number", "said"),
    [(46.93, "46.9"), (974.2, "974"), (1204, "1,204"), (3.02e9, "3.02e+09"), (0.0312, "0.0312"), (0, "0"), (None, "–")],
)
def test_numbers_for_people(number: float | None, said: str) -> None:
    assert value(number) == said


def test_shares_for_people() -> None:
    assert [percent(one) for one in (0.793, 0.041, 0.0003, 1.0, 0.0)] == ["79%", "4.1%", "0.03%", "100%", "0%"]


@pytest.mark.parametrize(
    ("low", "high"), [(50, 52), (46, 210), (1, 1e6), (40, 1e200), (7, 7), (1e-3, 2), (94.7, 109), (3.01, 3.02)]
)
def test_ticks_of_a_logarithmic_axis_are_few_and_within(low: float, high: float) -> None:
    ticks = log_ticks(low, high)["tickvals"]
    assert len(ticks) <= 8
    assert all(low / 1.5 <= tick <= high * 1.5 for tick in ticks)
    assert len(set(log_ticks(low, high)["ticktext"])) == len(ticks)
    if high > low:
        assert len(ticks) >= 3


def test_the_order_of_policies_is_the_configurations_whoever_was_measured_first(tmp_path: Path) -> None:
    write_run(tmp_path, "run", policies=POLICIES, generations=2)
    folder, file = RunFolder(tmp_path, "run"), tmp_path / "run" / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    rows, page = folder.rows(), write_report([folder], tmp_path / "a.html", forecast=False).read_text(encoding="utf-8")
    file.write_text("".join(reversed(lines)), encoding="utf-8")
    assert folder.rows() == rows
    assert [row.where.policy for row in rows[:2]] == list(POLICIES)
    assert [(row.where.policy, row.where.generation) for row in read([folder])[0].rows[:2]] == [
        (name, 0) for name in POLICIES
    ]
    again = write_report([folder], tmp_path / "b.html", forecast=False).read_text(encoding="utf-8")
    assert again.replace("b.html", "a.html") == page


def test_the_page_says_on_which_processor_it_was_made(tmp_path: Path) -> None:
    """Others round sums differently; a run of before it was recorded, or a record that was changed, shows the rest."""
    folder = write_run(tmp_path, "run", generations=1)
    record = json.loads((folder / "run.json").read_text())
    for processor, vectors, said in (
        ("AMD EPYC", ["AVX2", "AVX-512"], "Linux x86_64, AMD EPYC, with AVX2 and AVX-512, 2 cores"),
        ("Odd", [], "Linux x86_64, Odd, 2 cores"),
        (7, "AVX2", "Linux x86_64, 2 cores"),
    ):
        record["hardware"] |= {"processor": processor, "vectors": vectors}
        (folder / "run.json").write_text(json.dumps(record))
        assert said in Text(report(tmp_path, "run")).said
