"""Local text files: read as bytes and strings, by their own names, and what is passed over is said."""

import csv
import errno
import gzip
import json
import os
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from support import e2e

from collapse_cli import files
from collapse_cli.config import Experiment
from collapse_cli.data import content as contents
from collapse_cli.data.dataset import Text, load_text
from collapse_cli.errors import InputError
from collapse_cli.learners import Learner, Resolved, learner_class, silent
from collapse_cli.lm import text as texts

TRAIN = "".join(f"a line of the training text, and its number is {number}\n" for number in range(20))
TEST = "".join(f"another line, of the test text, its number is {number}\n" for number in range(9))


def read(folder: Path, **chosen: str) -> Text:
    load_text.cache_clear()  # as in a new process
    return load_text(str(folder), **chosen)


def refused(folder: Path, **chosen: str) -> str:
    with pytest.raises(InputError) as error:
        read(folder, **chosen)
    assert "\n" not in str(error.value)
    return str(error.value)


def corpus(folder: Path, **more: str | bytes) -> Path:
    """A folder with a training and a test text, and more files; `__` in a name stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"train__txt": TRAIN, "test__txt": TEST, **more}.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


# --- identity is the bytes --------------------------------------------------------------------------------------------


def test_a_file_replaced_with_its_old_time_is_read_anew(tmp_path: Path) -> None:
    seen = []
    for word in ("river", "ocean"):
        folder = corpus(tmp_path, train__txt=TRAIN.replace("line", word))
        os.utime(folder / "train.txt", (1e9, 1e9))
        seen.append(read(folder))
    assert "ocean" in seen[1].splits["train"][0]
    assert seen[0].sha256 != seen[1].sha256


# --- names are names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["corpus [v2]", "a::b", "what?", "s*r", "https:", "{a,b}", "two\nlines", "-x"])
def test_folders_may_be_called_anything(tmp_path: Path, name: str) -> None:
    assert read(corpus(tmp_path / name)).splits["train"] == tuple(TRAIN.splitlines(keepends=True))


def test_a_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    corpus(tmp_path, **{"train[12]__txt": "this one\n", "train1__txt": "not this one\n"})
    assert read(tmp_path, train="train[12].txt").splits["train"] == ("this one\n",)


def test_shards_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    shards = {f"train-{number}__jsonl": json.dumps({"text": f"shard {number}"}) for number in (1, 2, 10)}
    corpus(tmp_path, **shards)
    (tmp_path / "train.txt").unlink()
    assert read(tmp_path).splits["train"] == ("shard 1\n", "shard 2\n", "shard 10\n")


# --- cells are strings ------------------------------------------------------------------------------------------------

ODD = ["001", "1e5", "True", "false", "2021-03-04", "NA", "null", "", "  two ", '"quoted"', "a,b", "line\nbreak"]


def test_cells_of_csv_are_the_strings_that_stand_there(tmp_path: Path) -> None:
    cells = [*ODD, *(f"row {number}" for number in range(20_000)), "007"]
    lines = ["id,text", *('1,"' + cell.replace('"', '""') + '"' for cell in cells)]
    corpus(tmp_path, train__csv="\n".join(lines) + "\n")
    (tmp_path / "train.txt").unlink()
    assert read(tmp_path).splits["train"] == tuple(cell + "\n" for cell in cells)


@pytest.mark.parametrize("cells", [["007", "1984"], ["True", "False"], ["1.50", "2"], ["2021-03-04", "2020-01-01"]])
def test_columns_that_look_like_another_type_are_text(tmp_path: Path, cells: list[str]) -> None:
    corpus(tmp_path, train__csv="text\n" + "\n".join(cells) + "\n")
    (tmp_path / "train.txt").unlink()
    assert read(tmp_path).splits["train"] == tuple(cell + "\n" for cell in cells)


def test_strings_of_json_that_look_like_dates_are_text(tmp_path: Path) -> None:
    cells = ["2021-03-04", "2020-01-01 10:20:30", *ODD]
    for number, content in enumerate(
        ("".join(json.dumps({"text": cell}) + "\n" for cell in cells), json.dumps([{"text": cell} for cell in cells]))
    ):
        folder = corpus(tmp_path / str(number), train__json=content)
        (folder / "train.txt").unlink()
        assert read(folder).splits["train"] == tuple(cell + "\n" for cell in cells)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("12", "line 2: 'text' is a number, not text"),
        ("true", "line 2: 'text' is true or false, not text"),
        ('["a"]', "line 2: 'text' is a list"),
    ],
)
def test_what_is_no_text_in_json_is_refused_by_line(tmp_path: Path, cell: str, words: str) -> None:
    corpus(tmp_path, train__jsonl='{"text": "a"}\n{"text": ' + cell + "}\n")
    (tmp_path / "train.txt").unlink()
    assert words in refused(tmp_path)


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    corpus(tmp_path, train__jsonl='{"text": "a"}\n{"text": null}\n{"text": "b"}\n')
    (tmp_path / "train.txt").unlink()
    text = read(tmp_path)
    assert text.splits["train"] == ("a\n", "\n", "b\n")
    assert any("rows without text (null): 1 of 3" in note for note in text.notes)


def test_shards_may_have_other_columns_of_other_types(tmp_path: Path) -> None:
    corpus(tmp_path, **{"train-0__jsonl": '{"text": "a", "id": 1}\n', "train-1__jsonl": '{"id": "x", "text": "b"}\n'})
    (tmp_path / "train.txt").unlink()
    assert read(tmp_path).splits["train"] == ("a\n", "b\n")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, ending: str) -> None:
    corpus(tmp_path)
    (tmp_path / "train.txt").unlink()
    if ending == "csv":
        (tmp_path / "train.csv").write_text("text,text\na,b\n")
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "train.parquet")
    assert "2 columns called 'text'" in refused(tmp_path)


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["txt", "csv", "jsonl"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, ending: str) -> None:
    content = {"txt": "a\nb\n", "csv": "text\na\nb\n", "jsonl": '{"text": "a"}\n{"text": "b"}\n'}[ending].encode()
    hashes = set()
    for mark in (b"", b"\xef\xbb\xbf"):
        folder = corpus(tmp_path / str(len(mark)), **{f"train__{ending}": mark + content})
        if ending != "txt":
            (folder / "train.txt").unlink()
        hashes.add(read(folder).sha256)
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text".encode("utf-16"), "is UTF-16 or UTF-32; convert it to UTF-8"),
        (gzip.compress(b"text", mtime=0), "compressed with gzip"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"%PDF-1.7", "a PDF"),
        (b"PAR1....", "a Parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"fine\nfine\nna\xefve\n", "is not UTF-8 (line 3, byte 0xef)"),
    ],
)
def test_what_is_no_utf8_text_is_said(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in refused(corpus(tmp_path, train__txt=content))


def test_line_ends_of_all_systems_end_lines_and_nothing_else_does(tmp_path: Path) -> None:
    text = read(corpus(tmp_path, train__txt="a\r\nb\rc\n\x0cd\x1ce\u2028f\u0085g\nlast".encode()))
    assert text.splits["train"] == ("a\n", "b\n", "c\n", "\x0cd\x1ce\u2028f\u0085g\n", "last\n")


def test_packed_files_are_read_and_damaged_ones_refused(tmp_path: Path) -> None:
    packed = gzip.compress(TRAIN.encode())
    folder = corpus(tmp_path / "whole", train__txt__gz=packed)
    (folder / "train.txt").unlink()
    assert read(folder).splits["train"] == tuple(TRAIN.splitlines(keepends=True))
    folder = corpus(tmp_path / "cut", train__txt__gz=packed[:-9])
    (folder / "train.txt").unlink()
    assert "cannot be unpacked" in refused(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.txt")
    with pytest.raises(InputError, match="is a named pipe, not a file"):
        files.read_bytes(tmp_path / "train.txt")
    with pytest.raises(InputError, match="is a folder"):
        files.read_bytes(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        files.sha256_of(tmp_path / "none")


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("a\n")

    def read_too_early() -> None:
        with files.opened(path) as file:
            file.read()
            path.write_text("a\nb\n")

    with pytest.raises(InputError, match="changed while it was read"):
        read_too_early()
    with pytest.raises(InputError, match="more than 3 bytes"):
        files.read_bytes(path, most=3)


# --- what is passed over ----------------------------------------------------------------------------------------------


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    corpus(tmp_path, train__jsonl__xz=b"\xfd7zXZ", more__txt="x\n", README__md="no text", __hidden__txt="x")
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "more.txt").write_text("x\n")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "train-2.txt").symlink_to(tmp_path / "gone.txt")
    notes = "\n".join(read(tmp_path).notes)
    for words in (
        r"links .*: train-2\.txt",
        r"folders with text .*: nested$",
        r"or test: more\.txt$",
        r"formats that are not read .*: train\.jsonl\.xz",
    ):
        assert re.search(words, notes, re.MULTILINE), notes
    assert "README" not in notes
    assert "hidden" not in notes


def test_many_files_passed_over_are_one_short_note(tmp_path: Path) -> None:
    corpus(tmp_path, **{f"extra-{number}__txt": "x\n" for number in range(500)})
    (note,) = read(tmp_path).notes
    assert note.endswith("extra-0.txt, extra-1.txt, extra-2.txt and 497 more")


def test_names_in_capitals_are_names(tmp_path: Path) -> None:
    corpus(tmp_path, TRAIN__TXT="in capitals\n")
    (tmp_path / "train.txt").unlink()
    assert read(tmp_path).splits["train"] == ("in capitals\n",)


def test_test_text_that_stands_in_the_training_text_is_said(tmp_path: Path) -> None:
    assert read(corpus(tmp_path / "apart")).notes == ()
    long = "a row that is long enough not to stand in two texts by chance\n"
    both = corpus(
        tmp_path / "both", train__txt=TRAIN + long + "= a heading =\n", test__txt="= a heading =\n" + long + TEST
    )
    (note,) = read(both).notes
    assert note.startswith("test rows of 40 characters or more that also stand in the training text: 1 of 10;")
    (note,) = read(corpus(tmp_path / "same", test__txt=TRAIN)).notes
    assert "20 of 20" in note


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_a_folder_of_save_to_disk_is_said_and_not_waited_for(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": ["a row", "another one"]}).save_to_disk(tmp_path)
    (rows,) = tmp_path.glob("*.arrow")
    rows.unlink()
    os.mkfifo(rows)
    assert f"{rows.name} is a pipe or a device" in refused(tmp_path)


def test_a_damaged_folder_of_save_to_disk_is_refused(tmp_path: Path) -> None:
    corpus(tmp_path, dataset_dict__json="{}")
    assert "written by datasets' save_to_disk, and cannot be read" in refused(tmp_path)


# --- long rows --------------------------------------------------------------------------------------------------------


def test_long_rows_are_read_in_pieces_with_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["the old  river\tsees a\u00a0green 日本 window, x1 -- " * 40, "", "\n", "short\n"]
    tokenizer = texts.train_bpe(rows, 300)
    whole = [texts.encode(tokenizer, rows, line_bos=bos) for bos in (False, True)]
    for longest, together in ((64, 100), (200, 1), (33, 10_000)):
        monkeypatch.setattr(texts, "LONGEST_WORD", longest)
        monkeypatch.setattr(texts, "CHARACTERS_AT_ONCE", together)
        assert len(texts.pieces(rows[0])) > 5
        assert "".join(texts.pieces(rows[0])) == rows[0]
        for bos, want in zip((False, True), whole, strict=True):
            assert texts.encode(tokenizer, rows, line_bos=bos).tolist() == want.tolist()


def test_a_text_without_a_space_is_cut_into_pieces() -> None:
    row = "x" * 100_000
    parts = texts.pieces(row)
    assert "".join(parts) == row
    assert max(map(len, parts)) == texts.LONGEST_WORD
    tokenizer = texts.train_bpe([row], 300)
    assert tokenizer.decode(texts.encode(tokenizer, [row], line_bos=False)) == row


# --- names in the way, paths that lead elsewhere, and text that changes --------------------------------------------------


def test_a_folder_called_as_a_text_that_is_known_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    corpus(tmp_path / "wikitext2")
    corpus(tmp_path / "pydoc")
    load_text.cache_clear()
    here, named = load_text("wikitext2"), load_text("pydoc")
    assert here.splits["test"][0].startswith("another line")
    assert here.notes == (
        "data.source = wikitext2 is the folder of that name here, not the Hub's text; for that, say "
        "Salesforce/wikitext:wikitext-2-raw-v1",
    )
    assert (
        named.notes[0]
        == "data.source = pydoc is collapse's own text, not the folder of that name here; for that, say ./pydoc"
    )
    load_text.cache_clear()


def test_a_text_outside_the_folder_is_said(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "in")
    other = corpus(tmp_path / "out", train__txt=TRAIN.replace("line", "river")) / "train.txt"
    (folder / "sub").mkdir()
    (folder / "sub" / "own.txt").write_text(TRAIN)
    for name in (str(other), "../out/train.txt", "sub/../../out/train.txt"):
        found = read(folder, train=name)
        assert "river" in found.splits["train"][0]
        assert any(
            re.fullmatch(r"the training text is .*, which is outside the folder .*in", note) for note in found.notes
        )
    for name in ("sub/own.txt", "./train.txt", str(folder / "train.txt")):
        assert not any("is outside the folder" in note for note in read(folder, train=name).notes)


@pytest.mark.parametrize("way", ["../in/test.txt", "linked.txt"])
def test_one_file_under_two_names_is_no_test_text(tmp_path: Path, way: str) -> None:
    folder = corpus(tmp_path / "in")
    (folder / "linked.txt").symlink_to("test.txt")
    assert "named as training and as test text" in refused(folder, train=way, test="test.txt")
    assert any("as validation and as test text" in note for note in read(folder, valid=way).notes)


def test_files_that_are_none_are_refused_where_named_and_said_where_not(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "in")
    os.mkfifo(folder / "pipe.txt")
    (folder / "gone.txt").symlink_to("nowhere")
    (folder / "round.txt").symlink_to("round.txt")
    assert "pipe.txt is a named pipe, not a file" in refused(folder, train="pipe.txt")
    assert "gone.txt is a link to nowhere, which is not there" in refused(folder, train="gone.txt")
    assert "round.txt is a link that leads back to itself" in refused(folder, train="round.txt")
    for name in ("x" * 5000, "a\0b", "x/" * 3000, "train.txt/x"):
        assert "there is no such file" in refused(folder, train=name)
    (folder / "below").mkdir()
    assert "data.train = 'below': there is no text in that folder" in refused(folder, train="below")
    (folder / "test.txt").unlink()
    os.mkfifo(folder / "test.txt")
    (folder / "train.txt").write_text("one row\n")
    assert re.search(
        r"with 1 row there is too little to put some aside; .*named pipes, sockets or devices: pipe\.txt, test\.txt",
        refused(folder),
    )
    (folder / "train.txt").unlink()
    assert re.search(r"holds no text files \(\.txt .*devices: pipe\.txt, test\.txt", refused(folder))
    corpus(folder.parent / "other")
    os.mkfifo(folder.parent / "other" / "pipe.txt")
    for name in ("gone", "round"):
        (folder / f"{name}.txt").rename(folder.parent / "other" / f"{name}.txt")
    notes = "\n".join(read(folder.parent / "other").notes)
    assert re.search(r"named pipes, sockets or devices: pipe\.txt$", notes, re.MULTILINE)
    assert re.search(r"links to files that are not there: gone\.txt, round\.txt$", notes, re.MULTILINE)


@pytest.mark.parametrize(
    ("source", "words"),
    [("gone", "is a link to nowhere"), ("round", "leads back to itself"), ("x" * 5000, "file or folder"),
     ("a\0b", "no file or folder"), ("pipe.txt", "is a named pipe")],
)  # fmt: skip
def test_a_source_that_leads_nowhere_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gone").symlink_to("nowhere")
    Path("round").symlink_to("round")
    os.mkfifo("pipe.txt")
    assert words in refused(Path(source))


def test_what_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system would refuse it; those that run these tests may be allowed everything."""
    folder = corpus(tmp_path / "in")
    real_open, real_stat = os.open, Path.stat

    def no_open(path: object, *args: int, **words: int) -> int:
        if str(path).endswith("train.txt"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, *args, **words)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "open", no_open)
        assert "train.txt cannot be read: Permission denied" in refused(folder)

    def no_stat(path: Path, **words: bool) -> os.stat_result:
        if str(path) == "hidden/away":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_stat(path, **words)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", no_stat)
        load_text.cache_clear()
        with pytest.raises(InputError, match="hidden/away cannot be read: Permission denied"):
            load_text("hidden/away")


