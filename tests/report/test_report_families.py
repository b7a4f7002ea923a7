"""The report on generations of other model families: headline measure, theory through it, pictures, what is left out."""

import base64
import io
import json
import re
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from support.mixed import FAMILIES, families_rows, pictures, tree_of, write
from support.pages import HOSTILE, Structure, Text, figures_of, page_of, report
from support.rows import changed, read_rows

from collapse_cli import families
from collapse_cli.findings import expectations
from collapse_cli.records import fields
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import write_figures, write_markdown, write_report
from collapse_cli.report.generated_images import png, strip
from collapse_cli.report.loading import read, series_of, thinned
from collapse_cli.report.other_families import POINTS, STRIPS

POLICIES = ["keep-0", "accumulate"]
LOOP: dict[str, Any] = {"generations": 6, "policies": POLICIES, "seeds": [0, 1, 2]}
ONLY_TEXT = ("samples", "Diversity", "Repetition", "prompts", "frequent phrases", "Perplexity", "tails")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of every family; ridge with numbers to hold it against."""
    folder = tmp_path_factory.mktemp("runs")
    expect = [
        {"what": "error", "generation": 6, "source": "Theorem 4.1", "tolerance": 1e-6},
        {
            "what": "error",
            "generation": 0,
            "value": 0.05,
            "source": "figure 2",
            "tolerance": 0.2,
            "note": "UNCONFIRMED",
        },
        {"what": "error", "generation": 60, "value": 0.05, "source": "figure 2"},
    ]
    for learner, measured in FAMILIES.items():
        tree = tree_of(learner, loop=LOOP, expect=expect if learner == "ridge" else [])
        write(folder, learner, tree, families_rows(tree, measured))
    return folder


@pytest.fixture(autouse=True)
def predictions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A theory of our own: of ridge's error under replacement."""
    module = ModuleType("predictions")

    def predict_loop(tree: Any, what: str, policy: str, generation: int) -> float | None:
        known = tree["learner"] == "ridge" and what == "error" and policy == "keep-0"
        return 0.05 * (1 + generation) if known else None

    module.predict_loop = predict_loop  # type: ignore[attr-defined]
    module.predict_cell = lambda *_: None  # type: ignore[attr-defined]
    module.known_law = lambda *_: (None, None)  # type: ignore[attr-defined]
    monkeypatch.setattr(expectations, "predictions", module)
    return module


@pytest.mark.parametrize("learner", FAMILIES)
def test_every_family_has_its_headline_and_measures_and_nothing_of_text(runs: Path, learner: str) -> None:
    text = report(runs, learner)
    page = Text(text)
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[1] == "At a glance"
    title = families.of(learner).headline.title
    assert page.headings[0].casefold() == f"{title}, by generation".casefold()
    for word in ONLY_TEXT:
        assert not any(word in heading for heading in page.headings), word
    assert "Left out, because" not in page.said
    assert "tokenizer" not in page.said.split("The whole configuration")[0]
    figures = figures_of(text)["figures"]
    rows = RunFolder(runs, learner).rows()
    there = {
        measure.name
        for measure in families.of(learner).measures
        if any(row.measure(measure.name) is not None for row in rows)
    }
    assert set(figures) == {
        "headline_0" if name == families.of(learner).headline.name else f"family_0_{name}" for name in there
    }
    assert {f"plot-{name}" for name in figures} == {one for one in page.ids if one.startswith("plot-")}
    assert f"{len(rows)} of {len(rows)} measured" in page.said


