"""Texts that are kept for people to read: bounded, read back as they were, and whatever else stands in the file does no harm."""

import json
from pathlib import Path

import pytest

from collapse_cli.records import kept_texts
from collapse_cli.records.kept_texts import FILE, KeptText, spans_of
from collapse_cli.where import Where

HERE = Where("keep-0", 0, 1)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    texts = [KeptText("3", "The river ", "flows.\n", 2.5, ((0, 6, "wrong"),), True), KeptText("4", "", "x")]
    kept_texts.write(tmp_path, {HERE: texts, Where("keep-10", 1, 0): []})
    assert kept_texts.read(tmp_path) == ({HERE: texts, Where("keep-10", 1, 0): []}, 0)


def test_texts_are_cut_and_the_file_ends_where_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = KeptText("0", "p" * 10_000, "t" * 10_000, None, ((0, 3, "right"), (5, 9_000, "wrong")))
    kept_texts.write(tmp_path, {HERE: [long]})
    (kept,), _ = list(kept_texts.read(tmp_path)[0].values()), 0
    assert (len(kept[0].prompt), len(kept[0].text), kept[0].spans) == (1500, 1500, ((0, 3, "right"),))
    monkeypatch.setattr(kept_texts, "MOST_BYTES", 20_000)
    kept_texts.write(tmp_path, {Where("keep-0", 0, g): [long] for g in range(50)})
    assert (tmp_path / FILE).stat().st_size <= 20_000
    there, torn = kept_texts.read(tmp_path)
    assert list(there) == [Where("keep-0", 0, g) for g in range(len(there))]
    assert 2 < len(there) < 50
    assert torn == 0


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"policy": 3, "seed": 0, "generation": 0}', '{"policy": "a", "seed": true, "generation": 0}', "\\x00"],
)
def test_a_line_that_is_none_is_counted(tmp_path: Path, line: str) -> None:
    good = json.dumps({"policy": "keep-0", "seed": 0, "generation": 1, "texts": [{"text": "a"}, {"text": 3}, 7]})
    (tmp_path / FILE).write_text(f"{line}\n{good}\n")
    assert kept_texts.read(tmp_path) == ({HERE: [KeptText("", "", "a")]}, 1)


def test_spans_that_make_no_sense_are_left_out(tmp_path: Path) -> None:
    spans = [
        [0, 2, "wrong"],
        [1, 3, "right"],
        [2, 9, "odd"],
        [2, 3, "<b>"],
        ["a", 3, "right"],
        [3, 3, "right"],
        [2, 4, "odd"],
    ]
    row = {
        "policy": "keep-0",
        "seed": 0,
        "generation": 1,
        "texts": [{"text": "abcd", "spans": spans, "nll": float("1e999")}],
    }
    (tmp_path / FILE).write_text(json.dumps(row))
    (text,) = kept_texts.read(tmp_path)[0][HERE]
    assert text.spans == ((0, 2, "wrong"), (2, 4, "odd"))
    assert text.nll is None


def test_no_file_is_nothing(tmp_path: Path) -> None:
    assert kept_texts.read(tmp_path) == ({}, 0)
    (tmp_path / FILE).mkdir()
    assert kept_texts.read(tmp_path)[0] == {}


def test_sentences_are_found_in_what_continues_the_prompt() -> None:
    judged = [("Max is a poodle.", "right"), ("It belongs to Ann.", "false"), ("So so.", "odd"), ("Gone.", "right")]
    sentences = [{"text": text, "verdict": verdict} for text, verdict in judged]
    prompt, text = "Max", " is a poodle. It belongs to Ann. So so."
    spans = spans_of(prompt, text, sentences)
    assert [(text[start:stop], kind) for start, stop, kind in spans] == [
        (" is a poodle.", "right"),
        ("It belongs to Ann.", "wrong"),
        ("So so.", "odd"),
    ]
    assert spans_of("All of it. ", "More.", [{"text": "All of it.", "verdict": "right"}]) == ()
    assert spans_of("a", "b", "nonsense") == spans_of("a", "b", [3, {"text": 4}]) == ()
