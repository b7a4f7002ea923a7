"""Large files of every format, read a part at a time: the rows and the errors of a reader that has the whole file in memory."""

import csv
import gzip
import io
import json
import random
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import zstandard

from collapse_cli.check import documents
from collapse_cli.data import content, longtext, textformats
from collapse_cli.data.dataset import load_text
from collapse_cli.data.forms import WantedForm
from collapse_cli.data.longtext import Spool, is_long
from collapse_cli.data.rowreader import RowReader
from collapse_cli.errors import InputError
from collapse_cli.foreign import written

SIGNS = ["a", "é", "漢", "😀", " ", "\u2028", "\x0b", "\t", "\x85", '"', ",", "\\", "\ufeff", "\x1c"]
PACKS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
MARK = b"\xef\xbb\xbf"


def texts(seed: int, rows: int, more: Sequence[str]) -> list[str]:
    """Rows of any length, empty ones too; `more`: signs besides."""
    draw = random.Random(seed)
    return ["".join(draw.choices([*SIGNS, *more], k=draw.choice([0, 1, 5, 60]))) for _ in range(rows)]


def file_of(kind: str, rows: Sequence[str], end: str) -> bytes:
    """A file of these rows, whose lines end so; of plain text a row may be several lines."""
    if kind in (".csv", ".tsv"):
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter="\t" if kind == ".tsv" else ",", lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerows([["id", "text"], *([number, row] for number, row in enumerate(rows))])
        return out.getvalue().encode()
    if kind == ".jsonl":
        lines = [json.dumps({"id": 1, "text": row}, ensure_ascii=bool(number % 2)) for number, row in enumerate(rows)]
        lines.insert(len(lines) // 2, " ")  # a blank line
        return end.join(lines).encode()
    return end.join(rows).encode()


def read_whole(kind: str, data: bytes) -> list[str]:
    """The slow reference: all of a file in memory, as text."""
    text = data.decode("utf-8-sig")
    if kind == ".txt":
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return [line + "\n" for line in text.removesuffix("\n").split("\n")]
    if kind == ".jsonl":
        return [json.loads(line)["text"] for line in text.split("\n") if line.strip()]
    read = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter="\t" if kind == ".tsv" else ",")
    return [record[1] for record in read if record][1:]


def read_in_parts(*paths: Path) -> Sequence[str]:
    return RowReader(WantedForm("text", "text", "", "")).read("files", map(textformats.records, paths))


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is large, and read a few bytes at a time, so that signs and line ends are cut anywhere."""
    monkeypatch.setattr(longtext, "LONG", 1)
    monkeypatch.setattr(longtext, "PART", 97)
    monkeypatch.setattr(content, "SMALL", 0)
    monkeypatch.setattr(content, "PART", 5)
    monkeypatch.setattr(content, "BUFFER", 7)


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".csv", ".tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.usefixtures("parts")
def test_rows_read_in_parts_are_those_of_the_whole_file(tmp_path: Path, kind: str, pack: str, end: str) -> None:
    more = ["\r", "\r\n"] if kind == ".txt" else ["\r", "\n", "\0"] if kind == ".jsonl" else ["\r", "\n"]
    for number, (rows, mark, last) in enumerate(
        [(1, b"", ""), (300, b"", end), (600, MARK, ""), (37, MARK, end), (40, b"", end * 2)]
    ):
        data = mark + file_of(kind, [*texts(number, rows, more), "x"], end) + last.encode()
        path = tmp_path / f"{number}{kind}{pack}"
        path.write_bytes(PACKS[pack](data))
        wanted, found = read_whole(kind, data), read_in_parts(path)
        assert is_long(found)
        assert list(found) == wanted
        assert len(found) == len(wanted)
        assert list(found[3:-2]) == wanted[3:-2]
        assert [found[place] for place in (0, -1, len(wanted) // 2)] == [
            wanted[place] for place in (0, -1, len(wanted) // 2)
        ]
        ended = [row if row.endswith("\n") else row + "\n" for row in wanted]
        assert list(longtext.whole_lines(found)) == ended
        assert list(longtext.whole_lines(found)[1:7]) == ended[1:7]


@pytest.mark.usefixtures("parts")
def test_a_mark_alone_is_a_blank_row(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(MARK)
    assert list(read_in_parts(path)) == read_whole(".txt", MARK) == ["\n"]


@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".csv"])
def test_a_row_of_five_megabytes_among_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(longtext, "LONG", 1)
    rows = ["a", "漢x" * 1_250_000, "", "b"]
    path = tmp_path / f"a{kind}.gz"
    path.write_bytes(gzip.compress(file_of(kind, rows, "\r\n"), 1))
    found = read_in_parts(path)
    assert is_long(found)
    assert [row.removesuffix("\n") for row in found] == rows
    assert found[1].removesuffix("\n") == rows[1]


def test_many_small_files_and_large_ones_are_one_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of plain text that stay where they are, between those whose rows go to the disk."""
    monkeypatch.setattr(longtext, "LONG", 400)
    wanted = list[str]()
    for number in range(30):
        rows = ["first", *texts(number, 90 if number % 7 == 3 else 3, [])]
        end = "\r\n" if number % 2 else "\n"
        (tmp_path / f"{number:02}.txt").write_text(end.join([*rows, "x"]), newline="")
        wanted += [row + "\n" for row in [*rows, "x"]]
    found = read_in_parts(*sorted(tmp_path.iterdir()))
    assert is_long(found)
    assert list(found) == wanted
    assert list(found[100:500]) == wanted[100:500]
    assert found[-5] == wanted[-5]