def test_ten_thousand_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "in")
    (folder / "train.txt").unlink()
    for number in range(10_000):
        (folder / f"train-{number}.txt").write_text(f"row {number}\n")
    began = time.process_time()
    rows = read(folder).splits["train"]
    assert time.process_time() - began < 20
    assert rows == tuple(f"row {number}\n" for number in range(10_000))


@pytest.mark.parametrize("content", [" \n\n\t\n", "\ufeff", "\ufeff\n"])
def test_text_of_white_space_only_is_empty(tmp_path: Path, content: str) -> None:
    for name in ("train", "test"):
        said = refused(corpus(tmp_path / name, **{f"{name}__txt": content}))
        assert "text is empty" in said


def planned(folder: Path) -> tuple[type[Learner], Resolved]:
    """A word-pair model's plan for the text of a folder, as a new process makes it."""
    load_text.cache_clear()
    learner = learner_class("ngram")
    tree = {
        "learner": "ngram",
        "data": {"source": str(folder), "block_size": 128},
        "model": {"vocab_size": 300},
        "sample": {"decode": {"beams": 1, "temperature": 1.0}},
    }
    return learner, learner.resolve(Experiment.model_validate(tree))


def test_text_that_changed_after_the_plan_is_not_stored_under_its_key(tmp_path: Path) -> None:
    """The key of the stage says which text was asked for; what a worker finds later may be another."""
    folder = corpus(tmp_path / "in", train__txt=TRAIN * 20, test__txt=TEST * 20)
    learner, resolved = planned(folder)
    for change, words in (
        (lambda: (folder / "train.txt").write_text(TRAIN * 21), "the text changed after this run was planned"),
        (lambda: shutil.rmtree(folder), "there is no file or folder"),
    ):
        change()
        load_text.cache_clear()  # as in another process
        work = learner(learner.params(resolved.config, "data"), resolved.hints, silent)
        with pytest.raises(InputError, match=words):
            work.encode(tmp_path, seed=0)
    assert not list(tmp_path.glob("*.safetensors"))


