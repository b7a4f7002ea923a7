"""Texts that are kept for people to read: bounded, read back as they were, and whatever else stands in the file does no harm."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from collapse_cli.records import kept_texts
from collapse_cli.records.kept_texts import FILE, KeptText, KeptTexts, line_of, spans_of
from collapse_cli.where import Where

HERE = Where("keep-0", 0, 1)


KEY = "ab" * 32
WIDE = 1_000_000  # bytes of a line


def written(folder: Path, kept: Mapping[Where, Sequence[KeptText]], room: int = WIDE) -> None:
    for where, texts in kept.items():
        kept_texts.add(folder, line_of(where, KEY, texts, room))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    texts = [KeptText("3", "The river ", "flows.\n", 2.5, ((0, 6, "wrong"),), True), KeptText("4", "", "x")]
    other = Where("keep-10", 1, 0)
    written(tmp_path, {HERE: texts, other: []})
    found = kept_texts.read(tmp_path)
    assert found.texts == {HERE: texts, other: []}
    assert found.keys == {HERE: KEY[:16], other: KEY[:16]}
    assert (found.left_out, found.torn) == ({HERE: 0, other: 0}, 0)


def test_texts_of_two_lineages_are_not_those_of_one(tmp_path: Path) -> None:
    mine, other = (KeptText("3", "The river ", word) for word in ("flows", "burns"))
    kept = {Where("keep-0", 0, 1, "a"): [mine], Where("keep-0", 0, 1, "b"): [other], HERE: []}
    written(tmp_path, kept)
    assert kept_texts.read(tmp_path).texts == kept


def test_texts_are_cut(tmp_path: Path) -> None:
    long = KeptText("0", "p" * 10_000, "t" * 10_000, None, ((0, 3, "right"), (5, 9_000, "wrong")))
    written(tmp_path, {HERE: [long]})
    (kept,) = kept_texts.read(tmp_path).texts[HERE]
    assert (len(kept.prompt), len(kept.text), kept.spans) == (1500, 1500, ((0, 3, "right"),))


@pytest.mark.parametrize("models", [1, 10, 50, 300])
def test_however_many_models_there_are_each_keeps_some_and_says_how_many_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: int
) -> None:
    """Every character of other scripts takes six bytes."""
    monkeypatch.setattr(kept_texts, "MOST_BYTES", 300_000)
    texts = [KeptText(str(at), "\u5154" * 300, f"{at} " + "\u4e16" * 400, at / 10, (), at < 8) for at in range(32)]
    written(tmp_path, {Where("keep-0", 0, g): texts for g in range(models)}, kept_texts.room_for(models))
    assert (tmp_path / FILE).stat().st_size <= 300_000
    found = kept_texts.read(tmp_path)
    assert list(found.texts) == [Where("keep-0", 0, g) for g in range(models)]
    for where, there in found.texts.items():
        assert len(there) >= 1
        assert len(there) + found.left_out[where] == len(texts)
        assert there[0].row == "0"
        assert len(there) == 1 or there[-1].row == "31", "those in between are left out, not the ends"
    assert len({len(there) for there in found.texts.values()}) == 1, "the last as much as the first"


def test_a_line_that_has_too_much_for_a_longer_run_gives_some_up(tmp_path: Path) -> None:
    texts = [KeptText(str(at), "", "t" * 500) for at in range(20)]
    first = line_of(HERE, KEY, texts, 6_000)
    kept_texts.add(tmp_path, first)
    found = kept_texts.read(tmp_path)
    again = line_of(HERE, KEY, found.texts[HERE], 3_000, found.left_out[HERE])
    kept_texts.rewrite(tmp_path, [again])
    later = kept_texts.read(tmp_path)
    assert 1 < len(later.texts[HERE]) < len(found.texts[HERE]) < 20
    assert len(later.texts[HERE]) + later.left_out[HERE] == 20


def test_a_file_that_is_right_is_left_as_it_is(tmp_path: Path) -> None:
    line = line_of(HERE, KEY, [KeptText("0", "a", "b")], WIDE)
    kept_texts.rewrite(tmp_path, [line])
    assert not (tmp_path / FILE).exists(), "nothing is there to be mended"
    kept_texts.add(tmp_path, line)
    before = (tmp_path / FILE).stat()
    kept_texts.rewrite(tmp_path, [line])
    assert (tmp_path / FILE).stat() == before


def test_a_line_after_a_torn_one_is_one(tmp_path: Path) -> None:
    line = line_of(HERE, KEY, [KeptText("0", "a", "b")], WIDE)
    (tmp_path / FILE).write_text(line[:40])
    kept_texts.add(tmp_path, line)
    found = kept_texts.read(tmp_path)
    assert (list(found.texts), found.torn) == ([HERE], 1)


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"policy": 3, "seed": 0, "generation": 0}', '{"policy": "a", "seed": true, "generation": 0}', "\\x00"],
)
def test_a_line_that_is_none_is_counted(tmp_path: Path, line: str) -> None:
    good = json.dumps({"policy": "keep-0", "seed": 0, "generation": 1, "texts": [{"text": "a"}, {"text": 3}, 7]})
    (tmp_path / FILE).write_text(f"{line}\n{good}\n")
    found = kept_texts.read(tmp_path)
    assert (found.texts, found.keys, found.torn) == ({HERE: [KeptText("", "", "a")]}, {HERE: ""}, 1)


@pytest.mark.parametrize("count", [-1, 10**9, True, "7", None, [1]])
def test_a_number_of_texts_left_out_that_makes_no_sense_is_none(tmp_path: Path, count: object) -> None:
    place = {"policy": "keep-0", "seed": 0, "generation": 1, "texts": [], "key": 3, "left_out": count}
    (tmp_path / FILE).write_text(json.dumps(place))
    assert kept_texts.read(tmp_path).left_out == {HERE: 0}


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
    (text,) = kept_texts.read(tmp_path).texts[HERE]
    assert text.spans == ((0, 2, "wrong"), (2, 4, "odd"))
    assert text.nll is None


def test_no_file_is_nothing(tmp_path: Path) -> None:
    assert kept_texts.read(tmp_path) == KeptTexts()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("folder", "samples.jsonl is a folder, not a file"),
        ("pipe", "samples.jsonl is a named pipe, not a file"),
        ("loop", "samples.jsonl is a link that leads back to itself"),
        ("huge", "samples.jsonl has more than 16,000,000 bytes, which no run writes"),
    ],
)
def test_what_is_no_file_of_ours_is_said_and_never_waited_for(tmp_path: Path, kind: str, said: str) -> None:
    put_there(tmp_path / FILE, kind)
    assert kept_texts.read(tmp_path) == KeptTexts(fault=said)


def put_there(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        with path.open("wb") as file:
            file.truncate(10**10)


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