def test_the_headline_is_the_mean_over_seeds_with_its_t_interval(runs: Path) -> None:
    rows = RunFolder(runs, "gaussian").rows()
    traces = figures_of(report(runs, "gaussian"))["figures"]["headline_0"]["traces"]
    by_role = {role: [t for t in traces if t["meta"]["role"] == role] for role in ("edge", "band", "seed", "mean")}
    assert [len(found) for found in by_role.values()] == [2, 2, 6, 2]
    for index, policy in enumerate(POLICIES):
        for g in range(7):
            values = [
                row.measure("variance") for row in rows if (row.where.policy, row.where.generation) == (policy, g)
            ]
            low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
            for role, expected in {"edge": low, "band": high, "mean": np.mean(values)}.items():
                assert by_role[role][index]["y"][g] == pytest.approx(expected, rel=1e-5)


def test_one_seed_of_many_trials_shows_the_interval_over_trials(tmp_path: Path) -> None:
    tree = tree_of("gaussian", loop={**LOOP, "seeds": [0]})
    write(tmp_path, "trials", tree, families_rows(tree, FAMILIES["gaussian"]))
    text = report(tmp_path, "trials")
    (band, *_) = [t for t in figures_of(text)["figures"]["headline_0"]["traces"] if t["meta"]["role"] == "band"]
    (mean, *_) = [t for t in figures_of(text)["figures"]["headline_0"]["traces"] if t["meta"]["role"] == "mean"]
    assert np.array(band["y"]) - np.array(mean["y"]) == pytest.approx([1.96 * 0.01] * 7, abs=1e-4)


def test_theory_is_drawn_through_what_was_measured(runs: Path) -> None:
    figure = figures_of(report(runs, "ridge"))["figures"]["headline_0"]
    (theory,) = [trace for trace in figure["traces"] if trace["meta"]["role"] == "theory"]
    assert theory["x"] == list(range(7))
    assert theory["y"] == pytest.approx([0.05 * (1 + g) for g in range(7)])
    assert theory["meta"]["s"] == 0, "of keep-0, which it knows; not of accumulate"
    assert figure["layout"]["yaxis"]["type"] == "log"
    page = Text(report(runs, "ridge"))
    assert "theory, last" in page.said
    assert "the closed form for this very protocol" in page.said
    assert "theory, last" not in Text(report(runs, "mlp")).said


def test_measured_against_published_and_theory(runs: Path) -> None:
    page = Text(report(runs, "ridge"))
    assert "Measured against published numbers and theory" in page.headings
    (means,) = [one.means("error") for one in series_of(read([RunFolder(runs, "ridge")])) if str(one.arm) == "keep-0"]
    assert f"{means[6].mean:.3g}" in page.said
    assert re.search(
        r"error keep-0, generation 6 0\.3500 ± 1e-06 or 4 standard errors \(theory\) .*? ✓ inside", page.said
    )
    assert "figure 2; UNCONFIRMED" in page.said
    assert "not run: not part of this run" in page.said


def test_a_value_of_zero_has_no_place_on_a_logarithmic_axis(runs: Path) -> None:
    figure = figures_of(report(runs, "gmm"))["figures"]["headline_0"]
    for trace in figure["traces"]:
        assert min(trace["y"]) > 0
        assert 0 not in trace["x"]
    assert "generation 0's own is 0" in Text(report(runs, "gmm")).said


def test_pictures_are_a_strip_a_generation(runs: Path) -> None:
    text = report(runs, "vae")
    strips = re.findall(r'<img class="strip" src="data:image/png;base64,([A-Za-z0-9+/=]+)" alt="([^"]+)"', text)
    assert len(strips) == 7 * len(POLICIES)
    image = Image.open(io.BytesIO(base64.b64decode(strips[2][0])))
    assert image.mode == "L"
    assert image.size == (8 * 28 + 7 * 2, 28)
    expected = base64.b64decode(pictures(2, 28)["rows"][3])
    left = 3 * 30
    assert image.crop((left, 0, left + 28, 28)).tobytes() == expected
    assert strips[2][1] == "8 images generated at generation 2, keep-0"
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "img-src data:" in policy.group(1)