def test_what_is_said_of_files_is_said_of_those_that_are_there(tmp_path: Path) -> None:
    """Not of those from which a finished stage once had the same rows."""
    notes = []
    for name, more in (("a", {"extra__txt": "x\n"}), ("b", {})):
        folder = corpus(tmp_path / name, train__txt=TRAIN * 20, test__txt=TEST * 20, **more)
        learner, resolved = planned(folder)
        work = learner(learner.params(resolved.config, "data"), resolved.hints, silent)
        out = tmp_path / f"{name}-stage"
        out.mkdir()
        notes.append((resolved.notes, work.encode(out, seed=0)["notes"]))
    assert any("extra.txt" in note for note in notes[0][0])
    assert not any("extra.txt" in note for note in [*notes[0][1], *notes[1][0], *notes[1][1]])


def test_notes_come_with_a_finished_run_too_and_other_text_is_refused_in_one_line(tmp_path: Path) -> None:
    config = e2e.write_experiment(tmp_path)
    command = ("run", config, "--runs-dir", tmp_path / "runs", "--generations", "0", "--policy", "keep-0")
    load_text.cache_clear()
    first = e2e.collapse(*command)
    assert first.code == 0, first.err
    assert "not read in" not in first.out + first.err
    (tmp_path / "text" / "more.txt").write_text("these are other rows\n")
    load_text.cache_clear()
    again = e2e.collapse(*command)
    assert "nothing to compute" in again.out
    assert (again.out + again.err).count("files whose names do not say training, validation or test: more.txt") == 1
    with (tmp_path / "text" / "train.txt").open("a") as text:
        text.write("One line more.\n")
    load_text.cache_clear()
    other = e2e.collapse(*command)
    assert other.code == 2
    assert other.err.count("\n") == 1
    assert "has changed since the run 'tiny' was made; restore it, or give this run a --name" in other.err


