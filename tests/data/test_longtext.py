"""Rows of large files: what they are read in pieces is what they are read whole, and memory does not grow with them."""

import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support import e2e

from collapse_cli.data import dataset, longtext, textformats
from collapse_cli.data.content import BINARY
from collapse_cli.data.dataset import Dataset, load_text
from collapse_cli.data.longtext import EVERY, FileRows, Joined, NotPlain, file_rows, is_long
from collapse_cli.errors import InputError

SIGNS = ["a", "é", "漢", "😀", " ", "\u2028", "\x0b", "\t", "\x85"]


def content(seed: int, lines: int, *, ends: bool) -> str:
    """Lines of any length, blank ones too, with signs of one to four bytes, and those that end lines elsewhere."""
    draw = random.Random(seed)
    made = "\n".join("".join(draw.choices(SIGNS, k=draw.choice([0, 1, 5, 40]))) for _ in range(lines))
    return made + "\n" if ends else made + "x"


def whole(path: Path) -> Sequence[str | None]:
    return list(textformats.Lines(path).texts(""))


@pytest.mark.parametrize("lines", [1, EVERY - 1, EVERY, EVERY + 1, 3 * EVERY])
@pytest.mark.parametrize("ends", [True, False])
def test_rows_on_the_disk_are_those_of_the_file_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int, ends: bool
) -> None:
    monkeypatch.setattr(longtext, "PART", 7)  # signs and marks are cut anywhere
    path = tmp_path / "text.txt"
    path.write_text(content(lines, lines, ends=ends), newline="")
    rows, wanted = FileRows(path), list(whole(path))
    assert list(rows) == wanted
    assert len(rows) == len(wanted)
    draw = random.Random(0)
    for _ in range(40):
        first, last = draw.randint(-lines - 2, lines + 2), draw.randint(-lines - 2, lines + 2)
        assert list(rows[first:last]) == wanted[first:last]
        assert list(rows[first:last][1:-1]) == wanted[first:last][1:-1]
    assert [rows[number] for number in range(-lines, lines)] == wanted + wanted
    assert list(rows[::-3]) == wanted[::-3]
    for outside in (lines, -lines - 1):
        with pytest.raises(IndexError):
            rows[outside]


def test_rows_behind_each_other_are_one_sequence(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(content(1, 300, ends=True), newline="")
    lists = [["a\n"], list(FileRows(path)), [], ["b\n", "c\n"]]
    joined, wanted = Joined([lists[0], FileRows(path), [], lists[3]]), [row for rows in lists for row in rows]
    assert list(joined) == wanted
    for first, last in ((0, 2), (-5, -1), (1, 301), (300, 304), (5, 2), (0, 400)):
        assert list(joined[first:last]) == wanted[first:last]
        assert len(joined[first:last]) == len(wanted[first:last])
    assert [joined[number] for number in (0, 1, 300, 301, -1, -303)] == [wanted[k] for k in (0, 1, 300, 301, -1, -303)]
    with pytest.raises(IndexError):
        joined[len(wanted)]


@pytest.mark.parametrize(
    "odd", [b"\xff\n", b"a\r\n", b"a\rb\n", b"a\0b\n", b"\xef\xbb\xbfa\n", b"\xe6\xbc", b"a\xc3"], ids=repr
)
@pytest.mark.parametrize("part", [3, 1 << 20])
def test_a_file_that_is_more_than_its_lines_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: bytes, part: int
) -> None:
    monkeypatch.setattr(longtext, "PART", part)
    monkeypatch.setattr(longtext, "LONG", 1)
    path = tmp_path / "text.txt"
    path.write_bytes(b"some text\n" * 50 + odd)
    with pytest.raises(NotPlain):
        FileRows(path)
    assert file_rows(path) is None


def test_a_large_file_of_another_kind_is_refused_as_a_small_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(next(start for start in BINARY if start.isascii() and b"\n" not in start) + b" some\n" * 9)
    for long in (1 << 20, 1):
        monkeypatch.setattr(longtext, "LONG", long)
        with pytest.raises(InputError, match="is no text"):
            list(textformats.records(path).texts(""))


