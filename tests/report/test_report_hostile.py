"""Text made by models, names from files and damaged folders change nothing of the report but the words in it."""

import json
import math
import os
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.instrumented import write_run
from support.pages import BENIGN, HOSTILE, Structure, page_of

from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import write_figures
from collapse_cli.report.loading import read, series_of
from collapse_cli.report.markdown import markdown
from collapse_cli.report.text import cell, embedded, escaped, label, marked, one_line, visible


def without_library(page: str) -> str:
    """The page without plotly's own text."""
    start = page.index("<script>")
    return page[:start] + page[page.index("</script>", start) :]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def benign(runs: Path) -> Structure:
    write_run(runs, "benign", generations=2, texts=[BENIGN])
    return Structure(page_of(runs, "benign"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_sample_changes_nothing_but_words(runs: Path, benign: Structure, kind: str) -> None:
    name = "h-" + kind.replace(" ", "-")
    write_run(runs, name, generations=2, texts=[HOSTILE[kind]])
    page = page_of(runs, name)
    assert Structure(page).tags == benign.tags
    assert len(page) < 12e6
    for letter in without_library(page):
        assert letter in "\n\t" or ord(letter) >= 32, f"control character {ord(letter):#x}"
        assert not 0x7F <= ord(letter) <= 0x9F
        assert letter not in "\u202e\u2066\u2028\u200b\ufeff"


def test_a_hostile_sample_can_still_be_read(runs: Path, benign: Structure) -> None:
    """Escaped, not thrown away."""
    del benign
    write_run(runs, "read", generations=2, texts=[HOSTILE["script end"]])
    assert "</script><script>window.pwned = 1</script>" in " ".join(Structure(page_of(runs, "read")).words)


@pytest.mark.parametrize("bad", [HOSTILE["image"], HOSTILE["attribute"], "%{x}$y$" + HOSTILE["script end"]])
def test_a_hostile_policy_is_a_name_like_any_other(tmp_path: Path, bad: str) -> None:
    """Names come from files too, and plotly reads HTML and templates in them."""
    rows = {}
    for name, policy in (("tame", "keep-0"), ("wild", bad)):
        folder = write_run(tmp_path, name, policies=("keep-0",), generations=2)
        text = (folder / "metrics.jsonl").read_text()
        lines = [json.loads(line) | {"policy": policy} for line in text.splitlines()]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        record = json.loads((folder / "run.json").read_text())
        record["config"]["loop"]["policies"] = [policy]
        (folder / "run.json").write_text(json.dumps(record))
        rows[name] = page_of(tmp_path, name)
    assert Structure(rows["wild"]).tags == Structure(rows["tame"]).tags
    said = page_of(tmp_path, "wild", forecast=True)
    assert 'id="forecast"' in said
    Structure(said)
    found = re.search(r'id="figures">(.*?)</script>', rows["wild"], re.DOTALL)
    assert found is not None
    assert not set("<>&") & set(found.group(1))
    for figure in json.loads(found.group(1))["figures"].values():
        for trace in figure["traces"]:
            said = f"{trace.get('name', '')} {trace.get('hovertemplate', '')}"
            without_templates = re.sub(r"<extra></extra>|<br>|%\{(y|x|z|customdata)[^}]*\}", "", said)
            assert not set("<>$") & set(without_templates), said
            assert "%{" not in without_templates
    write_figures([RunFolder(tmp_path, "wild")], tmp_path / "figures", ("svg",))
    assert "<script" not in (tmp_path / "figures" / "perplexity.svg").read_text()


def test_everything_else_in_a_folder_is_hostile_too(runs: Path) -> None:
    """Warnings, error, command, versions, configuration, events, expectations, model keys."""
    write_run(runs, "calm", generations=2, warnings={("keep-0", 0, 1): ["a warning"]}, status="error")
    folder = write_run(runs, "storm", generations=2, warnings={("keep-0", 0, 1): ["a warning"]}, status="error")
    bad = HOSTILE["script end"] + HOSTILE["image"] + HOSTILE["ansi"] + HOSTILE["surrogates"]

    def spoil(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {
                key: said if key in ("loop", "status", "learner", "kind") else spoil(said) for key, said in tree.items()
            }
        if isinstance(tree, list):
            return [spoil(one) for one in tree]
        return tree + bad if isinstance(tree, str) else tree

    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(spoil(record)))
    for file, kept in (("metrics.jsonl", {"policy"}), ("events.jsonl", {"event", "kind"})):
        lines = [json.loads(line) for line in (folder / file).read_text().splitlines()]
        spoiled = [{k: v if k in kept else spoil(v) for k, v in line.items()} for line in lines]
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in spoiled))
    assert Structure(page_of(runs, "storm")).tags == Structure(page_of(runs, "calm")).tags


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "nan": lambda row: row | {"distinct_2": math.nan, "nll_by_decile": [math.nan] * 10, "mauve": math.inf},
    "text": lambda row: row | {"distinct_2": "much", "seconds": "long", "warnings": "all", "examples": "none"},
    "lists": lambda row: row | {"distinct_2": [1], "perplexity": {}, "nll": [], "warnings": [1], "examples": [1, {}]},
    "short": lambda row: row | {"nll_change_by_decile": [1, 2], "recall_by_decile": [None] * 10, "top_8grams": [{}]},
    "histogram": lambda row: row | {"sample_histogram": {"low": 0, "width": 0, "counts": [1]}},
    "bins": lambda row: row | {"sample_histogram": {"low": -1e300, "width": 1e-9, "counts": [1]}},
    "far bins": lambda row: (
        row | {"sample_histogram": {"low": 10.0 ** row["generation"] ** 2, "width": 0.1, "counts": [1]}}
    ),
    "empty bins": lambda row: row | {"sample_histogram": {"low": 0, "width": 0.1, "counts": []}},
    "huge": lambda row: row | {"perplexity": 1.7976931348623157e308, "nll": 5000.0, "mauve": 10**400},
    "negative": lambda row: row | {"perplexity": -1.0, "nll": -5.0, "low_share": -3.0},
    "booleans": lambda row: row | {"distinct_2": True, "seed": True},
    "where": lambda row: row | {"seed": "zero"},
    "policy": lambda row: row | {"policy": ["keep-0"]},
    "generation": lambda row: row | {"generation": -1},
    "late": lambda row: row | {"generation": row["generation"] * 10**9},
    "bare": lambda row: {name: row[name] for name in ("policy", "seed", "generation")},
    "null": dict.fromkeys,
    "no object": lambda row: [row],
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("all_rows", [False, True])
def test_damaged_rows_are_left_out_and_said(tmp_path: Path, kind: str, all_rows: bool) -> None:
    folder = write_run(tmp_path, "run", generations=2)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    spoiled = [DAMAGE[kind](line) if all_rows or line["generation"] == 1 else line for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in spoiled))
    page = page_of(tmp_path, "run", forecast=not all_rows)
    quiet = {"bare", "negative", "late", "far bins"}  # every field that is there can be read
    if kind not in quiet:
        assert "could not be read" in page, "and the page says so"
    for name in re.findall(r'id="figures">(.*?)</script>', page, re.DOTALL):
        json.loads(name, parse_constant=pytest.fail)
    if all_rows and kind in ("nan", "huge", "negative", "late", "bare"):  # what the pictures' axes could stumble over
        write_figures([RunFolder(tmp_path, "run")], tmp_path, ("svg",))


