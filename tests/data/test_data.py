"""Real text from files and from Python itself, how its splits are found, and Datasets of rows."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_cli.data.dataset import Dataset, Text, load_text
from collapse_cli.errors import InputError

ROWS = [
    "The first row, with a comma.",
    '"Quoted", it says; and then 3.14.',
    "  leading blanks are kept",
    "ümläut – 日本語 \U0001f600",
    "",
    "NA",
    "null",
    "None",
    "nan",
    "12",
    "</s> is four characters",
    "a tab\tand a backslash \\n",
    "the last one",
]


def write(path: Path, rows: Sequence[str], column: str = "text") -> Path:
    """Write rows in the format that the name of the file says."""
    if path.suffix in (".jsonl", ".ndjson"):
        lines = [json.dumps({"id": number, column: row}) for number, row in enumerate(rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", column])
            writer.writerows(enumerate(rows))
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"id": list(range(len(rows))), column: list(rows)})
        pyarrow.parquet.write_table(table, path)
    else:
        path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    return path


def numbered(word: str, count: int = 10) -> list[str]:
    return [f"{word} {number}" for number in range(count)]


def folder_of(folder: Path, **files: Sequence[str]) -> str:
    """A folder of text files; `__` in a name stands for a dot."""
    for name, rows in files.items():
        write(folder / name.replace("__", "."), rows)
    return str(folder)


def plain(text: Text, split: str) -> list[str]:
    return [row.removesuffix("\n") for row in text.splits[split]]


def refused(*arguments: str, **named: str) -> str:
    """What is said of a source that cannot be used."""
    with pytest.raises(InputError) as caught:
        load_text(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Text:
    folder = tmp_path_factory.mktemp("reference")
    return load_text(folder_of(folder, train__txt=ROWS, test__txt=["a test"]))


@pytest.mark.parametrize("suffix", [".txt", ".text", ".tokens", ".raw", ".jsonl", ".ndjson", ".csv", ".parquet"])
def test_every_format_holds_the_same_rows(tmp_path: Path, suffix: str, reference: Text) -> None:
    write(tmp_path / f"train{suffix}", ROWS)
    write(tmp_path / f"test{suffix}", ["a test"])
    text = load_text(str(tmp_path))
    assert plain(text, "train") == ROWS
    assert all(row.endswith("\n") for row in text.splits["train"])
    assert text.sha256 == reference.sha256


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet"])
def test_a_single_file_of_every_format_is_a_source(tmp_path: Path, suffix: str) -> None:
    rows = numbered("row", 20)
    text = load_text(str(write(tmp_path / f"corpus{suffix}", rows)))
    assert plain(text, "train") + plain(text, "valid") + plain(text, "test") == rows


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_column_of_the_text_can_be_named(tmp_path: Path, suffix: str) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}{suffix}", numbered(split), column="content")
    assert plain(load_text(str(tmp_path), "content"), "train") == numbered("train")
    said = refused(str(tmp_path))
    assert "has no column 'text' (there: id, content)" in said
    assert "--set data.text=COLUMN" in said
    if suffix == ".csv":  # whose cells are text, whatever they look like
        assert plain(load_text(str(tmp_path), "id"), "train")[:2] == ["0", "1"]
    else:
        assert "not text; write it as" in refused(str(tmp_path), "id")


def test_lines_end_only_where_a_newline_is(tmp_path: Path) -> None:
    """Other characters that Python takes for the end of a line stay within it."""
    rows = ["form\x0cfeed", "next\x85line", "separator\u2028here", "a\x1cb", "cr at the end"]
    source = folder_of(tmp_path, train__txt=rows, test__txt=["t"])
    assert plain(load_text(source), "train") == rows


def test_a_last_line_without_a_newline_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("one\n\ntwo", encoding="utf-8")
    (tmp_path / "test.txt").write_bytes(b"dos\r\nlines\r\n")
    text = load_text(str(tmp_path))
    assert text.splits["train"] == ("one\n", "\n", "two\n")
    assert text.splits["test"] == ("dos\n", "lines\n")


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
        ("train.jsonl", "val.jsonl", "test.jsonl"),
        ("training.csv", "validation.csv", "testing.csv"),
        ("train-00000-of-00001.parquet", "validation-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
        ("my_train_v2.txt", "my_dev_v2.txt", "my_test_v2.txt"),
        ("Train.txt", "Dev.txt", "TEST.txt"),
        ("train.raw", "valid.txt", "test.csv"),
    ],
    ids=str,
)
def test_splits_are_found_by_name(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for split, name in zip(("train", "valid", "test"), names, strict=True):
        write(tmp_path / name, numbered(split))
    (tmp_path / "README.md").write_text("train test")
    (tmp_path / "detest-training-notes").mkdir()
    text = load_text(str(tmp_path))
    assert {split: plain(text, split)[3] for split in text.splits} == {
        "train": "train 3",
        "valid": "valid 3",
        "test": "test 3",
    }
    assert text.notes == ()


def test_shards_of_a_split_are_read_in_order(tmp_path: Path) -> None:
    for number in (1, 0):
        write(tmp_path / f"train-0000{number}-of-00002.parquet", numbered(f"shard {number}", 3))
    write(tmp_path / "test-00000-of-00001.parquet", numbered("test"))
    text = load_text(str(tmp_path))
    assert plain(text, "train") == [*numbered("shard 0", 3), *numbered("shard 1", 3)]


def test_a_word_within_a_word_names_no_split(tmp_path: Path) -> None:
    source = folder_of(tmp_path, train__txt=["a"], latest__txt=["b"], contest__txt=["c"], test__txt=["d"])
    assert plain(load_text(source), "test") == ["d"]


def test_a_file_that_is_claimed_for_a_split_serves_no_other(tmp_path: Path) -> None:
    """WikiText-2 without its training split: the validation text is trained on, and is then not validation text."""
    source = folder_of(tmp_path, valid__txt=numbered("valid"), test__txt=numbered("test"))
    text = load_text(source, train="valid.txt")
    assert set(text.splits) == {"train", "test"}
    assert plain(text, "train") == numbered("valid")
    assert plain(text, "test") == numbered("test")
    assert text.notes == ()
    other = load_text(source, train="test.txt", test="valid.txt")
    assert (plain(other, "train"), plain(other, "test")) == (numbered("test"), numbered("valid"))


def test_two_files_for_one_split_are_ambiguous(tmp_path: Path) -> None:
    source = folder_of(tmp_path, a_train__txt=["a"], b_train__txt=["b"], test__txt=["c"])
    said = refused(source)
    assert "which file is the training text? (a_train.txt, b_train.txt) Say --set data.train=FILE" in said
    assert plain(load_text(source, train="b_train.txt"), "train") == ["b"]


def test_without_a_training_text_the_files_there_are_named(tmp_path: Path) -> None:
    empty = refused(str(tmp_path))
    assert "holds no text files (.txt .text " in empty
    assert "data.train" not in empty, "there is no file to name"
    (tmp_path / "report.pdf").write_bytes(b"%PDF")
    (tmp_path / "train.docx").write_bytes(b"PK")
    assert "train.docx" in refused(str(tmp_path)), "what looks like it is named"
    source = folder_of(tmp_path, valid__txt=["a"], test__txt=["b"])
    assert "which file is the training text? (test.txt, valid.txt) Say --set data.train=FILE" in refused(source)
    assert "data.test = 'tset.txt': there is no such file" in refused(source, train="valid.txt", test="tset.txt")


def test_the_test_text_must_be_other_text(tmp_path: Path) -> None:
    source = folder_of(tmp_path, train__txt=numbered("a"), other__txt=numbered("b"))
    assert "test text must be other text" in refused(source, train="train.txt", test="train.txt")


def test_without_a_test_text_the_end_is_held_out_and_that_is_said(tmp_path: Path) -> None:
    source = folder_of(tmp_path, corpus__txt=numbered("row", 57))
    text = load_text(source)
    assert [len(text.splits[name]) for name in ("train", "valid", "test")] == [47, 5, 5]
    assert plain(text, "train") + plain(text, "valid") + plain(text, "test") == numbered("row", 57)
    assert len(text.notes) == 1
    assert "has no test text: its last 10% is put aside" in text.notes[0]


def test_a_text_too_short_to_hold_some_out_is_refused(tmp_path: Path) -> None:
    source = str(write(tmp_path / "short.txt", numbered("row", 9)))
    assert "with 9 rows there is too little to put some aside" in refused(source)


def test_a_file_has_no_files_to_choose_among(tmp_path: Path) -> None:
    source = str(write(tmp_path / "corpus.txt", numbered("row", 20)))
    assert "is a file; to name files by split, give their folder" in refused(source, test="corpus.txt")


# --- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.txt", b"", "train.txt is empty"),
        ("train.jsonl", b"", "train.jsonl is empty"),
        ("train.parquet", b"", "train.parquet is empty"),
        ("train.txt", b" \n\n\t\n", "the training text is empty"),
        ("train.txt", b"caf\xe9\n" * 20, "train.txt is not UTF-8"),
        ("train.txt", b"ok\n" * 600_000 + b"\xc3", "train.txt is not UTF-8"),
        ("train.csv", b"text\ncaf\xe9\n", "train.csv is not UTF-8"),
        ("train.jsonl", b'{"text": "a"}\n{"text": \n', "train.jsonl cannot be read as json"),
        ("train.parquet", b"PAR1 not really", "train.parquet cannot be read as parquet"),
        ("train.jsonl", b'{"text": {"a": 1}}\n', "line 1: 'text' is an object, not text"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    write(tmp_path / "test.txt", numbered("test"))
    assert words in refused(str(tmp_path))


def test_an_unknown_format_or_place_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "corpus.docx", numbered("row", 20))
    assert "the format is not known; known: .txt" in refused(str(tmp_path / "corpus.docx"))
    assert "there is no file or folder" in refused(str(tmp_path / "nowhere"))
    assert "there is no file or folder 'corpus.txt'" in refused("corpus.txt")


# --- Python's own text ------------------------------------------------------------------------------------------------


def paragraphs(rows: Sequence[str]) -> set[str]:
    found = (" ".join(part.split()) for part in re.split(r"\n\s*\n", "".join(rows)))
    return {part for part in found if len(part) > 60}


def test_pydoc_is_split_80_10_10_and_no_test_paragraph_is_in_the_training_text() -> None:
    text = load_text("pydoc")
    sizes = {split: sum(map(len, rows)) for split, rows in text.splits.items()}
    shares = {split: size / sum(sizes.values()) for split, size in sizes.items()}
    assert sum(sizes.values()) > 300_000
    assert shares == pytest.approx({"train": 0.8, "valid": 0.1, "test": 0.1}, abs=0.015)
    train, valid, test = (paragraphs(text.splits[split]) for split in ("train", "valid", "test"))
    assert len(test) > 100
    assert not test & train
    assert not test & valid
    assert not valid & train


def test_pydoc_is_the_same_text_each_time() -> None:
    first = load_text("pydoc")
    load_text.cache_clear()
    again = load_text("pydoc")
    assert again is not first
    assert again == first
    assert re.fullmatch("[0-9a-f]{64}", first.sha256)


def test_the_hash_tells_splits_rows_and_their_order_apart(tmp_path: Path) -> None:
    contents = [
        {"train__txt": ["a", "b"], "test__txt": ["c"]},
        {"train__txt": ["b", "a"], "test__txt": ["c"]},
        {"train__txt": ["a"], "test__txt": ["b", "c"]},
        {"train__txt": ["a b"], "test__txt": ["c"]},
        {"train__txt": ["a", "", "b"], "test__txt": ["c"]},
        {"train__txt": ["a", "b"], "valid__txt": ["c"], "test__txt": ["c"]},
    ]
    hashes = set()
    for number, files in enumerate(contents):
        (tmp_path / str(number)).mkdir()
        hashes.add(load_text(folder_of(tmp_path / str(number), **files)).sha256)
    assert len(hashes) == len(contents)


# --- Datasets ---------------------------------------------------------------------------------------------------------


def dataset(rows: int, width: int, first: int = 0) -> Dataset:
    tokens = (first + np.arange(rows * width, dtype=np.int32)).reshape(rows, width)
    lengths = np.full(rows, width, np.int32)
    return Dataset({"tokens": tokens, "lengths": lengths}, np.full(rows, first, np.int32))


def same(first: Dataset, second: Dataset) -> bool:
    return (
        first.arrays.keys() == second.arrays.keys()
        and all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)
        and all(first.arrays[name].dtype == second.arrays[name].dtype for name in first.arrays)
        and np.array_equal(first.origin, second.origin)
    )


@given(rows=st.integers(0, 5), width=st.integers(1, 4))
def test_a_dataset_comes_back_from_its_file(tmp_path_factory: pytest.TempPathFactory, rows: int, width: int) -> None:
    path = tmp_path_factory.mktemp("dataset") / "rows.safetensors"
    one = dataset(rows, width, first=7)
    extra = Dataset({**one.arrays, "nll": np.linspace(0, 1, rows), "stream": np.arange(rows)}, one.origin)
    extra.save(path)
    assert same(Dataset.load(path), extra)


def test_a_dataset_taken_out_of_order_comes_back_from_its_file(tmp_path: Path) -> None:
    one = dataset(5, 3).take(np.array([4, 0, 4])).take(np.array([2, 1, 0]))
    reversed_ = Dataset({name: array[::-1] for name, array in one.arrays.items()}, one.origin[::-1])
    for part in (one, reversed_):
        part.save(tmp_path / "rows.safetensors")
        assert same(Dataset.load(tmp_path / "rows.safetensors"), part)


def test_rows_are_taken_with_all_they_have() -> None:
    one = Dataset({"a": np.arange(4), "b": np.arange(8).reshape(4, 2)}, np.array([0, 1, 2, 3]))
    taken = one.take(np.array([3, 1, 1]))
    assert taken.arrays["a"].tolist() == taken.origin.tolist() == [3, 1, 1]
    assert taken.arrays["b"].tolist() == [[6, 7], [2, 3], [2, 3]]
    assert len(one.take(np.arange(0))) == 0


def test_datasets_of_different_width_are_joined_and_padded() -> None:
    joined = Dataset.concat([dataset(2, 2, first=1), dataset(0, 5), dataset(1, 3, first=9), dataset(1, 1, first=5)])
    assert joined.arrays["tokens"].tolist() == [[1, 2, 0, 0, 0], [3, 4, 0, 0, 0], [9, 10, 11, 0, 0], [5, 0, 0, 0, 0]]
    assert joined.arrays["tokens"].dtype == np.int32
    assert joined.arrays["lengths"].tolist() == [2, 2, 3, 1]
    assert joined.origin.tolist() == [1, 1, 9, 5]


def test_arrays_of_different_length_are_no_dataset() -> None:
    with pytest.raises(ValueError, match="lengths has 3 rows, origin has 2"):
        Dataset({"lengths": np.arange(3)}, np.arange(2))