def test_a_file_that_changes_between_two_passes_is_not_read_on(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("a line\n" * 500)
    rows = FileRows(path)
    assert len(list(rows)) == 500
    path.write_text("b line\n" * 501)
    with pytest.raises(InputError, match="changed while it was read"):
        list(rows)
    other = tmp_path / "other.txt"
    other.write_text("a line\n" * 500)
    other.replace(path)
    with pytest.raises(InputError, match="changed while it was read"):
        rows[3]


@pytest.mark.parametrize("held_out", [False, True])
def test_a_run_on_long_texts_is_that_on_short_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: bool
) -> None:
    """Every file of its store, byte for byte: tokenizer, rows, reserve; with a test text of its own or one that is cut off."""
    e2e.write_text(tmp_path / "text", train_lines=400)
    if held_out:
        (tmp_path / "text" / "test.txt").unlink()
        (tmp_path / "text" / "valid.txt").unlink()
    config = tmp_path / "tiny.toml"
    config.write_text(
        e2e.TINY.format(source=tmp_path / "text").replace("generations = 1", "generations = 0")
        + "\n[store]\nkeep_models = 'none'\n"
    )
    kept: dict[bool, dict[str, bytes]] = {}
    texts: dict[bool, dataset.Text] = {}
    for long in (False, True):
        load_text.cache_clear()
        if long:
            monkeypatch.setattr(longtext, "LONG", 1)
            monkeypatch.setattr(dataset, "AT_ONCE", 10)
        texts[long] = load_text(str(tmp_path / "text"))
        assert is_long(texts[long].splits["train"]) == long
        runs = tmp_path / f"runs-{long}"
        found = e2e.collapse(
            "run",
            config,
            "--runs-dir",
            runs,
            "--set",
            "eval.protocol=sliding",
            "--set",
            "data.eval_rows=0",
            "--set",
            "eval.context=16",
            "--set",
            "eval.stride=8",
        )
        assert found.code == 0, found.err
        (data,) = [path.parent for path in runs.glob("store/*/*/stage.json") if '"kind": "data"' in path.read_text()]
        kept[long] = {
            path.relative_to(runs).as_posix(): path.read_bytes()
            for path in data.rglob("*")
            if path.is_file() and path.name != "stage.json"
        }
    load_text.cache_clear()
    assert texts[True].sha256 == texts[False].sha256
    assert texts[True].notes == texts[False].notes
    assert kept[True] == kept[False]
    assert any(name.endswith("reserve.safetensors") for name in kept[True])
    assert not any(".stream" in name for name in kept[True])


@pytest.mark.parametrize("width", [None, 3])
def test_rows_saved_some_at_a_time_are_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int | None
) -> None:
    draw = np.random.default_rng(0)
    shape = (100,) if width is None else (100, width)
    arrays = {
        "tokens": draw.integers(0, 9, shape).astype(np.int32),
        "mask": draw.random((100, 2)) < 0.5,
        "numbers": draw.random((100, 2, 3)),
        "long": np.arange(100),
    }
    rows = Dataset(arrays, np.arange(100, dtype=np.int32))
    some = draw.permutation(100)[:77]
    rows.take(some).save(tmp_path / "once")
    monkeypatch.setattr(dataset, "AT_ONCE", 10)
    monkeypatch.setattr(dataset, "GATHERED", 7)
    rows.save_rows(tmp_path / "parts", some)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "once").read_bytes()
    monkeypatch.setattr(dataset, "MAPPED", 1)
    mapped = Dataset.load_mapped(tmp_path / "once")
    wanted = Dataset.load(tmp_path / "once")
    assert mapped.arrays.keys() == wanted.arrays.keys()
    assert all(np.array_equal(mapped.arrays[name], wanted.arrays[name]) for name in arrays)
    assert np.array_equal(mapped.origin, wanted.origin)
    (tmp_path / "once").write_bytes((tmp_path / "once").read_bytes()[:-9])
    with pytest.raises(InputError, match="is damaged"):
        Dataset.load_mapped(tmp_path / "once")


def test_memory_does_not_grow_with_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by Python's own allocator: of a text four times as long no more is held at any time, but what its lines' places take."""
    monkeypatch.setattr(longtext, "LONG", 1)
    monkeypatch.setattr(longtext, "PART", 1 << 14)
    most = []
    for size in (1, 4):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / "train.txt").write_text(
            "".join(f"{number} some words of a line\n" for number in range(10_000 * size))
        )
        (folder / "test.txt").write_text("another text\n" * 100)
        load_text.cache_clear()
        tracemalloc.start()
        load_text(str(folder))
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    load_text.cache_clear()
    assert most[1] - most[0] < 100_000, most  # the longer text has 0.8 MB more
