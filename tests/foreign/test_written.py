"""Text of other models in files: which files of a folder, what their content is known by, and what of it is test text."""

import gzip
import json
from pathlib import Path

import pytest

from collapse_cli.errors import InputError
from collapse_cli.foreign import written


def test_a_text_is_known_by_its_rows_and_not_by_its_file(tmp_path: Path) -> None:
    rows = ["A first row.", "Another one."]
    (tmp_path / "a.txt").write_text("\n".join(rows))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"answer": row}) + "\n" for row in rows))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    (tmp_path / "d.txt").write_text("\n".join(reversed(rows)))
    plain, columns, packed, other = (
        written.read(str(tmp_path / name), "answer") for name in ("a.txt", "b.jsonl", "c.txt.gz", "d.txt")
    )
    assert list(plain.rows) == [row + "\n" for row in rows] == list(columns.rows)
    assert plain.sha256 == columns.sha256 == packed.sha256 != other.sha256


def test_all_text_files_of_a_folder_are_read_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        (tmp_path / f"answers-{number}.txt").write_text(f"row {number}\n")
    (tmp_path / ".hidden.txt").write_text("not this\n")
    (tmp_path / "train.bin").write_bytes(b"\0\1")
    text = written.read(str(tmp_path))
    assert list(text.rows) == ["row 1\n", "row 2\n", "row 10\n"]
    assert len(text.notes) == 1
    assert "train.bin" in text.notes[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.txt", None, "there is no file or folder .*gone.txt.* a server is named by its address"),
        ("empty.txt", "\n\n", "this text of another model is empty"),
        ("other.jsonl", '{"output": "x"}\n', "has no column 'text' .*--set foreign.text=COLUMN"),
        ("wide.txt", "A row.".encode("utf-16"), "UTF-16"),
        ("folder", "", "holds no text files"),
    ],
)
def test_what_is_no_text_is_said_in_a_line(tmp_path: Path, name: str, content: str | bytes | None, said: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=said) as raised:
        written.read(str(path))
    assert "\n" not in str(raised.value)


def test_test_lines_that_stand_in_another_text_are_counted() -> None:
    """However its rows are cut: lines of a document count like rows. Headings are too short to tell."""
    line = "this line of the test text stands in the other text, too"
    test = ["= A heading =\n", line + "\n", "and this one, which is as long, stands nowhere else at all\n"]
    assert written.also_in_test("other.txt", [f"A document.\n{line}\n= A heading =\n"], test) == [
        "test lines of 40 characters or more that also stand in other.txt: 1 of 2; who is trained on that text has seen them, and "
        "the test loss says less than it seems to (collapse check looks for passages, too)"
    ]
    assert written.also_in_test("other.txt", ["nothing of the kind\n"], test) == []


def test_prompts_and_answers_of_another_model_are_said_to_be_read_as_plain_text(tmp_path: Path) -> None:
    rows = [{"prompt": f"what is {number}?", "completion": f"{number}"} for number in range(3)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    both, one = written.read(str(path)), written.read(str(path), "completion")
    assert both.rows[0] == "what is 0?\n0\n"
    assert both.notes == (
        f"{path}: 3 rows of prompts and answers: both are learned as plain text, one behind the other, as if the other model had "
        "written both; to take one column, say foreign.text=COLUMN",
    )
    assert (one.rows[0], one.notes) == ("0\n", ())