# --- what others reported of such files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "text\nhello, world\nfoo\n",
        "id,text\n1,hello, world\n2,foo\n",
        "text,id\nhello, world,1\nfoo,2\n",
        'text\n"he said \\"hi, you\\" and went"\nfoo\n',
        'id,text\n1, "hello, world"\n2,foo\n',
        'text\n"hello\nfoo\nbar" and more\nbaz\n',
        "id,text\n1,hello\n2\n3,foo\n",
    ],
)
def test_text_of_csv_is_never_cut_at_a_comma_or_a_quote(tmp_path: Path, content: str) -> None:
    said = refused(corpus(tmp_path, train__csv=content), train="train.csv")
    assert re.search(r"train\.csv.* line \d", said), said
    assert "quotes" in said


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_cells_of_csv_may_hold_commas_quotes_line_ends_and_be_long_or_empty(tmp_path: Path, end: str) -> None:
    before = csv.field_size_limit()
    content = f'text,id{end}"a, ""b""{end}c",1{end}{end},2{end}{"long " * 40_000},3{end}'
    found = read(corpus(tmp_path, train__csv=content.encode()), train="train.csv").splits["train"]
    assert found == (f'a, "b"{end}c' + "\n", "\n", "long " * 40_000 + "\n")
    assert csv.field_size_limit() == before