@pytest.mark.parametrize(
    "bad",
    [
        None, [], "x", {}, {"height": 2, "width": 2}, {"height": 2, "width": 2, "rows": []},
        {"height": 2, "width": 2, "rows": ["AAAA"]},  # three bytes
        {"height": 2, "width": 2, "rows": ["AAAAAA=="], "x": 1} | {"height": True},
        {"height": 2, "width": 2, "rows": [1]}, {"height": 2, "width": 2, "rows": ["!!!!!!=="]},
        {"height": fields.SIDE + 1, "width": 1, "rows": [base64.b64encode(bytes(fields.SIDE + 1)).decode()]},
        {"height": 2.0, "width": 2, "rows": ["AAAAAA=="]}, {"height": -1, "width": -4, "rows": ["AAAAAA=="]},
        {"height": 2, "width": 2, "rows": ["<script>alert(1)</script>"]}, {"height": 2, "width": 2, "rows": ["é" * 8]},
        {"height": 2, "width": 2, "rows": ["A" * 10_000_000]},
    ],
)  # fmt: skip
def test_pictures_that_are_damage_are_none(bad: Any) -> None:
    assert fields.images(bad) is None


def test_of_many_pictures_the_first_are_kept() -> None:
    found = fields.images({"height": 2, "width": 2, "rows": ["AAECAw=="] * 1000})
    assert found is not None
    assert len(found.images) == fields.MOST_IMAGES
    width, height, grey = strip(found)
    assert (width, height) == (fields.MOST_IMAGES * 2 + (fields.MOST_IMAGES - 1) * 2, 2)
    made = png(width, height, grey)
    assert np.asarray(Image.open(io.BytesIO(made)))[:, :4].tolist() == [[0, 1, 0, 0], [2, 3, 0, 0]]
    assert zlib.decompress(made[41:-16])[0] == 0


def test_thousands_of_generations_are_thinned_and_the_page_says_so(tmp_path: Path) -> None:
    loop = {"generations": 1000, "policies": POLICIES, "seeds": [0, 1]}
    tree = tree_of("ridge", loop=loop)
    rows = families_rows(tree, FAMILIES["ridge"], missing=[("accumulate", 1, g) for g in range(300, 1001)])
    write(tmp_path, "long", tree, rows)
    out = write_report([RunFolder(tmp_path, "long")], tmp_path / "long.html")
    text = out.read_text(encoding="utf-8")
    assert len(text) < 7e6
    figure = figures_of(text)["figures"]["headline_0"]
    for trace in figure["traces"]:
        assert len(trace["x"]) <= (POINTS if trace["meta"]["role"] == "theory" else 201)
        assert trace["x"][0] == 0
    ends = {trace["x"][-1] for trace in figure["traces"]}
    assert ends == {1000, 299}, "the ends of all lines are kept"
    said = Text(text).said
    assert "of 1,001 generations lines are drawn through" in said
    assert "left out, for not measured as far: seed 1" in said
    markdown = write_markdown([RunFolder(tmp_path, "long")], tmp_path / "long.md").read_text(encoding="utf-8")
    assert len(markdown) < 20_000


@pytest.mark.parametrize("n", [0, 1, 2, 199, 200, 201, 1001, 100_000])
@pytest.mark.parametrize("most", [20, 60, 200])
def test_thinning_keeps_the_ends_and_the_order(n: int, most: int) -> None:
    kept = thinned(range(n), most)
    assert kept == sorted(set(kept))
    assert len(kept) <= most
    if n:
        assert (kept[0], kept[-1]) == (0, n - 1)
    if n <= most:
        assert kept == list(range(n))