BAD = {
    "no UTF-8": b"\xff\n",
    "half a sign": b"ab\xe6\xbc",
    "half a sign, then more": b"\xe6\xbcx\n\xff",
    "zeros": b"\0" * 200,
    "zeros and no UTF-8": b"\xff" + b"\0" * 200,
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".csv"])
@pytest.mark.usefixtures("parts")
def test_what_is_no_text_is_said_with_its_line(tmp_path: Path, kind: str, bad: str) -> None:
    data = file_of(kind, texts(1, 20, ["\n"]), "\r\n") + b"\r\n" + BAD[bad]
    path = tmp_path / f"a{kind}"
    path.write_bytes(data)
    said = f"{path} is no UTF-8 text: many of its bytes are 0, as in UTF-16 or in data; convert it to UTF-8"
    if "zeros" not in bad:
        with pytest.raises(UnicodeDecodeError) as error:
            data.decode()
        place = error.value.start
        line = data.count(b"\n", 0, place) + 1
        said = f"{path} is not UTF-8 (line {line}, byte 0x{data[place]:02x}); convert it, for example with iconv"
    with pytest.raises(InputError) as found:
        read_in_parts(path)
    assert str(found.value) == said


WRONG = {
    "cut.txt.gz": gzip.compress(b"a line\n" * 99)[:-9],
    "cut.txt.zst": zstandard.compress(bytes(range(97, 123)) * 99)[:-3],
    "empty.txt.gz": gzip.compress(b""),
    "plain.jsonl.gz": b'{"text": "a"}\n',
    "empty.jsonl": b"",
    "wide.txt": "a line\n".encode("utf-16"),
    "zip.jsonl": b"PK\x03\x04" + b"a" * 99,
    "json.jsonl": b'{"text": "a"}\n\n{"text": \r\n{"text": "b"}\n',
    "list.json": b'\n [{"text": "a"},\n {"text": "b"},\n {"text": }]',
    "column.jsonl": b'{"text": "a"}\n{"tixt": "b"}\n',
    "number.jsonl": b'{"text": "a"}\r\n{"text": 3}\r\n',
    "quote.csv": b'id,text\n1,"a\nb"\n2,"c\n3,d\n',
    "cells.csv": b'id,text\r\n1,"a\r\nb"\r\n2,b,c\r\n',
    "names.csv": b"id;text\n1;a\n",
    "no.parquet": b"PAR1" + b"a" * 99 + b"PAR1",
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_the_same_in_parts_and_at_once(tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    path = tmp_path / name
    path.write_bytes(WRONG[name])
    said = []
    for fixture in ("", "parts"):
        if fixture:
            request.getfixturevalue(fixture)
        with pytest.raises(InputError) as error:
            read_in_parts(path)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert name in said[0]
    assert "\n" not in said[0]


@pytest.mark.parametrize("small", [0, 1 << 20])
def test_tables_are_read_some_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr(longtext, "LONG", 1)
    monkeypatch.setattr(textformats, "SMALL", small)
    monkeypatch.setattr(textformats, "AT_ONCE", 7)
    rows: list[str | None] = [*texts(0, 100, ["\n", "\r"]), None]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": range(101), "text": rows, "answer": ["yes"] * 101}), path, row_group_size=30)
    assert list(read_in_parts(path)) == [row or "" for row in rows]
    found = list(textformats.records(path).cells(["text", "answer"]))
    assert [cells for _, cells in found] == [[row, "yes"] for row in rows]
    assert found[-1][0] == f"{path}, row 101"
    with pytest.raises(InputError, match="the column 'id' holds int64, not text"):
        textformats.records(path).texts("id")


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".txt.gz", ".parquet"])
def test_a_text_that_is_kept_on_the_disk_is_the_same_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rows = [row + "x" for row in texts(5, 400, [])]
    path = tmp_path / f"a{kind}"
    if kind == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": rows}), path)
    else:
        data = file_of(kind.removesuffix(".gz"), rows, "\n")
        path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    found = []
    for long in (1 << 20, 1):
        monkeypatch.setattr(longtext, "LONG", long)
        load_text.cache_clear()
        written.read.cache_clear()
        text, other = load_text(str(path)), written.read(str(path))
        assert is_long(text.splits["train"]) == (long == 1)
        found.append((text.sha256, text.notes, {name: list(some) for name, some in text.splits.items()}, other.sha256))
    load_text.cache_clear()
    written.read.cache_clear()
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".txt", ".txt.gz", ".parquet"])
def test_memory_does_not_grow_with_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Counted by Python's own allocator; files of text have line ends that keep their rows from staying in them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr(longtext, "LONG", 1 << 14)
    monkeypatch.setattr(longtext, "PART", 1 << 14)
    monkeypatch.setattr(content, "SMALL", 1 << 14)
    monkeypatch.setattr(content, "PART", 1 << 14)
    monkeypatch.setattr(textformats, "SMALL", 1 << 14)
    monkeypatch.setattr(textformats, "BUFFER", 1 << 14)
    most = []
    for size in (1, 1, 4):  # the first pays for what is imported
        rows = [f"{number} some words of a line" for number in range(4_000 * size)]
        path = tmp_path / f"{size}{kind}"
        if kind == ".parquet":
            pq.write_table(pa.table({"text": rows}), path, row_group_size=2000)
        else:
            data = file_of(kind.removesuffix(".gz"), rows, "\r\n")
            path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
            del data
        del rows
        load_text.cache_clear()
        tracemalloc.start()
        load_text(str(path))
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    load_text.cache_clear()
    assert most[2] - most[1] < 250_000, most  # the rows of the longer text would take 1 MB more


