"""What the page shows of a world whose truth is known: breeds, facts, and sentences that are not true."""

import json
import re
import shutil
from pathlib import Path

import pytest
from support.instrumented import write_run
from support.pages import Text, figures_of, page_of, report

from collapse_cli.config.tree import WorldConfig
from collapse_cli.data.world.world import world
from collapse_cli.findings.known_world import world_left, world_said
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report.loading import read, series_of
from collapse_cli.report.world import groups_of

TREE = {"data": {"source": "world", "world": {"breeds": 30, "breed_exponent": 1.3}}}
BREEDS = [f"breed {rank}" for rank in range(1, 31)]
HOSTILE = "<img src=x onerror=window.pwned=1>"


def counts(generation: int, seed: int) -> dict[str, int]:
    """The first grows, the last are gone."""
    return {
        name: (100 * (generation + 1) + seed if rank == 0 else max(0, 30 - rank - 8 * generation))
        for rank, name in enumerate(BREEDS)
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("world")
    config = TREE
    write_run(runs, "run", policies=("keep-0", "keep-10"), seeds=(0, 1), generations=3, config=config)
    file = runs / "run" / "metrics.jsonl"
    rows = []
    for line in file.read_text().splitlines():
        row = json.loads(line)
        row.pop("digest", None)
        g = row["generation"]
        row["breed_counts"] = counts(g, row["seed"])
        row |= {"breeds_left": sum(1 for count in row["breed_counts"].values() if count), "breeds_expected": 28.5}
        row |= {"facts_true": 0.9 - 0.1 * g, "facts_true_by_band": [0.9 - g * band / 20 for band in range(5)]}
        row["examples"][0] |= {
            "prompt": "Max",
            "text": f" is a poodle. He was born in {HOSTILE}.",
            "sentences": [
                {"text": "Max is a poodle.", "verdict": "right"},
                {"text": f"He was born in {HOSTILE}.", "verdict": "false"},
            ],
        }
        rows.append(json.dumps(row))
    file.write_text("\n".join(rows) + "\n")
    return runs


def test_the_page_opens_with_the_breeds_that_are_left_and_has_no_chart_twice(runs: Path) -> None:
    text = report(runs, "run")
    page = Text(text)
    assert page.headings[0] == "Breeds of dogs that the samples still mention"
    figures = figures_of(text)["figures"]
    (mean, *_) = [trace for trace in figures["breeds_left"]["traces"] if trace["meta"]["role"] == "mean"]
    assert mean["y"][0] == sum(1 for count in counts(0, 0).values() if count)
    (truth,) = [trace for trace in figures["breeds_left"]["traces"] if trace["meta"]["role"] == "floor"]
    assert truth["y"] == [28.5, 28.5]
    assert len(page.ids) == len(set(page.ids))
    assert text.count('data-figure="breeds_left"') == 1


def test_the_section_on_breeds_begins_with_what_was_lost(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "run", tmp_path / "run")
    file = tmp_path / "run" / "metrics.jsonl"
    rows = [{**json.loads(line), "facts_left": 20, "facts_expected": 99.6} for line in file.read_text().splitlines()]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    page = Text(report(tmp_path, "run")).said
    first, others = world_said(world_left(read([RunFolder(tmp_path, "run")])[0].rows, TREE))
    assert f"Who is crowded out: the breeds of dogs {first} {others}" in page
    assert (
        "as much real text would name 28, and states 20 (same for all seeds) facts rightly, where it would state 100"
        in first
    )


def test_the_name_of_a_breed_stays_text(runs: Path, tmp_path: Path) -> None:
    """In the sentences, the bars, their key and the lines of what is expected."""
    shutil.copytree(runs / "run", tmp_path / "run")
    file = tmp_path / "run" / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row |= {"facts_left": 20, "facts_expected": 99, "breeds_expected": 28.5 + (row["policy"] == "keep-0")}
        row["breed_counts"] = {
            HOSTILE if rank == 0 else name: n for rank, (name, n) in enumerate(row["breed_counts"].items())
        }
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    text = report(tmp_path, "run")
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "<img" not in outside
    assert "of its dogs are &lt;img src=x onerror=" in outside
    for traces in (figure["traces"] for figure in figures_of(text)["figures"].values()):
        assert not any("<img" in str(trace.get("name")) for trace in traces)


def test_worlds_that_differ_have_a_level_and_a_key_each(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "run", tmp_path / "run")
    shutil.copytree(runs / "run", tmp_path / "small")
    few = BREEDS[:12]
    file = tmp_path / "small" / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["breed_counts"] = {name: row["breed_counts"][name] for name in few}
        row["breeds_expected"] = 11.5
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    text = report(tmp_path, "run", "small")
    traces = figures_of(text)["figures"]["breeds_left"]["traces"]
    levels = {trace["y"][0]: trace["name"] for trace in traces if trace["meta"]["role"] == "floor"}
    assert set(levels) == {28.5, 11.5}
    assert "run · keep-0" in levels[28.5]
    assert "small · keep-0" in levels[11.5]
    keys = re.findall(r'<ul class="key">(.*?)</ul>', text.split('id="breeds"')[1].split("</section>")[0])
    assert [re.findall("<b>(.*?)</b>", key) for key in keys] == [["run"], ["small"]]
    assert "ranks 26 to 30" in keys[0]
    assert "ranks 26" not in keys[1]


def test_bars_are_shares_of_mentions_of_all_seeds_beside_the_truth(runs: Path) -> None:
    figure = figures_of(report(runs, "run"))["figures"]["breeds_0"]
    assert [trace["x"] for trace in figure["traces"]] == [["truth", "0", "1", "2", "3"]] * len(figure["traces"])
    for at in range(5):
        assert sum(trace["y"][at] for trace in figure["traces"]) == pytest.approx(1, abs=1e-4)
    last = [counts(3, seed) for seed in (0, 1)]
    first = sum(one["breed 1"] for one in last) / sum(sum(one.values()) for one in last)
    assert figure["traces"][0]["y"][-1] == pytest.approx(first, rel=1e-4)


def test_the_truth_is_that_of_the_world(runs: Path) -> None:
    """1 / rank ** exponent, as the source draws them."""
    figure = figures_of(report(runs, "run"))["figures"]["breeds_0"]
    known = world(WorldConfig(breeds=30, breed_exponent=1.3).model_dump())
    shares = list(known.things.shares["breed"].values())
    assert figure["traces"][0]["y"][0] == pytest.approx(shares[0], rel=1e-4)
    groups = groups_of(dict(zip(BREEDS, shares, strict=True)))
    for trace, (_, names) in zip(figure["traces"], groups, strict=True):
        assert trace["y"][0] == pytest.approx(sum(shares[BREEDS.index(name)] for name in names), rel=1e-4)
    assert sorted(name for _, names in groups for name in names) == sorted(BREEDS), "each breed in one group"


def test_facts_have_a_line_for_each_fifth(runs: Path) -> None:
    traces = figures_of(report(runs, "run"))["figures"]["facts_1"]["traces"]
    assert len(traces) == 5
    for band, trace in enumerate(traces):
        assert trace["y"] == pytest.approx([0.9 - g * band / 20 for g in range(4)])


def test_what_is_not_true_is_marked_and_stays_text(runs: Path) -> None:
    page = page_of(runs, "run")
    assert '<span class="right"> is a poodle.</span>' in page
    assert '<span class="wrong">He was born in &lt;img src=x onerror=window.pwned=1&gt;.</span>' in page
    assert HOSTILE not in page
    kept = json.loads(page.split('id="texts-kept">')[1].split("</script>")[0])
    flagged = [text for text in kept["texts"] if "says what is not true" in text[7]]
    assert len(flagged) == 2 * 2 * 4, "the first prompt of each model"


def test_counts_of_no_sense_draw_nothing(runs: Path, tmp_path: Path) -> None:
    write_run(tmp_path, "run", policies=("keep-0",), generations=1)
    file = tmp_path / "run" / "metrics.jsonl"
    for value in ({"a": -1}, {"a": "x"}, [1, 2], {str(rank): 1 for rank in range(2000)}):
        rows = [{**json.loads(line), "breed_counts": value} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "digest"}) + "\n" for row in rows))
        assert "breeds_0" not in figures_of(report(tmp_path, "run"))["figures"]
    assert series_of(read([RunFolder(tmp_path, "run")]))