def test_an_empty_line_of_one_column_is_an_empty_row(tmp_path: Path) -> None:
    assert read(corpus(tmp_path, train__csv="text\na\n\nb\n"), train="train.csv").splits["train"] == (
        "a\n",
        "\n",
        "b\n",
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_objects_stand_in_lines_of_any_kind(tmp_path: Path, end: str) -> None:
    content = f'{{"text": "a\\r b"}}{end}{{"text": "c"}}{end}'
    assert read(corpus(tmp_path, train__jsonl=content.encode()), train="train.jsonl").splits["train"] == (
        "a\r b\n",
        "c\n",
    )
    said = refused(corpus(tmp_path, train__jsonl=f"{content}{{".encode()), train="train.jsonl")
    assert "line 3" in said


def test_json_that_says_one_name_twice_or_holds_half_a_character_is_refused(tmp_path: Path) -> None:
    for line, words in {
        '{"text": "a", "text": "b"}': "more than once",
        r'{"text": "a \ud83d b"}': "half a character",
        '{"text": 1' + "0" * 5000 + "}": "too many digits",
    }.items():
        said = refused(corpus(tmp_path, train__jsonl='{"text": "ok"}\n' + line + "\n"), train="train.jsonl")
        assert "line 2" in said
        assert words in said
    whole = corpus(tmp_path, train__jsonl=r'{"text": "a \ud83d\ude00 b", "x": 1, "x": 2}')
    assert read(whole, train="train.jsonl").splits["train"] == ("a \U0001f600 b\n",)


def test_utf16_without_a_mark_is_no_text(tmp_path: Path) -> None:
    assert "UTF-16" in refused(corpus(tmp_path, train__txt=TRAIN.encode("utf-16-le")))


def test_a_mark_where_files_were_joined_is_said(tmp_path: Path) -> None:
    found = read(corpus(tmp_path, train__txt="\ufeff" + TRAIN + "\ufeff" + TRAIN))
    assert any("when files were joined: 1 of 40; it" in note for note in found.notes)


def test_parquet_of_other_writers(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    corpus(tmp_path)
    pq.write_table(pa.table({"text": pa.array(["a", "b"], pa.string_view())}), tmp_path / "train.parquet")
    assert read(tmp_path, train="train.parquet").splits["train"] == ("a\n", "b\n")
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"b"]).buffers())
    pq.write_table(pa.table({"text": broken}), tmp_path / "train.parquet")
    assert "not UTF-8" in refused(tmp_path, train="train.parquet")