def test_a_disk_that_takes_no_more_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longtext, "LONG", 1)
    monkeypatch.setattr(longtext, "room", lambda: str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"is kept in .*none while it is read, which cannot take it \(No such file"):
        Spool().append("a")


@pytest.mark.parametrize("pack", PACKS)
def test_a_file_that_no_disk_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: str) -> None:
    """A file of 40 kB may unpack to terabytes."""
    data = b'{"text": "a line"}\n' * (1 << 12)
    monkeypatch.setattr(content, "SMALL", 1000)
    path = tmp_path / f"many.jsonl{pack}"
    path.write_bytes(PACKS[pack](data))
    monkeypatch.setattr(content.shutil, "disk_usage", lambda place: SimpleNamespace(free=2 * len(data)))
    assert len(read_in_parts(path)) == 1 << 12
    monkeypatch.setattr(content.shutil, "disk_usage", lambda place: SimpleNamespace(free=2 * len(data) - 2))
    with pytest.raises(InputError, match=r"many\.jsonl.* holds more than 0\.0 GB, half of what is free in .*TMPDIR"):
        read_in_parts(path)


def test_what_needs_all_rows_at_once_asks_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chats, a list of JSON, and texts that are compared."""
    chats = tmp_path / "chats.jsonl"
    chats.write_text('{"prompt": "a", "completion": "b"}\n' * 100)
    in_a_list = tmp_path / "list.json"
    in_a_list.write_text(json.dumps([{"text": "a"}] * 100))
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"text": "a"}\n' * 100)
    monkeypatch.setattr(longtext, "LONG", 1)
    monkeypatch.setattr(content, "SMALL", 0)
    how = documents.ReadingOptions()
    assert len(documents.read_test(plain, how).rows) == 100
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    assert len(read_in_parts(plain)) == 100
    for asked in (
        lambda: load_text(str(chats)),
        lambda: read_in_parts(in_a_list),
        lambda: documents.read_test(plain, how),
    ):
        with pytest.raises(InputError, match="half of the memory that is free"):
            asked()


def test_a_file_that_changes_between_two_passes_is_not_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "SMALL", 0)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n' * 100)
    made = textformats.records(path)
    assert list(made.texts("text")) == ["a"] * 100
    path.write_text('{"text": "b"}\n' * 101)
    with pytest.raises(InputError, match="changed while it was read"):
        list(made.texts("text"))