def test_files_that_are_no_lines_of_json(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run", generations=2)
    rows = (folder / "metrics.jsonl").read_bytes()
    torn = b"[" * 100_000 + b"\n\xff\xfe\x00\n{}\n" + b'{"policy": "keep-0", "seed": 0\n' + b"9" * 5000 + b"\n"
    (folder / "metrics.jsonl").write_bytes(torn + rows)
    (folder / "events.jsonl").write_bytes(torn)
    page = page_of(tmp_path, "run")
    assert "metrics.jsonl: lines that could not be read: 4" in page
    assert "6 of 6 measured" in page


@pytest.mark.parametrize(("make", "said"), [(Path.mkdir, "a folder"), (os.mkfifo, "a named pipe")])
def test_kept_texts_that_are_no_file_are_said_in_a_line(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    folder = write_run(tmp_path, "run", generations=2)
    make(folder / "samples.jsonl")
    page = page_of(tmp_path, "run")
    assert f"<li>samples.jsonl is {said}, not a file; the page lacks the texts it would hold</li>" in page
    assert str(tmp_path) not in page.partition("samples.jsonl is")[2][:200], "not where on the machine that was"
    assert "6 of 6 measured" in page


@pytest.mark.parametrize(
    "config",
    [{}, [], None, {"loop": []}, {"loop": {"policies": 3, "seeds": "x", "generations": "many"}, "expect": {"a": 1}},
     {"expect": [1, {}, {"what": "perplexity", "value": "x"}], "model": 1, "data": []}],
)  # fmt: skip
def test_a_configuration_of_another_version(tmp_path: Path, config: object) -> None:
    folder = write_run(tmp_path, "run", generations=2)
    record = json.loads((folder / "run.json").read_text()) | {"config": config, "git": None, "hardware": 1}
    for name in ("versions", "command"):
        del record[name]
    (folder / "run.json").write_text(json.dumps(record))
    assert "not recorded" in page_of(tmp_path, "run")


def test_a_million_letters_are_cut_with_a_note(runs: Path, benign: Structure) -> None:
    del benign
    write_run(runs, "cut", generations=2, texts=[HOSTILE["long"]])
    page = page_of(runs, "cut")
    assert "more characters]" in page
    assert len(without_library(page)) < 1e6


def test_markdown_has_no_html_no_link_and_no_cell_of_a_samples_own(tmp_path: Path) -> None:
    for index, text in enumerate(HOSTILE.values()):
        write_run(tmp_path, f"m{index}", policies=("keep-0",), generations=1, texts=[text + " | x | y\n\n# mine"])
        read_runs = read([RunFolder(tmp_path, f"m{index}")])
        said = markdown(read_runs, series_of(read_runs), [None], [])
        said.encode("utf-8")
        assert not re.search(r"<[a-zA-Z/!?]", said)
        assert not re.search(r"(?<!\\)\]\(", said)
        assert "\x1b" not in said
        assert "\n# mine" not in said
        for line in said.splitlines():
            if line.startswith("| ") and "x \\| y" in line:
                assert len(re.findall(r"(?<!\\)\|", line)) == 4


@given(st.text(alphabet=st.characters() | st.sampled_from(["\ud800", "<", "&", '"', "\x1b", "\u202e"]), max_size=200))
def test_no_text_gets_through_as_more_than_text(text: str) -> None:
    for made in (escaped(text), marked(text)[0].replace("<mark>", "").replace("</mark>", ""), label(text)):
        assert "<" not in made
        assert ">" not in made
        made.encode("utf-8")
    assert not set("\"'") & set(escaped(text) + label(text)), "they stand in attributes"
    assert "\n" not in one_line(text)
    assert "\n" not in cell(text)
    assert json.loads(embedded({"a": visible(text)}))["a"] == visible(text)
    assert not set("<>&\u2028\u2029") & set(embedded([text]))


@given(st.text(string.ascii_letters + " \n.,<&", max_size=300))
def test_marking_adds_marks_only(text: str) -> None:
    import html

    made, share = marked(text)
    assert html.unescape(re.sub(r"</?mark>", "", made)) == text
    assert 0 <= share <= 1


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("a b c a b c", "<mark>a b c a b c</mark>"),
        ("one a b c two a b c end", "one <mark>a b c</mark> two <mark>a b c</mark> end"),
        ("a b a b", "a b a b"),
        ("no no no no", "<mark>no no no no</mark>"),
        ("nothing comes again here", "nothing comes again here"),
    ],
)
def test_repeated_phrases_are_marked(text: str, made: str) -> None:
    assert marked(text)[0] == made


def test_controls_become_pictures() -> None:
    assert visible("\x1b[31m\x00\x7f\u202e\ud800\n\t") == "␛[31m␀␡⟨U+202E⟩\ufffd\n\t"
    assert one_line("a\nb\tc") == "a␊b␉c"
    assert visible("👩‍🚀 é ü ß 漢字") == visible("👩‍🚀 é ü ß 漢字")


def test_a_number_that_is_not_finite_is_never_embedded() -> None:
    with pytest.raises(ValueError, match="JSON"):
        embedded({"x": math.nan})