def test_parts_that_are_not_there_are_said_and_those_of_two_sets_refused(tmp_path: Path) -> None:
    def parts(name: str, *numbers: str) -> Path:
        shards = {f"train-{number}__jsonl": json.dumps({"text": number}) for number in numbers}
        folder = corpus(tmp_path / name, **shards)
        (folder / "train.txt").unlink()
        return folder

    assert any("2 of 3" in note for note in read(parts("gap", "00000-of-00003", "00002-of-00003")).notes)
    assert not any("parts" in note for note in read(parts("whole", "00000-of-00002", "00001-of-00002")).notes)
    assert not any("parts" in note for note in read(parts("from-one", "1-of-2", "2-of-2")).notes)
    assert "2 sets" in refused(parts("mixed", "00000-of-00001", "00000-of-00002", "00001-of-00002"))


def test_a_tokenizer_that_draws_lots_is_used_without(tmp_path: Path) -> None:
    lines = TRAIN.splitlines(keepends=True)
    tokenizer = texts.train_bpe(lines, 320)
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    tree = json.loads(path.read_text())
    tree["model"]["dropout"] = 0.5
    path.write_text(json.dumps(tree))
    found = texts.encode(texts.load_tokenizer(tmp_path), lines, line_bos=False)
    assert found.tolist() == texts.encode(tokenizer, lines, line_bos=False).tolist()