def test_families_stand_side_by_side_with_language_models(runs: Path, tmp_path: Path) -> None:
    from support.instrumented import write_run

    write_run(tmp_path, "words", policies=POLICIES[:1], generations=2)
    for name in ("ridge", "vae"):
        (tmp_path / name).symlink_to(runs / name)
    text = report(tmp_path, "words", "ridge", "vae", forecast=True)
    page = Text(text)
    assert len(page.ids) == len(set(page.ids))
    for heading in ("At a glance", "Perplexity by generation", "Diversity of the samples", "What is generated"):
        assert heading in page.headings
    figures = figures_of(text)["figures"]
    assert {"perplexity", "headline_0", "headline_1"} <= set(figures)
    assert {trace["meta"].get("s") for trace in figures["perplexity"]["traces"]} == {0, None}, "and guessing evenly"
    assert not any("words" in trace["name"] for trace in figures["headline_0"]["traces"])


def test_variants_with_one_policy_have_a_colour_each(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tree = tree_of("gaussian", loop={**LOOP, "policies": ["keep-0"]})
        write(tmp_path, name, tree, families_rows(tree, FAMILIES["gaussian"]))
    series = figures_of(report(tmp_path, "a", "b"))["series"]
    assert [one["colour"] for one in series] == [0, 1]


def test_ngrams_appear_as_language_models_do_as_far_as_they_have_fields(tmp_path: Path) -> None:
    def ngram(row: Row, random: Any) -> dict[str, float]:
        nll = 3.0 + 0.1 * row.where.generation
        own = {
            "vocabulary_share": 0.9**row.where.generation,
            "sample_entropy": 4.0,
            "kl_truth": 0.1,
            "entropy_rate": 2.9,
        }
        return {"nll": nll, "perplexity": float(np.exp(nll)), "predicted_tokens": 1000} | own

    tree = tree_of("ngram", loop={**LOOP, "seeds": [0]}, model={"tokenizer": "words"})
    write(tmp_path, "grams", tree, families_rows(tree, ngram))
    text = report(tmp_path, "grams", forecast=True)
    page = Text(text)
    for heading in ("Perplexity by generation", "What the n-grams still know", "Against the known truth"):
        assert heading in page.headings
    assert "Left out, because" not in page.said
    assert "counts as 1e-09 (ngram.floor)" in page.said, "what the perplexity hangs on"
    assert page.headings[0] == "Perplexity by generation"
    assert {"perplexity", "vocabulary_share", "sample_entropy", "kl_truth"} <= set(figures_of(text)["figures"])


def test_figures_for_papers_and_markdown(runs: Path, tmp_path: Path) -> None:
    made = write_figures([RunFolder(runs, "vae")], tmp_path, ("svg",))
    assert {path.name for path in made} == {"headline.svg", "measures.svg", "pictures.svg"}
    made = write_figures([RunFolder(runs, "ridge")], tmp_path / "ridge", ("svg",))
    assert "theory" in (tmp_path / "ridge" / "headline.svg").read_text(encoding="utf-8")
    text = write_markdown([RunFolder(runs, "ridge")], tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Test error \\|ŵ - w\\|² (without noise), by generation" in text
    assert "![The first measure of the family by generation" in text
    assert "report-headline.png" in text
    assert "## Measured against published numbers and theory" in text
    assert "Perplexity" not in text


HARM = ["nan", "text", "list", "huge", "negative", "bool", "tiny"]
VALUES = {
    "nan": float("nan"),
    "text": "much",
    "list": [1],
    "huge": 10**400,
    "negative": -1e5,
    "bool": True,
    "tiny": 5e-324,
}


@pytest.mark.parametrize("kind", HARM)
@pytest.mark.parametrize("learner", ["gaussian", "gmm", "mlp"])
def test_damaged_fields_of_families_are_left_out(tmp_path: Path, learner: str, kind: str) -> None:
    tree = tree_of(learner, loop={**LOOP, "generations": 2})
    names = [measure.name for measure in families.of(learner).measures]
    rows = [
        changed(row, **(dict.fromkeys([*names, f"{names[0]}_se"], VALUES[kind]) if row.where.generation == 1 else {}))
        for row in families_rows(tree, FAMILIES[learner])
    ]
    write(tmp_path, "run", tree, rows)
    page = page_of(tmp_path, "run")
    if kind not in ("negative", "tiny"):
        assert "could not be read" in page
    for name in re.findall(r'id="figures">(.*?)</script>', page, re.DOTALL):
        json.loads(name, parse_constant=pytest.fail)
    write_figures([RunFolder(tmp_path, "run")], tmp_path, ("svg",))


@pytest.mark.parametrize("name", ["vae", "gaussian"])
@pytest.mark.parametrize("kind", ["script end", "image", "attribute", "template", "bidi", "long"])
def test_names_and_texts_of_a_hostile_family_change_nothing_but_words(
    runs: Path, tmp_path: Path, name: str, kind: str
) -> None:
    bad = HOSTILE[kind]
    tree = json.loads((runs / name / "run.json").read_text())["config"]
    tree["expect"] = [
        {"what": "test_loss", "value": 1.0, "tolerance": 0.1, "source": "s", "note": "n", "generation": 1}
    ]
    rows = read_rows(runs / name)
    write(tmp_path, "tame", tree, rows)
    tree["data"]["source"] = tree["data"]["sha256"] = bad
    tree["expect"][0] |= {"source": bad, "note": bad}
    write(tmp_path, "wild", tree, [changed(row, model_key=bad, protocol={bad: bad}) for row in rows])
    assert Structure(page_of(tmp_path, "wild")).tags == Structure(page_of(tmp_path, "tame")).tags


def test_an_unknown_learner_is_shown_by_its_loss(runs: Path, tmp_path: Path) -> None:
    tree = json.loads((runs / "mlp" / "run.json").read_text())["config"]
    rows = read_rows(runs / "mlp")
    for name, learner in (("tame", "newer"), ("wild", HOSTILE["script end"] + HOSTILE["image"] + "%{x}")):
        write(tmp_path, name, tree | {"learner": learner}, rows)
    assert "Loss on real test rows, by generation" in page_of(tmp_path, "tame")
    assert Structure(page_of(tmp_path, "wild")).tags == Structure(page_of(tmp_path, "tame")).tags
    write_figures([RunFolder(tmp_path, "wild")], tmp_path, ("svg",))
    for learner in (None, 3, ["gaussian"], {}):
        folder = write(tmp_path, f"odd-{type(learner).__name__}", tree | {"learner": learner}, rows)
        assert page_of(tmp_path, folder.name)


def test_pictures_of_a_long_run_are_few(tmp_path: Path) -> None:
    tree = tree_of("vae", loop={"generations": 60, "policies": ["keep-0"], "seeds": [0, 1]})
    write(tmp_path, "long", tree, families_rows(tree, FAMILIES["vae"]))
    assert page_of(tmp_path, "long").count('class="strip"') <= STRIPS


def test_intervals_end_where_values_must_and_what_explodes_is_logarithmic(tmp_path: Path) -> None:
    def explodes(row: Row, random: Any) -> dict[str, float]:
        last = row.where.generation == 2
        return {
            "variance": (1e-6, 1e-6, 9e-6)[row.where.seed] if last else 1.0,
            "test_loss": 1e12 if last else 1.0 + row.where.seed,
        }

    tree = tree_of("gaussian", loop={**LOOP, "generations": 2, "policies": ["keep-0"]})
    write(tmp_path, "run", tree, families_rows(tree, explodes))
    text = report(tmp_path, "run")
    assert "(-" not in Text(text).said.split("How it was made")[0]
    said = Text(text).said
    assert said.count("(0 to 1.5") == 3, "in the sentence, beside the chart, in the whole verdict"
    assert "0 to 1.5" in said.split("the numbers")[0]
    axis = figures_of(text)["figures"]["family_0_test_loss"]["layout"]["yaxis"]
    assert axis["type"] == "log"
    assert axis["logrange"][1] > 12