def test_a_tokenizer_that_puts_a_blank_first_puts_none_between_pieces() -> None:
    """Llama 2's: the blank at which a long row is cut would be two, which is another token."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(["<unk>", "</s>", *"▁abcdefgh\n", "▁▁", "▁a"])}
    inner = Tokenizer(models.BPE(words, [("▁", "▁"), ("▁", "a")], unk_token="<unk>"))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")
    row = "a bcd  efgh " * 4000 + "\n"
    assert len(texts.pieces(row)) > 2
    whole = tokenizer(row, add_special_tokens=False)["input_ids"]
    assert texts.encode(tokenizer, [row], line_bos=False).tolist() == whole


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id;text\n1;a line\n", "the first line has semicolons in it (id;text); cells must be parted by commas"),
        ("id\ttext\n1\ta line\n", r"the first line has tabs in it ('id\ttext'); cells must be parted by commas"),
        ("id, text\n1, a line\n", "no column 'text' (there: id, ' text'); say --set data.text=COLUMN"),
        (
            "1,a line\n2,another\n",
            "(there: 1, a line); say --set data.text=COLUMN; the first line must be the names of",
        ),
    ],
)
def test_a_first_line_of_csv_that_names_no_text_is_explained(tmp_path: Path, content: str, said: str) -> None:
    assert said in refused(corpus(tmp_path, train__csv=content), train="train.csv")


def test_cells_that_semicolons_part_are_never_one_text(tmp_path: Path) -> None:
    """As where the advice of a message is followed: --set data.text='id;text'."""
    corpus(tmp_path, train__csv="id;text\n1;a line\n")
    with pytest.raises(InputError, match="semicolons"):
        load_text(str(tmp_path), "id;text", train="train.csv")


def test_a_file_that_is_called_gz_and_is_not_packed_says_so(tmp_path: Path) -> None:
    said = refused(corpus(tmp_path, train__txt__gz=TRAIN), train="train.txt.gz")
    assert said.endswith("train.txt.gz is not compressed with gzip, whatever its name says; take .gz off its name")


@pytest.mark.parametrize("ending", ["txt", "txt.gz", "txt.zst"])
def test_a_text_that_memory_cannot_hold_is_refused_before_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """A file of 40 kB may unpack to gigabytes; the system would end this process, or another one."""
    import zstandard

    content, pack = b"a line\n" * (1 << 19), {"txt": bytes, "txt.gz": gzip.compress, "txt.zst": zstandard.compress}
    path = tmp_path / f"many.{ending}"
    path.write_bytes(pack[ending](content))
    assert contents.unpacked(path) == content
    monkeypatch.setattr(contents, "PART", 1 << 16)
    free = SimpleNamespace(available=2 * len(content) - 2)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(
        InputError, match=r"many\.txt.* holds more than 0\.0 GB, half of the memory that is free; give a part"
    ):
        contents.unpacked(path)
